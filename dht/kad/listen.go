package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

const (
	listenNodes = 4                 // that are asked to push
	renewEvery  = 270 * time.Second // they forget us after ten minutes
	expirySlack = 30 * time.Second  // past a value's end, before we believe it without being told
)

// A Listen is a request to be told of the values under a key.
type Listen struct {
	c      *Core
	key    wire.Key
	query  wire.Query
	event  func(v *wire.Value, expired bool)
	values map[wire.ValueID][]*heard
	count  int
	bytes  int
	expiry timer
	tasks  []*listenTask
	ended  bool
}

// A heard value is one that a listen was told of.
type heard struct {
	v       *wire.Value
	expires time.Time
	at      []*socket // who has it
	local   bool      // we have it
}

// Listen calls event for each value under key that matches q, those that are there
// and those to come, and again with expired when one is gone, until
// [Core.CancelListen]. The rules for event are those of [Core.Get].
func (c *Core) Listen(now time.Time, key wire.Key, q wire.Query, event func(v *wire.Value, expired bool), out *Outbox) *Listen {
	c.enter(now, out)
	l := &Listen{c: c, key: key, query: q, event: event, values: make(map[wire.ValueID][]*heard)}
	l.query.Select = nil
	if c.listens == nil {
		c.listens = make(map[wire.Key][]*Listen)
	}
	c.listens[key] = append(c.listens[key], l)
	for _, p := range c.matching(key, l.query) {
		l.hear(nil, p.Value)
	}
	c.each(func(f *family) {
		t := &listenTask{l: l, at: make(map[*candidate]*socket)}
		l.tasks = append(l.tasks, t)
		t.s = c.search(f, key)
		t.s.run(t)
		t.next()
	})
	c.out = nil
	return l
}

// CancelListen ends a listen. There is no message for it: who pushes to us is told
// by our not renewing.
func (c *Core) CancelListen(now time.Time, l *Listen, out *Outbox) {
	c.enter(now, out)
	if !l.ended {
		l.ended = true
		c.timers.stop(&l.expiry)
		for _, t := range l.tasks {
			t.stop()
			t.s.end(t)
		}
		rest := slices.DeleteFunc(c.listens[l.key], func(other *Listen) bool { return other == l })
		if c.listens[l.key] = rest; len(rest) == 0 {
			delete(c.listens, l.key)
		}
	}
	c.out = nil
}

// tellLocal tells our own listens of a value that we store ourselves.
func (c *Core) tellLocal(key wire.Key, v *wire.Value, gone bool) {
	for _, l := range c.listens[key] {
		if gone {
			l.lose(nil, v.ID)
		} else {
			l.hear(nil, v)
		}
	}
}

// hear takes a value from a node, or from ourselves when at is nil.
func (l *Listen) hear(at *socket, v *wire.Value) {
	if l.ended || !l.query.Matches(v) {
		return
	}
	for _, h := range l.values[v.ID] {
		if h.v.SameContent(v) && h.v.Seq == v.Seq {
			l.note(h, at)
			return
		}
	}
	l.replaced(at, v.ID)
	if l.count >= maxFound || len(l.values[v.ID]) >= maxVersions || l.bytes+v.Size() > maxFoundBytes {
		return
	}
	h := &heard{v: v}
	l.values[v.ID] = append(l.values[v.ID], h)
	l.count++
	l.bytes += v.Size()
	l.note(h, at)
	l.event(v, false)
}

// replaced notes that a node has another value with an id that it had already. What
// nobody has any more has not expired: it was edited.
func (l *Listen) replaced(at *socket, id wire.ValueID) {
	if len(l.values[id]) > 0 {
		l.drop(id, func(h *heard) bool { return h.left(at) })
	}
}

// left notes that a node, or we when at is nil, has a value no more, and tells
// whether nobody has.
func (h *heard) left(at *socket) bool {
	if at == nil {
		h.local = false
	} else {
		h.at = slices.DeleteFunc(h.at, func(s *socket) bool { return s == at })
	}
	return len(h.at) == 0 && !h.local
}

