package kad

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// A response is what a peer that the test plays says to a request, if anything.
type response struct {
	p     *peer
	a     wire.Answer
	after time.Duration
}

// play lets time pass while answer says what becomes of each request of the core.
// It returns the requests.
func (r *rig) play(out []packet, d time.Duration, answer func(packet) *response) (asked []packet) {
	r.t.Helper()
	type reply struct {
		at time.Time
		to packet
		response
	}
	var due []reply
	const step = 20 * time.Millisecond
	for end := r.now.Add(d); ; out = r.pass(step) {
		for len(out) > 0 {
			var next []packet
			for _, p := range out {
				if p.m.Kind != wire.Ask {
					continue
				}
				if asked = append(asked, p); len(asked) > 3000 {
					r.t.Fatal("the core asks without end")
				}
				if x := answer(p); x == nil {
					continue
				} else if x.after > 0 {
					due = append(due, reply{r.now.Add(x.after), p, *x})
				} else {
					next = append(next, r.reply(x.p, p, x.a)...)
				}
			}
			out = next
			rest := due[:0]
			for _, x := range due {
				if x.at.After(r.now) {
					rest = append(rest, x)
				} else {
					out = append(out, r.reply(x.p, x.to, x.a)...)
				}
			}
			due = rest
		}
		var late []packet
		rest := due[:0]
		for _, x := range due {
			if x.at.After(r.now) {
				rest = append(rest, x)
			} else {
				late = append(late, r.reply(x.p, x.to, x.a)...)
			}
		}
		due = rest
		if out = late; len(out) > 0 {
			continue
		}
		if !r.now.Before(end) {
			return asked
		}
	}
}

// nearID returns an id that is the nearer to key, the smaller n is.
func nearID(key wire.Key, n uint32) wire.NodeID {
	id := wire.NodeID(key)
	binary.BigEndian.PutUint32(id[:], binary.BigEndian.Uint32(id[:])^n)
	return id
}

var testToken = []byte("tokentok")

// Whoever names one nearer node after another is not followed for ever.
func TestEndlessNearer(t *testing.T) {
	for _, what := range []string{"get", "put", "listen"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, Config{Families: wire.IPv4})
			key := r.key()
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			ids := map[uint16]wire.NodeID{4222: p.env.Self}
			n := uint32(0)
			done := false
			out := r.do(func(now time.Time, out *Outbox) {
				switch what {
				case "get":
					r.c.Get(now, key, wire.Query{}, func(*wire.Value) {}, func(error) { done = true }, out)
				case "put":
					r.c.Put(now, key, text(1, "a").Value, now, false, func(error) { done = true }, out)
				default:
					r.c.Listen(now, key, wire.Query{}, func(*wire.Value, bool) {}, out)
				}
			})
			asked := r.play(out, 15*time.Second, func(q packet) *response {
				n++
				port := uint16(10000 + n)
				ids[port] = nearID(key, 1<<20-n)
				list := wire.AppendNode(nil, ids[port], netip.AddrPortFrom(p.addr.Addr(), port))
				return &response{
					p: &peer{addr: q.to, env: wire.Envelope{Self: ids[q.to.Port()]}},
					a: wire.Answer{Token: testToken, ValueID: 1, Nodes4: list},
				}
			})
			if what != "listen" && !done {
				t.Errorf("the %s goes on after %d requests", what, len(asked))
			}
			if len(asked) > 3*maxContacts {
				t.Errorf("%d requests", len(asked))
			}
		})
	}
}

// Tasks end when no request can be sent, since too many are in flight.
func TestTooManyRequests(t *testing.T) {
	for _, what := range []string{"get", "put", "put that found its nodes"} {
		r := newRig(t, Config{Families: wire.IPv4})
		key := r.key()
		p := r.peer("192.0.2.1:4222")
		r.join(p)
		fill := func() {
			for i := range uint32(maxRequests) {
				r.c.requests[i+1] = &request{tid: i + 1}
			}
		}
		if what != "put that found its nodes" {
			fill()
		}
		done := false
		r.play(r.do(func(now time.Time, out *Outbox) {
			if what == "get" {
				r.c.Get(now, key, wire.Query{}, func(*wire.Value) {}, func(error) { done = true }, out)
			} else {
				r.c.Put(now, key, text(1, "a").Value, now, false, func(error) { done = true }, out)
			}
		}), 20*time.Second, func(q packet) *response {
			fill()
			return &response{p: p, a: wire.Answer{Token: testToken}}
		})
		if !done {
			t.Errorf("the %s goes on", what)
		}
	}
}

