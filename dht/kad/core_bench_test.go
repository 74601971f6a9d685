package kad

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// benchCore returns a core that knows n nodes, and an address that it trusts.
func benchCore(n int) (*Core, netip.AddrPort, time.Time) {
	now := time.Unix(1700000000, 0)
	r := rand.New(rand.NewPCG(1, 2))
	id := func() (id wire.NodeID) {
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		return id
	}
	c := New(Config{Self: id(), Rand: r, Limits: Limits{Requests: -1}}, now)
	for i := range n {
		node := &node{id: id(), addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, byte(i >> 8), byte(i)}), 4222), heard: now, replied: now}
		c.v4.table.insert(now, node)
	}
	from := netip.MustParseAddrPort("127.0.0.1:5000")
	c.proven.set(now, from, struct{}{})
	return c, from, now
}

func BenchmarkServe(b *testing.B) {
	env := wire.Envelope{Self: wire.NodeID{1}}
	for _, method := range []wire.Method{wire.Ping, wire.Find, wire.Get, wire.Put} {
		b.Run(fmt.Sprint(method), func(b *testing.B) {
			c, from, now := benchCore(64)
			tok := c.tokens.issue(now, from)
			req := wire.Request{Method: method, Key: wire.Key{7}, Token: tok[:]}
			value := wire.Pack(&wire.Value{ID: 5, Data: make([]byte, 64)})
			if method == wire.Put {
				req.Values = []wire.Packed{value}
			}
			if method == wire.Get {
				c.keep(req.Key, value.Value, now, from, func() bool { return true })
			}
			var m wire.Message
			var out Outbox
			buf := env.AppendRequest(nil, 1, &req)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if method == wire.Put {
					i++
					req.Key = wire.Key{byte(i), byte(i >> 8), byte(i >> 16)}
					if i%100000 == 0 {
						c.store = newStorage(64 << 20)
						c.store.gone = c.valueGone
					}
					buf = env.AppendRequest(buf[:0], 1, &req)
				}
				if err := m.Parse(buf); err != nil {
					b.Fatal(err)
				}
				c.Receive(now, from, &m, len(buf), &out)
				if out.Len() == 0 {
					b.Fatal("no answer")
				}
				out.Reset()
			}
		})
	}
}
