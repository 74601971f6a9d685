package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// How often a node looks after itself.
const (
	upkeepEvery = 10 * time.Second
	youngEvery  = 4 * time.Second // the same, and between lookups of our own id, after joining
	sweepEvery  = 10 * time.Second
	pingAfter   = 12 * time.Minute // of silence, any node of the routing table
	calmPing    = 5 * time.Minute  // of silence, a neighbour, in a network that is calm
	churnPing   = 45 * time.Second // the same, after neighbours were lost
	churnFor    = 10 * time.Minute // a lost neighbour counts as churn for so long
	joinEvery   = 30 * time.Second // between the first lookups of our own id
	homeEvery   = 5 * time.Minute  // between later ones
	bucketEvery = 15 * time.Minute // between looking for new nodes in one part of the network
	maxPings    = 16               // at a time
	natEvery    = 25 * time.Second // between two pings, before a NAT may forget a mapping
	serverEvery = time.Minute      // the same without a NAT

	bootstrapFirst = 2 * time.Second
	bootstrapMax   = 5 * time.Minute
)

// bootstrap is how far a family is with joining.
type bootstrap struct {
	out   int // pings in flight
	wait  time.Duration
	next  time.Time
	begun bool // there is somebody to ask, or was asked for
}

// trying tells whether nodes may turn up soon.
func (b *bootstrap) trying() bool { return b.begun }

func (b *bootstrap) reset() { b.wait = 0 }

func (c *Core) startUpkeep() {
	c.after(&c.sweepTm, c.jitter(sweepEvery, 0.3), c.sweep)
	c.after(&c.upkeepTm, c.jitter(time.Second, 0.5), c.upkeep)
}

func (c *Core) sweep() {
	c.store.sweep(c.now)
	c.sweepListeners()
	c.after(&c.sweepTm, c.jitter(sweepEvery, 0.3), c.sweep)
}

func (c *Core) upkeep() {
	for f := range c.families {
		c.upkeepFamily(f)
	}
	every := upkeepEvery
	for f := range c.families {
		if len(f.table.nodes) > 0 && c.young(f) {
			every = youngEvery
		}
	}
	c.after(&c.upkeepTm, c.jitter(every, 0.3), c.upkeep)
}

// young tells whether we have joined only just. The others may have too, and know as
// little: until each knows its neighbours, values are put and looked for at different
// nodes.
func (c *Core) young(f *family) bool { return f.homes < firstHomes }

func (c *Core) upkeepFamily(f *family) {
	connected := c.status(f) == Connected
	depth := f.table.depth()
	nearPing := calmPing
	if c.churning(f) {
		nearPing = churnPing
	}
	pings := 0
	if !connected {
		f.apart = c.now
	}
	var dead, lost []*node
	for _, n := range f.table.nodes {
		silence := c.now.Sub(n.replied)
		switch {
		case n.expired && connected && min(silence, c.now.Sub(f.apart)) > forgetIn:
			dead = append(dead, n)
		case n.expired && connected:
			lost = append(lost, n)
		case pings >= maxPings:
		case n.expired:
			// Everybody is gone: so are we, and those who were good come first when
			// the network is back.
			if c.rand.IntN(4) == 0 {
				c.ping(f, n)
				pings++
			}
		case silence > pingAfter || silence > nearPing && wire.CommonBits(n.id, c.cfg.Self) >= depth:
			c.ping(f, n)
			pings++
		}
	}
	for _, n := range dead {
		f.table.remove(n)
	}
	// Who is lost may be back: if most are, it is us who were away, and those that
	// we met since may be a part of the network only, or somebody's trap.
	again := 1
	if 2*len(lost) > len(f.table.nodes) {
		again = maxPings
	}
	for ; again > 0 && len(lost) > 0; again-- {
		i := c.rand.IntN(len(lost))
		c.ping(f, lost[i])
		lost = slices.Delete(lost, i, i+1)
	}
	if connected {
		c.lookAround(f, depth)
	}
	c.watchServers(f)
}

