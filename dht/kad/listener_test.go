package kad

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// listen lets p listen and answers what is pushed; it returns all the core sent.
func (r *rig) listen(p *peer, key wire.Key, socket uint32, q wire.Query) []packet {
	r.t.Helper()
	return r.ask(p, wire.Request{Method: wire.Listen, Key: key, Token: p.token, Socket: socket, Query: q})
}

func TestListenServed(t *testing.T) {
	r := newRig(t, Config{})
	p, w := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(w)
	key := r.key()
	r.put(w, key, text(1, "before"))
	out := r.listen(p, key, 99, wire.Query{})
	if got := kinds(out); !slices.Equal(got, []string{"update", "reply"}) {
		t.Fatalf("listen is answered by %v: what is there comes first", got)
	}
	up := out[0].m
	if up.Socket != 99 || up.Key != key || up.Version != 1 || len(up.Token) == 0 || len(up.Values) != 1 || out[0].to != p.addr {
		t.Errorf("update is %+v", up)
	}
	if len(out[1].m.Token) == 0 || out[1].m.TID != r.tid {
		t.Errorf("reply is %+v", out[1].m)
	}
	r.reply(p, out[0], wire.Answer{})
	if out := r.listen(p, key, 99, wire.Query{}); len(out) != 1 {
		t.Errorf("a renewal is answered by %v", kinds(out))
	}
	pushed := func(what string, list []packet) *wire.Message {
		t.Helper()
		list = of(list, wire.Ask, wire.Update)
		if len(list) != 1 {
			t.Fatalf("%s: %d updates", what, len(list))
		}
		r.reply(p, list[0], wire.Answer{})
		return list[0].m
	}
	q := wire.Request{Method: wire.Put, Key: key, Token: w.token, Values: []wire.Packed{text(2, "new")}}
	if m := pushed("new value", r.ask(w, q)); len(m.Values) != 1 || m.Values[0].ID != 2 || m.Socket != 99 {
		t.Errorf("new value: %+v", m)
	}
	r.pass(maxUntold)
	if m := pushed("put again", r.ask(w, q)); len(m.Values) != 0 || !slices.Equal(m.Renewed, []wire.ValueID{2}) {
		t.Errorf("put again: %+v", m)
	}
	r.pass(maxUntold)
	if m := pushed("refresh", r.ask(w, wire.Request{Method: wire.Refresh, Key: key, Token: w.token, ValueID: 2})); !slices.Equal(m.Renewed, []wire.ValueID{2}) {
		t.Errorf("refresh: %+v", m)
	}
	q.Values[0] = wire.Pack(signed(t, 0, 3, wire.TypeUserData, 1, "v1"))
	pushed("signed", r.askParts(w, q))
	q.Values[0] = wire.Pack(signed(t, 0, 3, wire.TypeUserData, 2, "v2"))
	if m := pushed("edit", r.askParts(w, q)); len(m.Sizes) != 1 {
		t.Errorf("edit: %+v", m)
	}
	expired := of(r.pass(9*time.Minute+35*time.Second), wire.Ask, wire.Update)
	if len(expired) > 0 {
		t.Errorf("%d updates before anything ends", len(expired))
	}
	r.listen(p, key, 99, wire.Query{})
	var ids []wire.ValueID
	for _, a := range of(r.pass(60*time.Second), wire.Ask, wire.Update) {
		ids = append(ids, a.m.Expired...)
	}
	slices.Sort(ids)
	if ids = slices.Compact(ids); !slices.Equal(ids, []wire.ValueID{1, 2, 3}) {
		t.Errorf("told to have expired: %v", ids)
	}
}

func TestListenFilter(t *testing.T) {
	r := newRig(t, Config{})
	p, w := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(w)
	r.listen(p, wire.Key{1}, 9, wire.WhereID(2))
	for id := range wire.ValueID(3) {
		out := r.ask(w, wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: w.token, Values: []wire.Packed{text(id+1, "x")}})
		if n := len(of(out, wire.Ask, wire.Update)); n != map[bool]int{true: 1}[id+1 == 2] {
			t.Errorf("value %d: %d updates", id+1, n)
		}
	}
}

// An update that is not answered is sent again, and the listener forgotten sooner.
func TestListenerSilent(t *testing.T) {
	r := newRig(t, Config{})
	p, w := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(w)
	r.listen(p, wire.Key{1}, 9, wire.Query{})
	sent := of(r.ask(w, wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: w.token, Values: []wire.Packed{text(1, "x")}}), wire.Ask, wire.Update)
	for _, a := range of(r.pass(10*time.Second), wire.Ask, wire.Update) {
		if a.to == p.addr && a.m.TID == sent[0].m.TID && slices.Equal(a.b, sent[0].b) {
			sent = append(sent, a)
		}
	}
	if len(sent) != sends {
		t.Errorf("the update is sent %d times, want %d", len(sent), sends)
	}
	if r.c.Info(r.now).Listeners != 1 {
		t.Error("it is forgotten at once")
	}
	r.pass(listenLife/2 + time.Minute)
	if r.c.Info(r.now).Listeners != 0 {
		t.Error("it is kept")
	}
}

