package kad

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

func TestPing(t *testing.T) {
	for _, addr := range []string{"192.0.2.1:4222", "[2001:db8::1]:4222"} {
		r := newRig(t, Config{})
		p := r.peer(addr)
		a := r.only(r.ask(p, wire.Request{Method: wire.Ping}))
		if a.to != p.addr || a.m.Kind != wire.Reply || a.m.TID != r.tid || a.m.From != r.c.Self() {
			t.Errorf("%s is answered %+v", addr, a.m)
		}
		r.join(p)
		if a = r.only(r.ask(p, wire.Request{Method: wire.Ping})); a.m.Addr != p.addr.Addr() || !a.m.Kith {
			t.Errorf("%s is answered %+v", addr, a.m)
		}
	}
}

func TestFind(t *testing.T) {
	r := newRig(t, Config{})
	var peers []*peer
	for i := range 20 {
		p := &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
		r.join(p)
		peers = append(peers, p)
	}
	six := r.peer("[2001:db8::1]:4222")
	r.join(six)
	if n := r.c.Info(r.now).V4.Good; n != 20 {
		t.Fatalf("%d nodes are known, want 20", n)
	}
	for _, want := range []wire.Families{0, wire.IPv4, wire.IPv6, wire.IPv4 | wire.IPv6} {
		key := r.key()
		a := r.only(r.ask(peers[0], wire.Request{Method: wire.Find, Key: key, Want: want}))
		n4, n6 := len(a.m.Nodes4)/26, len(a.m.Nodes6)/38
		want4, want6 := 0, 0
		if want == 0 || want&wire.IPv4 != 0 {
			want4 = 8
		}
		if want&wire.IPv6 != 0 {
			want6 = 1
		}
		if n4 != want4 || n6 != want6 || len(a.m.Token) != tokenSize {
			t.Errorf("want %b: %d and %d nodes, token of %d", want, n4, n6, len(a.m.Token))
		}
		var last wire.NodeID
		a.m.EachNode(func(n wire.Node) {
			if n.Addr.Addr().Is6() {
				return
			}
			if !last.IsZero() && !key.Closer(last, n.ID) {
				t.Error("nodes are not sorted by distance")
			}
			last = n.ID
		})
	}
	r.pass(goodFor + time.Minute) // all are silent and do not answer pings
	r.join(six)
	a := r.ask(six, wire.Request{Method: wire.Find, Key: r.key(), Want: wire.IPv4})
	if len(a[0].m.Nodes4) > 0 {
		t.Error("nodes that died are passed on")
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name string
		q    wire.Request
		tok  string // "", "good", "bad" or "other"
		code int
	}{
		{"get without key", wire.Request{Method: wire.Get}, "", wire.CodeNoKey},
		{"put without key", wire.Request{Method: wire.Put, Values: []wire.Packed{text(1, "x")}}, "good", wire.CodeNoKey},
		{"put of id 0", wire.Request{Method: wire.Put, Key: wire.Key{1}, Values: []wire.Packed{text(0, "x")}}, "good", wire.CodeNoKey},
		{"put without token", wire.Request{Method: wire.Put, Key: wire.Key{1}, Values: []wire.Packed{text(1, "x")}}, "", wire.CodeUnauthorized},
		{"put with wrong token", wire.Request{Method: wire.Put, Key: wire.Key{1}, Values: []wire.Packed{text(1, "x")}}, "bad", wire.CodeUnauthorized},
		{"put with another's token", wire.Request{Method: wire.Put, Key: wire.Key{1}, Values: []wire.Packed{text(1, "x")}}, "other", wire.CodeUnauthorized},
		{"listen without key", wire.Request{Method: wire.Listen, Socket: 1}, "good", wire.CodeNoKey},
		{"listen with wrong token", wire.Request{Method: wire.Listen, Key: wire.Key{1}, Socket: 1}, "bad", wire.CodeUnauthorized},
		{"refresh with wrong token", wire.Request{Method: wire.Refresh, Key: wire.Key{1}, ValueID: 1}, "bad", wire.CodeUnauthorized},
		{"refresh of an unknown key", wire.Request{Method: wire.Refresh, Key: wire.Key{1}, ValueID: 1}, "good", wire.CodeNotFound},
		{"refresh of an unknown value", wire.Request{Method: wire.Refresh, Key: wire.Key{9}, ValueID: 1}, "good", wire.CodeNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p, other := r.peer("192.0.2.1:4222"), r.peer("192.0.2.1:4223")
			r.join(p)
			r.join(other)
			r.put(p, wire.Key{9}, text(7, "there"))
			switch test.tok {
			case "good":
				test.q.Token = p.token
			case "bad":
				test.q.Token = []byte("12345678")
			case "other":
				test.q.Token = other.token
			}
			a := r.only(r.ask(p, test.q))
			if a.m.Kind != wire.Error || a.m.Code != test.code || a.m.TID != r.tid || a.m.From != r.c.Self() || a.m.Text == "" {
				t.Errorf("answered %+v, want error %d", a.m, test.code)
			}
			if r.c.Info(r.now).Values != 1 || r.c.Info(r.now).Listeners != 0 {
				t.Error("something was stored")
			}
		})
	}
}

