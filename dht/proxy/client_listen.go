package proxy

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
)

// Listen implements [dht.Table]. It goes on over failures of servers and
// networks: no value is told twice, and those that went while there was no
// connection are told to have gone. With push it needs [Client.PushReceived].
func (c *Client) Listen(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[dht.Event, error] {
	return func(yield func(dht.Event, error) bool) {
		ctx, stop := c.join(ctx)
		defer stop()
		c.mu.Lock()
		c.listens++
		c.mu.Unlock()
		l := &clientListen{listen{key: key, query: q, yield: yield}, c}
		err := l.run(ctx)
		c.mu.Lock()
		c.listens--
		c.mu.Unlock()
		if !errors.Is(err, errStopped) {
			yield(dht.Event{}, fmt.Errorf("listen at %s through proxy: %w", key, err))
		}
	}
}

// clientListen is one listen of a client.
type clientListen struct {
	listen
	client *Client
}

func (l *clientListen) run(ctx context.Context) error {
	if l.client.cfg.Push != nil {
		return l.byPush(ctx)
	}
	retry := backoff{base: reconnectBase, limit: reconnectLimit}
	for resumed := false; ; resumed = true {
		started := time.Now()
		err := l.stream(ctx, resumed)
		if errors.Is(err, errStopped) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(started) > reconnectLimit {
			retry.reset()
		}
		wait := retry.next()
		l.client.log.Debug("listen interrupted", "key", l.key, "retry", wait, "err", err)
		if !sleep(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// stream listens over one connection until it ends.
func (l *clientListen) stream(ctx context.Context, resumed bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(l.client.currentEra(), cancel)()
	res, base, err := l.client.do(ctx, http.MethodGet, "/key/"+l.key.String()+"/listen", nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		err := statusError(res)
		l.client.failed(base)
		return err
	}
	err = l.follow(ctx, resumed, func(ctx context.Context, send func(dht.Event) bool) error {
		stop := context.AfterFunc(ctx, func() { res.Body.Close() })
		defer stop()
		lines := newLineReader(res.Body)
		for {
			e, err := lines.next()
			if err != nil {
				return err
			}
			if !send(e) {
				return context.Cause(ctx)
			}
		}
	}, func(ctx context.Context, send func(dht.Event) bool) error {
		return l.client.fetch(ctx, l.key, func(v *dht.Value) bool { return send(dht.Event{Value: v}) })
	})
	if ctx.Err() == nil && !errors.Is(err, errStopped) {
		l.client.failed(base)
	}
	return err
}

// pushed is what a listen is to do because of pushes.
type pushed struct {
	fetch   bool // there are new values
	renew   bool // the subscription ends
	expired []dht.ValueID
}

// watcher is a listen that waits for pushes.
type watcher struct {
	wake chan struct{}
	todo pushed // guarded by the client's mu
}

// maxExpired bounds the ids that a watcher keeps; with more it fetches all.
const maxExpired = 1000

// tell adds to what is to be done. The caller has locked the client's mu.
func (w *watcher) tell(p pushed) {
	w.todo.fetch = w.todo.fetch || p.fetch
	w.todo.renew = w.todo.renew || p.renew
	if w.todo.expired = append(w.todo.expired, p.expired...); len(w.todo.expired) > maxExpired {
		w.todo.expired, w.todo.fetch = nil, true
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// PushReceived takes the data of a push that this device got, and tells whether
// it was for this client.
func (c *Client) PushReceived(data map[string]string) bool {
	p := c.cfg.Push
	if p == nil || data["to"] != "" && data["to"] != p.ClientID || data["s"] != "" && data["s"] != c.session {
		return false
	}
	if text, ok := data["timeout"]; ok {
		key, err := dht.ParseKey(text)
		if err != nil {
			return false
		}
		if vid, ok := data["vid"]; ok {
			return c.pushedPut(key, vid)
		}
		return c.tell(key, pushed{renew: true})
	}
	key, err := dht.ParseKey(data["key"])
	if err != nil {
		return false
	}
	todo := pushed{fetch: true}
	for text := range strings.SplitSeq(data["exp"], ",") {
		if id, err := strconv.ParseUint(text, 10, 64); err == nil {
			todo.fetch = false
			todo.expired = append(todo.expired, dht.ValueID(id))
		}
		if len(todo.expired) > maxExpired {
			break
		}
	}
	return c.tell(key, todo)
}

// tell has the listens at a key do something.
func (c *Client) tell(key dht.Key, todo pushed) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers[key] {
		w.tell(todo)
	}
	return len(c.watchers[key]) > 0
}

// pushedPut posts a value again that the server is about to drop.
func (c *Client) pushedPut(key dht.Key, vid string) bool {
	id, err := strconv.ParseUint(vid, 10, 64)
	if err != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := false
	for p := range c.pubs {
		if p.key == key && p.value.ID == dht.ValueID(id) {
			p.next, found = time.Now(), true
		}
	}
	c.wake()
	return found
}

// byPush listens by a subscription: at each push the values are fetched.
func (l *clientListen) byPush(ctx context.Context) error {
	c := l.client
	w := &watcher{wake: make(chan struct{}, 1)}
	c.mu.Lock()
	if c.watchers[l.key] == nil {
		c.watchers[l.key] = make(map[*watcher]struct{})
	}
	c.watchers[l.key][w] = struct{}{}
	w.tell(pushed{renew: true, fetch: true})
	c.mu.Unlock()
	defer l.unwatch(w)
	retry := backoff{base: reconnectBase, limit: reconnectLimit}
	renewal := time.NewTimer(republishTime)
	defer renewal.Stop()
	for first := true; ; {
		select {
		case <-w.wake:
		case <-renewal.C:
			c.mu.Lock()
			w.todo.renew = true
			c.mu.Unlock()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		c.mu.Lock()
		todo := w.todo
		w.todo = pushed{}
		c.mu.Unlock()
		err := l.work(ctx, todo, first)
		if errors.Is(err, errStopped) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil {
			retry.reset()
			if todo.renew {
				first = false
				renewal.Reset(republishTime - jitter(time.Hour))
			}
			continue
		}
		c.log.Debug("push listen failed", "key", l.key, "err", err)
		if !sleep(ctx, retry.next()) {
			return context.Cause(ctx)
		}
		c.mu.Lock()
		w.tell(pushed{renew: todo.renew, fetch: true})
		c.mu.Unlock()
	}
}

// work does what pushes ask for.
func (l *clientListen) work(ctx context.Context, todo pushed, first bool) error {
	for _, id := range todo.expired {
		if v := l.known.value(id); v != nil {
			if err := l.deliver(dht.Event{Value: v, Expired: true}); err != nil {
				return err
			}
		}
	}
	if todo.renew {
		if err := l.client.subscribe(ctx, l.key, !first); err != nil {
			return err
		}
	}
	if !todo.fetch {
		return nil
	}
	l.known.begin()
	err := l.client.fetch(ctx, l.key, func(v *dht.Value) bool { return l.deliver(dht.Event{Value: v}) == nil })
	if err != nil {
		return err
	}
	return l.settle()
}

// unwatch ends a listen; the last one at its key ends the subscription.
func (l *clientListen) unwatch(w *watcher) {
	c := l.client
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.watchers[l.key], w)
	if len(c.watchers[l.key]) > 0 {
		return
	}
	delete(c.watchers, l.key)
	if c.run == nil {
		return // the subscription ends by its time
	}
	ctx := c.run
	c.children.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, infoTime)
		defer cancel()
		if res, _, err := c.do(ctx, "UNSUBSCRIBE", "/key/"+l.key.String(), c.subscription(false)); err == nil {
			drain(res)
		}
	})
}

// subscribe asks the server to push what happens at a key.
func (c *Client) subscribe(ctx context.Context, key dht.Key, refresh bool) error {
	res, _, err := c.do(ctx, "SUBSCRIBE", "/key/"+key.String(), c.subscription(refresh))
	if err != nil {
		return err
	}
	defer res.Body.Close() // values may follow, which are fetched anyway
	if res.StatusCode != http.StatusOK {
		return statusError(res)
	}
	return nil
}
