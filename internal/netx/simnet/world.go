// Package simnet is an internet in memory: hosts that are netx.Networks, the
// links between them, NATs, firewalls, local networks, partitions, UDP and TCP.
//
// It is made for bubbles of testing/synctest: it uses only package time, and who
// waits for it is durably blocked. It works with the real clock too. All chance
// is a pure function of the seed and the packet, so that one seed gives one
// course of things as far as the program under test is deterministic. The model
// of a link is [Link.Fate], which an event loop can use without the rest.
//
// A [World] has no goroutine of its own; timers run its events. It does not model
// IP fragmentation, ICMP, routing costs or TCP congestion control.
package simnet

import (
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Config describes a world; the zero value is one of perfect links.
type Config struct {
	Seed uint64
	// Link is the path between hosts of different networks, in each direction.
	Link Link
	// Timeout is how long NATs and firewalls remember a UDP packet that went
	// out; 0 is two minutes, the least that RFC 4787 allows.
	Timeout time.Duration
	// ReceiveBuffer bounds what waits in a UDP socket, in bytes with 512 for the
	// overhead of each packet; 0 is 1 MiB.
	ReceiveBuffer int
	// Window bounds what is under way and unread in one direction of a TCP
	// connection, in bytes; 0 is 256 KiB.
	Window int
}

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Minute
	}
	if c.ReceiveBuffer <= 0 {
		c.ReceiveBuffer = 1 << 20
	}
	if c.Window <= 0 {
		c.Window = 256 << 10
	}
	return c
}

// World is one internet. Its methods, and those of what it consists of, are safe
// for concurrent use. Methods that build it panic when they are used wrongly (an
// address taken twice, a host of another world), since that is a mistake in a test.
type World struct {
	// mu guards everything in the world: hosts, NATs, sockets, connections. The
	// conditions that callers wait for use it too.
	mu     sync.Mutex
	cfg    Config
	epoch  time.Time
	closed bool
	done   chan struct{} // closed with the world

	events eventQueue
	timer  *time.Timer
	armed  time.Duration // when timer goes off, 0 for not at all

	internet *LAN
	hosts    []*Host
	names    map[string][]netip.Addr
	cut      map[hostPair]struct{}
	links    map[hostPair]Link

	stats  Stats
	digest uint64
	fates  []time.Duration // scratch
}

// hostPair is two hosts, the lower id first.
type hostPair [2]int

func pairOf(a, b *Host) hostPair { return hostPair{min(a.id, b.id), max(a.id, b.id)} }

// New makes a world. Inside a bubble it must be made inside.
func New(cfg Config) *World {
	w := &World{
		cfg:   cfg.withDefaults(),
		epoch: time.Now(),
		done:  make(chan struct{}),
		names: make(map[string][]netip.Addr),
		cut:   make(map[hostPair]struct{}),
		links: make(map[hostPair]Link),
	}
	w.internet = &LAN{world: w, realm: &realm{owners: make(map[netip.Addr]owner)}, link: cfg.Link}
	return w
}

// NewHost puts a host on the internet itself, where multicast goes nowhere.
func (w *World) NewHost(name string, addrs ...netip.Addr) *Host {
	return w.internet.NewHost(name, addrs...)
}

// NewNAT puts a NAT with these public addresses on the internet.
func (w *World) NewNAT(kind NATKind, public ...netip.Addr) *NAT {
	return w.internet.NewNAT(kind, public...)
}

// NewLAN makes a network of hosts with addresses of the internet, among which
// multicast works; link is the path between two of them.
func (w *World) NewLAN(link Link) *LAN {
	return &LAN{world: w, realm: w.internet.realm, link: link, multicast: true}
}

// SetName makes a host name resolve to these addresses everywhere; none removes it.
func (w *World) SetName(name string, addrs ...netip.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(addrs) == 0 {
		delete(w.names, canonical(name))
		return
	}
	w.names[canonical(name)] = append([]netip.Addr(nil), addrs...)
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// SetLink sets the path between two hosts, in both directions, whatever networks
// they are in. What their own access links add stays.
func (w *World) SetLink(a, b *Host, l Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links[pairOf(a, b)] = l
}

// Partition cuts every host of a off from every host of b. Packets under way are
// lost too. TCP connections stall, and go on after Heal.
func (w *World) Partition(a, b []*Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range a {
		for _, y := range b {
			if x != y {
				w.cut[pairOf(x, y)] = struct{}{}
			}
		}
	}
}

// Heal ends all partitions.
func (w *World) Heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cut)
}

func (w *World) partitioned(a, b *Host) bool {
	if len(w.cut) == 0 {
		return false
	}
	_, ok := w.cut[pairOf(a, b)]
	return ok
}

// path is the link from a host to another, with the access links of both; nil is
// somebody unknown.
func (w *World) path(from, to *Host) Link {
	switch to {
	case nil:
		return w.cfg.Link.Then(from.access)
	case from:
		return Link{}
	}
	l, ok := w.links[pairOf(from, to)]
	if !ok {
		l = w.cfg.Link
		if from.lan == to.lan {
			l = from.lan.link
		}
	}
	return l.Then(from.access).Then(to.access)
}

// pace sends a packet through the queues of both hosts' access links. It gives
// the time that this adds to the delay, or false when one of them is full.
func (w *World) pace(from, to *Host, size int, delay time.Duration) (time.Duration, bool) {
	now := w.now()
	out, ok := from.out.admit(now, size, from.access)
	if !ok {
		return 0, false
	}
	added := out - now
	if to == nil || to == from {
		return added, true
	}
	arrival := now + added + delay
	in, ok := to.in.admit(arrival, size, to.access)
	return added + in - arrival, ok
}

// Stats counts all traffic of the world.
func (w *World) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stats
}

// Digest is a hash of every UDP packet delivered so far: its time, addresses and
// payload. It does not depend on the order of packets of one instant.
func (w *World) Digest() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.digest
}

// Close ends the world: all sockets, listeners and connections are closed, which
// wakes who waits for them, channels of Changes are closed, and packets under way
// vanish. Nothing can be opened any more. It can be called again.
func (w *World) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil
	}
	w.closed = true
	close(w.done)
	w.events = nil
	if w.timer != nil {
		w.timer.Stop()
	}
	for _, h := range w.hosts {
		h.closeAll()
	}
	return nil
}
