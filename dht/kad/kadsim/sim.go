// Package kadsim runs networks of thousands of DHT nodes in one loop.
//
// The nodes are the production code of package kad and their packets are the real
// bytes; only clock and network are simulated. Everything follows from the seed:
// the same seed gives the same [World.Digest]. There is no goroutine.
package kadsim

import (
	"container/heap"
	"encoding/binary"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// Start is the time at which every simulation begins.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A World is a simulated network. Make one with [New].
type World struct {
	Now   time.Time
	Link  simnet.Link // between any two nodes
	seed  uint64
	rand  *rand.Rand
	hosts map[netip.AddrPort]*Host
	alive []*Host
	queue queue
	seq   uint64
	made  int

	Packets, Bytes, Lost uint64
	digest               hash.Hash64
	message              wire.Message
	fates                []time.Duration
}

// A Host is one simulated node.
type Host struct {
	Core  *kad.Core
	Addr  netip.AddrPort
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
		Now: start, Link: link, seed: seed,
		rand:  rand.New(rand.NewPCG(seed, 0x6b697468)),
		hosts: make(map[netip.AddrPort]*Host), digest: fnv.New64a(),
	}
}

// Rand is the world's randomness, for the scenario.
func (w *World) Rand() *rand.Rand { return w.rand }

// Alive returns the nodes that run. The slice is the world's own.
func (w *World) Alive() []*Host { return w.alive }

// Digest sums up every packet that was delivered: what, when, to whom.
func (w *World) Digest() uint64 { return w.digest.Sum64() }

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
	w := h.world
	for i := range h.out.Len() {
		to, b := h.out.Packet(i)
		h.sent++
		h.Sent += uint64(len(b))
		w.Packets++
		w.Bytes += uint64(len(b))
		w.fates = w.Link.AppendFate(w.fates[:0], w.seed, h.Addr, to, h.sent, b)
		if len(w.fates) == 0 {
			w.Lost++
		}
		for _, d := range w.fates {
			w.push(&event{at: w.Now.Add(d), from: h.Addr, to: to, packet: append([]byte(nil), b...)})
		}
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
	h.tick = &event{at: next, host: h}
	h.world.push(h.tick)
}

// Run goes on for d of simulated time.
func (w *World) Run(d time.Duration) {
	end := w.Now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		w.step()
	}
	w.Now = end
}

// RunUntil goes on until done, but no longer than d, and tells whether it is done.
func (w *World) RunUntil(d time.Duration, done func() bool) bool {
	end := w.Now.Add(d)
	for !done() {
		if len(w.queue) == 0 || w.queue[0].at.After(end) {
			w.Now = end
			return done()
		}
		w.step()
	}
	return true
}

func (w *World) step() {
	e := heap.Pop(&w.queue).(*event)
	w.Now = e.at
	if e.packet == nil {
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
	var head [24]byte
	binary.BigEndian.PutUint64(head[:], uint64(w.Now.Sub(start)))
	ip := e.to.Addr().As4()
	copy(head[8:], ip[:])
	w.digest.Write(head[:])
	w.digest.Write(e.packet)
	h.Recv += uint64(len(e.packet))
	if w.message.Parse(e.packet) != nil {
		return
	}
	h.Do(func(now time.Time, out *kad.Outbox) {
		h.Core.Receive(now, e.from, &w.message, len(e.packet), out)
	})
}

// An event is a packet that arrives, or a tick of a host.
type event struct {
	at       time.Time
	seq      uint64
	from, to netip.AddrPort
	packet   []byte
	host     *Host
}

func (w *World) push(e *event) {
	w.seq++
	e.seq = w.seq
	heap.Push(&w.queue, e)
}

type queue []*event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if !q[i].at.Equal(q[j].at) {
		return q[i].at.Before(q[j].at)
	}
	return q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*event)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return e
}
