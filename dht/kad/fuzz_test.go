package kad

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// A chaos is what a byte string tells to do to a core.
type chaos struct {
	r    *rig
	in   []byte
	seen [][]byte // packets to be changed and sent again
}

func (c *chaos) byte() byte {
	if len(c.in) == 0 {
		return 0
	}
	b := c.in[0]
	c.in = c.in[1:]
	return b
}

func (c *chaos) addr() netip.AddrPort {
	b := c.byte()
	port := uint16(1000 + int(b&3))
	if b&0x80 != 0 {
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 5: b >> 4 & 3, 7: b >> 2 & 3, 15: 1}
		return netip.AddrPortFrom(netip.AddrFrom16(a), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, b >> 4 & 7, b >> 2 & 3}), port)
}

func (c *chaos) key() wire.Key { return wire.Key{c.byte() & 7, 1} }

func (c *chaos) id() wire.NodeID {
	b := c.byte()
	if b == 0xff {
		return c.r.c.Self()
	}
	return wire.NodeID{b, 2: b & 3, 19: 1}
}

func (c *chaos) value() *wire.Value {
	b := c.byte()
	size := int(b) * 3
	if b&0x40 != 0 {
		size *= 40
	}
	v := &wire.Value{ID: wire.ValueID(b & 3), Type: wire.TypeID(c.byte() & 15), Data: make([]byte, size)}
	if b&0x30 == 0x30 {
		v.Owner, v.Signature, v.Seq = []byte{1, 2, b & 3}, []byte{3}, uint16(c.byte())
	}
	return v
}

// packet makes a packet that can be read.
func (c *chaos) packet(from netip.AddrPort) []byte {
	env := wire.Envelope{Self: c.id(), ReadOnly: c.byte()&15 == 15}
	tid := uint32(c.byte() & 7)
	expected := uint32(0) // often a reply is one that is expected
	for t, q := range c.r.c.requests {
		if q.addr == from && t > expected {
			expected = t
		}
	}
	if tid > 1 && expected > 0 {
		tid = expected
	}
	kind := c.byte()
	var token []byte
	if kind&0x40 != 0 {
		tok := c.r.c.tokens.issue(c.r.now, from)
		token = tok[:]
	}
	var values []wire.Packed
	for range int(kind >> 4 & 3) {
		values = append(values, wire.Pack(c.value()))
	}
	socket := uint32(c.byte() & 3)
	for id := range c.r.c.sockets {
		socket = max(socket, id)
	}
	nodes := func() (n4, n6 []byte) {
		for range int(c.byte() & 7) {
			if a := c.addr(); a.Addr().Is4() {
				n4 = wire.AppendNode(n4, c.id(), a)
			} else {
				n6 = wire.AppendNode(n6, c.id(), a)
			}
		}
		return n4, n6
	}
	switch kind & 15 {
	case 0, 1:
		n4, n6 := nodes()
		return env.AppendReply(nil, tid, &wire.Answer{To: from.Addr(), Nodes4: n4, Nodes6: n6, Token: token, Values: values, ValueID: 1, Refused: wire.Refusal(c.byte() & 7)})
	case 2:
		return env.AppendReply(nil, tid, &wire.Answer{To: c.addr().Addr(), Token: token, Values: values, Rows: []wire.Field{wire.FieldID, wire.FieldSeq}})
	case 3:
		return env.AppendError(nil, tid, []int{203, 401, 404, 500}[c.byte()&3], "no")
	case 4:
		return env.AppendNotice(nil, socket, token, []wire.ValueID{1}, []wire.ValueID{2})
	case 5, 6:
		packed := wire.Pack(c.value()).Bytes
		return env.AppendPiece(nil, tid, int(c.byte()&1), int(c.byte())*len(packed)/256, packed)
	default:
		q := wire.Request{
			Method: wire.Method(1 + kind&7%7), Key: c.key(), Token: token, Values: values, Socket: socket, ValueID: 1,
			Want: wire.Families(c.byte() & 3), Created: int64(c.byte()&3) * c.r.now.Unix() / 3,
		}
		if q.Method == wire.Update && len(values) == 0 {
			q.Expired = []wire.ValueID{1, 2}
		}
		if c.byte()&7 == 7 {
			q.Query = wire.Query{Select: []wire.Field{wire.FieldID}, Where: []wire.Filter{{Field: wire.FieldType, Num: uint64(c.byte() & 3)}}}
		}
		return env.AppendRequest(nil, tid, &q)
	}
}

