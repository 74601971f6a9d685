package proxy

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// How the leases are looked after.
const (
	maxChildren  = 256                    // publishing or pushing at a time
	minTick      = 250 * time.Millisecond // between looks at the leases
	maxTick      = time.Minute
	saveInterval = 5 * time.Second
	retryBase    = 5 * time.Second
	retryLimit   = 10 * time.Minute
)

// Run looks after the permanent values and the subscriptions, those in the state
// file too, until ctx ends, which is no error. Streams of the handler end then.
// It must be called at most once.
func (s *Server) Run(ctx context.Context) error {
	restored, err := s.load(time.Now())
	if err != nil {
		s.end()
		return fmt.Errorf("load proxy state: %w", err)
	}
	runCtx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.run = runCtx
	s.spread(restored, time.Now())
	s.mu.Unlock()

	var nextTick, saved time.Time
	for ctx.Err() == nil {
		now := time.Now()
		if !now.Before(nextTick) {
			nextTick = now.Add(s.tick(now))
		}
		wait := nextTick.Sub(now)
		if s.changed() {
			if due := saved.Add(saveInterval).Sub(now); due > 0 {
				wait = min(wait, due)
			} else {
				s.save()
				saved = now
			}
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.wake:
		case <-ctx.Done():
		}
		t.Stop()
	}

	s.end()
	s.mu.Lock()
	s.run = nil
	s.mu.Unlock()
	cancel()
	s.children.Wait()
	s.save()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases.all(func(l *lease) {
		if l.pub != nil {
			l.pub.Cancel()
		}
	})
	return nil
}

// change notes that the leases are to be saved. The caller has locked s.mu.
func (s *Server) change() {
	s.dirty = true
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// changed tells whether the leases are to be saved.
func (s *Server) changed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dirty && s.cfg.State != ""
}

// spread gives restored leases times at random, so that a server that starts
// does not announce all of them at once. The caller has locked s.mu.
func (s *Server) spread(restored []*lease, now time.Time) {
	window := min(time.Duration(len(restored))*s.limits.RestoreInterval, maxRestoreTime)
	for _, l := range restored {
		if window > 0 {
			l.retryAt = now.Add(rand.N(window))
		}
	}
}

// tick ends leases that are over, tells clients of ends that are near and starts
// what is due. It returns the time until the next look.
func (s *Server) tick(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := maxTick
	s.leases.all(func(l *lease) {
		if left := l.expires.Sub(now); left <= 0 {
			s.leases.remove(l)
			s.change()
			return
		} else if left <= noticeTime && !l.noticed {
			s.notice(l)
		}
		if l.pub != nil || l.stop != nil || l.working {
			return
		}
		if wait := l.retryAt.Sub(now); wait > 0 {
			next = min(next, wait)
			return
		}
		if s.start(l) {
			return
		}
		next = minTick
	})
	return max(next, minTick)
}

// start does what a lease is for. It is false when that must wait for others.
// The caller has locked s.mu.
func (s *Server) start(l *lease) bool {
	if s.run == nil {
		return false
	}
	if l.value == nil {
		ctx, cancel := context.WithCancel(s.run)
		l.stop = cancel
		s.children.Go(func() {
			defer cancel()
			s.subscription(ctx, l)
		})
		return true
	}
	return s.short(l, func(ctx context.Context) { s.republish(ctx, l) })
}

// short runs a child that ends soon. It is false when there are too many. The
// caller has locked s.mu.
func (s *Server) short(l *lease, f func(context.Context)) bool {
	if s.run == nil || s.busy >= maxChildren {
		return false
	}
	s.busy++
	l.working = true
	ctx := s.run
	s.children.Go(func() {
		f(ctx)
		s.mu.Lock()
		s.busy--
		l.working = false
		s.mu.Unlock()
	})
	return true
}

// republish announces a restored value again.
func (s *Server) republish(ctx context.Context, l *lease) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.PutTime)
	defer cancel()
	s.mu.Lock()
	v := l.value
	s.mu.Unlock()
	pub, err := s.cfg.Table.Publish(ctx, l.key, v)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.postpone(l, err)
	case l.pub != nil || !s.leases.has(l):
		pub.Cancel() // a client was faster, or the lease is over
	default:
		l.pub = pub
	}
}

// postpone sets when a lease is tried again. The caller has locked s.mu.
func (s *Server) postpone(l *lease, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	l.retry.base, l.retry.limit = retryBase, retryLimit
	wait := l.retry.next()
	l.retryAt = time.Now().Add(wait)
	s.log.Debug("lease has to wait", "key", l.key, "for", wait, "err", err)
}

// notice tells the client that a lease ends soon. The caller has locked s.mu.
func (s *Server) notice(l *lease) {
	if s.cfg.Push == nil || l.sub.Token == "" {
		l.noticed = true
		return
	}
	if l.working {
		return
	}
	n := timeoutNotice(l)
	if s.short(l, func(ctx context.Context) { s.push(ctx, l, n) }) {
		l.noticed = true
		s.change()
	}
}
