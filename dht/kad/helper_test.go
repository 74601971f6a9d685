package kad

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A rig drives one core with packets made by hand.
type rig struct {
	t    testing.TB
	c    *Core
	now  time.Time
	out  Outbox
	rand *rand.Rand
	tid  uint32
	got  map[netip.AddrPort]int // bytes that the core was sent by an address
	sent map[netip.AddrPort]int // bytes that the core sent to it
	all  []packet               // everything the core sent
}

// A packet is one that the core sent.
type packet struct {
	to   netip.AddrPort
	b    []byte
	m    *wire.Message
	when time.Time
}

// A peer is a node that the test plays.
type peer struct {
	addr  netip.AddrPort
	env   wire.Envelope
	token []byte
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t, now: epoch, rand: rand.New(rand.NewPCG(1, 2)), got: map[netip.AddrPort]int{}, sent: map[netip.AddrPort]int{}}
	if cfg.Self.IsZero() {
		cfg.Self = r.id()
	}
	cfg.Rand = rand.New(rand.NewPCG(3, 4))
	r.c = New(cfg, r.now)
	return r
}

func (r *rig) id() (id wire.NodeID) {
	for i := range id {
		id[i] = byte(r.rand.Uint32())
	}
	return id
}

func (r *rig) key() wire.Key { return wire.Key(r.id()) }

func (r *rig) peer(addr string) *peer {
	return &peer{addr: netip.MustParseAddrPort(addr), env: wire.Envelope{Self: r.id(), Network: r.c.cfg.Network}}
}

// flush takes what the core sent.
func (r *rig) flush() []packet {
	r.t.Helper()
	var list []packet
	for i := range r.out.Len() {
		to, b := r.out.Packet(i)
		p := packet{to: to, b: append([]byte(nil), b...), m: new(wire.Message), when: r.now}
		if err := p.m.Parse(p.b); err != nil {
			r.t.Fatalf("the core sent %x: %v", p.b, err)
		}
		r.sent[to] += len(b)
		list = append(list, p)
	}
	r.out.Reset()
	r.all = append(r.all, list...)
	return list
}

// do calls the core.
func (r *rig) do(f func(now time.Time, out *Outbox)) []packet {
	r.t.Helper()
	f(r.now, &r.out)
	return r.flush()
}

// receive lets the core receive bytes.
func (r *rig) receive(from netip.AddrPort, b []byte) []packet {
	r.t.Helper()
	var m wire.Message
	r.got[from] += len(b)
	if err := m.Parse(b); err != nil {
		return nil
	}
	return r.do(func(now time.Time, out *Outbox) {
		r.c.Receive(now, from, &m, len(b), out)
		for _, put := range out.Checks() {
			put.Message.CheckSignatures()
			r.c.Deliver(now, put, out)
		}
	})
}

// ask sends a request of p and returns what the core sends in turn.
func (r *rig) ask(p *peer, q wire.Request) []packet {
	r.t.Helper()
	r.tid++
	return r.receive(p.addr, p.env.AppendRequest(nil, r.tid, &q))
}

// askParts is [rig.ask] for values that travel in parts.
func (r *rig) askParts(p *peer, q wire.Request) []packet {
	r.t.Helper()
	list := r.ask(p, q)
	tid := r.tid
	if wire.Inline(q.Values) {
		return list
	}
	for i, v := range q.Values {
		for off := 0; off < len(v.Bytes); off += wire.PieceSize {
			list = append(list, r.receive(p.addr, p.env.AppendPiece(nil, tid, i, off, v.Bytes))...)
		}
	}
	return list
}

// reply answers a packet of the core.
func (r *rig) reply(p *peer, to packet, a wire.Answer) []packet {
	r.t.Helper()
	a.To = netip.MustParseAddr("203.0.113.77")
	return r.receive(p.addr, p.env.AppendReply(nil, to.m.TID, &a))
}

// pass lets time pass, with all ticks.
func (r *rig) pass(d time.Duration) []packet {
	r.t.Helper()
	end := r.now.Add(d)
	var list []packet
	for {
		at := r.c.Next()
		if at.After(end) {
			break
		}
		if at.After(r.now) {
			r.now = at
		}
		list = append(list, r.do(func(now time.Time, out *Outbox) { r.c.Tick(now, out) })...)
	}
	r.now = end
	return list
}

// join makes p known to the core: it asks, is challenged and answers, and keeps
// the token.
func (r *rig) join(p *peer) {
	r.t.Helper()
	for range 2 {
		for _, a := range r.ask(p, wire.Request{Method: wire.Find, Key: r.key()}) {
			list := []packet{a}
			if a.m.Kind == wire.Ask && a.m.Method == wire.Ping {
				list = r.reply(p, a, wire.Answer{})
			}
			for _, a := range list {
				if len(a.m.Token) > 0 {
					p.token = a.m.Token
				}
			}
		}
	}
	if p.token == nil {
		r.t.Fatal("the peer was given no token")
	}
}

