package proxy

import (
	"context"
	"iter"
	"sync"
	"testing"

	"github.com/kith-im/kith/dht"
)

// memTable is a table in memory. It is at the same time what tests look into.
type memTable struct {
	mu        sync.Mutex
	values    map[dht.Key]map[dht.ValueID]*dht.Value
	listeners map[dht.Key]map[chan dht.Event]struct{}
	pubs      map[*memPub]struct{}
	published int // in all
	putErr    error
	getErr    error
	listenErr error
	info      dht.Info
}

func newMemTable() *memTable {
	t := &memTable{
		values:    make(map[dht.Key]map[dht.ValueID]*dht.Value),
		listeners: make(map[dht.Key]map[chan dht.Event]struct{}),
		pubs:      make(map[*memPub]struct{}),
	}
	t.info.NodeID[0] = 1
	t.info.Status, t.info.IPv4.Status, t.info.IPv4.Good = dht.Connected, dht.Connected, 3
	return t
}

type memPub struct {
	t     *memTable
	key   dht.Key
	value *dht.Value
}

func (p *memPub) Key() dht.Key      { return p.key }
func (p *memPub) Value() *dht.Value { return p.value }
func (p *memPub) Cancel() {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	delete(p.t.pubs, p)
}

func (t *memTable) Get(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[*dht.Value, error] {
	return func(yield func(*dht.Value, error) bool) {
		t.mu.Lock()
		var all []*dht.Value
		for _, v := range t.values[key] {
			if q.Matches(v) {
				all = append(all, v)
			}
		}
		err := t.getErr
		t.mu.Unlock()
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

func (t *memTable) Put(_ context.Context, key dht.Key, v *dht.Value) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.put(key, v)
}

func (t *memTable) put(key dht.Key, v *dht.Value) error {
	if t.putErr != nil {
		return t.putErr
	}
	setID(v)
	if t.values[key] == nil {
		t.values[key] = make(map[dht.ValueID]*dht.Value)
	}
	t.values[key][v.ID] = v
	t.tell(key, dht.Event{Value: v})
	return nil
}

func (t *memTable) tell(key dht.Key, e dht.Event) {
	for ch := range t.listeners[key] {
		ch <- e
	}
}

// expire ends a value.
func (t *memTable) expire(key dht.Key, id dht.ValueID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v := t.values[key][id]; v != nil {
		delete(t.values[key], id)
		t.tell(key, dht.Event{Value: v, Expired: true})
	}
}

func (t *memTable) Publish(_ context.Context, key dht.Key, v *dht.Value) (dht.Publication, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.put(key, v); err != nil {
		return nil, err
	}
	p := &memPub{t, key, v}
	t.pubs[p] = struct{}{}
	t.published++
	return p, nil
}

func (t *memTable) Listen(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[dht.Event, error] {
	return func(yield func(dht.Event, error) bool) {
		ch := make(chan dht.Event, 1000)
		t.mu.Lock()
		err := t.listenErr
		for _, v := range t.values[key] {
			ch <- dht.Event{Value: v}
		}
		if t.listeners[key] == nil {
			t.listeners[key] = make(map[chan dht.Event]struct{})
		}
		t.listeners[key][ch] = struct{}{}
		t.mu.Unlock()
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			delete(t.listeners[key], ch)
		}()
		if err != nil {
			yield(dht.Event{}, err)
			return
		}
		for {
			select {
			case e := <-ch:
				if q.Matches(e.Value) && !yield(e, nil) {
					return
				}
			case <-ctx.Done():
				yield(dht.Event{}, ctx.Err())
				return
			}
		}
	}
}

func (t *memTable) Info(context.Context) (dht.Info, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.info, nil
}

// state gives the number of listeners and of publications at a key.
func (t *memTable) state(key dht.Key) (listeners, pubs int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for p := range t.pubs {
		if p.key == key {
			pubs++
		}
	}
	return len(t.listeners[key]), pubs
}

// runIt runs f until the end of the test and fails the test if f does.
func runIt(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}