func TestPutAndGet(t *testing.T) {
	r := newRig(t, Config{})
	p, q := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(q)
	key := r.key()
	a := r.put(p, key, text(5, "hello"))
	if a.m.Kind != wire.Reply || a.m.ValueID != 5 || a.m.Refused != wire.Stored {
		t.Fatalf("put is answered %+v", a.m)
	}
	both := r.ask(p, wire.Request{Method: wire.Put, Key: key, Token: p.token, Values: []wire.Packed{text(6, "six"), text(7, "seven")}})
	if len(both) != 2 || both[0].m.ValueID != 6 || both[1].m.ValueID != 7 {
		t.Fatalf("two values are answered by %v", kinds(both))
	}
	all := r.only(r.ask(q, wire.Request{Method: wire.Get, Key: key}))
	if len(all.m.Values) != 3 || len(all.m.Token) == 0 {
		t.Fatalf("get is answered %+v", all.m)
	}
	one := r.only(r.ask(q, wire.Request{Method: wire.Get, Key: key, Query: wire.WhereID(6)}))
	if len(one.m.Values) != 1 || string(one.m.Values[0].Data) != "six" {
		t.Errorf("get by id is answered %+v", one.m)
	}
	rows := wire.Query{Select: []wire.Field{wire.FieldID, wire.FieldSeq}}
	sel := r.only(r.ask(q, wire.Request{Method: wire.Get, Key: key, Query: rows}))
	if len(sel.m.Rows) != 3 || len(sel.m.Values) != 0 {
		t.Errorf("select is answered %+v", sel.m)
	}
	none := r.only(r.ask(q, wire.Request{Method: wire.Get, Key: r.key()}))
	if none.m.Kind != wire.Reply || len(none.m.Values) != 0 || len(none.m.Token) == 0 {
		t.Errorf("get of nothing is answered %+v", none.m)
	}
	// A second value with that id is refused, in a positive reply.
	again := r.put(q, key, text(5, "mine"))
	if again.m.Kind != wire.Reply || again.m.ValueID != 5 || again.m.Refused != wire.Conflict {
		t.Errorf("an edit is answered %+v", again.m)
	}
	r.pass(defaultLife + 20*time.Second)
	r.join(q)
	gone := r.only(r.ask(q, wire.Request{Method: wire.Get, Key: key}))
	if len(gone.m.Values) != 0 || r.c.Info(r.now).Keys != 0 {
		t.Error("values do not expire")
	}
}

func TestPutCreated(t *testing.T) {
	tests := []struct {
		name    string
		age     time.Duration
		refused wire.Refusal
		life    time.Duration
	}{
		{"new", 0, wire.Stored, defaultLife},
		{"six minutes old", 6 * time.Minute, wire.Stored, 4 * time.Minute},
		{"dead on arrival", defaultLife, wire.BadValue, 0},
		{"from the future", -time.Hour, wire.Stored, defaultLife},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			q := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: []wire.Packed{text(1, "x")}, Created: r.now.Add(-test.age).Unix()}
			if a := r.only(r.ask(p, q)); a.m.Refused != test.refused {
				t.Fatalf("refused: %v", a.m.Refused)
			}
			if test.refused != wire.Stored {
				return
			}
			if got := r.c.store.shelves[q.Key].values[0].expires.Sub(r.now); got != test.life {
				t.Errorf("lives for %v, want %v", got, test.life)
			}
		})
	}
}