// A listen after a get of the same key looks for the nearest nodes again, though
// the search had a timer to end it.
func TestListenAfterGet(t *testing.T) {
	r := newRig(t, Config{Families: wire.IPv4})
	key := r.key()
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	yes := func(q packet) *response { return &response{p: p, a: wire.Answer{Token: testToken}} }
	done := false
	r.play(r.do(func(now time.Time, out *Outbox) {
		r.c.Get(now, key, wire.Query{}, func(*wire.Value) {}, func(error) { done = true }, out)
	}), 5*time.Second, yes)
	if !done {
		t.Fatal("the get goes on")
	}
	r.play(r.do(func(now time.Time, out *Outbox) {
		r.c.Listen(now, key, wire.Query{}, func(*wire.Value, bool) {}, out)
	}), 5*time.Second, yes)
	again := 0
	for _, q := range r.play(nil, minResync*3/2, yes) {
		if q.m.Method == wire.Find && q.m.Key == key {
			again++
		}
	}
	if again == 0 {
		t.Error("the nearest nodes are not looked for again")
	}
}

// A liar who names a node at a wrong address does not hide it.
func TestWrongAddress(t *testing.T) {
	r := newRig(t, Config{Families: wire.IPv4})
	key := r.key()
	liar, honest, holder := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222"), r.peer("203.0.113.1:4222")
	holder.env.Self = nearID(key, 1)
	r.join(liar)
	r.join(honest)
	wrong := netip.MustParseAddrPort("203.0.113.2:4222")
	found := 0
	r.play(r.do(func(now time.Time, out *Outbox) {
		r.c.Get(now, key, wire.Query{}, func(*wire.Value) { found++ }, func(error) {}, out)
	}), 20*time.Second, func(q packet) *response {
		switch q.to {
		case liar.addr:
			return &response{p: liar, a: wire.Answer{Token: testToken, Nodes4: wire.AppendNode(nil, holder.env.Self, wrong)}}
		case honest.addr:
			return &response{p: honest, after: 100 * time.Millisecond, a: wire.Answer{Token: testToken, Nodes4: wire.AppendNode(nil, holder.env.Self, holder.addr)}}
		case holder.addr:
			return &response{p: holder, a: wire.Answer{Token: testToken, Values: []wire.Packed{text(1, "a")}}}
		}
		return nil
	})
	if found != 1 {
		t.Errorf("%d values found, want 1", found)
	}
}

// Holders that answer late are waited for, dead ones not for ever.
func TestSlowHolders(t *testing.T) {
	for _, dead := range []bool{false, true} {
		r := newRig(t, Config{Families: wire.IPv4})
		key := r.key()
		peers := map[netip.AddrPort]*peer{}
		for i := range 10 {
			p := &peer{addr: address(i), env: wire.Envelope{Self: nearID(key, 1+uint32(i)<<8)}}
			r.join(p)
			peers[p.addr] = p
		}
		found, done := 0, false
		r.play(r.do(func(now time.Time, out *Outbox) {
			r.c.Get(now, key, wire.Query{}, func(*wire.Value) { found++ }, func(error) { done = true }, out)
		}), 20*time.Second, func(q packet) *response {
			x := &response{p: peers[q.to], a: wire.Answer{Token: testToken}}
			if q.to == address(0) || q.to == address(1) {
				if dead {
					return nil
				}
				x.after = 900 * time.Millisecond
				x.a.Values = []wire.Packed{text(1, "a")}
			}
			return x
		})
		if !done || !dead && found != 1 {
			t.Errorf("dead %v: %d values found, ended: %v", dead, found, done)
		}
	}
}

// Nobody out there makes us send packets into our own network.
func TestHearsay(t *testing.T) {
	private := []string{"192.168.1.5:4222", "10.0.0.5:4222", "169.254.1.5:4222", "127.0.0.1:4222", "[fe80::5]:4222", "[::1]:4222", "[fd00::5]:4222"}
	for from, allowed := range map[string]bool{"192.0.2.1:4222": false, "192.168.1.1:4222": true} {
		r := newRig(t, Config{})
		p := r.peer(from)
		r.join(p)
		key := r.key()
		var a wire.Answer
		a.Token = testToken
		for i, s := range private {
			addr := netip.MustParseAddrPort(s)
			if addr.Addr().Is4() {
				a.Nodes4 = wire.AppendNode(a.Nodes4, nearID(key, uint32(i+1)), addr)
			} else {
				a.Nodes6 = wire.AppendNode(a.Nodes6, nearID(key, uint32(i+1)), addr)
			}
		}
		r.play(r.do(func(now time.Time, out *Outbox) {
			r.c.Get(now, key, wire.Query{}, func(*wire.Value) {}, func(error) {}, out)
		}), 20*time.Second, func(q packet) *response {
			if q.to == p.addr {
				return &response{p: p, a: a}
			}
			return nil
		})
		for _, s := range private[:3] {
			if sent := r.sent[netip.MustParseAddrPort(s)] > 0; sent != allowed {
				t.Errorf("named by %s: sent to %s: %v", from, s, sent)
			}
		}
		for _, s := range private[3:] {
			if !allowed && r.sent[netip.MustParseAddrPort(s)] > 0 {
				t.Errorf("named by %s: sent to %s", from, s)
			}
		}
	}
}

