package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// maxExtra bounds how many more nodes than usual are given a value because those
// nearest to its key do not keep it.
const maxExtra = 12

// A Put is a value being stored, or kept alive.
type Put struct {
	c         *Core
	key       wire.Key
	value     wire.Packed
	created   time.Time
	permanent bool
	done      func(error)
	tasks     []*putTask
	open      int // first announcements that go on
	asked     bool
	holders   int
	refusals  int
	settled   int // tasks that have ended
	ended     bool
}

// Put stores v under key at the nodes nearest to it, and calls done once they have
// it: with [ErrNoNodes] when there was nobody to ask, with [ErrRefused] when they
// will not have it, with [ErrNotStored] when none answered. A value that is
// permanent is then kept alive until [Core.CancelPut]; v.ID must not be zero, and
// neither v nor what it points to may be changed.
//
// Nodes that could say they stored what they did not are asked for it again, and
// others are given it in their place, before done is called.
func (c *Core) Put(now time.Time, key wire.Key, v *wire.Value, created time.Time, permanent bool, done func(error), out *Outbox) *Put {
	c.enter(now, out)
	defer func() { c.out = nil }()
	if created.IsZero() || created.After(c.now) {
		created = c.now
	}
	p := &Put{c: c, key: key, value: wire.Pack(v), created: created, permanent: permanent, done: done}
	if sh := c.store.shelves[key]; sh != nil && !v.Signed() {
		if old := sh.get(v.ID); old != nil && old.Value.Signed() {
			// What somebody signed is not to be replaced by what nobody did.
			p.ended = true
			done(ErrRefused)
			return p
		}
	}
	c.puts[p] = struct{}{}
	c.keep(key, v, created, netip.AddrPort{}, func() bool { return true })
	c.each(func(f *family) {
		p.tasks = append(p.tasks, &putTask{
			p: p, state: make(map[*candidate]*holding), begun: c.now, deadline: c.now.Add(joinPatience),
		})
		p.open++
	})
	i := 0
	c.each(func(f *family) {
		t := p.tasks[i]
		i++
		t.s = c.search(f, key)
		t.s.run(t)
	})
	return p
}

// CancelPut ends a put: the value is not kept alive any more. It does not call
// done.
func (c *Core) CancelPut(now time.Time, p *Put, out *Outbox) {
	c.enter(now, out)
	if !p.ended {
		p.end()
		for _, t := range p.tasks {
			t.stop()
			t.s.end(t)
		}
	}
	c.out = nil
}

func (p *Put) end() {
	p.ended = true
	delete(p.c.puts, p)
}

// announced is called once by each task, when its family's nodes have the value or
// will not have it.
func (p *Put) announced() {
	if p.open--; p.open > 0 || p.ended {
		return
	}
	if p.holders == 0 {
		p.end()
	}
	switch {
	case p.holders > 0:
		p.done(nil)
	case p.refusals > 0:
		p.takeBack()
		p.done(ErrRefused)
	case p.asked:
		p.done(ErrNotStored)
	default:
		p.done(ErrNoNodes)
	}
}

// settle is called once by each task of a put that is not permanent, when nothing of
// it is in flight any more.
func (p *Put) settle() {
	if p.settled++; p.settled == len(p.tasks) && !p.ended {
		p.end()
	}
}

// takeBack removes our own copy of a value that the network refused, lest we be
// the one that hands it out.
func (p *Put) takeBack() {
	sh := p.c.store.shelves[p.key]
	if sh == nil {
		return
	}
	if s := sh.get(p.value.Value.ID); s != nil && !s.from.IsValid() && s.Value.SameContent(p.value.Value) {
		p.c.store.remove(s)
	}
}

// A holding is what we know of a value at one node.
type holding struct {
	state holdState
	r     *request // in flight
}

type holdState uint8

const (
	unsent    holdState = iota
	sending             // put or refresh in flight
	verifying           // asked whether it has what it says it has
	held
	missing // it said yes and has it not, or has no room
	refused // it has something else, or thinks the value is wrong
	stale   // held, but to be refreshed
)

// A putTask does a Put in one address family.
type putTask struct {
	p        *Put
	s        *search
	state    map[*candidate]*holding
	begun    time.Time // of this round
	deadline time.Time
	recheck  timer
	refresh  timer
	told     bool // Put.announced was called
}

