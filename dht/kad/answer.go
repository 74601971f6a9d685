package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// maxAnswerBytes bounds the values of one answer: what does not fit is left out,
// largest last. A query by id reaches each value.
const maxAnswerBytes = 1 << 20

// maxRowBytes bounds the selected fields of one answer, which travel in one packet.
const maxRowBytes = 32 << 10

// Values of one put, in the packet and in parts; more are refused.
const (
	maxPutValues = 64
	maxPutSizes  = 256
)

// Bounds of what is kept for strangers that have to prove their address first.
const (
	maxStrangers    = 4096
	heldPerStranger = 8
)

// waiting has the strangers that were challenged, by address and in order.
type waiting struct {
	from  map[netip.AddrPort]*stranger
	order []*stranger // oldest first; with some that are gone
}

func (w *waiting) add(s *stranger) {
	if w.from == nil {
		w.from = make(map[netip.AddrPort]*stranger)
	}
	w.from[s.from] = s
	w.order = append(w.order, s)
}

func (w *waiting) remove(s *stranger) {
	if w.from[s.from] == s {
		delete(w.from, s.from)
	}
	if len(w.order) > 2*maxStrangers || len(w.from) == 0 {
		w.order = slices.DeleteFunc(w.order, func(s *stranger) bool { return w.from[s.from] != s })
	}
}

// oldest returns who has waited longest; there must be one.
func (w *waiting) oldest() *stranger {
	for w.from[w.order[0].from] != w.order[0] {
		w.order = w.order[1:]
	}
	return w.order[0]
}

// A stranger is an address that was sent a ping. What it asked is answered once it
// answers that: until then it could be the forged address of a victim, to whom we
// would send more than was sent to us.
type stranger struct {
	c    *Core
	from netip.AddrPort
	held []question
	r    *request

	pinged time.Time // last
}

// A question is a find or get.
type question struct {
	method wire.Method
	tid    uint32
	key    wire.Key
	want   wire.Families
	query  wire.Query
}

// challenge pings an address that nothing is known of. When too many were, the one
// that has waited longest makes room: while more than that many addresses are forged
// within a round trip, newcomers have to try again, and known nodes notice nothing.
func (c *Core) challenge(f *family, from netip.AddrPort) *stranger {
	if s := c.waiting.from[from]; s != nil {
		return s
	}
	s := &stranger{c: c, from: from, pinged: c.now}
	if s.r = c.askAddr(f, from, wire.Request{Method: wire.Ping}, s); s.r == nil {
		return nil
	}
	// Not again when it is silent: that would be one more packet to a victim.
	s.r.tries = sends
	c.after(&s.r.tm, maxRTO, func() { c.timeout(s.r) })
	c.stats.Challenges++
	if len(c.waiting.from) >= maxStrangers {
		c.waiting.oldest().giveUp()
	}
	c.waiting.add(s)
	return s
}

// hold keeps a question until its sender has proven its address. A sender that asks
// again has lost our ping, or it was lost to us: it gets another, which is smaller
// than what it sent.
func (c *Core) hold(f *family, from netip.AddrPort, q question) {
	s := c.waiting.from[from]
	if s == nil {
		s = c.challenge(f, from)
	} else if c.now.Sub(s.pinged) >= minRTO {
		s.pinged = c.now
		c.send(from, c.env.AppendRequest(c.out.buf, s.r.tid, &s.r.body))
	}
	if s == nil {
		return
	}
	for _, have := range s.held {
		if have.tid == q.tid {
			return
		}
	}
	if len(s.held) < heldPerStranger {
		s.held = append(s.held, q)
	}
}

func (s *stranger) replied(r *request, _ *wire.Message) {
	s.c.waiting.remove(s)
	for _, q := range s.held {
		s.c.answer(r.f, s.from, q, 0)
	}
}

func (s *stranger) giveUp() {
	s.c.drop(s.r)
	s.c.waiting.remove(s)
}

func (s *stranger) late(*request)        {}
func (s *stranger) failed(*request, int) { s.c.waiting.remove(s) }