// A copy that is handed on from node to node must not live longer for it.
func TestRenewal(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	made := r.now
	key := r.key()
	r.put(p, key, text(1, "x"))
	life := func() time.Duration { return r.c.store.shelves[key].values[0].expires.Sub(made) }
	r.now = r.now.Add(5 * time.Minute)
	q := wire.Request{Method: wire.Put, Key: key, Token: p.token, Values: []wire.Packed{text(1, "x")}, Created: made.Unix()}
	if a := r.only(r.ask(p, q)); a.m.Refused != wire.Stored || life() != defaultLife {
		t.Errorf("handed on, it lives for %v", life())
	}
	q.Created = 0
	if a := r.only(r.ask(p, q)); a.m.Refused != wire.Stored || life() != defaultLife+5*time.Minute {
		t.Errorf("put again, it lives for %v", life())
	}
	r.now = r.now.Add(time.Minute)
	ref := wire.Request{Method: wire.Refresh, Key: key, Token: p.token, ValueID: 1}
	if a := r.only(r.ask(p, ref)); a.m.Kind != wire.Reply || a.m.ValueID != 1 || life() != defaultLife+6*time.Minute {
		t.Errorf("refreshed, it lives for %v", life())
	}
}

func TestIgnored(t *testing.T) {
	good := netip.MustParseAddrPort("192.0.2.1:4222")
	tests := []struct {
		name   string
		from   netip.AddrPort
		env    func(*wire.Envelope, *Core)
		reason Reason
	}{
		{"other network", good, func(e *wire.Envelope, _ *Core) { e.Network = 7 }, OtherNetwork},
		{"no network", good, func(e *wire.Envelope, _ *Core) { e.Network = 0 }, OtherNetwork},
		{"own id", good, func(e *wire.Envelope, c *Core) { e.Self = c.Self() }, OwnID},
		{"port 0", netip.MustParseAddrPort("192.0.2.1:0"), nil, Martian},
		{"multicast", netip.MustParseAddrPort("224.0.0.1:1"), nil, Martian},
		{"broadcast", netip.MustParseAddrPort("255.255.255.255:1"), nil, Martian},
		{"zero net", netip.MustParseAddrPort("0.0.0.1:1"), nil, Martian},
		{"IPv6 multicast", netip.MustParseAddrPort("[ff02::1]:1"), nil, Martian},
		{"mapped", netip.MustParseAddrPort("[::ffff:192.0.2.1]:1"), nil, Martian},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{Network: 42})
			env := wire.Envelope{Self: r.id(), Network: 42}
			if test.env != nil {
				test.env(&env, r.c)
			}
			for _, m := range []wire.Method{wire.Ping, wire.Find, wire.Get, wire.Put, wire.Listen} {
				b := env.AppendRequest(nil, 1, &wire.Request{Method: m, Key: wire.Key{1}})
				if out := r.receive(test.from, b); len(out) > 0 {
					t.Errorf("%s is answered by %v", m, kinds(out))
				}
			}
			if n := r.c.Stats().Ignored[test.reason]; n != 5 {
				t.Errorf("%d packets count as %s", n, test.reason)
			}
		})
	}
	t.Run("family that we do not have", func(t *testing.T) {
		r := newRig(t, Config{Families: wire.IPv4})
		if out := r.ask(r.peer("[2001:db8::1]:1"), wire.Request{Method: wire.Ping}); len(out) > 0 {
			t.Error("it is answered")
		}
	})
}