func TestListenLegacy(t *testing.T) {
	r := newRig(t, Config{})
	p, w := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(w)
	// A listen without "ve" is what peers before version 1 send.
	b := p.env.AppendRequest(nil, 5, &wire.Request{Method: wire.Listen, Key: wire.Key{1}, Token: p.token, Socket: 77})
	i := slices.Index(b, 0xa2)
	for string(b[i:i+4]) != "\xa2ve\x01" {
		i++
	}
	b[i+3] = 0
	r.receive(p.addr, b)
	put := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: w.token, Values: []wire.Packed{text(1, "x")}}
	var to []packet
	for _, a := range r.ask(w, put) {
		if a.to == p.addr {
			to = append(to, a)
		}
	}
	if len(to) != 1 || to[0].m.Kind != wire.Reply || to[0].m.TID != 77 || len(to[0].m.Values) != 1 {
		t.Errorf("a value is pushed as %v", kinds(to))
	}
	r.pass(maxUntold)
	if out := of(r.ask(w, put), wire.Notice, 0); len(out) != 1 || out[0].m.TID != 77 || !slices.Equal(out[0].m.Renewed, []wire.ValueID{1}) {
		t.Error("a refresh is not noticed")
	}
	out := of(r.pass(defaultLife), wire.Notice, 0)
	if len(out) > 0 {
		t.Error("the listener should be forgotten before the value ends")
	}
}

// Attack A11: listens are bounded, and who has many makes room for who has few.
func TestListenExhaustion(t *testing.T) {
	limit, many := 20_000, 120_000
	if raceEnabled {
		limit, many = 4_000, 24_000
	}
	r := newRig(t, Config{Limits: Limits{Listeners: limit, Requests: -1}})
	honest := make([]*peer, 50)
	for i := range honest {
		honest[i] = &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
		tok := r.c.tokens.issue(r.now, honest[i].addr)
		honest[i].token = tok[:]
		r.listen(honest[i], wire.Key{byte(i + 1)}, 1, wire.Query{})
	}
	bad := r.peer("203.0.113.1:4222")
	for i := range many {
		p := &peer{addr: netip.AddrPortFrom(bad.addr.Addr(), uint16(1+i%60_000)), env: bad.env}
		tok := r.c.tokens.issue(r.now, p.addr)
		p.token = tok[:]
		r.listen(p, r.key(), uint32(i), wire.Query{})
	}
	if n := r.c.Info(r.now).Listeners; n != limit {
		t.Errorf("%d listeners are kept, want %d", n, limit)
	}
	left := 0
	for i := range honest {
		if sh := r.c.store.shelves[wire.Key{byte(i + 1)}]; sh != nil && len(sh.listeners) == 1 {
			left++
		}
	}
	if left != len(honest) {
		t.Errorf("%d of %d honest listeners are left", left, len(honest))
	}
	checkInvariants(t, r.c)
	r.pass(listenLife + time.Minute)
	if n := r.c.Info(r.now); n.Listeners != 0 || n.Keys != 0 {
		t.Errorf("%d listeners of %d keys do not end", n.Listeners, n.Keys)
	}
}

// One key alone has a bound of its own.
func TestKeyListeners(t *testing.T) {
	r := newRig(t, Config{})
	key := wire.Key{1}
	sh := r.c.store.shelf(key)
	for i := range maxKeyListeners {
		l := &listener{key: key, addr: address(i), socket: 1, until: r.now.Add(listenLife)}
		sh.listeners = append(sh.listeners, l)
		r.c.watch.add(l)
	}
	for i := range 20 {
		p := &peer{addr: address(maxKeyListeners + i), env: wire.Envelope{Self: r.id()}}
		r.join(p)
		if out := of(r.listen(p, key, 1, wire.Query{}), wire.Reply, 0); len(out) != 1 {
			t.Fatal("a newcomer is not served")
		}
	}
	if n := len(sh.listeners); n != maxKeyListeners {
		t.Errorf("%d listeners of one key, want %d", n, maxKeyListeners)
	}
	checkInvariants(t, r.c)
}

// Listeners are not told of every refresh, only when the end moves noticeably.
func TestNoticeRate(t *testing.T) {
	r := newRig(t, Config{})
	p, w := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	r.join(w)
	r.put(w, wire.Key{1}, text(1, "x"))
	r.listen(p, wire.Key{1}, 9, wire.Query{})
	n := 0
	for range 20 {
		r.now = r.now.Add(time.Second)
		out := r.ask(w, wire.Request{Method: wire.Refresh, Key: wire.Key{1}, Token: w.token, ValueID: 1})
		n += len(of(out, wire.Ask, wire.Update))
	}
	if n != 2 {
		t.Errorf("%d notices in 20 s, want 2", n)
	}
}

// A listener that renews with another version is served in that one.
func TestListenerVersion(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	m := wire.Message{Kind: wire.Ask, Method: wire.Listen, Key: wire.Key{1}, Socket: 9}
	for _, version := range []int{0, 1, 0} {
		m.Version = version
		r.do(func(now time.Time, out *Outbox) {
			r.c.enter(now, out)
			r.c.handleListen(p.addr, &m)
		})
		if got := r.c.store.shelves[m.Key].listeners[0].legacy; got != (version == 0) {
			t.Errorf("version %d: legacy is %v", version, got)
		}
	}
}