func (t *putTask) lasting() bool { return t.p.permanent && t.told }

func (t *putTask) step(s *search) bool {
	if t.p.ended {
		t.stop()
		return true
	}
	counted := s.countedUpTo(min(s.width+maxExtra, maxWidth))
	near := s.near(counted)
	since := t.begun.Add(-foundFor)
	synced := s.synced(counted, since)
	width := narrow
	if near || synced {
		width = s.width
	}
	if !synced { // whatever the nearest do with the value, they may know nearer ones
		for i, cd := range counted {
			if i < nearSync && cd.found.Before(since) {
				s.find(cd)
			}
		}
	}
	busy := s.finding()
	open := false
	copies := 0 // there, or under way; who does not keep one makes room for the next
	for _, cd := range counted {
		if copies == s.width {
			break
		}
		h := t.state[cd]
		if h == nil {
			h = &holding{}
			t.state[cd] = h
		}
		switch h.state {
		case held, refused:
			copies++ // who refuses has another value with the id: do not go round it
		case unsent, stale:
			copies++
			open = true
			if !cd.n.hasToken(t.p.c.now) || !near && !synced && cd.found.Before(since) {
				if busy < width && cd.find == nil {
					s.find(cd)
					busy++
				}
			}
			if cd.n.hasToken(t.p.c.now) && (near || synced) {
				t.send(cd, h)
			}
		case sending, verifying:
			copies++
			open = true
		}
	}
	if open || s.exploring > 0 || !synced && len(counted) > 0 || copies < s.width && t.inFlight() {
		return false
	}
	if len(counted) == 0 && !t.told && s.patience(t.deadline, &t.recheck) {
		return false
	}
	if !t.told {
		t.told = true
		if len(counted) >= k {
			s.f.table.sample(s.key, counted[k-1].n.id)
		}
		t.p.announced()
		if t.p.ended {
			t.stop()
			return true
		}
		if t.p.permanent {
			t.s.schedule()
			t.next()
		}
	}
	if t.p.permanent || t.slow() {
		return false
	}
	t.p.settle()
	t.stop()
	return true
}

// slow tells whether one of the nearest nodes is only late. Others have the value in
// its place, but who looks for it will ask the nearest: it gets it too, once it
// answers.
func (t *putTask) slow() bool {
	for _, cd := range t.s.nodes[:min(len(t.s.nodes), t.s.width)] {
		h := t.state[cd]
		if cd.late && !cd.n.expired && (cd.find != nil || h != nil && h.r != nil) {
			return true
		}
	}
	return false
}

func (t *putTask) inFlight() bool {
	for cd, h := range t.state {
		if h.r != nil || cd.find != nil {
			return true
		}
	}
	return false
}

// next schedules the next refresh, early enough for its own retries and spread so
// that values published together are not refreshed together.
func (t *putTask) next() {
	life := Life(t.p.value.Value.Type)
	t.p.c.after(&t.refresh, time.Duration(float64(life)*(0.7+0.2*t.p.c.rand.Float64())), func() {
		c := t.p.c
		t.begun = c.now
		for _, h := range t.state {
			switch h.state {
			case held:
				h.state = stale
			case missing:
				h.state = unsent
			}
		}
		for cd := range t.state {
			if !slices.Contains(t.s.nodes, cd) {
				delete(t.state, cd)
			}
		}
		c.keep(t.p.key, t.p.value.Value, c.now, netip.AddrPort{}, func() bool { return true })
		t.s.seed()
		t.next()
		t.s.step()
	})
}

// stop forgets what is in flight and scheduled.
func (t *putTask) stop() {
	t.p.c.timers.stop(&t.recheck)
	t.p.c.timers.stop(&t.refresh)
	for _, h := range t.state {
		t.p.c.disown(h.r)
	}
}

// send takes the next action at a node.
func (t *putTask) send(cd *candidate, h *holding) {
	switch {
	case h.state == unsent:
		t.put(cd, h)
	case cd.n.kith:
		t.request(cd, h, sending, wire.Request{Method: wire.Refresh, Key: t.p.key, ValueID: t.p.value.Value.ID, Token: cd.n.token})
	default:
		t.verify(cd, h) // the reference confirms refreshes of what it has not
	}
}