// note notes who has a value, and that it lives on.
func (l *Listen) note(h *heard, at *socket) {
	if at == nil {
		h.local = true
	} else if !slices.Contains(h.at, at) {
		h.at = append(h.at, at)
	}
	h.expires = l.c.now.Add(Life(h.v.Type) + expirySlack)
	if l.expiry.pos == 0 || h.expires.Before(l.expiry.at) {
		l.c.after(&l.expiry, h.expires.Sub(l.c.now), l.expire)
	}
}

// expire drops what nobody refreshed, in case whoever held it went without a word.
func (l *Listen) expire() {
	var next time.Time
	var ids []wire.ValueID
	for id, hs := range l.values {
		for _, h := range hs {
			if !h.expires.After(l.c.now) {
				ids = append(ids, id)
			} else if next.IsZero() || h.expires.Before(next) {
				next = h.expires
			}
		}
	}
	slices.Sort(ids)
	for _, id := range slices.Compact(ids) {
		l.remove(id, func(h *heard) bool { return !h.expires.After(l.c.now) })
	}
	if !next.IsZero() {
		l.c.after(&l.expiry, next.Sub(l.c.now), l.expire)
	}
}

// lose notes that a node has a value no more. Once nobody has it, it is gone.
func (l *Listen) lose(at *socket, id wire.ValueID) {
	l.remove(id, func(h *heard) bool { return h.left(at) })
}

func (l *Listen) remove(id wire.ValueID, gone func(*heard) bool) {
	for _, v := range l.drop(id, gone) {
		l.event(v, true)
	}
}

// drop forgets the values with an id that are gone, and returns them.
func (l *Listen) drop(id wire.ValueID, gone func(*heard) bool) (lost []*wire.Value) {
	l.values[id] = slices.DeleteFunc(l.values[id], func(h *heard) bool {
		if !gone(h) {
			return false
		}
		lost = append(lost, h.v)
		l.bytes -= h.v.Size()
		return true
	})
	if len(l.values[id]) == 0 {
		delete(l.values, id)
	}
	l.count -= len(lost)
	return lost
}

// A socket is our listen at one node, which names it in what it pushes.
type socket struct {
	id   uint32
	task *listenTask
	addr netip.AddrPort
	open bool     // confirmed
	due  bool     // to be renewed
	r    *request // in flight
}

// A listenTask does a Listen in one address family.
type listenTask struct {
	l     *Listen
	s     *search
	at    map[*candidate]*socket
	renew timer
}

func (t *listenTask) lasting() bool { return true }

func (t *listenTask) step(s *search) bool {
	if t.l.ended {
		return true
	}
	c := t.l.c
	counted := s.counted()
	near := s.near(counted)
	synced := s.synced(counted, time.Time{})
	want := listenNodes
	if s.crowded {
		want = s.width
	}
	width := narrow
	if near || synced {
		width = want
	}
	busy := s.finding()
	for i, cd := range counted {
		if i >= want && synced {
			break
		}
		so := t.at[cd]
		if so != nil && (so.r != nil || so.open && !so.due) {
			continue
		}
		if cd.n.hasToken(c.now) && (near || synced) && i < want {
			t.listen(cd, so)
		}
		if (!cd.n.hasToken(c.now) || cd.found.IsZero() && !synced && i < nearSync) && busy < width {
			s.find(cd)
			busy++
		}
	}
	t.leave(counted)
	return false
}

// leave forgets the sockets at nodes that are not near any more.
func (t *listenTask) leave(counted []*candidate) {
	if len(t.at) <= listenNodes {
		return
	}
	var old []*candidate
	for cd := range t.at {
		if !slices.Contains(counted, cd) {
			old = append(old, cd)
		}
	}
	for _, cd := range old {
		t.close(cd)
	}
}

func (t *listenTask) close(cd *candidate) {
	so := t.at[cd]
	c := t.l.c
	c.disown(so.r)
	delete(c.sockets, so.id)
	delete(t.at, cd)
	if i := slices.Index(cd.n.pushing, t); i >= 0 {
		cd.n.pushing = slices.Delete(cd.n.pushing, i, i+1)
	}
	for _, hs := range t.l.values {
		for _, h := range hs {
			h.at = slices.DeleteFunc(h.at, func(s *socket) bool { return s == so })
		}
	}
}