func TestUnsolicited(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	boot := r.only(r.do(func(now time.Time, out *Outbox) { r.c.Bootstrap(now, []netip.AddrPort{p.addr}, out) }))
	other := r.peer("192.0.2.2:4222")
	lie := wire.AppendNode(nil, r.id(), netip.MustParseAddrPort("198.51.100.9:1"))
	tests := []struct {
		name string
		from netip.AddrPort
		b    []byte
	}{
		{"reply from elsewhere", other.addr, p.env.AppendReply(nil, boot.m.TID, &wire.Answer{Nodes4: lie})},
		{"reply from another port", netip.AddrPortFrom(p.addr.Addr(), 1), p.env.AppendReply(nil, boot.m.TID, &wire.Answer{Nodes4: lie})},
		{"reply to nothing", p.addr, p.env.AppendReply(nil, boot.m.TID+1, &wire.Answer{Nodes4: lie})},
		{"error to nothing", p.addr, p.env.AppendError(nil, boot.m.TID+1, 401, "")},
		{"notice of nothing", p.addr, p.env.AppendNotice(nil, boot.m.TID, []byte("t"), []wire.ValueID{1}, nil)},
	}
	for i, test := range tests {
		if out := r.receive(test.from, test.b); len(out) > 0 {
			t.Errorf("%s: the core sends %v", test.name, kinds(out))
		}
		if n := r.c.Stats().Ignored[Unexpected]; n != uint64(i+1) {
			t.Errorf("%s is not unexpected", test.name)
		}
	}
	if r.c.Info(r.now).V4.Known != 0 {
		t.Error("a liar is known")
	}
	r.reply(p, boot, wire.Answer{})
	if r.c.Info(r.now).V4.Good != 1 {
		t.Error("the true reply does not count")
	}
	// A known node's answer must come from its id.
	r.pass(10 * time.Minute)
	var asked *packet
	for _, a := range r.all {
		if a.m.Kind == wire.Ask && a.to == p.addr && a.when.After(epoch) {
			asked = &a
		}
	}
	if asked == nil {
		t.Fatal("a silent neighbour is not asked")
	}
}

// Attack A7: a flood does not keep others from being answered.
func TestRequestRates(t *testing.T) {
	r := newRig(t, Config{})
	flood := func(addr string, n int) (answered int) {
		p := r.peer(addr)
		for range n {
			answered += len(of(r.ask(p, wire.Request{Method: wire.Ping}), wire.Reply, 0))
		}
		return answered
	}
	if n := flood("192.0.2.1:4222", 5000); n < 1024 || n > 1024+quietRate {
		t.Errorf("one address is answered %d times a second", n)
	}
	if n := flood("192.0.2.1:4223", 100); n > 0 {
		t.Errorf("another port of it is answered %d times", n)
	}
	if n := flood("[2001:db8::1]:4222", 5000) + flood("[2001:db8::2]:4222", 100); n > 1024+quietRate {
		t.Errorf("one /64 is answered %d times", n)
	}
	for i := range 20 {
		flood(address(i).String(), 2000)
	}
	r.c.proven.set(r.now, netip.MustParseAddrPort("203.0.113.5:4222"), struct{}{})
	if n := flood("203.0.113.5:4222", quietRate); n != quietRate {
		t.Errorf("%d of %d requests of somebody quiet are answered in a flood", n, quietRate)
	}
	if r.c.Stats().Ignored[RateLimited] == 0 {
		t.Error("nothing is counted as rate-limited")
	}
	r.pass(time.Second)
	if n := flood("192.0.2.1:4222", 5000); n < 1024 {
		t.Errorf("a second later only %d are answered", n)
	}
	checkInvariants(t, r.c)
}

// Attack A7: while strangers with forged addresses flood a node, a new node that
// is real gets through.
func TestForgedFlood(t *testing.T) {
	r := newRig(t, Config{})
	for i := range 12 {
		r.join(&peer{addr: address(i), env: wire.Envelope{Self: r.id()}})
	}
	n := 0
	flood := func(d time.Duration) {
		for range int(d / (200 * time.Microsecond)) { // 5000 a second
			n++
			r.now = r.now.Add(200 * time.Microsecond)
			r.ask(&peer{addr: address(1000 + n), env: wire.Envelope{Self: r.id()}}, wire.Request{Method: wire.Get, Key: wire.Key{1}})
			r.pass(0)
		}
	}
	flood(2 * time.Second)
	p := r.peer("203.0.113.5:4222")
	ping := of(r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}}), wire.Ask, wire.Ping)
	if len(ping) != 1 {
		t.Fatal("the honest node is not challenged")
	}
	flood(150 * time.Millisecond) // its round trip
	if got := of(r.reply(p, ping[0], wire.Answer{}), wire.Reply, 0); len(got) != 1 || len(got[0].m.Nodes4) == 0 {
		t.Error("the honest node is not answered")
	}
	checkInvariants(t, r.c)
}