// only returns the one packet of a list.
func (r *rig) only(list []packet) packet {
	r.t.Helper()
	if len(list) != 1 {
		r.t.Fatalf("%d packets, want 1: %+v", len(list), kinds(list))
	}
	return list[0]
}

// kinds says what packets are, for messages.
func kinds(list []packet) (text []string) {
	for _, p := range list {
		switch p.m.Kind {
		case wire.Ask:
			text = append(text, p.m.Method.String())
		case wire.Reply:
			text = append(text, "reply")
		case wire.Error:
			text = append(text, "error")
		case wire.Parts:
			text = append(text, "part")
		default:
			text = append(text, "notice")
		}
	}
	return text
}

func of(list []packet, kind wire.Kind, method wire.Method) (some []packet) {
	for _, p := range list {
		if p.m.Kind == kind && (kind != wire.Ask || p.m.Method == method) {
			some = append(some, p)
		}
	}
	return some
}

func text(id wire.ValueID, data string) wire.Packed {
	return wire.Pack(&wire.Value{ID: id, Data: []byte(data)})
}

// put stores a value from p.
func (r *rig) put(p *peer, key wire.Key, v wire.Packed) packet {
	r.t.Helper()
	q := wire.Request{Method: wire.Put, Key: key, Token: p.token, Values: []wire.Packed{v}}
	list := r.askParts(p, q)
	replies := of(list, wire.Reply, 0)
	if len(replies) != 1 {
		r.t.Fatalf("put answered by %v", kinds(list))
	}
	return replies[0]
}

// checkInvariants checks that a core is consistent and within its bounds.
func checkInvariants(t testing.TB, c *Core) {
	t.Helper()
	bound := func(what string, n, most int) {
		t.Helper()
		if n > most {
			t.Errorf("%d %s, more than %d", n, what, most)
		}
	}
	bound("requests", len(c.requests), maxRequests)
	bound("strangers", len(c.waiting.from), maxStrangers)
	bound("strangers in order", len(c.waiting.order), 2*maxStrangers+1)
	bound("partial messages", len(c.parts.open), 2*maxPartialSum/partialCost)
	bound("early parts", len(c.parts.early), maxEarly)
	bound("trains", len(c.trains), maxTrains)
	bound("listeners", len(c.watch.all), c.cfg.Limits.Listeners)
	bound("proven addresses", len(c.proven.now)+len(c.proven.old), 2*(c.proven.half+1))
	bound("banned addresses", len(c.banned.now)+len(c.banned.old), 2*(c.banned.half+1))
	bound("rates", len(c.limiter.sources.now)+len(c.limiter.sources.old), 2*(c.limiter.sources.half+1))
	checkBudgets(t, c)
	for tid, r := range c.requests {
		if p := c.parts.open[partKey{r.addr, tid}]; r.tm.pos == 0 && (p == nil || p.r != r || p.tm.pos == 0) {
			t.Errorf("nothing ends request %d", tid)
		}
		if r.tid != tid {
			t.Errorf("request %d is kept as %d", r.tid, tid)
		}
	}
	checkStorage(t, &c.store)
	listening := 0
	bySource := map[netip.Addr]int{}
	for key, sh := range c.store.shelves {
		if len(sh.values)+len(sh.listeners) == 0 {
			t.Errorf("shelf of %s is empty", key)
		}
		listening += len(sh.listeners)
		for _, l := range sh.listeners {
			if c.watch.all[l.pos] != l || l.key != key {
				t.Errorf("listener of %s is lost", key)
			}
			bySource[source(l.addr.Addr())]++
		}
	}
	if listening != len(c.watch.all) {
		t.Errorf("%d listeners on shelves, %d in all", listening, len(c.watch.all))
	}
	if len(bySource) != len(c.watch.bySource) {
		t.Errorf("%d sources of listeners, counted as %d", len(bySource), len(c.watch.bySource))
	}
	for f := range c.families {
		checkTable(t, &f.table)
		if f.bootstrap.out < 0 {
			t.Errorf("%d bootstrap pings in flight", f.bootstrap.out)
		}
	}
	for _, s := range c.searches {
		bound("candidates", len(s.nodes), maxCandidates)
		bound("width", s.width, maxWidth)
		if s.exploring < 0 {
			t.Errorf("%d scouts", s.exploring)
		}
	}
	for i, tm := range c.timers.heap {
		if tm.pos != i+1 {
			t.Errorf("timer %d thinks it is %d", i+1, tm.pos)
		}
		if i > 0 && c.timers.less(i, (i-1)/2) {
			t.Error("timers are out of order")
		}
	}
	// Each timer belongs to something that is bounded.
	most := len(c.requests) + len(c.parts.open) + len(c.searches) + len(c.store.shelves) + 16
	for range c.puts {
		most += 8
	}
	for _, ls := range c.listens {
		most += 4 * len(ls)
	}
	bound("timers", len(c.timers.heap), most)
}

