package proxy

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff says how long to wait between attempts: twice as long each time, from
// base to limit, and each time at random between half of that and all of it.
type backoff struct {
	base, limit time.Duration
	failures    int
}

// next gives the wait after one more failure.
func (b *backoff) next() time.Duration {
	d := b.limit
	if shift := min(b.failures, 30); b.base<<shift < b.limit && b.base<<shift > 0 {
		d = b.base << shift
	}
	b.failures++
	return jitter(d)
}

// reset forgets the failures.
func (b *backoff) reset() { b.failures = 0 }

// jitter gives a time between d/2 and d.
func jitter(d time.Duration) time.Duration {
	if d < 2 {
		return d
	}
	return d/2 + rand.N(d/2)
}

// sleep waits, and tells whether it did so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