// handleRequest answers a request of another node.
func (c *Core) handleRequest(f *family, from netip.AddrPort, m *wire.Message, size int) {
	c.stats.Requests[m.Method]++
	n := f.table.get(m.From)
	if n != nil && n.addr == from {
		n.heard, n.kith = c.now, m.Kith
		if n.expired {
			c.ping(f, n) // it is back
		}
	}
	limit := size // of what may be sent now
	if _, proven := c.proven.get(c.now, from); proven {
		limit = 0
	}
	if m.Method >= wire.Put && m.Method <= wire.Refresh {
		if !c.checkToken(from, m, limit) {
			return
		}
		limit = 0
	}
	if n != nil && n.addr != from && c.now.Sub(n.heard) > goneAfter && !n.expired {
		c.ping(f, n) // it may have moved to where this comes from
	}
	unknown := n == nil && !m.ReadOnly && f.table.wants(c.now, m.From, from.Addr()) || n != nil && n.addr != from && n.expired
	switch m.Method {
	case wire.Ping:
		c.reply(from, m.TID, &wire.Answer{}, limit)
	case wire.Find, wire.Get:
		if m.Key.IsZero() && m.Method == wire.Get {
			c.sendError(from, m.TID, wire.CodeNoKey, "Get_values with no info_hash", limit)
			return
		}
		q := question{m.Method, m.TID, m.Key, m.Want, m.Query}
		if limit > 0 && unknown || !c.answer(f, from, q, limit) {
			c.hold(f, from, q)
			return
		}
	case wire.Put:
		c.handlePut(from, m)
	case wire.Refresh:
		c.handleRefresh(from, m)
	case wire.Listen:
		c.handleListen(from, m)
	case wire.Update:
		c.handleUpdate(f, from, m, limit)
	}
	if unknown && limit == 0 {
		c.challenge(f, from)
	}
}

// checkToken tells whether a request may change something here, which also proves
// the sender's address.
func (c *Core) checkToken(from netip.AddrPort, m *wire.Message, limit int) bool {
	switch {
	case m.Key.IsZero():
		c.sendError(from, m.TID, wire.CodeNoKey, m.Method.String()+" with no info_hash", limit)
		return false
	case !c.tokens.valid(c.now, from, m.Token):
		c.ignore(BadToken)
		c.sendError(from, m.TID, wire.CodeUnauthorized, m.Method.String()+" with incorrect token", limit)
		return false
	}
	if limit > 0 {
		c.proven.set(c.now, from, struct{}{})
	}
	return true
}

// reply answers with what fits into limit bytes; 0 means no limit.
func (c *Core) reply(to netip.AddrPort, tid uint32, a *wire.Answer, limit int) {
	a.To, a.Plain = to.Addr(), limit > 0
	if !c.sendWithin(limit, to, c.env.AppendReply(c.out.buf, tid, a)) {
		a.To = netip.Addr{}
		c.sendWithin(limit, to, c.env.AppendReply(c.out.buf, tid, a))
	}
}

// sendError answers with an error, without the text, or not at all, when that
// takes more than limit bytes; 0 means no limit.
func (c *Core) sendError(to netip.AddrPort, tid uint32, code int, text string, limit int) {
	if !c.sendWithin(limit, to, c.env.AppendError(c.out.buf, tid, code, text)) {
		c.sendWithin(limit, to, c.env.AppendError(c.out.buf, tid, code, ""))
	}
}

// sendWithin is [Core.send] unless the packet is larger than limit, and tells
// whether it was sent.
func (c *Core) sendWithin(limit int, to netip.AddrPort, buf []byte) bool {
	if limit > 0 && len(buf)-len(c.out.buf) > limit {
		return false
	}
	c.send(to, buf)
	return true
}

// answer answers a find or get, unless that takes more than limit bytes (0: no
// limit), and tells whether it did.
func (c *Core) answer(f *family, to netip.AddrPort, q question, limit int) bool {
	tok := c.tokens.issue(c.now, to)
	a := wire.Answer{To: to.Addr(), Token: tok[:], Plain: limit > 0}
	want := q.want
	if want == 0 {
		want = f.which
	}
	if want&wire.IPv4 != 0 && c.v4 != nil {
		c.nodes4 = c.appendNodes(c.nodes4[:0], c.v4, q.key)
		a.Nodes4 = c.nodes4
	}
	if want&wire.IPv6 != 0 && c.v6 != nil {
		c.nodes6 = c.appendNodes(c.nodes6[:0], c.v6, q.key)
		a.Nodes6 = c.nodes6
	}
	if q.method == wire.Get {
		a.Values = c.matching(q.key, q.query)
		a.Rows = q.query.Select
	}
	inline := len(a.Rows) > 0 || wire.Inline(a.Values)
	if limit > 0 && !inline {
		return false
	}
	if !c.sendWithin(limit, to, c.env.AppendReply(c.out.buf, q.tid, &a)) {
		return false
	}
	if !inline {
		c.sendParts(to, q.tid, a.Values)
	}
	return true
}