// checkBudgets checks the accounts of what arrives in parts.
func checkBudgets(t testing.TB, c *Core) {
	t.Helper()
	open := 0
	for _, b := range []*budget{&c.parts.answers, &c.parts.unasked} {
		all := 0
		for addr, s := range b.sources {
			sum := 0
			for _, p := range s.open {
				if p.budget != b || c.parts.open[p.key] != p || source(p.key.from.Addr()) != addr {
					t.Errorf("a partial message of %s is lost", addr)
				}
				sum += p.bytes
				held := 0
				for _, v := range p.values {
					held += len(v.buf)
				}
				if held > p.bytes {
					t.Errorf("a partial message takes %d bytes, counted as %d", held, p.bytes)
				}
			}
			open += len(s.open)
			if sum != s.bytes || sum > b.each || len(s.open) == 0 {
				t.Errorf("%d bytes in parts of %s, counted as %d of %d", sum, addr, s.bytes, b.each)
			}
			all += sum
		}
		if all != b.bytes || all > maxPartialSum {
			t.Errorf("%d bytes in parts, counted as %d", all, b.bytes)
		}
	}
	if open != len(c.parts.open) {
		t.Errorf("%d partial messages of sources, %d in all", open, len(c.parts.open))
	}
}

// checkTable checks a routing table.
func checkTable(t testing.TB, tb *table) {
	t.Helper()
	var buckets [len(tb.bucket)]int
	networks := map[netip.Prefix]int{}
	for i, n := range tb.nodes {
		if i > 0 && tb.nodes[i-1].id.Compare(n.id) >= 0 {
			t.Error("table is out of order")
		}
		if !n.indexed {
			t.Error("a node in the table is not marked so")
		}
		b := wire.CommonBits(tb.self, n.id)
		buckets[b]++
		if p, ok := network(n.addr.Addr()); ok {
			networks[p]++
		}
	}
	for b, n := range buckets {
		if n != int(tb.bucket[b]) || n > bucketSize {
			t.Errorf("bucket %d has %d nodes, counted as %d", b, n, tb.bucket[b])
		}
		if len(tb.inBucket(b)) != n {
			t.Errorf("bucket %d is found to have %d nodes, not %d", b, len(tb.inBucket(b)), n)
		}
	}
	for p, n := range networks {
		if n != int(tb.network[p]) || n > sameNetwork {
			t.Errorf("%d nodes of %s, counted as %d", n, p, tb.network[p])
		}
	}
	if len(networks) != len(tb.network) {
		t.Errorf("%d networks, counted as %d", len(networks), len(tb.network))
	}
}

// checkStorage checks the accounts of a storage.
func checkStorage(t testing.TB, s *storage) {
	t.Helper()
	var bytes int64
	values := 0
	from := map[netip.Addr]int64{}
	block := map[netip.Prefix]int64{}
	for key, sh := range s.shelves {
		var shelf int64
		ids := map[wire.ValueID]bool{}
		for _, v := range sh.values {
			if v.key != key || ids[v.Value.ID] {
				t.Errorf("value %d is on the wrong shelf or there twice", v.Value.ID)
			}
			ids[v.Value.ID] = true
			shelf += v.cost
			values++
			if v.from.IsValid() {
				from[v.from] += v.cost
				block[blockOf(v.from)] += v.cost
			}
			if tn := s.tenants.of(v.from); v.pos >= len(tn.values) || tn.values[v.pos] != v {
				t.Errorf("value %d is lost to its tenant", v.Value.ID)
			}
		}
		if shelf != sh.bytes || shelf > maxKeyBytes || len(sh.values) > maxKeyValues {
			t.Errorf("%d values of %d bytes under a key, counted as %d", len(sh.values), shelf, sh.bytes)
		}
		bytes += shelf
	}
	if bytes != s.bytes || values != s.values || bytes > s.limit {
		t.Errorf("%d values of %d bytes, counted as %d of %d, limit %d", values, bytes, s.values, s.bytes, s.limit)
	}
	if len(from) != len(s.tenants.byFrom) || len(block) != len(s.tenants.byName) || len(block) != len(s.tenants.blocks) {
		t.Errorf("%d tenants in %d blocks, counted as %d in %d and %d", len(from), len(block), len(s.tenants.byFrom), len(s.tenants.byName), len(s.tenants.blocks))
	}
	for a, n := range from {
		if tn := s.tenants.byFrom[a]; tn == nil || tn.bytes != n {
			t.Errorf("tenant %s is counted wrong", a)
		}
	}
	for i, b := range s.tenants.blocks {
		if b.pos != i || block[b.name] != b.bytes {
			t.Errorf("block %s is counted wrong", b.name)
		}
		if b.bytes > s.tenants.blocks[0].bytes {
			t.Error("the largest block is not on top")
		}
		for j, tn := range b.tenants {
			if tn.pos != j || tn.bytes > b.tenants[0].bytes {
				t.Error("the largest tenant is not on top")
			}
			for _, v := range tn.values {
				if v.expires.Before(tn.values[0].expires) {
					t.Error("the first to expire is not on top")
				}
			}
		}
	}
}
