// Package kadsim runs networks of thousands of DHT nodes in one loop.
//
// The nodes are the production code of package kad and their packets are the real
// bytes; only clock and network are simulated. Everything follows from the seed:
// the same seed gives the same [World.Digest]. There is no goroutine.
package kadsim

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// Start is the time at which every simulation begins.
func start() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

// A World is a simulated network. Make one with [New].
type World struct {
	Now  time.Time
	Link simnet.Link // between any two nodes
	// Cut tells which packets are lost beside those that the link loses; nil means
	// none. It must be a pure function.
	Cut   func(from, to netip.AddrPort) bool
	seed  uint64
	rand  *rand.Rand
	hosts map[netip.AddrPort]*Host
	alive []*Host
	queue queue
	seq   uint64
	made  int
	free  []*event

	Packets, Bytes, Lost uint64 // sent, in all
	digest               uint64
	crc                  *crc32.Table // of the polynomial that processors compute
	message              wire.Message
	fates                []time.Duration
}

// A Host is one simulated node.
type Host struct {
	Core *kad.Core // nil for hosts that [World.AddRogue] made
	Addr netip.AddrPort
	// Handle, when set, is given each packet first and tells whether it dealt with
	// it, so that the core does not get it. The message and the packet are valid
	// during the call.
	Handle func(from netip.AddrPort, m *wire.Message, packet []byte) bool

	world *World
	index int // in World.alive, -1 when dead
	tick  *event
	out   kad.Outbox
	sent  uint64
	Sent  uint64 // bytes
	Recv  uint64 // bytes
	Born  time.Time
}

// New returns a world without nodes.
func New(seed uint64, link simnet.Link) *World {
	return &World{
		Now: start(), crc: crc32.MakeTable(crc32.Castagnoli), Link: link, seed: seed,
		rand:  rand.New(rand.NewPCG(seed, 0x6b697468)),
		hosts: make(map[netip.AddrPort]*Host),
	}
}

// Rand is the world's randomness, for the scenario.
func (w *World) Rand() *rand.Rand { return w.rand }

// Alive returns the nodes that run. The slice is the world's own.
func (w *World) Alive() []*Host { return w.alive }

// Digest sums up every packet that was delivered: what, when, to whom.
func (w *World) Digest() uint64 { return w.digest }

// Add starts a node with a random id and an address in a block of its own, and
// makes it join by way of some that run.
func (w *World) Add(cfg kad.Config, contacts int) *Host {
	w.made++
	addr := netip.AddrFrom4([4]byte{byte(20 + w.made>>16), byte(w.made >> 8), byte(w.made), 1})
	return w.AddAt(cfg, netip.AddrPortFrom(addr, 4222), contacts)
}

// AddAt is [World.Add] with a given address.
func (w *World) AddAt(cfg kad.Config, addr netip.AddrPort, contacts int) *Host {
	cfg.Rand = rand.New(rand.NewPCG(w.rand.Uint64(), w.rand.Uint64()))
	if cfg.Self.IsZero() {
		cfg.Self = w.RandomID()
	}
	if cfg.Families == 0 {
		cfg.Families = wire.IPv4
	}
	h := &Host{Addr: addr, world: w, index: len(w.alive), Born: w.Now}
	h.Core = kad.New(cfg, w.Now)
	var via []netip.AddrPort
	for range min(contacts, len(w.alive)) {
		via = append(via, w.alive[w.rand.IntN(len(w.alive))].Addr)
	}
	w.hosts[addr] = h
	w.alive = append(w.alive, h)
	if len(via) > 0 {
		h.Do(func(now time.Time, out *kad.Outbox) { h.Core.Bootstrap(now, via, out) })
	}
	h.schedule()
	return h
}

// AddRogue puts a host into the world that is no node: handle is given the packets
// that reach it, and answers with [Host.Send]. It is not among [World.Alive].
func (w *World) AddRogue(addr netip.AddrPort, handle func(h *Host, from netip.AddrPort, m *wire.Message)) *Host {
	h := &Host{Addr: addr, world: w, index: -1, Born: w.Now}
	h.Handle = func(from netip.AddrPort, m *wire.Message, _ []byte) bool {
		handle(h, from, m)
		return true
	}
	w.hosts[addr] = h
	return h
}

// Move gives a node another address and tells it so. What is on its way to the old
// one is lost.
func (w *World) Move(h *Host, addr netip.AddrPort) {
	delete(w.hosts, h.Addr)
	h.Addr = addr
	w.hosts[addr] = h
	h.Do(func(now time.Time, out *kad.Outbox) { h.Core.ConnectivityChanged(now, out) })
}

// Join tells a node addresses to join by.
func (h *Host) Join(addrs ...netip.AddrPort) {
	h.Do(func(now time.Time, out *kad.Outbox) { h.Core.Bootstrap(now, addrs, out) })
}

// RandomID returns a random node id.
func (w *World) RandomID() (id wire.NodeID) {
	for i := 0; i < len(id); i += 4 {
		binary.BigEndian.PutUint32(id[i:], w.rand.Uint32())
	}
	return id
}

// RandomKey returns a random key.
func (w *World) RandomKey() wire.Key { return wire.Key(w.RandomID()) }

// Kill ends a node without a word.
func (w *World) Kill(h *Host) {
	last := len(w.alive) - 1
	w.alive[h.index] = w.alive[last]
	w.alive[h.index].index = h.index
	w.alive[last] = nil
	w.alive = w.alive[:last]
	h.index = -1
	delete(w.hosts, h.Addr)
	if h.tick != nil {
		h.tick.host = nil
	}
}

