package kad

import (
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Values outlive the nodes that store them: when one of the k nodes nearest to a
// key is gone, or a nearer one has come, those that hold the values hand them on.
//
// Whoever stores a value takes it that those who should hold it do, until one of
// them comes or goes. Then a holder asks the nearest: when two of them hold the
// values, they look after the rest, else it asks all, and gives to each what it
// lacks. A network that stays as it is costs nothing.
const (
	replicateEvery = 60 * time.Second
	handers        = 2       // of the nearest holders hand on, in case one is about to go
	handBytes      = 1 << 18 // handed on to one node at a time
)

// A replica is a node that is taken to hold the values of a key, or known to.
type replica struct {
	id    wire.NodeID
	known bool // it was asked
	again bool // it has not got everything: ask again at the next comparison
	tries int  // comparisons in which it was given something
}

// replica returns what is noted of a node, or nil.
func (s *shelf) replica(id wire.NodeID) *replica {
	for i := range s.replicas {
		if s.replicas[i].id == id {
			return &s.replicas[i]
		}
	}
	return nil
}

// holds notes that a node holds all values.
func (s *shelf) holds(id wire.NodeID) {
	if r := s.replica(id); r != nil {
		r.known = true
		return
	}
	s.replicas = append(s.replicas, replica{id: id, known: true})
}

// assumeReplicas notes that a value was put here: the first one to those near us as
// well, a later one to who knows whom.
func (c *Core) assumeReplicas(key wire.Key, sh *shelf) {
	for i := range sh.replicas {
		sh.replicas[i].known = false
	}
	if len(sh.replicas) == 0 {
		for f := range c.families {
			for _, n := range c.keepers(f, key) {
				sh.replicas = append(sh.replicas, replica{id: n.id})
			}
		}
	}
	c.watchShelf(key, sh)
}

// watchShelf begins to compare a shelf with the network, now and then.
func (c *Core) watchShelf(key wire.Key, sh *shelf) {
	if sh.check.pos == 0 {
		every := replicateEvery
		for f := range c.families {
			if len(f.table.nodes) > 0 && c.young(f) {
				every = youngEvery
			}
		}
		c.after(&sh.check, c.jitter(every, 0.5), func() { c.replicate(key, sh) })
	}
}

// keepers returns the nodes that should hold the values of key in one family,
// besides us when we should too, nearest first.
func (c *Core) keepers(f *family, key wire.Key) []*node {
	var room [5 * k]*node
	list := f.table.closest(room[:0], key, k, func(n *node) bool { return !n.expired })
	if len(list) == k && key.Closer(c.cfg.Self, list[k-1].id) {
		list = list[:k-1]
	}
	return slices.Clone(list)
}

// replicate compares those who hold the values of a key with those who should.
func (c *Core) replicate(key wire.Key, sh *shelf) {
	if len(sh.values) == 0 || c.store.shelves[key] != sh {
		sh.replicas = nil
		return
	}
	c.after(&sh.check, c.jitter(replicateEvery, 0.3), func() { c.replicate(key, sh) })
	if !slices.ContainsFunc(sh.values, c.handed) {
		return // all our own, which look after themselves
	}
	owing := sh.owing
	sh.owing = false
	for i, r := range sh.replicas {
		if r.again {
			sh.replicas[i].known, sh.replicas[i].again = false, false
		}
	}
	for f := range c.families {
		keepers := c.keepers(f, key)
		if c.churning(f) {
			for _, n := range keepers {
				if c.now.Sub(n.replied) > churnPing {
					c.ping(f, n)
				}
			}
		}
		if owing || c.stirred(f, sh, keepers) {
			c.handOn(f, key, sh)
		}
	}
	all := make([]wire.NodeID, 0, 2*k)
	for f := range c.families {
		for _, n := range c.keepers(f, key) {
			all = append(all, n.id)
		}
	}
	sh.replicas = slices.DeleteFunc(sh.replicas, func(r replica) bool { return !slices.Contains(all, r.id) })
}

// handed tells whether a value is worth handing on: it is not one of ours, and
// lives for a while yet.
func (c *Core) handed(s *stored) bool {
	return s.from.IsValid() && s.expires.Sub(c.now) > 10*time.Second
}

// stirred tells whether a node came, or was lost, among those who should hold the
// values of a shelf.
func (c *Core) stirred(f *family, sh *shelf, keepers []*node) bool {
	for _, n := range keepers {
		if sh.replica(n.id) == nil {
			return true
		}
	}
	for _, r := range sh.replicas {
		if n := f.table.get(r.id); n != nil && n.expired {
			return true
		}
	}
	return false
}

// handOn asks those who should hold the values of a key whether they do, nearest
// first, and hands them on to those who do not. It goes on when it has the answers.
func (c *Core) handOn(f *family, key wire.Key, sh *shelf) {
	if sh.asking > 0 || len(sh.values) == 0 || c.store.shelves[key] != sh {
		return
	}
	before := 0 // nodes nearer to the key than we are that hold the values
	var nearer, farther []*node
	for _, n := range c.keepers(f, key) {
		r := sh.replica(n.id)
		switch known, near := r != nil && r.known, key.Closer(n.id, c.cfg.Self); {
		case known && near:
			if before++; before == handers {
				return // they look after the others
			}
		case near:
			nearer = append(nearer, n)
		case !known:
			farther = append(farther, n)
		}
	}
	ask := nearer[:min(len(nearer), handers-before)]
	if len(ask) == 0 {
		ask = farther
	}
	for _, n := range ask {
		q := wire.Query{Select: []wire.Field{wire.FieldID, wire.FieldSeq}}
		if c.ask(f, n, wire.Request{Method: wire.Get, Key: key, Query: q}, inventory{c, f, n, key, sh}) != nil {
			sh.asking++
		}
	}
}

// inventory is the owner of a request that asks a node which values of a key it
// holds.
type inventory struct {
	c   *Core
	f   *family
	n   *node
	key wire.Key
	sh  *shelf
}

func (o inventory) replied(_ *request, m *wire.Message) {
	o.sh.asking--
	o.sh.holds(o.n.id) // it does once it has what follows
	bytes := 0
	for _, s := range o.sh.values {
		if !o.c.handed(s) || holdsRow(m, s.Value) {
			continue
		}
		if bytes += len(s.Bytes); bytes > handBytes && bytes > len(s.Bytes) || !o.n.hasToken(o.c.now) {
			o.again() // the rest another time
			break
		}
		o.c.stats.Replicated++
		o.c.ask(o.f, o.n, wire.Request{
			Method: wire.Put, Key: o.key, Values: []wire.Packed{s.Packed}, Created: s.created.Unix(), Token: o.n.token,
		}, handover{o})
	}
	o.c.handOn(o.f, o.key, o.sh)
}

// holdsRow tells whether an answer names a value, in our version or a later one.
func holdsRow(m *wire.Message, v *wire.Value) bool {
	return slices.ContainsFunc(m.Rows, func(r wire.Row) bool { return r.ID == v.ID && r.Seq >= v.Seq }) ||
		slices.ContainsFunc(m.Values, func(have *wire.Value) bool { return have.ID == v.ID && have.Seq >= v.Seq })
}

func (o inventory) late(*request) {}

func (o inventory) failed(_ *request, code int) {
	o.sh.asking--
	if code != 0 {
		o.sh.holds(o.n.id) // it lives and will not answer that: let it be
	} else {
		o.again()
	}
	o.c.handOn(o.f, o.key, o.sh)
}

// maxTries is in how many comparisons a node is given what it lacks: some say that
// they store what they do not.
const maxTries = 3

// again lets the node be asked again at the next comparison, not before.
func (o inventory) again() {
	o.sh.holds(o.n.id)
	if r := o.sh.replica(o.n.id); r.tries < maxTries {
		r.tries++
		r.again, o.sh.owing = true, true
	}
}

// handover is the owner of a put that hands a value on.
type handover struct{ inventory }

func (h handover) replied(*request, *wire.Message) {}

func (h handover) failed(*request, int) { h.again() }
