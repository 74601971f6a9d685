package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/kith-im/kith/dht"
)

// gatherTime is for how long events are gathered into one push, and gatherMax
// how many ids it may have.
const (
	gatherTime = 200 * time.Millisecond
	gatherMax  = 64
)

// handleSubscribe keeps a listen for a client that is told by push.
func (s *Server) handleSubscribe(r *request) {
	f, ok := s.body(r, errNotJSON)
	if !ok {
		return
	}
	sub, ok := f.subscriber()
	if !ok {
		s.fail(r, http.StatusBadRequest, errNotJSON)
		return
	}
	if sub.Token == "" {
		s.fail(r, http.StatusBadRequest, errNoToken)
		return
	}
	s.mu.Lock()
	l, known := s.leases.subs[subKey{r.key, sub.Token, sub.ClientID}]
	if !known {
		if !s.leases.room(s.limits, r.client, sub.size()) {
			s.mu.Unlock()
			s.fail(r, http.StatusTooManyRequests, errQuota)
			return
		}
		l = &lease{key: r.key, client: r.client, sub: sub}
		s.leases.add(l)
		s.start(l)
	}
	s.renew(l, sub) // session and topic may be new, the rest is its name
	s.mu.Unlock()
	if !known || f.bool("refresh") {
		s.sendLine(r, []byte("{}"))
		return
	}
	s.streamValues(r)
}

// handleUnsubscribe ends a subscription.
func (s *Server) handleUnsubscribe(r *request) {
	f, ok := s.body(r, errNotJSON)
	if !ok {
		return
	}
	sub, ok := f.subscriber()
	if !ok || sub.Token == "" {
		s.notImplemented(r)
		return
	}
	s.mu.Lock()
	if l, known := s.leases.subs[subKey{r.key, sub.Token, sub.ClientID}]; known {
		s.leases.remove(l)
		s.change()
	}
	s.mu.Unlock()
	r.w.WriteHeader(http.StatusOK)
}

// handlePingPush sends a push by which a client checks that pushes reach it.
func (s *Server) handlePingPush(r *request) {
	f, ok := s.body(r, errNotJSON)
	if !ok {
		return
	}
	sub, ok := f.subscriber()
	if !ok || sub.Token == "" {
		s.fail(r, http.StatusBadRequest, errNoToken)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), pushTime)
	defer cancel()
	n := Notice{Data: map[string]string{"to": sub.ClientID, "pong": "true"}, Urgent: true, Visible: true}
	if err := s.cfg.Push.Push(ctx, sub.Target, n); err != nil {
		s.log.Debug("push failed", "platform", sub.Platform, "err", err)
		s.fail(r, http.StatusBadGateway, `{"err":"Push failed"}`)
		return
	}
	s.sendLine(r, []byte("{}"))
}

// subscription listens for a client and pushes what happens, until ctx ends or
// the listen fails; it is started again later then.
func (s *Server) subscription(ctx context.Context, l *lease) {
	started := time.Now()
	events := make(chan dht.Event, gatherMax)
	var failed error
	go func() { // until ctx ends, which the caller sees to
		defer close(events)
		for e, err := range s.cfg.Table.Listen(ctx, l.key, dht.Query{}) {
			if err != nil {
				failed = err
				return
			}
			select {
			case events <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	for e := range events {
		s.gather(ctx, l, e, events)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l.stop = nil
	if s.leases.has(l) && ctx.Err() == nil {
		if time.Since(started) > retryLimit {
			l.retry.reset()
		}
		s.postpone(l, failed)
	}
}

// gather collects the events that come shortly after the first one and pushes
// them: one notice for what is new, one for what has gone.
func (s *Server) gather(ctx context.Context, l *lease, first dht.Event, events <-chan dht.Event) {
	var fresh, gone []*dht.Value
	timer := time.NewTimer(gatherTime)
	defer timer.Stop()
	e, more := first, true
	for more {
		if e.Expired {
			gone = append(gone, e.Value)
		} else {
			fresh = append(fresh, e.Value)
		}
		if len(fresh)+len(gone) >= gatherMax {
			break
		}
		select {
		case e, more = <-events:
		case <-timer.C:
			more = false
		case <-ctx.Done():
			return
		}
	}
	s.mu.Lock()
	var notices []Notice
	if len(fresh) > 0 {
		notices = append(notices, valuesNotice(l, fresh, false))
	}
	if len(gone) > 0 {
		notices = append(notices, valuesNotice(l, gone, true))
	}
	s.mu.Unlock()
	for _, n := range notices {
		s.push(ctx, l, n)
	}
}
