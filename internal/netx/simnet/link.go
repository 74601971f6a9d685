package simnet

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// Link is the quality of a path in one direction. The zero value is perfect:
// immediate, without loss, of unlimited rate.
type Link struct {
	Latency   time.Duration // time that every packet takes at least
	Jitter    time.Duration // up to so much more, evenly spread; packets closer together than this overtake one another
	Loss      float64       // share of packets that vanish, 0 to 1
	Duplicate float64       // share of packets that come twice, 0 to 1
	Reorder   float64       // share of packets held back so that later ones overtake, 0 to 1
	Rate      int64         // bytes per second, 0 for unlimited
}

// packetOverhead is what IPv4 and UDP headers add to a payload on the wire, in bytes.
const packetOverhead = 28

// reorderHold is the least upper bound of the time that a reordered packet is held back.
const reorderHold = 10 * time.Millisecond

// Fate tells what becomes of a packet: how long after sending each copy of it
// arrives; none means that it is lost. It is a pure function of its arguments.
// nth counts the packets from src to dst. Rate gives only the time that this one
// packet takes to send; queues are the caller's business.
func (l Link) Fate(seed uint64, src, dst netip.AddrPort, nth uint64, payload []byte) (deliveries []time.Duration) {
	return l.AppendFate(nil, seed, src, dst, nth, payload)
}

// AppendFate is [Link.Fate] that appends the deliveries to a slice.
func (l Link) AppendFate(deliveries []time.Duration, seed uint64, src, dst netip.AddrPort, nth uint64, payload []byte) []time.Duration {
	if l == (Link{}) {
		return append(deliveries, 0)
	}
	h := hash(seed).addr(src).addr(dst).word(nth).bytes(payload)
	d := dice{state: uint64(h)}
	if d.chance(l.Loss) {
		return deliveries
	}
	deliveries = append(deliveries, l.delay(&d, len(payload)))
	if d.chance(l.Duplicate) {
		deliveries = append(deliveries, l.delay(&d, len(payload)))
	}
	return deliveries
}

func (l Link) delay(d *dice, size int) time.Duration {
	t := l.Latency + d.upTo(l.Jitter)
	if d.chance(l.Reorder) {
		t += d.upTo(max(l.Latency, reorderHold))
	}
	return t + l.sending(size)
}

// sending is the time that a packet occupies the link.
func (l Link) sending(size int) time.Duration {
	if l.Rate <= 0 {
		return 0
	}
	return time.Duration(float64(size+packetOverhead) / float64(l.Rate) * float64(time.Second))
}

// Then is the path over one link and then another.
func (l Link) Then(m Link) Link {
	if m == (Link{}) {
		return l
	}
	either := func(p, q float64) float64 { return 1 - (1-p)*(1-q) }
	out := Link{
		Latency:   l.Latency + m.Latency,
		Jitter:    l.Jitter + m.Jitter,
		Loss:      either(l.Loss, m.Loss),
		Duplicate: either(l.Duplicate, m.Duplicate),
		Reorder:   either(l.Reorder, m.Reorder),
		Rate:      l.Rate,
	}
	if m.Rate > 0 && (l.Rate <= 0 || m.Rate < l.Rate) {
		out.Rate = m.Rate
	}
	return out
}

// hash is a 64-bit hash that is the same in every run and on every machine. It
// is no defence against people who look for collisions.
type hash uint64

func (h hash) word(x uint64) hash { return hash(mix(uint64(h) ^ mix(x+0x9e3779b97f4a7c15))) }

func (h hash) addr(a netip.AddrPort) hash {
	b := a.Addr().As16()
	h = h.word(binary.BigEndian.Uint64(b[:8]))
	h = h.word(binary.BigEndian.Uint64(b[8:]))
	return h.word(uint64(a.Port()))
}

func (h hash) bytes(p []byte) hash {
	h = h.word(uint64(len(p)))
	for len(p) >= 8 {
		h = h.word(binary.LittleEndian.Uint64(p))
		p = p[8:]
	}
	var last [8]byte
	copy(last[:], p)
	return h.word(binary.LittleEndian.Uint64(last[:]))
}

// mix is the finaliser of the SplitMix64 generator.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// dice is the SplitMix64 generator.
type dice struct{ state uint64 }

func (d *dice) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	return mix(d.state)
}

func (d *dice) chance(p float64) bool {
	return float64(d.next()>>11)/(1<<53) < p
}

func (d *dice) upTo(t time.Duration) time.Duration {
	if t <= 0 {
		d.next() // so that what follows does not depend on t
		return 0
	}
	return time.Duration(d.next() % uint64(t))
}

// pacer is a queue in front of a link of limited rate. It needs only to know
// when the link will be free.
type pacer struct{ free time.Duration }

// pacerMax is the longest that a packet waits in such a queue; what would wait
// longer is dropped.
const pacerMax = time.Second

// admit gives the time at which a packet that comes at t has passed, or false
// when the queue is full.
func (p *pacer) admit(t time.Duration, size int, l Link) (time.Duration, bool) {
	if l.Rate <= 0 {
		return t, true
	}
	start := max(t, p.free)
	if start-t > pacerMax {
		return 0, false
	}
	p.free = start + l.sending(size)
	return p.free, true
}
