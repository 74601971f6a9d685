//go:build linux

package interop

import (
	"net"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// An asker asks single nodes what they store, without being one that is asked.
type asker struct {
	w    *world
	conn *net.UDPConn
	env  wire.Envelope
	tid  uint32
	buf  [1 << 16]byte
}

func (w *world) asker() *asker {
	w.Helper()
	conn, err := w.host.ListenUDP()
	w.must(err)
	w.Cleanup(func() { conn.Close() })
	self := wire.NodeID(wire.KeyOf([]byte(conn.LocalAddr().String())))
	return &asker{w: w, conn: conn, env: wire.Envelope{Self: self, Network: w.network, ReadOnly: true}}
}

// ask sends a request until it is answered, and answers pings meanwhile: a node
// of ours first wants to see that we are where we seem to be. It returns the
// answer with the bytes that it was read from.
func (a *asker) ask(to netip.AddrPort, q wire.Request) (wire.Message, []byte) {
	a.w.Helper()
	a.tid++
	packet := a.env.AppendRequest(nil, a.tid, &q)
	var m wire.Message
	for range 20 {
		_, err := a.conn.WriteToUDPAddrPort(packet, to)
		a.w.must(err)
		a.w.must(a.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)))
		for {
			n, from, err := a.conn.ReadFromUDPAddrPort(a.buf[:])
			if err != nil {
				break
			}
			if m.Parse(a.buf[:n]) != nil {
				continue
			}
			switch {
			case m.Kind == wire.Ask && m.Method == wire.Ping:
				answer := a.env.AppendReply(nil, m.TID, &wire.Answer{To: from.Addr()})
				_, err := a.conn.WriteToUDPAddrPort(answer, from)
				a.w.must(err)
			case m.TID == a.tid && (m.Kind == wire.Reply || m.Kind == wire.Error):
				return m, a.buf[:n]
			}
		}
	}
	a.w.Fatalf("%v does not answer", to)
	return m, nil
}

// stored returns the small values of a key that a node gives out.
func (a *asker) stored(at netip.AddrPort, key string) (list []*dht.Value) {
	a.w.Helper()
	m, _ := a.ask(at, wire.Request{Method: wire.Get, Key: keyOf(key)})
	if len(m.Sizes) > 0 {
		a.w.Fatalf("the values of %s come in parts", key)
	}
	for _, v := range m.Values {
		list = append(list, v.Clone())
	}
	return list
}

// holders counts the nodes that have a value of a key.
func (a *asker) holders(at []netip.AddrPort, key string) (n int) {
	a.w.Helper()
	for _, addr := range at {
		if m, _ := a.ask(addr, wire.Request{Method: wire.Get, Key: keyOf(key)}); len(m.Values)+len(m.Sizes) > 0 {
			n++
		}
	}
	return n
}