// Pick returns a random node that runs.
func (w *World) Pick() *Host { return w.alive[w.rand.IntN(len(w.alive))] }

// Do lets f call the host's core, and sends what comes of it.
func (h *Host) Do(f func(now time.Time, out *kad.Outbox)) {
	h.out.Reset()
	f(h.world.Now, &h.out)
	h.flush()
	h.schedule()
}

func (h *Host) flush() {
	for i := range h.out.Len() {
		to, b := h.out.Packet(i)
		h.Send(to, b)
	}
}

// Send puts a packet on its way.
func (h *Host) Send(to netip.AddrPort, b []byte) {
	w := h.world
	h.sent++
	h.Sent += uint64(len(b))
	w.Packets++
	w.Bytes += uint64(len(b))
	w.fates = w.fates[:0]
	if w.Cut == nil || !w.Cut(h.Addr, to) {
		w.fates = w.Link.AppendFate(w.fates, w.seed, h.Addr, to, h.sent, b)
	}
	if len(w.fates) == 0 {
		w.Lost++
	}
	for _, d := range w.fates {
		e := w.event(w.Now.Add(d))
		e.from, e.to = h.Addr, to
		e.packet = append(e.packet, b...)
		w.push(e)
	}
}

// schedule sets the host's next tick.
func (h *Host) schedule() {
	if h.index < 0 {
		return
	}
	next := h.Core.Next()
	if next.Before(h.world.Now) {
		next = h.world.Now
	}
	if h.tick != nil {
		if !h.tick.at.After(next) {
			return // it will look again then
		}
		h.tick.host = nil
	}
	h.tick = h.world.event(next)
	h.tick.host, h.tick.isTick = h, true
	h.world.push(h.tick)
}

// Run goes on for d of simulated time.
func (w *World) Run(d time.Duration) {
	end := w.Now.Add(d)
	for len(w.queue) > 0 && w.queue[0].at <= end.Sub(start()) {
		w.step()
	}
	w.Now = end
}

// RunUntil goes on until done, but no longer than d, and tells whether it is done.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	end := w.Now.Add(d)
	for !done() {
		if len(w.queue) == 0 || w.queue[0].at > end.Sub(start()) {
			w.Now = end
			return done()
		}
		w.step()
	}
	return true
}

func (w *World) step() {
	e := w.queue.pop()
	w.Now = e.at
	w.run(e)
	e.host, e.isTick, e.packet = nil, false, e.packet[:0]
	w.free = append(w.free, e)
}

func (w *World) run(e *event) {
	if e.isTick {
		if h := e.host; h != nil {
			h.tick = nil
			h.Do(func(now time.Time, out *kad.Outbox) { h.Core.Tick(now, out) })
		}
		return
	}
	h := w.hosts[e.to]
	if h == nil {
		return
	}
	w.note(e)
	h.Recv += uint64(len(e.packet))
	if w.message.Parse(e.packet) != nil {
		return
	}
	if h.Handle != nil && h.Handle(e.from, &w.message, e.packet) || h.Core == nil {
		return
	}
	h.Do(func(now time.Time, out *kad.Outbox) {
		h.Core.Receive(now, e.from, &w.message, len(e.packet), out)
		for _, put := range out.Checks() {
			put.Message.CheckSignatures()
			h.Core.Deliver(now, put, out)
		}
	})
}

// note adds a delivered packet to the digest.
func (w *World) note(e *event) {
	var head [26]byte
	binary.BigEndian.PutUint64(head[:], uint64(w.Now.Sub(start())))
	ip := e.to.Addr().As16()
	copy(head[8:], ip[:])
	binary.BigEndian.PutUint16(head[24:], e.to.Port())
	const prime = 0x9e3779b97f4a7c15
	w.digest = bits.RotateLeft64((w.digest^uint64(crc32.Checksum(head[:], w.crc)))*prime, 29)
	w.digest = bits.RotateLeft64((w.digest^uint64(crc32.Checksum(e.packet, w.crc)))*prime, 29)
}

// An event is a packet that arrives, or a tick of a host.
type event struct {
	at       time.Time
	from, to netip.AddrPort
	packet   []byte
	isTick   bool
	host     *Host // nil when the tick was given up
}

// event returns an event that is empty but for its time.
func (w *World) event(at time.Time) *event {
	if n := len(w.free); n > 0 {
		e := w.free[n-1]
		w.free = w.free[:n-1]
		e.at = at
		return e
	}
	return &event{at: at}
}

func (w *World) push(e *event) {
	w.seq++
	w.queue.push(entry{e.at.Sub(start()), w.seq, e})
}

// A queue is a heap of events, the earliest first and, among equals, in the order
// in which they were added.
type queue []entry

type entry struct {
	at  time.Duration // since the start
	seq uint64
	e   *event
}

func (a entry) before(b entry) bool { return a.at < b.at || a.at == b.at && a.seq < b.seq }

func (q *queue) push(x entry) {
	h := append(*q, x)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !x.before(h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = x
	*q = h
}

func (q *queue) pop() *event {
	h := *q
	first := h[0].e
	last := len(h) - 1
	x := h[last]
	h[last] = entry{}
	h = h[:last]
	i := 0
	for last > 0 {
		least := 4*i + 1
		if least >= last {
			break
		}
		for c := least + 1; c < min(4*i+5, last); c++ {
			if h[c].before(h[least]) {
				least = c
			}
		}
		if !h[least].before(x) {
			break
		}
		h[i] = h[least]
		i = least
	}
	if last > 0 {
		h[i] = x
	}
	*q = h
	return first
}
