package kad

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Errors that tasks end with.
var (
	ErrNoNodes   = errors.New("no DHT node can be reached")
	ErrNotStored = errors.New("no DHT node stored the value")
	ErrRefused   = errors.New("the DHT refuses the value")
)

// maxFound bounds the values that one get, or one listen, delivers at a time.
const maxFound = 1 << 13

// maxFoundBytes bounds their sizes together, and maxVersions those with one id.
const (
	maxFoundBytes = 64 << 20
	maxVersions   = 64
)

// A Get is a lookup of values in progress.
type Get struct {
	c       *Core
	key     wire.Key
	query   wire.Query
	seen    map[wire.ValueID][]*wire.Value
	seenNum int
	bytes   int // of what was seen
	found   func(*wire.Value)
	done    func(error)
	tasks   []*getTask
	open    int // tasks that have not ended
	asked   bool
	ended   bool
}

// Get looks for the values under key that match q, whole, or the fields of them
// that q selects with the others empty. It calls found for each, once,
// and done at the end: with [ErrNoNodes] when nobody could be asked, but for a node
// that is the first of its network. The
// functions are called within this or later calls of the core and must not call
// it. What they are given stays valid and must not be changed.
func (c *Core) Get(now time.Time, key wire.Key, q wire.Query, found func(*wire.Value), done func(error), out *Outbox) *Get {
	c.enter(now, out)
	g := &Get{c: c, key: key, query: q, seen: make(map[wire.ValueID][]*wire.Value), found: found, done: done}
	for _, p := range c.matching(key, wire.Query{Where: q.Where}) {
		g.deliver(g.selected(p.Value))
	}
	c.each(func(f *family) {
		g.tasks = append(g.tasks, &getTask{g: g, state: make(map[*candidate]askState), deadline: c.now.Add(joinPatience)})
		g.open++
	})
	i := 0
	c.each(func(f *family) {
		t := g.tasks[i]
		i++
		t.s = c.search(f, key)
		t.s.run(t)
	})
	c.out = nil
	return g
}

// CancelGet ends a lookup without calling done.
func (c *Core) CancelGet(now time.Time, g *Get, out *Outbox) {
	c.enter(now, out)
	if !g.ended {
		g.ended = true
		for _, t := range g.tasks {
			t.abandon()
			t.s.end(t)
		}
	}
	c.out = nil
}

// deliver passes a value on, unless it was.
func (g *Get) deliver(v *wire.Value) {
	if g.ended || g.seenNum >= maxFound || len(g.seen[v.ID]) >= maxVersions || g.bytes+v.Size() > maxFoundBytes {
		return
	}
	for _, have := range g.seen[v.ID] {
		if have.SameContent(v) && have.Seq == v.Seq {
			return
		}
	}
	g.seen[v.ID] = append(g.seen[v.ID], v)
	g.seenNum++
	g.bytes += v.Size()
	g.found(v)
}

// selected returns what the query selects of a value: all of it, or a value with
// nothing but the selected fields.
func (g *Get) selected(v *wire.Value) *wire.Value {
	if len(g.query.Select) == 0 {
		return v
	}
	part := &wire.Value{}
	for _, f := range g.query.Select {
		switch f {
		case wire.FieldID:
			part.ID = v.ID
		case wire.FieldType:
			part.Type = v.Type
		case wire.FieldOwner:
			part.Owner = v.Owner
		case wire.FieldSeq:
			part.Seq = v.Seq
		case wire.FieldUserType:
			part.UserType = v.UserType
		}
	}
	return part
}

// hear takes an answer: whole values, which are filtered again, or rows, of which
// only the selected fields are known.
func (g *Get) hear(m *wire.Message) {
	for _, v := range m.Values {
		if g.query.Matches(v) {
			g.deliver(g.selected(v.Clone()))
		}
	}
	if len(g.query.Select) == 0 {
		return
	}
	for _, r := range m.Rows {
		g.deliver(g.selected(&wire.Value{ID: r.ID, Type: r.Type, Seq: r.Seq, UserType: r.UserType, Owner: bytes.Clone(r.OwnerDER)}))
	}
}

