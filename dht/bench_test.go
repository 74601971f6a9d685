package dht

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// resident is the memory that the process holds, in bytes; 0 where that is unknown.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// crowd runs count nodes on loopback that know each other, until stop.
func crowd(b *testing.B, count int) (nodes []*Node, stop func()) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var g errgroup.Group
	for i := range count {
		cfg := Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}, Seed: uint64(i + 1)}
		if i > 0 {
			cfg.Bootstrap = []string{nodes[(i-1)/16].Addrs()[0].String()}
		}
		n, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		nodes = append(nodes, n)
		g.Go(func() error { return n.Run(ctx) })
	}
	for _, n := range nodes {
		if err := n.WaitConnected(ctx); err != nil {
			b.Fatal(err)
		}
	}
	return nodes, func() {
		cancel()
		if err := g.Wait(); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkThousandNodes measures what a node takes when a thousand of them run in
// one process: the goal is 0.4 MB.
func BenchmarkThousandNodes(b *testing.B) {
	const count = 1000
	for b.Loop() {
		rss, used := resident(), heap()
		nodes, stop := crowd(b, count)
		time.Sleep(5 * time.Second)
		b.ReportMetric(float64(resident()-rss)/count/1024, "RSS-KiB/node")
		b.ReportMetric(float64(heap()-used)/count/1024, "heap-KiB/node")
		b.ReportMetric(float64(runtime.NumGoroutine())/count, "goroutines/node")
		key := KeyOf("crowd")
		if err := nodes[7].Put(b.Context(), key, testValue(10)); err != nil {
			b.Error(err)
		}
		found := 0
		for _, err := range nodes[count-9].Get(b.Context(), key, Query{}) {
			if err != nil {
				b.Error(err)
			}
			found++
		}
		if found != 1 {
			b.Errorf("found %d values", found)
		}
		stop()
	}
}

// BenchmarkRemoteListens is a node to which others listen a hundred thousand times,
// and renew: each operation is one renewal.
func BenchmarkRemoteListens(b *testing.B) {
	const count = 100_000
	world := simnet.New(simnet.Config{})
	defer world.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	n, err := New(Config{Network: world.NewHost("node", addr("30.0.0.1")), Limits: Limits{Requests: -1}, Workers: 1})
	if err != nil {
		b.Fatal(err)
	}
	go n.Run(ctx)
	to := n.Addrs()[0]
	to = netip.AddrPortFrom(addr("30.0.0.1"), to.Port())
	conn, err := world.NewHost("listener", addr("31.0.0.1")).ListenPacket(ctx, netip.MustParseAddrPort("0.0.0.0:4222"))
	if err != nil {
		b.Fatal(err)
	}
	env := &wire.Envelope{Self: NodeID(KeyOf("listener"))}
	in := []netx.Datagram{{Buf: make([]byte, 2048)}}
	ask := func(r *wire.Request) *wire.Message {
		p := env.AppendRequest(nil, 1+r.Socket, r)
		if _, err := conn.WriteBatch([]netx.Datagram{{Buf: p, N: len(p), Addr: to}}); err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := conn.ReadBatch(in); err != nil {
				b.Fatal(err)
			}
			var m wire.Message
			if err := m.Parse(in[0].Buf[:in[0].N]); err != nil {
				b.Fatal(err)
			}
			if m.Kind == wire.Ask { // it wants to know who we are
				p := env.AppendReply(nil, m.TID, &wire.Answer{})
				if _, err := conn.WriteBatch([]netx.Datagram{{Buf: p, N: len(p), Addr: to}}); err != nil {
					b.Fatal(err)
				}
				continue
			}
			return &m
		}
	}
	var token []byte
	for len(token) == 0 {
		token = append(token, ask(&wire.Request{Method: wire.Find, Key: KeyOf("x"), Want: wire.IPv4}).Token...)
	}
	keys := make([]Key, count)
	for i := range keys {
		keys[i] = KeyOf(fmt.Sprint(i))
	}
	listen := func(i int) {
		ask(&wire.Request{Method: wire.Listen, Key: keys[i], Token: token, Socket: uint32(i + 1)})
	}
	used := heap()
	for i := range keys {
		listen(i)
	}
	each := float64(heap()-used) / count
	if i, _ := n.Info(ctx); i.Listening != count {
		b.Fatalf("%d listeners", i.Listening)
	}
	i := 0
	for b.Loop() {
		listen(i % count)
		i++
	}
	b.ReportMetric(each, "B/listener")
	// Who listens renews every 4.5 minutes: the share of a core for all of them, the
	// sender's own work included.
	b.ReportMetric(100*b.Elapsed().Seconds()/float64(b.N)*count/270, "%core/100k")
}

// BenchmarkListens is a node that listens to a hundred thousand keys in a small
// network on loopback, in a steady state.
func BenchmarkListens(b *testing.B) {
	const count = 100_000
	nodes, stop := crowd(b, 8)
	defer stop()
	n := nodes[3]
	used := heap()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() {
			for range n.Listen(ctx, KeyOf(fmt.Sprint("listen ", i)), Query{}) {
				return
			}
		})
		if i%200 == 199 {
			time.Sleep(20 * time.Millisecond)
		}
	}
	time.Sleep(5 * time.Second)
	each := float64(heap()-used) / count
	for b.Loop() {
		before := n.Stats()
		began := cpuTime()
		time.Sleep(10 * time.Second)
		after := n.Stats()
		b.ReportMetric(100*(cpuTime()-began).Seconds()/10, "%core,all-nodes")
		b.ReportMetric(float64(after.Sent-before.Sent)/10, "packets-sent/s")
	}
	b.ReportMetric(each, "B/listen,all-nodes")
	cancel()
	wg.Wait()
}