func (c *Core) appendNodes(b []byte, f *family, key wire.Key) []byte {
	c.nearest = f.table.closest(c.nearest[:0], key, k, func(n *node) bool { return n.good(c.now) })
	for _, n := range c.nearest {
		b = wire.AppendNode(b, n.id, n.addr)
	}
	return b
}

// matching returns the stored values that pass a query's filters.
func (c *Core) matching(key wire.Key, q wire.Query) []wire.Packed {
	sh := c.store.shelves[key]
	if sh == nil {
		return nil
	}
	var list []wire.Packed
	bytes := 0
	for _, s := range sh.values {
		if !s.expires.After(c.now) || !q.MatchesOwned(s.Value, s.owner) {
			continue
		}
		if len(q.Select) == 0 {
			if bytes += len(s.Bytes); bytes > maxAnswerBytes {
				bytes -= len(s.Bytes)
				continue
			}
		} else if bytes += wire.RowSize(q.Select, s.Value); bytes > maxRowBytes {
			break
		}
		list = append(list, s.Packed)
	}
	return list
}

func (c *Core) handlePut(from netip.AddrPort, m *wire.Message) {
	if len(m.Values) > maxPutValues || len(m.Sizes) > maxPutSizes {
		c.sendError(from, m.TID, wire.CodeNoKey, "Put with too many values", 0)
		return
	}
	if len(m.Sizes) > 0 {
		c.awaitParts(from, m, nil)
		return
	}
	c.takePut(from, m)
}

// creation returns when a value was made, which nobody can claim to be later than
// now.
func (c *Core) creation(unix int64) time.Time {
	if t := time.Unix(unix, 0); unix > 0 && t.Before(c.now) {
		return t
	}
	return c.now
}

// keep stores a value that was sent by from, or that is our own when from is the
// zero address, and tells those who listen.
func (c *Core) keep(key wire.Key, v *wire.Value, created time.Time, from netip.AddrPort, signatureOK func() bool) wire.Refusal {
	no := c.judgeAndKeep(key, v, created, from, signatureOK)
	c.stats.Refused[no]++
	return no
}

func (c *Core) judgeAndKeep(key wire.Key, v *wire.Value, created time.Time, from netip.AddrPort, signatureOK func() bool) wire.Refusal {
	expires := created.Add(Life(v.Type))
	if !expires.After(c.now) || v.Size() > wire.MaxValueSize {
		return wire.BadValue
	}
	var src netip.Addr
	if from.IsValid() {
		src = source(from.Addr())
	}
	sh := c.store.shelves[key]
	var old *stored
	if sh != nil {
		old = sh.get(v.ID)
	}
	if old != nil && !old.expires.After(c.now) {
		c.store.remove(old) // not swept yet: it forbids nothing
		old = nil
	}
	switch {
	case old != nil && old.Value.SameContent(v):
		if c.store.renew(old, created) {
			c.pushNotice(sh, old, false)
		}
		return wire.Stored
	case old != nil && !replaces(old.Value, v, signatureOK):
		return wire.Conflict
	case old == nil:
		var ok bool
		if v, ok = admit(key, v, from, signatureOK); !ok {
			return wire.BadValue
		}
	}
	s := &stored{Packed: detach(v), created: created, expires: expires, from: src}
	if old != nil {
		if !c.store.replace(c.now, old, s) {
			return wire.OverQuota
		}
	} else if !c.store.put(c.now, key, s) {
		return wire.OverQuota
	}
	sh = c.store.shelves[key]
	c.assumeReplicas(key, sh)
	c.pushValue(key, sh, s)
	return wire.Stored
}

// detach packs a value and parses it again, so that it takes one piece of memory
// and aliases no packet.
func detach(v *wire.Value) wire.Packed {
	b := v.Append(make([]byte, 0, v.Size()+len(v.Owner)+64))
	if p, err := wire.ParseValue(b); err == nil {
		return wire.Packed{Value: p, Bytes: b}
	}
	return wire.Packed{Value: v.Clone(), Bytes: b}
}

func (c *Core) handleRefresh(from netip.AddrPort, m *wire.Message) {
	sh := c.store.shelves[m.Key]
	var s *stored
	if sh != nil {
		s = sh.get(m.ValueID)
	}
	if s == nil || !s.expires.After(c.now) {
		// OpenDHT says yes when it knows the key but not the value; no makes every
		// version send the value again.
		c.sendError(from, m.TID, wire.CodeNotFound, "Access operation for unknown storage", 0)
		return
	}
	if c.store.renew(s, c.now) {
		c.pushNotice(sh, s, false)
	}
	c.reply(from, m.TID, &wire.Answer{ValueID: m.ValueID}, 0)
}
