//go:build linux

// Package interop tests Kith's DHT against real peers: Debian's dhtnode and the
// Python bindings of OpenDHT, unmodified. The tests own all processes and nodes
// that they start; packets stay on loopback or in namespaces of their own.
package interop

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/interop/lab"
)

// TestMain lets more tests run at once than there are cores: they wait most of
// their time.
func TestMain(m *testing.M) {
	flag.Parse()
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit {
		if err := flag.Set("test.parallel", "8"); err != nil {
			panic(err) // the testing package has renamed its flag
		}
	}
	os.Exit(m.Run())
}

// patience bounds a test, on a machine that does much else.
const patience = 140 * time.Second

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// A world is one test's DHT network: its processes, its nodes and its deadline.
type world struct {
	*testing.T
	lab     *lab.Lab
	ctx     context.Context
	network uint32
	host    *lab.Host // where nodes run; nil is the program's own network
}

// newWorld makes a world; each test has a network id of its own, so that a port
// that is used again cannot join two tests.
func newWorld(t *testing.T, network uint32, tools ...string) *world {
	t.Helper()
	lab.Require(t, tools...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return &world{T: t, lab: lab.ForTest(t), ctx: ctx, network: network}
}

// sub is the world of a subtest: the same network, other failures.
func (w *world) sub(name string, f func(w *world)) {
	w.Helper()
	w.Run(name, func(t *testing.T) {
		in := *w
		in.T = t
		f(&in)
	})
}

// must ends the test unless err is nil.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// until calls ok until it is true.
func (w *world) until(what string, ok func() bool) {
	w.Helper()
	for !ok() {
		select {
		case <-w.ctx.Done():
			w.Fatalf("waited in vain: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// reals starts a network of n dhtnodes that know one another.
func (w *world) reals(n int) *lab.Network {
	w.Helper()
	net, err := w.lab.StartNetwork(w.ctx, lab.Kinds(lab.Dhtnode{}, n), w.nodeConfig())
	w.must(err)
	w.must(net.Acquaint(w.ctx))
	return net
}

func (w *world) nodeConfig() lab.NodeConfig {
	return lab.NodeConfig{Host: w.host, Network: w.network, NoLimits: true}
}

// cli starts a dhtnode and waits until it can put. An identity takes seconds.
func (w *world) cli(bootstrap netip.AddrPort, identity bool, args ...string) *lab.DhtnodeCLI {
	w.Helper()
	c := w.nodeConfig()
	c.Bootstrap, c.Identity, c.Args = bootstrap, identity, args
	n, err := w.lab.StartCLI(w.ctx, c)
	w.must(err)
	w.until("dhtnode can put", func() bool {
		_, err := n.Put(w.ctx, "warm-up", "x")
		return err == nil
	})
	return n
}

// py starts a Python client, which may not have reached anybody yet.
func (w *world) py(bootstrap netip.AddrPort) *lab.PyClient {
	w.Helper()
	p, err := w.lab.StartPy(w.ctx, lab.PyConfig{Host: w.host, Bootstrap: bootstrap, Network: w.network, NoLimits: true})
	w.must(err)
	return p
}

// pyPut puts until nodes acknowledge: a client that has not reached its bootstrap
// node is refused at once.
func (w *world) pyPut(p *lab.PyClient, key string, data []byte, id uint64, userType string) {
	w.Helper()
	w.until("the Python client's put at "+key, func() bool {
		r, err := p.Put(w.ctx, key, data, id, userType)
		w.must(err)
		return r.Done
	})
}

// pyGet gets, again while the client has not reached anybody.
func (w *world) pyGet(p *lab.PyClient, key string) []lab.PyValue {
	w.Helper()
	var r lab.PyResult
	w.until("the Python client's get of "+key, func() bool {
		var err error
		r, err = p.Get(w.ctx, key)
		w.must(err)
		return r.Done
	})
	return r.Values
}

// kith runs a node of ours. Only what is not given in cfg is chosen here.
func (w *world) kith(cfg dht.Config) *dht.Node {
	w.Helper()
	n, _ := w.startKith(cfg)
	if len(cfg.Bootstrap) > 0 {
		w.must(n.WaitConnected(w.ctx))
	}
	return n
}

// startKith runs a node and returns a function that ends it, which is called at
// the end of the test, too. It does not wait until it is connected.
func (w *world) startKith(cfg dht.Config) (*dht.Node, func()) {
	w.Helper()
	if cfg.Network == nil {
		cfg.Network = w.host.Inside(&netx.System{})
	}
	if len(cfg.Addrs) == 0 {
		cfg.Addrs = []netip.AddrPort{netip.AddrPortFrom(w.host.Addr(), 0)}
	}
	if cfg.NetworkID == 0 {
		cfg.NetworkID = w.network
	}
	if cfg.Limits == (dht.Limits{}) {
		cfg.Limits.Requests = -1 // all come from one address here
	}
	cfg.Workers = 1
	n, err := dht.New(cfg)
	w.must(err)
	var g errgroup.Group
	g.Go(func() error { return n.Run(context.Background()) })
	stop := func() {
		n.Close()
		if err := g.Wait(); err != nil {
			w.Errorf("node %v: %v", n.ID(), err)
		}
	}
	w.Cleanup(stop)
	return n, stop
}

// kiths runs a network of n nodes of ours. The first is the others' bootstrap.
func (w *world) kiths(n int, bootstrap ...string) []*dht.Node {
	w.Helper()
	var nodes []*dht.Node
	for range n {
		nodes = append(nodes, w.kith(dht.Config{Bootstrap: bootstrap}))
		if len(bootstrap) == 0 {
			bootstrap = []string{addrOf(nodes[0]).String()}
		}
	}
	w.must(nodes[0].WaitConnected(w.ctx))
	w.until("our nodes know one another", func() bool {
		return !slices.ContainsFunc(nodes, func(node *dht.Node) bool {
			info, err := node.Info(w.ctx)
			w.must(err)
			return info.IPv4.Good < min(n-1, 8)
		})
	})
	return nodes
}

func addrOf(n *dht.Node) netip.AddrPort { return n.Addrs()[0] }

// get collects what a table has, sorted by id.
func (w *world) get(t dht.Table, key string, q dht.Query) []*dht.Value {
	w.Helper()
	var list []*dht.Value
	for v, err := range t.Get(w.ctx, keyOf(key), q) {
		if err != nil {
			w.Fatalf("get %s: %v", key, err)
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b *dht.Value) int { return int(int64(a.ID) - int64(b.ID)) })
	return list
}

// keyOf reads keys as the real tools do.
func keyOf(text string) dht.Key {
	key, err := dht.ParseKey(text)
	if err != nil {
		panic(err) // the test names no key
	}
	return key
}

// payload is n bytes that depend on a name and are not all alike.
func payload(name string, n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%s/%d ", name, i)
	}
	return b[:n]
}

// quote shortens values for messages.
func quote(values []*dht.Value) (list []string) {
	for _, v := range values {
		list = append(list, fmt.Sprintf("%x type %d %q: %d bytes %.20q", uint64(v.ID), v.Type, v.UserType, len(v.Data), v.Data))
	}
	return list
}

// pyHas tells whether a client was given a value with that id and data.
func pyHas(values []lab.PyValue, id uint64, data []byte) bool {
	return slices.ContainsFunc(values, func(v lab.PyValue) bool { return v.ID == id && bytes.Equal(v.Data, data) })
}

// has is pyHas for our own values.
func has(values []*dht.Value, id dht.ValueID, data []byte) bool {
	return slices.ContainsFunc(values, func(v *dht.Value) bool { return v.ID == id && bytes.Equal(v.Data, data) })
}

// hexOf is how dhtnode prints data that has no text type.
func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

// newIdentity makes a throwaway identity with a key that is made quickly.
func (w *world) newIdentity() *identity.Identity {
	w.Helper()
	id, err := identity.New("interop", identity.Options{Bits: 2048})
	w.must(err)
	return id
}

// A feed is a listen of ours, of which a test waits for events.
type feed struct {
	w      *world
	events chan dht.Event
	seen   []dht.Event
	stop   func()
}

// listen starts a listen. It is ended with the test at the latest.
func (w *world) listen(t dht.Table, key string, q dht.Query) *feed {
	ctx, cancel := context.WithCancel(w.ctx)
	f := &feed{w: w, events: make(chan dht.Event, 1024)}
	done := make(chan error, 1)
	go func() { done <- f.run(ctx, t.Listen(ctx, keyOf(key), q)) }()
	f.stop = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, dht.ErrClosed) {
			w.Errorf("listen to %s: %v", key, err)
		}
		done <- nil
	}
	w.Cleanup(f.stop)
	return f
}

func (f *feed) run(ctx context.Context, events iter.Seq2[dht.Event, error]) error {
	for e, err := range events {
		if err != nil {
			return err
		}
		select {
		case f.events <- e:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// wait waits for an event that is wanted, and keeps the others in seen.
func (f *feed) wait(what string, wanted func(dht.Event) bool) dht.Event {
	f.w.Helper()
	for {
		select {
		case e := <-f.events:
			f.seen = append(f.seen, e)
			if wanted(e) {
				return e
			}
		case <-f.w.ctx.Done():
			f.w.Fatalf("no event: %s; seen: %d", what, len(f.seen))
		}
	}
}

// value waits for a value with that id and data.
func (f *feed) value(id dht.ValueID, data []byte) dht.Event {
	f.w.Helper()
	return f.wait(fmt.Sprintf("value %x, %d bytes", uint64(id), len(data)), func(e dht.Event) bool {
		return !e.Expired && e.Value.ID == id && bytes.Equal(e.Value.Data, data)
	})
}

// waitPy waits for an event of a Python client's listen.
func (w *world) waitPy(events <-chan lab.PyEvent, what string, wanted func(lab.PyEvent) bool) lab.PyEvent {
	w.Helper()
	for {
		select {
		case e := <-events:
			if wanted(e) {
				return e
			}
		case <-w.ctx.Done():
			w.Fatalf("no event: %s", what)
		}
	}
}

// pyValue waits until a Python client is told of a value.
func (w *world) pyValue(events <-chan lab.PyEvent, id uint64, data []byte) {
	w.Helper()
	w.waitPy(events, fmt.Sprintf("value %x, %d bytes", id, len(data)), func(e lab.PyEvent) bool {
		return !e.Expired && e.ID == id && bytes.Equal(e.Data, data)
	})
}

// put puts one value.
func (w *world) put(t dht.Table, key string, v *dht.Value) {
	w.Helper()
	if err := t.Put(w.ctx, keyOf(key), v); err != nil {
		w.Fatal(err)
	}
}

// Queries of the tests.
var (
	everything dht.Query
	whereID    = wire.WhereID
	whereType  = wire.WhereType
	whereUser  = wire.WhereUserType
)
