package dht

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// A lab is a simulated internet with nodes, inside a bubble. What it starts has
// ended when stop returns; the bubble then finds goroutines that were left.
type lab struct {
	t     *testing.T
	world *simnet.World
	nodes []*Node // the full nodes; the first one is everybody's bootstrap
	hosts []*simnet.Host
	seed  uint64
	ctx   context.Context
	end   context.CancelFunc
	runs  errgroup.Group
}

// boot is where the first node of a lab is.
const boot = "30.0.0.1"

// newLab makes a world whose hosts are 10 ms apart, unless link says otherwise.
func newLab(t *testing.T, link simnet.Link) *lab {
	t.Helper()
	if link == (simnet.Link{}) {
		link.Latency = 10 * time.Millisecond
	}
	l := &lab{t: t, world: simnet.New(simnet.Config{Seed: 1, Link: link})}
	l.ctx, l.end = context.WithCancel(t.Context())
	return l
}

// stop ends all nodes and waits for them.
func (l *lab) stop() {
	l.t.Helper()
	l.end()
	if err := l.runs.Wait(); err != nil {
		l.t.Error(err)
	}
	l.world.Close()
}

// start makes a node on a network and runs it. What cfg leaves open is set so that
// the run can be repeated.
func (l *lab) start(network netx.Network, cfg Config) *Node {
	l.t.Helper()
	n := l.make(network, cfg)
	l.runs.Go(func() error { return n.Run(l.ctx) })
	return n
}

func (l *lab) make(network netx.Network, cfg Config) *Node {
	l.t.Helper()
	l.seed++
	cfg.Network = network
	if cfg.Seed == 0 {
		cfg.Seed = l.seed
	}
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if cfg.Workers == 0 {
		cfg.Workers = 1
	}
	n, err := New(cfg)
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

// grow adds count full nodes, each in a network of its own.
func (l *lab) grow(count int) {
	l.t.Helper()
	for range count {
		i := len(l.nodes)
		h := l.world.NewHost(fmt.Sprintf("host%d", i), netip.AddrFrom4([4]byte{byte(30 + i/200), byte(i % 200), 0, 1}))
		cfg := Config{}
		if i > 0 {
			cfg.Bootstrap = []string{boot}
		}
		l.hosts = append(l.hosts, h)
		l.nodes = append(l.nodes, l.start(h, cfg))
	}
}

// cluster is a lab with count connected nodes.
func cluster(t *testing.T, count int, link simnet.Link) *lab {
	t.Helper()
	l := newLab(t, link)
	l.grow(count)
	l.connect(l.nodes...)
	return l
}

// connect waits until nodes are connected.
func (l *lab) connect(nodes ...*Node) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, 2*time.Minute)
	defer cancel()
	for i, n := range nodes {
		if err := n.WaitConnected(ctx); err != nil {
			l.t.Fatalf("node %d: %v", i, err)
		}
	}
}

func (l *lab) put(n Table, key Key, text string) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.ctx, time.Minute)
	defer cancel()
	if err := n.Put(ctx, key, &Value{Data: []byte(text)}); err != nil {
		l.t.Fatalf("put %q: %v", text, err)
	}
}

// want checks what a get finds, within a minute.
func (l *lab) want(n Table, key Key, texts ...string) {
	l.t.Helper()
	got, err := l.get(n, key)
	if err != nil {
		l.t.Errorf("get: %v", err)
	}
	slices.Sort(texts)
	if !slices.Equal(got, texts) {
		l.t.Errorf("got %.60q, want %.60q", got, texts)
	}
}

func (l *lab) get(n Table, key Key) (texts []string, err error) {
	ctx, cancel := context.WithTimeout(l.ctx, time.Minute)
	defer cancel()
	for v, err := range n.Get(ctx, key, Query{}) {
		if err != nil {
			return texts, err
		}
		texts = append(texts, string(v.Data))
	}
	slices.Sort(texts)
	return texts, nil
}

// listen listens in a goroutine of its own. The channel is closed when the listen
// has ended.
func (l *lab) listen(n Table, key Key) <-chan Event {
	events := make(chan Event, 1<<10)
	l.runs.Go(func() error {
		defer close(events)
		for e, err := range n.Listen(l.ctx, key, Query{}) {
			if err != nil {
				if l.ctx.Err() == nil && !errors.Is(err, ErrClosed) {
					l.t.Errorf("listen: %v", err)
				}
				return nil
			}
			events <- e
		}
		return nil
	})
	return events
}

// hears checks that a listen tells of a value with that text, within a time.
func (l *lab) hears(events <-chan Event, text string, within time.Duration) {
	l.t.Helper()
	limit := time.After(within)
	for {
		select {
		case e := <-events:
			if e.Value == nil {
				l.t.Fatalf("the listen ended while waiting for %q", text)
			}
			if !e.Expired && string(e.Value.Data) == text {
				return
			}
		case <-limit:
			l.t.Errorf("%q was not heard within %v", text, within)
			return
		}
	}
}

// testValue is a value of size bytes that are not all alike.
func testValue(size int) *Value {
	b := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], uint64(i)*0x9e3779b97f4a7c15)
	}
	return &Value{Data: b}
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }
