// Package kad decides what a node of an OpenDHT-compatible network does.
//
// A [Core] is given packets, requests of its owner and the time, and answers with
// packets to send and calls of the functions it was given. It has no goroutine,
// clock, socket or randomness of its own, so the same inputs always lead to the
// same outputs: whole networks run in one loop (kith sim), and the real node
// (package dht) is a thin shell around it. A Core is not safe for concurrent use.
//
// Where to find what:
//
//	core.go      configuration, entry points          answer.go   requests of others
//	table.go     routing table                        storage.go  values, quotas
//	request.go   our requests, retries, round trips   policy.go   types of values
//	search.go    finding the nodes nearest a key      listener.go who listens to us
//	get.go put.go listen.go   what users ask for      parts.go    values in parts
//	upkeep.go    bootstrap, refresh, replication      train.go    sending them
//	check.go     signatures                           limits.go   rates, tokens
//
// The protocol is described in docs/protocol/opendht.md.
package kad

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Config is how a node behaves. The zero value, but for Self and Rand, is the
// production default.
type Config struct {
	Self    wire.NodeID // must be set
	Rand    *rand.Rand  // must be set; the core is its only user
	Network uint32      // network id; 0 is the public network
	// Families are the address families that the node has a socket for; none
	// means both.
	Families wire.Families
	// ReadOnly asks others not to send us requests of their own: for phones.
	ReadOnly bool
	Limits   Limits
}

// Limits bound what a node does for others. Zero fields mean the default.
type Limits struct {
	Requests          int   // per second, in all; 0: 8192; negative: no limits on requests at all
	RequestsPerSource int   // per second and IPv4 address or IPv6 /64; 0: an eighth of Requests
	Storage           int64 // bytes; 0: 64 MiB
	Listeners         int   // 0: 262,144
}

func (l Limits) orDefault() Limits {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Requests, 8192)
	set(&l.RequestsPerSource, max(l.Requests/8, 1))
	set(&l.Listeners, 1<<18)
	if l.Storage == 0 {
		l.Storage = 64 << 20
	}
	return l
}

// Stats counts what a core did since it was made.
type Stats struct {
	Received, Sent           uint64 // packets
	ReceivedBytes, SentBytes uint64
	Requests                 [wire.Update + 1]uint64 // of others, by method
	Asked                    [wire.Update + 1]uint64 // of ours, by method; without retries
	Retries, Timeouts        uint64
	Ignored                  [ignoreReasons]uint64 // packets that were dropped, by reason
	Refused                  [wire.OverQuota + 1]uint64
	Challenges               uint64 // strangers that were asked to prove their address
	Replicated               uint64 // values handed to nodes that came nearer
	Widened                  uint64 // searches that met a suspicious crowd
}

// Reason is why a packet was dropped.
type Reason uint8

// The reasons.
const (
	OtherNetwork Reason = iota
	Martian             // an address that no node can have
	OwnID
	RateLimited
	Banned
	Unexpected // an answer that nobody asked for, or from another address
	BadToken
	BadPart   // a part of nothing, out of bounds or from elsewhere
	BadValues // values that could not be read, in packets that were else good
	ignoreReasons
)

// String returns the reason as it labels a metric.
func (r Reason) String() string {
	return [...]string{"other_network", "martian", "own_id", "rate_limited", "banned", "unexpected", "bad_token", "bad_part", "bad_values"}[r]
}

// Reasons returns all reasons.
func Reasons() []Reason {
	list := make([]Reason, ignoreReasons)
	for i := range list {
		list[i] = Reason(i)
	}
	return list
}

// A Core is the state of one node.
type Core struct {
	cfg    Config
	env    wire.Envelope
	rand   *rand.Rand
	timers timers
	v4, v6 *family

	requests map[uint32]*request
	searches map[searchKey]*search
	sockets  map[uint32]*socket // listens of ours, by the socket id that pushes name
	store    storage
	watch    listeners
	puts     map[*Put]struct{}
	listens  map[wire.Key][]*Listen

	limiter limiter
	tokens  tokens
	proven  generations[netip.AddrPort, struct{}] // addresses that answered or used a token
	banned  generations[netip.AddrPort, int]      // strikes
	checks  generations[netip.Addr, checks]       // signatures verified, by source
	waiting waiting
	parts   assembly

	trains    []train
	trainTm   timer
	trainRoom int // bytes, until it is due

	local             []netip.Addr // of the host's interfaces
	sweepTm, upkeepTm timer

	nodes4, nodes6 []byte // room for the node lists of an answer
	nearest        []*node

	stats Stats
	now   time.Time // of the call in progress
	out   *Outbox   // of the call in progress
}

// family is what a node keeps for one address family.
type family struct {
	which     wire.Families
	table     table
	rtt       rtt // of all nodes
	bootstrap bootstrap
	ours      addressVotes
	apart     time.Time                    // when we were not connected last
	nearLost  time.Time                    // when a neighbour was lost last
	watched   map[netip.AddrPort]time.Time // nodes that push to us, and when they were pinged
	home      time.Time                    // when we looked for our own id last
	homes     int                          // how often, since we joined
	spared    time.Time                    // when we looked for nodes elsewhere last
}

// New returns a core that knows nobody. Drive it with [Core.Receive] and
// [Core.Tick].
func New(cfg Config, now time.Time) *Core {
	cfg.Limits = cfg.Limits.orDefault()
	if cfg.Families == 0 {
		cfg.Families = wire.IPv4 | wire.IPv6
	}
	c := &Core{
		cfg:      cfg,
		env:      wire.Envelope{Self: cfg.Self, Network: cfg.Network, ReadOnly: cfg.ReadOnly},
		rand:     cfg.Rand,
		requests: make(map[uint32]*request),
		searches: make(map[searchKey]*search),
		sockets:  make(map[uint32]*socket),
		puts:     make(map[*Put]struct{}),
		store:    newStorage(cfg.Limits.Storage),
		tokens:   tokens{rand: cfg.Rand},
		proven:   generations[netip.AddrPort, struct{}]{span: 30 * time.Minute, half: 1 << 15},
		banned:   generations[netip.AddrPort, int]{span: 10 * time.Minute, half: 1 << 10},
		now:      now,
	}
	if cfg.Limits.Requests > 0 {
		c.limiter = limiter{total: float32(cfg.Limits.Requests), each: float32(cfg.Limits.RequestsPerSource)}
	}
	c.limiter.sources = generations[netip.Addr, sourceRate]{span: time.Minute, half: 1 << 15}
	c.checks = generations[netip.Addr, checks]{span: time.Minute, half: 1 << 15}
	c.parts.answers = budget{each: maxPartialSum / 4}
	c.parts.unasked = budget{each: maxPartialSum / 16, evict: true}
	c.store.gone = c.valueGone
	c.store.cleared = func(sh *shelf) { c.timers.stop(&sh.check) }
	c.v4 = c.newFamily(wire.IPv4)
	c.v6 = c.newFamily(wire.IPv6)
	c.startUpkeep()
	return c
}

func (c *Core) newFamily(f wire.Families) *family {
	if c.cfg.Families&f == 0 {
		return nil
	}
	return &family{which: f, table: table{self: c.cfg.Self}}
}

// families yields the families that the node has.
func (c *Core) families(yield func(*family) bool) {
	for _, f := range []*family{c.v4, c.v6} {
		if f != nil && !yield(f) {
			return
		}
	}
}

func (c *Core) familyOf(a netip.Addr) *family {
	if a.Is4() {
		return c.v4
	}
	return c.v6
}

// enter begins a call from outside: all that happens in it happens at now.
func (c *Core) enter(now time.Time, out *Outbox) {
	if now.After(c.now) {
		c.now = now
	}
	c.out = out
}

// Stats returns the counters.
func (c *Core) Stats() Stats { return c.stats }

// Self returns the node's id.
func (c *Core) Self() wire.NodeID { return c.cfg.Self }

// Next returns when [Core.Tick] has work next.
func (c *Core) Next() time.Time {
	at, ok := c.timers.next()
	if !ok {
		return c.now.Add(time.Hour)
	}
	return at
}

// Tick does the work that is due at now and returns when there is more.
func (c *Core) Tick(now time.Time, out *Outbox) time.Time {
	c.enter(now, out)
	c.timers.runDue(c.now)
	c.out = nil
	return c.Next()
}

// after schedules run, which replaces what t had scheduled before.
func (c *Core) after(t *timer, d time.Duration, run func()) {
	t.run = run
	c.timers.set(t, c.now.Add(d))
}

// jitter returns d, give or take up to a part of it.
func (c *Core) jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 - part + 2*part*c.rand.Float64()))
}

func (c *Core) ignore(r Reason) { c.stats.Ignored[r]++ }

// send takes over a packet that was appended to the outbox's buffer.
func (c *Core) send(to netip.AddrPort, buf []byte) {
	n := c.out.add(to, buf)
	c.stats.Sent++
	c.stats.SentBytes += uint64(n)
}

// Receive takes a packet of size bytes that m was parsed from. It keeps nothing
// of m but copies, except for what [Outbox.Checks] then lists.
func (c *Core) Receive(now time.Time, from netip.AddrPort, m *wire.Message, size int, out *Outbox) {
	c.enter(now, out)
	c.stats.Received++
	c.stats.ReceivedBytes += uint64(size)
	c.receive(from, m, size)
	c.out = nil
}

func (c *Core) receive(from netip.AddrPort, m *wire.Message, size int) {
	f := c.familyOf(from.Addr())
	switch {
	case f == nil || martian(from):
		c.ignore(Martian)
		return
	case m.Network != c.cfg.Network:
		c.ignore(OtherNetwork)
		return
	case m.From == c.cfg.Self && m.Kind != wire.Parts:
		c.ignore(OwnID)
		return
	}
	if len(c.banned.now)+len(c.banned.old) > 0 {
		if strikes, _ := c.banned.get(c.now, from); strikes >= maxStrikes {
			c.ignore(Banned)
			return
		}
	}
	if m.BadVals > 0 {
		c.stats.Ignored[BadValues] += uint64(m.BadVals)
	}
	switch m.Kind {
	case wire.Ask:
		if _, proven := c.proven.get(c.now, from); !c.limiter.allow(c.now, from.Addr(), proven) {
			c.ignore(RateLimited)
			return
		}
		c.handleRequest(f, from, m, size)
	case wire.Reply, wire.Error:
		c.handleReply(f, from, m)
	case wire.Parts:
		c.handleParts(f, from, m)
	case wire.Notice:
		c.handleNotice(from, m)
	}
}

// maxStrikes is how often an address may break the protocol in ten minutes before
// it is not listened to.
const maxStrikes = 3

func (c *Core) strike(a netip.AddrPort) {
	n, _ := c.banned.get(c.now, a)
	c.banned.set(c.now, a, n+1)
}