func (t *putTask) put(cd *candidate, h *holding) {
	body := wire.Request{Method: wire.Put, Key: t.p.key, Values: []wire.Packed{t.p.value}, Token: cd.n.token}
	if !t.p.permanent && t.p.c.now.Sub(t.p.created) >= time.Second {
		body.Created = t.p.created.Unix()
	}
	t.request(cd, h, sending, body)
}

// verify asks whether a node has the value. A small value is asked for whole, in
// as many packets as its id would take: an unsigned one may have been refused for
// another with the same id.
func (t *putTask) verify(cd *candidate, h *holding) {
	q := wire.WhereID(t.p.value.Value.ID)
	if !wire.Inline([]wire.Packed{t.p.value}) || t.p.value.Value.Type == wire.TypeService { // nodes change a service's address
		q.Select = []wire.Field{wire.FieldID, wire.FieldSeq}
	}
	t.request(cd, h, verifying, wire.Request{Method: wire.Get, Key: t.p.key, Query: q})
}

func (t *putTask) request(cd *candidate, h *holding, s holdState, body wire.Request) {
	was := h.state
	r := t.p.c.ask(t.s.f, cd.n, body, putter{t, cd, h, was == stale || s == verifying && was == held})
	if r == nil {
		h.state, t.s.again = missing, true // too much is in flight: do without
		return
	}
	t.p.asked = true
	h.state, h.r = s, r
}

// putter is the owner of the requests of a putTask.
type putter struct {
	t     *putTask
	cd    *candidate
	h     *holding
	hadIt bool // it was known to hold the value
}

func (o putter) replied(r *request, m *wire.Message) {
	t := o.t
	o.cd.late = false
	o.h.r = nil
	switch r.body.Method {
	case wire.Put:
		switch {
		case m.Refused == wire.BadValue || m.Refused == wire.Conflict:
			o.h.state = refused
			t.p.refusals++
		case m.Refused == wire.OverQuota:
			o.h.state = missing
		case o.cd.n.kith:
			o.hold()
		default:
			t.verify(o.cd, o.h)
		}
	case wire.Refresh:
		o.hold()
	case wire.Get:
		t.s.answered(o.cd, m)
		v := t.p.value.Value
		if !has(m, v) {
			switch {
			case hasOther(m, v):
				o.h.state = refused // and will again
				t.p.refusals++
			case o.hadIt:
				o.h.state = unsent // lost since: send it again
			default:
				o.h.state = missing
			}
		} else if o.hadIt && o.cd.n.hasToken(t.p.c.now) {
			o.h.state = held
			t.request(o.cd, o.h, sending, wire.Request{Method: wire.Refresh, Key: t.p.key, ValueID: v.ID, Token: o.cd.n.token})
		} else {
			o.hold()
		}
	}
	t.s.step()
}

func (o putter) hold() {
	if o.h.state != held {
		o.h.state = held
		o.t.p.holders++
	}
}

// has tells whether an answer to a query by id shows that the value is there.
func has(m *wire.Message, v *wire.Value) bool {
	for _, row := range m.Rows {
		if row.ID == v.ID && (!v.Signed() || row.Seq == v.Seq) {
			return true
		}
	}
	for _, have := range m.Values {
		if have.ID == v.ID && have.SameContent(v) {
			return true
		}
	}
	return false
}

// hasOther tells whether an answer to a query by id, which does not show v, shows
// another value with that id.
func hasOther(m *wire.Message, v *wire.Value) bool {
	return slices.ContainsFunc(m.Rows, func(row wire.Row) bool { return row.ID == v.ID }) ||
		slices.ContainsFunc(m.Values, func(have *wire.Value) bool { return have.ID == v.ID })
}

func (o putter) late(*request) {
	o.cd.late = true
	o.t.s.step()
}

func (o putter) failed(r *request, code int) {
	o.h.r = nil
	switch {
	case code == wire.CodeNotFound && r.body.Method == wire.Refresh:
		o.h.state = unsent
	case code == wire.CodeUnauthorized:
		o.h.state = unsent // with a new token
		o.cd.found = time.Time{}
	case code != 0:
		o.h.state = refused
		o.t.p.refusals++
	default:
		o.h.state = unsent // it expired: it counts again when it is back
	}
	o.t.s.step()
}
