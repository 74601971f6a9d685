//go:build linux

package bench

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/interop/lab"
	"github.com/kith-im/kith/interop/raw"
)

// Kith is the client on Kith's own DHT package, inside this process. Its CPU time
// is that of the whole process, so with a delay it includes the work of the
// user-space switch.
type Kith struct{}

// Name implements [ClientKind].
func (Kith) Name() string { return "kith" }

// Start implements [ClientKind].
func (Kith) Start(ctx context.Context, _ *lab.Lab, c ClientConfig) (Client, error) {
	node, err := dht.New(dht.Config{
		Network:   c.Host.Inside(&netx.System{}),
		Addrs:     []netip.AddrPort{netip.AddrPortFrom(c.Host.Addr(), 0)},
		NetworkID: c.Network,
		Bootstrap: []string{c.Bootstrap.String()},
		Limits:    dht.Limits{Requests: -1}, // as the other clients: all nodes share one address
	})
	if err != nil {
		return nil, fmt.Errorf("start kith client: %w", err)
	}
	k := &kith{node: node, done: make(chan struct{})}
	go func() {
		defer close(k.done)
		k.err = node.Run(context.WithoutCancel(ctx))
	}()
	wait, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	if err := node.WaitConnected(wait); err != nil {
		k.Kill()
		return nil, fmt.Errorf("start kith client: %w", err)
	}
	return k, nil
}

type kith struct {
	node  *dht.Node
	done  chan struct{}
	err   error // of Run, set before done is closed
	cpu   time.Duration
	asked uint64
}

// Kill closes the node, which tells nobody.
func (k *kith) Kill() {
	k.node.Close()
	<-k.done
}

// Bulk implements [Client].
func (k *kith) Bulk(ctx context.Context, b lab.Bulk) ([]lab.Sample, time.Duration, error) {
	samples, took, err := RunBulk(ctx, b, k.operation)
	select {
	case <-k.done:
		return nil, 0, fmt.Errorf("the kith client has ended: %v", k.err)
	default:
		return samples, took, err
	}
}

func (k *kith) operation(ctx context.Context, op string, key raw.ID, want []byte) lab.Sample {
	s := lab.Sample{First: -1}
	if op == "put" {
		s.OK = k.node.Put(ctx, dht.Key(key), &dht.Value{Data: want}) == nil
		return s
	}
	start := time.Now()
	found, failed := false, false
	for v, err := range k.node.Get(ctx, dht.Key(key), dht.Query{}) {
		if err != nil {
			failed = true
			break
		}
		if s.First < 0 {
			s.First = time.Since(start)
		}
		found = found || bytes.Equal(v.Data, want)
	}
	s.OK = !failed && found == (op == "get")
	return s
}

// Stats implements [Client].
func (k *kith) Stats(context.Context) (ClientStats, error) {
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &use); err != nil {
		return ClientStats{}, fmt.Errorf("read own CPU time: %w", err)
	}
	var asked uint64
	for _, n := range k.node.Stats().Asked {
		asked += n
	}
	cpu := time.Duration(use.Utime.Nano() + use.Stime.Nano())
	out := ClientStats{Requests: float64(asked - k.asked), CPU: cpu - k.cpu}
	k.asked, k.cpu = asked, cpu
	return out, nil
}