func (c *chaos) run() {
	r := c.r
	for len(c.in) > 0 {
		switch op := c.byte(); op % 16 {
		case 0:
			r.pass(time.Duration(c.byte()) * 20 * time.Millisecond)
		case 1:
			r.pass(time.Duration(c.byte()) * time.Second)
		case 2: // a packet seen before, changed somewhere
			if len(c.seen) > 0 {
				b := append([]byte(nil), c.seen[int(c.byte())%len(c.seen)]...)
				if i := int(c.byte()) * len(b) / 256; i < len(b) {
					b[i] ^= c.byte()
				}
				r.receive(c.addr(), b)
			}
		case 3:
			r.do(func(now time.Time, out *Outbox) {
				g := r.c.Get(now, c.key(), wire.Query{}, func(*wire.Value) {}, func(error) {}, out)
				if op&0x80 != 0 {
					r.c.CancelGet(now, g, out)
				}
			})
		case 4:
			if v := c.value(); v.ID != 0 && v.Size() <= wire.MaxValueSize {
				r.do(func(now time.Time, out *Outbox) {
					p := r.c.Put(now, c.key(), v, now, op&0x40 != 0, func(error) {}, out)
					if op&0x80 != 0 {
						r.c.CancelPut(now, p, out)
					}
				})
			}
		case 5:
			r.do(func(now time.Time, out *Outbox) {
				l := r.c.Listen(now, c.key(), wire.Query{}, func(*wire.Value, bool) {}, out)
				if op&0x80 != 0 {
					r.c.CancelListen(now, l, out)
				}
			})
		case 6:
			a := c.addr()
			r.do(func(now time.Time, out *Outbox) {
				switch op >> 6 {
				case 0:
					r.c.Bootstrap(now, []netip.AddrPort{a}, out)
				case 1:
					r.c.Insert(now, []wire.Node{{ID: c.id(), Addr: a}}, out)
				case 2:
					r.c.Failed(now, a, out)
				default:
					r.c.ConnectivityChanged(now, out)
				}
			})
		default:
			from := c.addr()
			b := c.packet(from)
			if len(c.seen) < 64 {
				c.seen = append(c.seen, b)
			}
			r.receive(from, b)
		}
	}
	r.pass(time.Second)
	checkInvariants(r.t, r.c)
	r.c.Info(r.now)
	r.c.Nodes(r.now)
	r.pass(20 * time.Minute)
	checkInvariants(r.t, r.c)
}

func FuzzCore(f *testing.F) {
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := make([]byte, 200+100*seed)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 8192 {
			return
		}
		c := &chaos{r: newRig(t, Config{Limits: Limits{Storage: 200_000, Listeners: 30}}), in: b}
		c.run()
	})
}

// After long hostile traffic from many addresses everything is within its bounds.
func TestHostileTraffic(t *testing.T) {
	r := newRig(t, Config{Limits: Limits{Storage: 1 << 20, Listeners: 500, Requests: -1}})
	rnd := rand.New(rand.NewPCG(5, 5))
	n := 40_000
	if raceEnabled {
		n = 6_000
	}
	for i := range n {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(200)), byte(rnd.Uint32()), byte(rnd.Uint32()), 1}), 4222)
		var seed [400]byte
		for j := 0; j < len(seed); j += 4 {
			binary.BigEndian.PutUint32(seed[j:], rnd.Uint32())
		}
		c := &chaos{r: r, in: seed[:]}
		env := wire.Envelope{Self: randomID(rnd)}
		var b []byte
		switch rnd.IntN(4) {
		case 0:
			b = c.packet(from)
		case 1:
			b = env.AppendRequest(nil, 1, &wire.Request{Method: wire.Find, Key: wire.Key(randomID(rnd))})
		default:
			tok := r.c.tokens.issue(r.now, from)
			q := wire.Request{Method: wire.Put, Key: wire.Key(randomID(rnd)), Token: tok[:], Values: []wire.Packed{text(1, "junk")}, Socket: 1}
			if rnd.IntN(2) == 0 {
				q.Method, q.Values = wire.Listen, nil
			} else if rnd.IntN(3) == 0 {
				q.Values[0] = wire.Pack(&wire.Value{ID: 1, Data: make([]byte, 3000)})
			}
			b = env.AppendRequest(nil, rnd.Uint32(), &q)
		}
		r.receive(from, b)
		r.all = r.all[:0]
		if i%8 == 0 {
			r.pass(time.Millisecond)
		}
		if i%(n/10) == 0 {
			checkInvariants(t, r.c)
		}
	}
	checkInvariants(t, r.c)
	r.pass(2 * time.Minute)
	checkInvariants(t, r.c)
	r.pass(15 * time.Minute)
	i := r.c.Info(r.now)
	for e := range r.c.Export {
		if Life(e.Value.Type) > 15*time.Minute {
			i.Values, i.Keys = i.Values-1, i.Keys-1
		}
	}
	if i.Values != 0 || i.Keys > 0 || i.Listeners+i.Partial+len(r.c.waiting.from) != 0 {
		t.Errorf("of the traffic %+v is left", i)
	}
}
