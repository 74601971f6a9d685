package proxy

import (
	"context"
	"errors"
	"sync"

	"github.com/kith-im/kith/dht"
)

// listen is one listen that goes on from one source of events to the next. It
// runs in the goroutine of the caller's loop.
type listen struct {
	key   dht.Key
	query dht.Query
	yield func(dht.Event, error) bool
	known tracker
}

// source sends events until it fails or send is false, which it is when the
// context ends. It must return soon then.
type source func(ctx context.Context, send func(dht.Event) bool) error

// deliver tells the caller what is news to it.
func (l *listen) deliver(e dht.Event) error {
	if l.query.Matches(e.Value) && l.known.filter(e) && !l.yield(e, nil) {
		return errStopped
	}
	return nil
}

// settle tells that what was known and is not there any more has gone.
func (l *listen) settle() error {
	for _, v := range l.known.missing() {
		if !l.yield(dht.Event{Value: v, Expired: true}, nil) {
			return errStopped
		}
	}
	return nil
}

// follow tells what a source sends until that fails. A resumed listen also gets
// all values, to learn which have gone; that is tried again until it is done.
func (l *listen) follow(ctx context.Context, resumed bool, stream, all source) error {
	ctx, cancel := context.WithCancel(ctx)
	var sources sync.WaitGroup
	defer sources.Wait()
	defer cancel()
	l.known.begin()
	events := make(chan dht.Event)
	send := func(e dht.Event) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	broken, complete := make(chan error, 1), make(chan struct{})
	sources.Go(func() { broken <- stream(ctx, send) })
	if resumed {
		sources.Go(func() {
			retry := backoff{base: reconnectBase, limit: reconnectLimit}
			for err := all(ctx, send); err != nil; err = all(ctx, send) {
				if errors.Is(err, errStopped) || !sleep(ctx, retry.next()) {
					return
				}
			}
			close(complete)
		})
	}
	for {
		var err error
		select {
		case e := <-events:
			err = l.deliver(e)
		case <-complete:
			complete = nil
			err = l.settle()
		case err = <-broken:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}
