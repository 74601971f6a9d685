package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/kith-im/kith/dht"
)

// Switch is a [dht.Table] that forwards to another one, which can be exchanged
// while it is in use: a phone that goes from Wi-Fi to a metered network leaves
// its node for a proxy. Listens go on without telling a value twice, and while
// Run runs publications are published on the new table. Single requests that are
// under way end with their table.
type Switch struct {
	mu      sync.Mutex // guards all below
	table   dht.Table
	changed chan struct{} // closed and made anew when the table is exchanged
	pubs    map[*switched]struct{}
	closed  bool
}

var _ dht.Table = (*Switch)(nil)

// NewSwitch makes a switch that forwards to t.
func NewSwitch(t dht.Table) *Switch {
	return &Switch{table: t, changed: make(chan struct{}), pubs: make(map[*switched]struct{})}
}

// Set exchanges the table. The old one is not ended, and is needed no more once
// the new one is connected.
func (s *Switch) Set(t dht.Table) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.table = t
	close(s.changed)
	s.changed = make(chan struct{})
}

// current gives the table, and what is closed when it is exchanged.
func (s *Switch) current() (dht.Table, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, dht.ErrClosed
	}
	return s.table, s.changed, nil
}

// Get implements [dht.Table].
func (s *Switch) Get(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[*dht.Value, error] {
	t, _, err := s.current()
	if err != nil {
		return func(yield func(*dht.Value, error) bool) { yield(nil, err) }
	}
	return t.Get(ctx, key, q)
}

// Put implements [dht.Table].
func (s *Switch) Put(ctx context.Context, key dht.Key, v *dht.Value) error {
	t, _, err := s.current()
	if err != nil {
		return err
	}
	return t.Put(ctx, key, v)
}

// Info implements [dht.Table].
func (s *Switch) Info(ctx context.Context) (dht.Info, error) {
	t, _, err := s.current()
	if err != nil {
		return dht.Info{}, err
	}
	return t.Info(ctx)
}

// Publish implements [dht.Table].
func (s *Switch) Publish(ctx context.Context, key dht.Key, v *dht.Value) (dht.Publication, error) {
	t, _, err := s.current()
	if err != nil {
		return nil, err
	}
	inner, err := t.Publish(ctx, key, v)
	if err != nil {
		return nil, err
	}
	p := &switched{s: s, key: key, value: v, inner: inner, on: t}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pubs[p] = struct{}{}
	return p, nil
}

// switched is a publication that goes from table to table.
type switched struct {
	s     *Switch
	key   dht.Key
	value *dht.Value

	// guarded by s.mu
	inner dht.Publication
	on    dht.Table
}

func (p *switched) Key() dht.Key      { return p.key }
func (p *switched) Value() *dht.Value { return p.value }

func (p *switched) Cancel() {
	p.s.mu.Lock()
	delete(p.s.pubs, p)
	inner := p.inner
	p.s.mu.Unlock()
	inner.Cancel()
}

// moveTime bounds one attempt to publish a value on another table.
const moveTime = time.Minute

// Run publishes on each new table what was published on the one before, until
// ctx ends, which is no error. Listens and requests fail with [dht.ErrClosed]
// then. It must be called at most once.
func (s *Switch) Run(ctx context.Context) error {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		close(s.changed)
	}()
	retry := backoff{base: reconnectBase, limit: reconnectLimit}
	for ctx.Err() == nil {
		t, changed, err := s.current()
		if err != nil {
			return err
		}
		wait := checkTrouble // a publication may have gone to a table that was just exchanged
		if s.move(ctx, t) {
			retry.reset()
		} else {
			wait = retry.next()
		}
		timer := time.NewTimer(wait)
		select {
		case <-changed:
			retry.reset()
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// move publishes on t what is published elsewhere, a few at a time, and tells
// whether all is there.
func (s *Switch) move(ctx context.Context, t dht.Table) bool {
	var all []*switched
	s.mu.Lock()
	for p := range s.pubs {
		if p.on != t {
			all = append(all, p)
		}
	}
	s.mu.Unlock()
	next := make(chan *switched)
	var workers sync.WaitGroup
	var failed sync.Map
	for range min(maxReposts, len(all)) {
		workers.Go(func() {
			for p := range next {
				if !s.moveOne(ctx, t, p) {
					failed.Store(p, true)
				}
			}
		})
	}
	for _, p := range all {
		next <- p
	}
	close(next)
	workers.Wait()
	ok := true
	failed.Range(func(any, any) bool { ok = false; return false })
	return ok
}

func (s *Switch) moveOne(ctx context.Context, t dht.Table, p *switched) bool {
	ctx, cancel := context.WithTimeout(ctx, moveTime)
	defer cancel()
	inner, err := t.Publish(ctx, p.key, p.value)
	if err != nil {
		return false
	}
	s.mu.Lock()
	old := p.inner
	if _, ok := s.pubs[p]; ok {
		p.inner, p.on = inner, t
	} else {
		old = inner // cancelled meanwhile
	}
	s.mu.Unlock()
	old.Cancel()
	return true
}

// Listen implements [dht.Table]. It outlives failures of tables.
func (s *Switch) Listen(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[dht.Event, error] {
	return func(yield func(dht.Event, error) bool) {
		l := &listen{key: key, query: q, yield: yield}
		retry := backoff{base: reconnectBase, limit: reconnectLimit}
		for resumed := false; ; resumed = true {
			t, changed, err := s.current()
			if err == nil {
				err = l.on(ctx, t, changed, resumed)
			}
			switch {
			case errors.Is(err, errStopped):
				return
			case errors.Is(err, errChanged):
				retry.reset()
				continue
			case ctx.Err() != nil:
				err = ctx.Err()
			case t != nil:
				timer := time.NewTimer(retry.next())
				select {
				case <-timer.C:
				case <-changed:
				case <-ctx.Done():
				}
				timer.Stop()
				continue
			}
			yield(dht.Event{}, fmt.Errorf("listen at %s: %w", key, err))
			return
		}
	}
}

// errChanged ends a listen on a table that is exchanged.
var errChanged = errors.New("table is exchanged")

// on listens on one table until that fails or is exchanged.
func (l *listen) on(ctx context.Context, t dht.Table, changed <-chan struct{}, resumed bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() {
		select {
		case <-changed:
			cancel(errChanged)
		case <-ctx.Done():
		}
	})
	err := l.follow(ctx, resumed, func(ctx context.Context, send func(dht.Event) bool) error {
		for e, err := range t.Listen(ctx, l.key, l.query) {
			if err != nil {
				return err
			}
			if !send(e) {
				return context.Cause(ctx)
			}
		}
		return errors.New("listen ended")
	}, func(ctx context.Context, send func(dht.Event) bool) error {
		for v, err := range t.Get(ctx, l.key, l.query) {
			if err != nil {
				return err
			}
			if !send(dht.Event{Value: v}) {
				return errStopped
			}
		}
		return nil
	})
	if !errors.Is(err, errStopped) && errors.Is(context.Cause(ctx), errChanged) {
		return errChanged
	}
	return err
}