// churning tells whether the neighbourhood has changed lately.
func (c *Core) churning(f *family) bool {
	return !f.nearLost.IsZero() && c.now.Sub(f.nearLost) < churnFor
}

// lookAround looks for new nodes: first and most often near ourselves, so that
// those who store near our id know us, then in the other parts of the network.
func (c *Core) lookAround(f *family, depth int) {
	every := homeEvery
	switch {
	case c.young(f):
		every = youngEvery
	case c.churning(f):
		every = joinEvery
	}
	if f.homes == 0 || c.now.Sub(f.home) >= c.jitter(every, 0.1) {
		f.home = c.now
		f.homes++
		s := c.homeSearch(f)
		s.run(&lookup{begun: c.now})
		return
	}
	if c.now.Sub(f.spared) < bucketEvery/time.Duration(depth+1) {
		return
	}
	f.spared = c.now
	b := c.rand.IntN(depth + 1)
	target := c.cfg.Self
	for i := b; i < 8*wire.IDSize; i++ { // the first b bits are ours, the next is not
		flip := i == b || c.rand.Uint64()&1 == 1
		if flip {
			target[i/8] ^= 0x80 >> (i % 8)
		}
	}
	var room [1 + 4*k]*node
	for _, n := range f.table.closest(room[:0], wire.Key(target), 1, func(n *node) bool { return !n.expired }) {
		want := wire.Families(0)
		if c.v4 != nil && c.v6 != nil {
			want = wire.IPv4 | wire.IPv6
		}
		c.ask(f, n, wire.Request{Method: wire.Find, Key: wire.Key(target), Want: want}, explorer{c})
	}
}

// explorer is the owner of finds that look for new nodes.
type explorer struct{ c *Core }

func (e explorer) replied(r *request, m *wire.Message) {
	pings := 0
	m.EachNode(func(n wire.Node) {
		f := e.c.hearsay(r.addr.Addr(), &n)
		if f == nil || pings >= k || f.table.get(n.ID) != nil || !f.table.wants(e.c.now, n.ID, n.Addr.Addr()) {
			return
		}
		pings++
		e.c.ping(f, &node{id: n.ID, addr: n.Addr})
	})
}
func (e explorer) late(*request)        {}
func (e explorer) failed(*request, int) {}

// While a node joins it asks more of those around it for others: the more nodes
// know each other, the fewer questions a lookup takes.
const (
	homeWidth  = 3 * k
	firstHomes = 8 // lookups of our own id that belong to joining
)

// homeSearch is the search for our own id.
func (c *Core) homeSearch(f *family) *search {
	s := c.search(f, wire.Key(c.cfg.Self))
	if f.homes <= firstHomes {
		s.width = max(s.width, homeWidth)
	}
	return s
}

// A lookup is a task that only gets to know the nodes nearest to a key.
type lookup struct {
	begun time.Time
	tries int
}

func (l *lookup) lasting() bool { return false }

func (l *lookup) step(s *search) bool {
	counted := s.counted()
	busy := s.finding()
	open := false
	for _, cd := range counted {
		if !cd.found.Before(l.begun) {
			continue
		}
		open = true
		if cd.find == nil && busy < narrow {
			if l.tries++; l.tries > 4*maxCandidates {
				return true
			}
			s.find(cd)
			busy++
		}
	}
	return !open
}

// watchServers pings the two nearest nodes of each listen of ours, so that we learn
// when they are gone, and before a NAT between us forgets that we talked. Two will
// do: what is pushed by one is heard.
func (c *Core) watchServers(f *family) {
	every := serverEvery
	if c.natted(f) {
		every = natEvery
	}
	due := make(map[netip.AddrPort]*node)
	for _, ls := range c.listens {
		for _, l := range ls {
			for _, t := range l.tasks {
				if t.s.f != f {
					continue
				}
				for _, n := range t.nearest() {
					if same := f.table.get(n.id); same != nil && same.addr == n.addr {
						n = same // other searches may know it apart
					}
					due[n.addr] = n
				}
			}
		}
	}
	for a := range f.watched {
		if due[a] == nil {
			delete(f.watched, a)
		}
	}
	var list []*node
	for a, n := range due {
		if c.now.Sub(f.watched[a]) >= every {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b *node) int { return a.id.Compare(b.id) })
	for _, n := range list {
		if f.watched == nil {
			f.watched = make(map[netip.AddrPort]time.Time)
		}
		f.watched[n.addr] = c.now
		c.ping(f, n)
	}
}

