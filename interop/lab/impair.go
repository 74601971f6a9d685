//go:build linux

package lab

import (
	"math/rand/v2"
	"time"
)

// Impairment is what a one-way link does to packets. The zero value is a perfect
// link.
type Impairment struct {
	Delay     time.Duration // constant
	Jitter    time.Duration // added, uniform in [0, Jitter); order is kept
	Loss      float64       // fraction of packets dropped, 0 to 1
	Duplicate float64       // fraction of packets delivered twice
	Reorder   float64       // fraction of packets that skip Delay and Jitter, and so overtake
	Rate      int64         // bits per second; 0 is unlimited
	Queue     time.Duration // longest wait for Rate before packets are dropped; 0 is 200 ms
	Seed      uint64        // of the link's own random numbers
}

const defaultQueue = 200 * time.Millisecond

// shaper is the state of one link. It is a pure function of its inputs and its
// seed: no clock, no I/O.
type shaper struct {
	imp  *Impairment
	rng  *rand.Rand
	free time.Duration // when the link has sent what it has accepted
	last time.Duration // latest due time given to a packet in order
}

// plan says when a packet of size bytes that enters the link now leaves it: not
// at all (n = 0), once, or twice. Times are on the caller's scale and never lie
// before now.
func (s *shaper) plan(imp *Impairment, now time.Duration, size int) (due [2]time.Duration, n int) {
	if s.imp != imp {
		*s = shaper{imp: imp, rng: rand.New(rand.NewPCG(imp.Seed, 0x9e3779b97f4a7c15)), last: s.last}
	}
	if imp.Loss > 0 && s.rng.Float64() < imp.Loss {
		return due, 0
	}
	at := now
	if imp.Rate > 0 {
		start := max(now, s.free)
		limit := imp.Queue
		if limit == 0 {
			limit = defaultQueue
		}
		if start-now > limit {
			return due, 0
		}
		s.free = start + time.Duration(int64(size)*8*int64(time.Second)/imp.Rate)
		at = s.free
	}
	if imp.Reorder == 0 || s.rng.Float64() >= imp.Reorder {
		at += imp.Delay
		if imp.Jitter > 0 {
			at += time.Duration(s.rng.Int64N(int64(imp.Jitter)))
		}
		at = max(at, s.last)
		s.last = at
	}
	due[0], due[1], n = at, at, 1
	if imp.Duplicate > 0 && s.rng.Float64() < imp.Duplicate {
		n = 2
	}
	return due, n
}