// The addresses of one block have one vote on what our address is.
func TestVotesByBlock(t *testing.T) {
	r := newRig(t, Config{Families: wire.IPv6})
	good, bad := netip.MustParseAddr("2001:db8:ffff::1"), netip.MustParseAddr("2001:db8:ffff::2")
	vote := func(addr string, ours netip.Addr) {
		p := r.peer(addr)
		for _, q := range r.do(func(now time.Time, out *Outbox) {
			r.c.Ping(now, p.addr, func(wire.NodeID, time.Duration, error) {}, out)
		}) {
			r.receive(p.addr, p.env.AppendReply(nil, q.m.TID, &wire.Answer{To: ours}))
		}
	}
	for _, a := range []string{"[2001:db8:1::1]:1", "[2001:db8:2::1]:1", "[2001:db8:3::1]:1"} {
		vote(a, good)
	}
	for _, a := range []string{"::1", "::2", "::3", "::4", "::5", "::6"} {
		vote("[2001:db8:bad"+a+"]:1", bad)
	}
	if best := r.c.v6.ours.best(); best != good {
		t.Errorf("our address is %s, want %s", best, good)
	}
}

func TestEstimateOfFew(t *testing.T) {
	r := newRig(t, Config{})
	var all, near table
	for _, tb := range []*table{&all, &near} {
		tb.self = r.c.Self()
	}
	var nodes []*node
	for range 2000 {
		nodes = append(nodes, &node{id: r.id(), addr: address(len(nodes))})
	}
	for _, n := range nodes {
		if wire.CommonBits(n.id, near.self) >= 6 {
			near.insert(r.now, n)
		}
	}
	if n := near.estimate(); n < 500 || n > 8000 {
		t.Errorf("%d nodes estimated from %d known, want about 2000", n, len(near.nodes))
	}
	key := r.key()
	for i := range uint32(minSamples) {
		near.sample(key, nearID(key, 1<<26+i))
	}
	want := near.estimate()
	for range minSamples - 1 {
		near.sample(key, nearID(key, 1)) // somebody sits on these keys
	}
	if n := near.estimate(); n != want {
		t.Errorf("an attack on few keys moves the estimate from %d to %d", want, n)
	}
}

// The first node of a network finds what it has; one that joins in vain does not.
func TestAlone(t *testing.T) {
	for _, joins := range []bool{false, true} {
		r := newRig(t, Config{Families: wire.IPv4})
		key := r.key()
		var err error
		found, done := 0, false
		r.do(func(now time.Time, out *Outbox) {
			if joins {
				r.c.Bootstrap(now, nil, out)
			}
			r.c.Put(now, key, text(1, "a").Value, now, false, func(error) {}, out)
			r.c.Get(now, key, wire.Query{}, func(*wire.Value) { found++ }, func(e error) { err, done = e, true }, out)
		})
		r.pass(2 * joinPatience)
		if !done || found != 1 || joins != errors.Is(err, ErrNoNodes) {
			t.Errorf("joins %v: ended %v with %v, %d values", joins, done, err, found)
		}
	}
}

// One node that refuses a publication does not keep the others from being given
// it again in time.
func TestRefreshDespiteRefusal(t *testing.T) {
	r := newRig(t, Config{Families: wire.IPv4})
	key := r.key()
	peers := map[netip.AddrPort]*peer{}
	for i := range 4 {
		p := &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
		r.join(p)
		peers[p.addr] = p
	}
	v := text(1, "a")
	var stored error = ErrNoNodes
	begun := r.now
	later := map[netip.AddrPort]bool{}
	r.play(r.do(func(now time.Time, out *Outbox) {
		r.c.Put(now, key, v.Value, now, true, func(err error) { stored = err }, out)
	}), Life(v.Value.Type), func(q packet) *response {
		a := wire.Answer{Token: testToken, ValueID: 1}
		if q.m.Method == wire.Get {
			a.Values = []wire.Packed{v}
			if q.to == address(0) {
				a.Values = []wire.Packed{text(1, "b")}
			}
		}
		if (q.m.Method == wire.Put || q.m.Method == wire.Refresh) && r.now.Sub(begun) > Life(v.Value.Type)/2 {
			later[q.to] = true
		}
		if q.m.Method == wire.Put && q.to == address(0) {
			a.Refused = wire.Conflict
		}
		return &response{p: peers[q.to], a: a}
	})
	if stored != nil || !later[address(1)] || !later[address(2)] || !later[address(3)] {
		t.Errorf("stored: %v, refreshed at %v", stored, later)
	}
}