// SetLocalAddrs tells the addresses of the host's interfaces, and tells whether
// they are others than before. When others see us at an address that is not among
// them there is a NAT between us.
func (c *Core) SetLocalAddrs(addrs []netip.Addr) (changed bool) {
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	changed = c.local != nil && !slices.Equal(addrs, c.local)
	c.local = addrs
	return changed
}

// natted tells whether there is a NAT between us and others.
func (c *Core) natted(f *family) bool {
	best := f.ours.best()
	return best.IsValid() && !slices.Contains(c.local, best)
}

// Bootstrap pings addresses at which nodes are hoped for. Call it also with none,
// to say that more come later.
func (c *Core) Bootstrap(now time.Time, addrs []netip.AddrPort, out *Outbox) {
	c.enter(now, out)
	for f := range c.families {
		f.bootstrap.begun = true
	}
	for _, a := range addrs {
		f := c.familyOf(a.Addr())
		if f == nil || martian(a) {
			continue
		}
		if c.askAddr(f, a, wire.Request{Method: wire.Ping}, bootPing{c, f}) != nil {
			f.bootstrap.out++
		}
	}
	c.out = nil
}

type bootPing struct {
	c *Core
	f *family
}

func (b bootPing) replied(r *request, _ *wire.Message) {
	b.f.bootstrap.out--
	// Ask for the neighbourhood at once: the first node known is the way in.
	c := b.c
	if b.f.homes == 0 {
		b.f.homes++
		b.f.home = c.now
	}
	// It may know a part of the network that the others do not, and not be near.
	c.ask(b.f, r.node, wire.Request{Method: wire.Find, Key: wire.Key(c.cfg.Self), Want: b.f.which}, explorer{c})
	if s := c.homeSearch(b.f); s.idle() { // others may have begun it
		s.run(&lookup{begun: c.now})
	}
}
func (b bootPing) late(*request)        {}
func (b bootPing) failed(*request, int) { b.f.bootstrap.out-- }

// WantsBootstrap tells whether it is time to call [Core.Bootstrap]: no family is
// connected, and it was not called for long enough.
func (c *Core) WantsBootstrap(now time.Time) bool {
	due := false
	for f := range c.families {
		if c.status(f) == Connected {
			return false
		}
		b := &f.bootstrap
		if b.out == 0 && !now.Before(b.next) {
			due = true
		}
	}
	if !due {
		return false
	}
	for f := range c.families {
		b := &f.bootstrap
		b.wait = min(max(2*b.wait, bootstrapFirst), bootstrapMax)
		b.next = now.Add(c.jitter(b.wait, 0.2))
	}
	return true
}

// Insert makes known nodes of which others have told, such as a saved list or
// local discovery. They are pinged, and count once they answer.
func (c *Core) Insert(now time.Time, nodes []wire.Node, out *Outbox) {
	c.enter(now, out)
	for _, n := range nodes {
		f := c.familyOf(n.Addr.Addr())
		if f == nil || martian(n.Addr) || n.ID == c.cfg.Self || n.ID.IsZero() {
			continue
		}
		if have := f.table.get(n.ID); have != nil && have.addr == n.Addr && have.good(c.now) {
			continue
		}
		f.bootstrap.begun = true
		if c.ask(f, &node{id: n.ID, addr: n.Addr}, wire.Request{Method: wire.Ping}, bootPing{c, f}) != nil {
			f.bootstrap.out++
		}
	}
	c.out = nil
}

