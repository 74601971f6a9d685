package kad

import (
	"cmp"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

const (
	maxCandidates  = 64  // kept by a search
	maxContacts    = 160 // asked by it, between two resyncs
	maxAddrs       = 3   // that one node id is tried at
	seedCandidates = 24  // taken from the routing table at its start
	nearSync       = 3   // of the nearest nodes have to agree that nobody is nearer
	narrow         = 4   // requests at once while far from the key
	maxWidth       = 48  // nodes that a search under suspicion deals with
	foundFor       = time.Minute
	idleSearch     = 2 * time.Minute
	maxIdle        = 1 << 12
	joinPatience   = 10 * time.Second // what a task waits for while we have no nodes
	joinCheck      = 250 * time.Millisecond

	// How often the nodes nearest to a key that is listened to or kept alive are
	// looked for again: often while they change, seldom while they stay.
	minResync = 20 * time.Second
	maxResync = 5 * time.Minute
)

type searchKey struct {
	key    wire.Key
	family wire.Families
}

// A search knows the nodes nearest to a key, in one address family, and lets its
// tasks deal with them.
type search struct {
	c     *Core
	f     *family
	key   wire.Key
	nodes []*candidate // nearest first
	width int          // how many of the nearest nodes count
	tasks []task
	tm    timer // resync, or end of an idle search
	every time.Duration
	moved bool // the nearest nodes changed since the last resync

	watched  bool // tm is for a resync
	contacts int  // nodes asked since the last resync

	crowded   bool // many more nodes lie near the key than can be expected
	sure      bool // that is no chance: nodes farther away count too
	exploring int  // requests in flight that look for the others

	stepping, again bool
	room            []*candidate // of counted
}

// A candidate is a node as one search sees it.
type candidate struct {
	n     *node
	late  bool      // takes longer to answer than it should: others are asked too
	found time.Time // when it last told us of nodes near the key
	find  *request  // in flight
	met   bool      // was asked something since the last resync
}

func (cd *candidate) usable() bool { return !cd.late && !cd.n.expired }

// A task is something to be done with the nodes nearest to a key.
type task interface {
	// step goes on as far as it can, and tells whether the task has ended.
	step(s *search) (done bool)
	// lasting tells whether the nearest nodes have to be watched.
	lasting() bool
}

// search returns the search for a key, a new one if there is none.
func (c *Core) search(f *family, key wire.Key) *search {
	id := searchKey{key, f.which}
	if s := c.searches[id]; s != nil {
		return s
	}
	s := &search{c: c, f: f, key: key, width: k, every: minResync}
	c.searches[id] = s
	s.seed()
	return s
}

// run adds a task and takes its first step.
func (s *search) run(t task) {
	if s.idle() {
		s.contacts = 0
		for _, cd := range s.nodes {
			cd.late, cd.met = false, false
		}
	}
	s.tasks = append(s.tasks, t)
	s.seed()
	s.widen()
	s.schedule()
	s.step()
}

// end takes out a task.
func (s *search) end(t task) {
	s.tasks = slices.DeleteFunc(s.tasks, func(other task) bool { return other == t })
	s.schedule()
}

// schedule sets the search's timer: the next resync while a task is lasting, else
// the end of the search.
func (s *search) schedule() {
	for _, t := range s.tasks {
		if t.lasting() {
			if !s.watched || s.tm.pos == 0 {
				s.watched = true
				s.c.after(&s.tm, s.c.jitter(s.every, 0.2), s.resync)
			}
			return
		}
	}
	if s.idle() {
		s.watched = false
		wait := idleSearch
		if len(s.c.searches) > maxIdle {
			wait = 0
		}
		s.c.after(&s.tm, wait, func() {
			if s.idle() {
				delete(s.c.searches, searchKey{s.key, s.f.which})
			}
		})
	}
}

func (s *search) idle() bool { return len(s.tasks) == 0 }

// resync looks for the nearest nodes again.
func (s *search) resync() {
	if s.moved {
		s.every = max(s.every/2, minResync)
	} else {
		s.every = min(s.every*3/2, maxResync)
	}
	s.moved = false
	for _, cd := range s.nodes {
		cd.found, cd.late, cd.met = time.Time{}, false, false
	}
	s.contacts = 0
	s.nodes = slices.DeleteFunc(s.nodes, func(cd *candidate) bool { return cd.n.expired })
	s.width, s.crowded, s.sure = k, false, false
	s.seed()
	s.widen()
	for i, cd := range s.counted() {
		if i < nearSync {
			s.find(cd)
		}
	}
	s.c.after(&s.tm, s.c.jitter(s.every, 0.2), s.resync)
	s.step()
}

// seed fills up the candidates from the routing table.
func (s *search) seed() {
	var room [seedCandidates + 4*k]*node
	for _, n := range s.f.table.closest(room[:0], s.key, seedCandidates, func(n *node) bool { return !n.expired }) {
		s.add(n)
	}
}

// place returns where in the search a node belongs, and whether it is there. What is
// said to be one node at several addresses is several candidates, side by side: some
// may be dead, or lies.
func (s *search) place(id wire.NodeID, addr netip.AddrPort) (at int, same int, found bool) {
	at, _ = slices.BinarySearchFunc(s.nodes, id, func(cd *candidate, id wire.NodeID) int {
		switch {
		case cd.n.id == id:
			return 0
		case s.key.Closer(cd.n.id, id):
			return -1
		}
		return 1
	})
	for ; at < len(s.nodes) && s.nodes[at].n.id == id; at++ {
		if s.nodes[at].n.addr == addr {
			return at, same, true
		}
		same++
	}
	return at, same, false
}

// add offers a node to the search.
func (s *search) add(n *node) {
	i, same, ok := s.place(n.id, n.addr)
	switch {
	case ok && s.nodes[i].n != n && s.nodes[i].n.expired && !n.expired:
		s.nodes[i] = &candidate{n: n} // it is back
	case ok || i >= maxCandidates || same >= maxAddrs || s.contacts >= maxContacts:
	default:
		if len(s.nodes) >= maxCandidates {
			s.nodes[len(s.nodes)-1] = nil
			s.nodes = s.nodes[:len(s.nodes)-1]
		}
		s.nodes = slices.Insert(s.nodes, i, &candidate{n: n})
		if i < s.width {
			s.moved = true
		}
	}
}

// meet counts the nodes that are asked. Whoever names one nearer node after another
// is not followed for ever.
func (s *search) meet(cd *candidate) {
	if !cd.met {
		cd.met = true
		s.contacts++
	}
}

// hear adds the nodes that an answer names, and calls each, which may be nil, for
// those of the search's own family.
func (s *search) hear(from netip.Addr, m *wire.Message, each func(*node)) {
	m.EachNode(func(e wire.Node) {
		f := s.c.hearsay(from, &e)
		if f == nil {
			return
		}
		if f == s.f {
			if i, _, ok := s.place(e.ID, e.Addr); ok {
				if each != nil {
					each(s.nodes[i].n)
				}
				return
			}
		}
		n := f.table.get(e.ID)
		if n == nil || n.addr != e.Addr {
			n = &node{id: e.ID, addr: e.Addr}
		}
		if f == s.f {
			s.add(n)
			if each != nil {
				each(n)
			}
		} else if other := s.c.searches[searchKey{s.key, f.which}]; other != nil {
			other.add(n)
		}
	})
}

// hearsay checks what a peer says of a node, and returns the family that the node
// may belong to, or nil. Nobody out there is to make us send packets into our own
// network.
func (c *Core) hearsay(from netip.Addr, e *wire.Node) *family {
	addr := e.Addr.Addr()
	if addr.IsLoopback() && !from.IsLoopback() && from.Is4() == addr.Is4() {
		// It runs on the same host as the one who names it.
		addr = from
		e.Addr = netip.AddrPortFrom(addr, e.Addr.Port())
	}
	if martian(e.Addr) || e.ID == c.cfg.Self || e.ID.IsZero() || local(addr) && !local(from) {
		return nil
	}
	return c.familyOf(addr)
}

// counted returns the usable candidates that count: the nearest ones, but few of
// each block of addresses.
// The list is good until the next call.
func (s *search) counted() []*candidate { return s.countedUpTo(s.width) }

func (s *search) countedUpTo(width int) []*candidate {
	s.room = s.appendCounted(s.room[:0], width)
	return s.room
}

func (s *search) appendCounted(list []*candidate, width int) []*candidate {
	var blocks [maxWidth]netip.Prefix
	for _, cd := range s.nodes {
		if len(list) == width {
			break
		}
		if !cd.usable() {
			continue
		}
		block, ok := network(cd.n.addr.Addr())
		if ok {
			same := 0
			for _, b := range blocks[:len(list)] {
				if b == block {
					same++
				}
			}
			if same >= sameNetworkInBucket {
				continue
			}
		}
		blocks[len(list)] = block
		list = append(list, cd)
	}
	return list
}

// near tells whether the search begins where it will probably end: as many nodes
// as count are known, as near to the key as can be expected.
func (s *search) near(counted []*candidate) bool {
	if len(counted) < min(k, s.width) {
		return false
	}
	expected := bits.Len(uint(s.f.table.estimate()/k)) - 1
	return wire.CommonBits(s.key, counted[k-1].n.id) >= expected-3
}

// synced tells whether the nearest nodes have been asked since the given time, so
// that no nearer ones can be expected.
func (s *search) synced(counted []*candidate, since time.Time) bool {
	if len(counted) == 0 {
		return false
	}
	for i, cd := range counted {
		if i == nearSync {
			break
		}
		if cd.found.Before(since) || cd.found.IsZero() {
			return false
		}
	}
	return true
}

// find asks a candidate for nodes nearer to the key, and for a token.
func (s *search) find(cd *candidate) {
	if cd.find != nil {
		return
	}
	s.meet(cd)
	cd.find = s.c.ask(s.f, cd.n, wire.Request{Method: wire.Find, Key: s.key, Want: s.want()}, finder{s, cd})
	if cd.find == nil {
		cd.late, s.again = true, true // too much is in flight: do without
	}
}

// want is the families of nodes that are asked for: the other one too while its
// search knows few.
func (s *search) want() wire.Families {
	if s.c.v4 == nil || s.c.v6 == nil {
		return 0
	}
	other := s.c.v4
	if s.f == s.c.v4 {
		other = s.c.v6
	}
	if len(other.table.nodes) >= seedCandidates {
		return 0
	}
	return wire.IPv4 | wire.IPv6
}

// finding counts the finds in flight to usable candidates.
func (s *search) finding() int {
	n := 0
	for _, cd := range s.nodes {
		if cd.find != nil && cd.usable() {
			n++
		}
	}
	return n
}

// finder is the owner of finds.
type finder struct {
	s  *search
	cd *candidate
}

func (f finder) replied(r *request, m *wire.Message) {
	f.cd.find = nil
	f.s.answered(f.cd, m)
	f.s.step()
}

// answered notes what a candidate's answer to a find or get tells.
func (s *search) answered(cd *candidate, m *wire.Message) {
	if len(m.Token) == 0 {
		s.c.strike(cd.n.addr) // every node gives one
	}
	cd.late, cd.found = len(m.Token) == 0, s.c.now
	s.hear(cd.n.addr.Addr(), m, nil)
	s.widen()
}

func (f finder) late(*request) {
	f.cd.late = true
	f.s.step()
}

func (f finder) failed(_ *request, code int) {
	f.cd.find = nil
	f.cd.late = f.cd.late || code != 0
	f.s.step()
}

// step lets each task go on.
func (s *search) step() {
	if s.stepping {
		s.again = true
		return
	}
	s.stepping = true
	for {
		s.again = false
		for _, t := range slices.Clone(s.tasks) {
			if t.step(s) {
				s.end(t)
			}
		}
		if !s.again {
			break
		}
	}
	s.stepping = false
}

// sortByTID orders requests that were gathered from a map.
func sortByTID(list []*request) {
	slices.SortFunc(list, func(a, b *request) int { return cmp.Compare(a.tid, b.tid) })
}

// each runs start for the families that the node has, and tells how many those are.
func (c *Core) each(start func(*family)) int {
	n := 0
	for f := range c.families {
		n++
		start(f)
	}
	return n
}

// patience tells whether a task with no nodes to deal with should wait for some:
// until the deadline, while the node tries to join a network.
func (s *search) patience(deadline time.Time, recheck *timer) bool {
	if len(s.counted()) > 0 {
		return false // they were asked
	}
	if s.seed(); len(s.counted()) > 0 {
		s.again = true
		return true
	}
	if !s.f.bootstrap.trying() || !s.c.now.Before(deadline) {
		return false
	}
	for f := range s.c.families {
		if f != s.f && s.c.status(f) == Connected {
			return false // the network is reached, but not this way
		}
	}
	s.c.after(recheck, joinCheck, func() {
		s.seed()
		s.step()
	})
	return true
}
