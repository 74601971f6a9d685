package dht

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/internal/netx/simnet"
)

// cluster runs n nodes in a simulated network, inside a bubble.
func cluster(t *testing.T, n int) (nodes []*Node, stop func()) {
	t.Helper()
	world := simnet.New(simnet.Config{Seed: 1, Link: simnet.Link{Latency: 10 * time.Millisecond}})
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	for i := range n {
		host := world.NewHost(fmt.Sprintf("host%d", i), netip.AddrFrom4([4]byte{byte(30 + i/200), byte(i % 200), 0, 1}))
		cfg := Config{Network: host, Seed: uint64(i + 1), Port: DefaultPort, Workers: 1}
		if i > 0 {
			cfg.Bootstrap = []string{"30.0.0.1"}
		}
		node, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, node)
		g.Go(func() error { return node.Run(ctx) })
	}
	return nodes, func() {
		cancel()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
		world.Close()
	}
}

func collect(t *testing.T, table Table, key Key, q Query) []string {
	t.Helper()
	var list []string
	for v, err := range table.Get(t.Context(), key, q) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, string(v.Data))
	}
	slices.Sort(list)
	return list
}

func TestPutGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := cluster(t, 30)
		defer stop()
		for _, n := range nodes {
			if err := n.WaitConnected(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		key := KeyOf("greeting")
		for _, text := range []string{"hello", "world"} {
			if err := nodes[3].Put(t.Context(), key, &Value{Data: []byte(text)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := collect(t, nodes[20], key, Query{}); !slices.Equal(got, []string{"hello", "world"}) {
			t.Errorf("got %q", got)
		}
	})
}