// Nodes returns the good nodes, nearest to ourselves first, IPv4 before IPv6: what
// to save for the next start.
func (c *Core) Nodes(now time.Time) []wire.Node {
	var list []wire.Node
	for f := range c.families {
		for _, n := range f.table.closest(nil, wire.Key(c.cfg.Self), len(f.table.nodes), func(n *node) bool { return n.good(now) }) {
			list = append(list, wire.Node{ID: n.id, Addr: n.addr})
		}
	}
	return list
}

// ConnectivityChanged says that the host's network is another one. What is known
// of nodes is asked anew and tasks that wait for nodes go on.
func (c *Core) ConnectivityChanged(now time.Time, out *Outbox) {
	c.enter(now, out)
	for f := range c.families {
		f.bootstrap = bootstrap{begun: f.bootstrap.begun, out: f.bootstrap.out}
		f.ours = addressVotes{}
		f.rtt = rtt{}
		f.homes = 0
		for _, n := range f.table.nodes {
			n.forgetPath()
		}
		for _, n := range f.table.closest(nil, wire.Key(c.cfg.Self), 2*maxPings, func(*node) bool { return true }) {
			n.expired = false
			c.ping(f, n)
		}
	}
	var due []*search
	for _, s := range c.searches {
		due = append(due, s)
	}
	slices.SortFunc(due, func(a, b *search) int {
		if a.f != b.f {
			return int(a.f.which) - int(b.f.which)
		}
		return slices.Compare(a.key[:], b.key[:])
	})
	for _, s := range due {
		for _, cd := range s.nodes {
			cd.n.forgetPath()
		}
		for _, t := range s.tasks {
			if l, ok := t.(*listenTask); ok {
				for _, so := range l.at {
					so.due = true
				}
			}
		}
		if !s.idle() {
			s.resync()
		}
	}
	c.after(&c.upkeepTm, 0, c.upkeep)
	c.out = nil
}

// Connectivity of a family.
const (
	Disconnected = iota
	Connecting
	Connected
)

func (c *Core) status(f *family) int {
	dubious := f.bootstrap.out > 0
	for _, n := range f.table.nodes {
		if n.good(c.now) {
			return Connected
		}
		dubious = dubious || !n.expired
	}
	if dubious {
		return Connecting
	}
	return Disconnected
}

// addressVotes is what others say our address is. Each block of addresses has one
// vote of the last few cast, so that a chatty liar counts no more than anybody.
type addressVotes struct {
	votes [16]addressVote
	next  int
}

type addressVote struct {
	by   netip.Prefix
	addr netip.Addr
}

func (a *addressVotes) vote(by netip.Prefix, addr netip.Addr) {
	for i := range a.votes {
		if a.votes[i].by == by {
			a.votes[i].addr = addr
			return
		}
	}
	a.votes[a.next] = addressVote{by, addr}
	a.next = (a.next + 1) % len(a.votes)
}

// best is the address that most name, or the zero address.
func (a *addressVotes) best() netip.Addr {
	var best netip.Addr
	most := 0
	for _, v := range a.votes {
		n := 0
		for _, w := range a.votes {
			if w.addr == v.addr {
				n++
			}
		}
		if v.addr.IsValid() && n > most {
			best, most = v.addr, n
		}
	}
	return best
}

// Ping asks whether a node answers at an address, and calls done with its id and
// the round-trip time, or with [ErrNoNodes]. The rules for done are those of
// [Core.Get].
func (c *Core) Ping(now time.Time, addr netip.AddrPort, done func(wire.NodeID, time.Duration, error), out *Outbox) {
	c.enter(now, out)
	f := c.familyOf(addr.Addr())
	if f == nil || martian(addr) || c.askAddr(f, addr, wire.Request{Method: wire.Ping}, userPing{c, done}) == nil {
		done(wire.NodeID{}, 0, ErrNoNodes)
	}
	c.out = nil
}

type userPing struct {
	c    *Core
	done func(wire.NodeID, time.Duration, error)
}

func (p userPing) replied(r *request, m *wire.Message) { p.done(m.From, p.c.now.Sub(r.sent), nil) }
func (p userPing) late(*request)                       {}
func (p userPing) failed(*request, int)                { p.done(wire.NodeID{}, 0, ErrNoNodes) }