// Attack A10: until an address has proven itself it is sent no more bytes than came
// from it.
func TestAmplification(t *testing.T) {
	big := wire.Pack(&wire.Value{ID: 1, Data: bytes.Repeat([]byte("x"), 60_000)})
	setups := map[string]func(*rig, *peer){
		"nothing known": func(*rig, *peer) {},
		"nodes known": func(r *rig, _ *peer) {
			for i := range 30 {
				r.join(&peer{addr: address(i), env: wire.Envelope{Self: r.id()}})
			}
		},
		"large value": func(r *rig, _ *peer) {
			p := &peer{addr: address(1), env: wire.Envelope{Self: r.id()}}
			r.join(p)
			r.put(p, wire.Key{1}, big)
		},
		"table full": func(r *rig, v *peer) { // of the victim's block, so that it is not wanted
			for i := range 100 {
				p := &peer{addr: netip.AddrPortFrom(v.addr.Addr().Next(), uint16(1000+i)), env: wire.Envelope{Self: r.id()}}
				r.join(p)
			}
		},
	}
	cut := func(b []byte, pairs ...string) []byte { // leaves optional pairs out of the envelope
		for _, p := range pairs {
			if i := bytes.LastIndex(b, []byte(p)); i >= 0 {
				b = append(b[:i:i], b[i+len(p):]...)
				b[0]--
			}
		}
		return b
	}
	for name, setup := range setups {
		for _, victim := range []string{"192.0.2.1:4222", "[2001:db8::1]:4222"} {
			t.Run(name+" "+victim[:3], func(t *testing.T) {
				r := newRig(t, Config{})
				v := r.peer(victim)
				setup(r, v)
				alone := [...]wire.Request{
					{Method: wire.Ping},
					{Method: wire.Find, Key: wire.Key{1}},
					{Method: wire.Find, Key: wire.Key{1}, Want: wire.IPv4 | wire.IPv6},
					{Method: wire.Get, Key: wire.Key{1}},
					{Method: wire.Get},
					{Method: wire.Get, Key: wire.Key{1}, Query: wire.WhereID(1)},
					{Method: wire.Get, Key: wire.Key{1}, Query: wire.Query{Select: []wire.Field{wire.FieldID}}},
					{Method: wire.Put, Key: wire.Key{1}, Values: []wire.Packed{text(1, "x")}},
					{Method: wire.Put},
					{Method: wire.Listen, Key: wire.Key{1}},
					{Method: wire.Listen},
					{Method: wire.Refresh, Key: wire.Key{1}},
					{Method: wire.Update, Key: wire.Key{1}, Socket: 1},
					{Method: wire.Update, Socket: 1, Expired: []wire.ValueID{1}},
				}
				send := func(r *rig, v *peer, q wire.Request, tid uint32, wait time.Duration) {
					t.Helper()
					b := cut(v.env.AppendRequest(nil, tid, &q), "\xa1y\xa1q", "\xa1v\xa3KT1")
					v.env.Self = r.id()
					r.receive(v.addr, b)
					r.pass(wait)
					if r.sent[v.addr] > r.got[v.addr] {
						t.Fatalf("%s %s: %d bytes sent for %d", q.Method, q.Key, r.sent[v.addr], r.got[v.addr])
					}
				}
				for _, q := range alone {
					r := newRig(t, Config{})
					v := r.peer(victim)
					setup(r, v)
					send(r, v, q, 1, 5*time.Second)
				}
				for round := range 2 {
					for _, q := range alone {
						send(r, v, q, 1, time.Duration(round)*3*time.Second)
						send(r, v, q, 1<<31, 10*time.Millisecond)
					}
				}
				// Nor do answers and parts that nobody asked for bring anything.
				before := r.sent[v.addr]
				r.receive(v.addr, v.env.AppendReply(nil, 9, &wire.Answer{Token: []byte("12345678")}))
				r.receive(v.addr, v.env.AppendError(nil, 9, 401, "no"))
				r.receive(v.addr, v.env.AppendPiece(nil, 9, 0, 0, big.Bytes))
				r.pass(10 * time.Second)
				if r.sent[v.addr] > max(before, r.got[v.addr]) {
					t.Errorf("%d bytes sent for %d", r.sent[v.addr], r.got[v.addr])
				}
				checkInvariants(t, r.c)
			})
		}
	}
}

