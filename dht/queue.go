package dht

import (
	"context"
	"errors"
	"sync"
)

// maxQueued bounds what waits for a slow reader.
const maxQueued = 1 << 14

// errSlow ends a listen whose reader does not keep up.
var errSlow = errors.New("the reader of a DHT listen is too slow: too many values wait")

// A queue hands items from the node's lock to one reader. Adding never blocks.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	err   error
	ended bool
	ready chan struct{} // holds one token when there may be something new
}

func newQueue[T any]() *queue[T] { return &queue[T]{ready: make(chan struct{}, 1)} }

func (q *queue[T]) add(item T) {
	q.mu.Lock()
	if len(q.items) < maxQueued {
		q.items = append(q.items, item)
	} else if !q.ended {
		q.err, q.ended = errSlow, true
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue[T]) end(err error) {
	q.mu.Lock()
	if !q.ended {
		q.err, q.ended = err, true
	}
	q.mu.Unlock()
	q.signal()
}

func (q *queue[T]) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take waits for items and returns them all; with ended, they are the last, and
// err is how it ended.
func (q *queue[T]) take(ctx context.Context, closed <-chan struct{}) (items []T, ended bool, err error) {
	for {
		q.mu.Lock()
		items, q.items = q.items, nil
		ended, err = q.ended, q.err
		q.mu.Unlock()
		if len(items) > 0 || ended {
			return items, ended, err
		}
		select {
		case <-q.ready:
		case <-ctx.Done():
			return nil, true, ctx.Err()
		case <-closed:
			return nil, true, ErrClosed
		}
	}
}