// taskEnded is called once by each task.
func (g *Get) taskEnded(asked bool) {
	g.asked = g.asked || asked
	if g.open--; g.open > 0 || g.ended {
		return
	}
	g.ended = true
	if g.asked || g.c.alone() {
		g.done(nil)
	} else {
		g.done(ErrNoNodes)
	}
}

// alone tells whether the node is the first of its network: it knows nobody and
// expects nobody, so what it has is all there is.
func (c *Core) alone() bool {
	for f := range c.families {
		if f.bootstrap.trying() || len(f.table.nodes) > 0 {
			return false
		}
	}
	return true
}

type askState uint8

const (
	unasked askState = iota
	asking
	answered
)

// A getTask does a Get in one address family.
type getTask struct {
	g        *Get
	s        *search
	state    map[*candidate]askState
	requests []*request
	deadline time.Time
	recheck  timer
	answers  int
	extra    int // nodes asked beyond those that count, since nothing is found
	ended    bool
}

func (t *getTask) lasting() bool { return false }

func (t *getTask) step(s *search) bool {
	if t.ended || t.g.ended {
		return true
	}
	counted := s.countedUpTo(min(s.width+t.extra, maxWidth))
	width := narrow
	if s.near(counted) || t.answers > 0 && len(counted) > 0 && t.state[counted[0]] == answered {
		width = s.width
	}
	busy := 0
	for _, cd := range counted {
		if t.state[cd] == asking {
			busy++
		}
	}
	open := false
	for _, cd := range counted {
		if t.state[cd] == answered {
			continue
		}
		open = true
		if t.state[cd] == unasked && busy < width && t.ask(cd) {
			busy++
		}
	}
	if open || s.exploring > 0 || len(counted) < s.width && len(t.requests) > 0 || t.g.seenNum == 0 && t.hopes() {
		return false
	}
	if t.g.seenNum == 0 && t.extra == 0 && len(counted) >= s.width {
		// Whoever put the value may have known other nodes as the nearest.
		t.extra, s.again = k/2, true
		return false
	}
	if len(counted) >= k {
		s.f.table.sample(s.key, counted[k-1].n.id)
	}
	if t.answers == 0 && s.patience(t.deadline, &t.recheck) {
		return false
	}
	t.end()
	return true
}

// hopes tells whether a node among the nearest is only slow: as long as nothing is
// found, it is waited for until it was asked twice.
func (t *getTask) hopes() bool {
	for _, r := range t.requests {
		cd := r.owner.(getter).cd
		if r.tries <= 2 && !cd.n.expired && slices.Contains(t.s.nodes[:min(len(t.s.nodes), t.s.width)], cd) {
			return true
		}
	}
	return false
}

func (t *getTask) end() {
	t.abandon()
	t.g.taskEnded(t.answers > 0)
}

// abandon forgets what is in flight.
func (t *getTask) abandon() {
	t.ended = true
	t.g.c.timers.stop(&t.recheck)
	for _, r := range t.requests {
		t.g.c.disown(r)
	}
	t.requests = nil
}

func (t *getTask) ask(cd *candidate) bool {
	t.s.meet(cd)
	body := wire.Request{Method: wire.Get, Key: t.g.key, Query: t.g.query.OnWire(), Want: t.s.want()}
	r := t.g.c.ask(t.s.f, cd.n, body, getter{t, cd})
	if r == nil {
		t.state[cd], t.s.again = answered, true // too much is in flight: do without
		return false
	}
	t.state[cd] = asking
	t.requests = append(t.requests, r)
	return true
}

func (t *getTask) gone(r *request) {
	for i, other := range t.requests {
		if other == r {
			t.requests[i] = t.requests[len(t.requests)-1]
			t.requests = t.requests[:len(t.requests)-1]
			return
		}
	}
}

// getter is the owner of a get request.
type getter struct {
	t  *getTask
	cd *candidate
}

func (o getter) replied(r *request, m *wire.Message) {
	o.t.gone(r)
	o.t.state[o.cd] = answered
	o.t.answers++
	o.t.g.hear(m)
	o.t.s.answered(o.cd, m)
	o.t.s.step()
}

func (o getter) late(*request) {
	o.cd.late = true
	o.t.s.step()
}

func (o getter) failed(r *request, _ int) {
	o.t.gone(r)
	// It does not understand, or is silent. If it is back soon it was asked enough.
	o.t.state[o.cd] = answered
	o.t.s.step()
}