// nearest returns the two nodes nearest to the key that push to us.
func (t *listenTask) nearest() []*node {
	var list []*node
	for cd, so := range t.at {
		if so.open {
			list = append(list, cd.n)
		}
	}
	slices.SortFunc(list, func(a, b *node) int {
		if t.l.key.Closer(a.id, b.id) {
			return -1
		}
		return 1
	})
	return list[:min(len(list), 2)]
}

func (t *listenTask) stop() {
	t.l.c.timers.stop(&t.renew)
	for cd := range t.at {
		t.close(cd)
	}
}

func (t *listenTask) next() {
	c := t.l.c
	c.after(&t.renew, c.jitter(renewEvery, 0.1), func() {
		for _, so := range t.at {
			so.due = true
		}
		t.next()
		t.s.step()
	})
}

func (t *listenTask) listen(cd *candidate, so *socket) {
	c := t.l.c
	if so == nil {
		so = &socket{task: t, addr: cd.n.addr}
		for so.id == 0 || c.sockets[so.id] != nil || c.requests[so.id] != nil {
			so.id = c.rand.Uint32()
		}
		c.sockets[so.id] = so
		t.at[cd] = so
		cd.n.pushing = append(cd.n.pushing, t)
	}
	so.due = false
	so.r = c.ask(t.s.f, cd.n, wire.Request{
		Method: wire.Listen, Key: t.l.key, Token: cd.n.token, Socket: so.id, Query: t.l.query.OnWire(),
	}, listening{t, cd, so})
}

// listening is the owner of listen requests.
type listening struct {
	t  *listenTask
	cd *candidate
	so *socket
}

func (o listening) replied(*request, *wire.Message) {
	o.so.r, o.so.open = nil, true
	o.cd.late = false
	o.t.s.step()
}

func (o listening) late(*request) {
	o.cd.late = true
	o.t.s.step()
}

func (o listening) failed(_ *request, code int) {
	o.so.r = nil
	if code == 0 {
		o.t.close(o.cd)
	} else {
		o.so.open = false
		o.cd.found = time.Time{}
		if code != wire.CodeUnauthorized {
			o.cd.late = true // it does not serve listens
		}
	}
	o.t.s.step()
}

// handleUpdate takes values that are pushed to us.
func (c *Core) handleUpdate(f *family, from netip.AddrPort, m *wire.Message, limit int) {
	so := c.sockets[m.Socket]
	if so == nil || so.addr != from {
		c.ignore(Unexpected)
		c.reply(from, m.TID, &wire.Answer{}, limit)
		return
	}
	if len(m.Sizes) > 0 {
		c.awaitParts(from, m, nil)
		return
	}
	c.proven.set(c.now, from, struct{}{})
	c.take(so, m)
	c.reply(from, m.TID, &wire.Answer{}, 0)
}

// take gives what was pushed to the listen that asked for it.
func (c *Core) take(so *socket, m *wire.Message) {
	l := so.task.l
	for _, v := range m.Values {
		l.hear(so, v.Clone())
	}
	for _, id := range m.Renewed {
		for _, h := range l.values[id] {
			l.note(h, so)
		}
	}
	for _, id := range m.Expired {
		l.lose(so, id)
	}
}

// pushedReply takes values that are pushed in the form before listen version 1,
// and tells whether it was that.
func (c *Core) pushedReply(from netip.AddrPort, m *wire.Message) bool {
	so := c.sockets[m.TID]
	if so == nil || so.addr != from {
		return false
	}
	if len(m.Sizes) > 0 {
		c.awaitParts(from, m, nil)
		return true
	}
	c.take(so, m)
	return true
}

// handleNotice takes a notice in the form before listen version 1.
func (c *Core) handleNotice(from netip.AddrPort, m *wire.Message) {
	if so := c.sockets[m.TID]; so != nil && so.addr == from {
		c.take(so, m)
		return
	}
	c.ignore(Unexpected)
}