// Once a stranger answers the challenge, what it asked is answered.
func TestChallenge(t *testing.T) {
	r := newRig(t, Config{})
	q := r.peer("198.51.100.1:4222")
	r.join(q)
	r.put(q, wire.Key{1}, wire.Pack(&wire.Value{ID: 3, Data: bytes.Repeat([]byte("x"), 3000)}))
	p := r.peer("192.0.2.1:4222")
	ping := r.only(r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}}))
	asked := r.tid
	if ping.m.Kind != wire.Ask || ping.m.Method != wire.Ping {
		t.Fatalf("a stranger is sent %v", kinds([]packet{ping}))
	}
	if out := r.ask(p, wire.Request{Method: wire.Find, Key: wire.Key{2}}); len(out) > 0 {
		t.Fatalf("it is sent %v before it answered", kinds(out))
	}
	for range heldPerStranger + 4 {
		r.ask(p, wire.Request{Method: wire.Find, Key: wire.Key{2}})
	}
	r.now = r.now.Add(900 * time.Millisecond) // a slow link
	r.pass(0)
	out := r.reply(p, ping, wire.Answer{})
	replies, parts := of(out, wire.Reply, 0), of(out, wire.Parts, 0)
	if len(replies) != heldPerStranger || len(parts) != 3 || replies[0].m.TID != asked || len(replies[0].m.Sizes) != 1 {
		t.Fatalf("after the pong it is sent %s", strings.Join(kinds(out), " "))
	}
	if len(replies[1].m.Token) == 0 || len(replies[1].m.Nodes4) == 0 {
		t.Error("the held find is not answered")
	}
	if r.c.Info(r.now).V4.Known != 2 {
		t.Error("it is not known after that")
	}
	// Who is silent is forgotten.
	s := r.peer("192.0.2.9:4222")
	first := r.only(r.ask(s, wire.Request{Method: wire.Get, Key: wire.Key{1}}))
	if out := of(r.pass(10*time.Second), wire.Ask, wire.Ping); len(out) > 0 && out[0].to == s.addr {
		t.Error("a silent stranger is challenged again")
	}
	if out := r.reply(s, first, wire.Answer{}); len(out) > 0 {
		t.Errorf("a late pong brings %v", kinds(out))
	}
	checkInvariants(t, r.c)
}

// A value that ended does not forbid another one, even before it is swept.
func TestPutOverExpired(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	r.put(p, wire.Key{1}, text(1, "old"))
	r.now = r.now.Add(defaultLife + time.Millisecond)
	if a := r.put(p, wire.Key{1}, text(1, "new")); a.m.Refused != wire.Stored {
		t.Errorf("refused: %v", a.m.Refused)
	}
}

// Selected fields travel in one packet, however many values there are.
func TestRowsBounded(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	for i := range 50 {
		v := &wire.Value{ID: wire.ValueID(i + 1), UserType: strings.Repeat("x", 2000)}
		r.c.keep(wire.Key{1}, v, r.now, p.addr, func() bool { return true })
	}
	q := wire.Query{Select: []wire.Field{wire.FieldUserType}}
	a := r.only(r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}, Query: q}))
	if len(a.m.Rows) == 0 || len(a.b) > maxRowBytes+1024 {
		t.Errorf("%d rows in %d bytes", len(a.m.Rows), len(a.b))
	}
}

func TestPutTooMany(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	q := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token}
	for i := range maxPutSizes + 1 {
		q.Values = append(q.Values, text(wire.ValueID(i+1), "x"))
	}
	if a := r.only(r.ask(p, q)); a.m.Kind != wire.Error {
		t.Errorf("answered by %v", kinds([]packet{a}))
	}
}
