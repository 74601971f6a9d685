package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/kith-im/kith/dht"
)

// Run watches the connection and keeps published values alive until ctx ends,
// which is no error. The client cannot be used after that. It must be called at
// most once.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	c.run = ctx
	c.children.Go(func() { c.watchNetwork(ctx) })
	c.mu.Unlock()
	check := backoff{base: reconnectBase, limit: checkTrouble}
	connected := true // the first answer is no re-connection
	var checked, nextCheck time.Time
	for ctx.Err() == nil {
		// A failed request is a reason to look, but not all the time.
		if c.takeTrouble() && connected && nextCheck.After(checked.Add(reconnectBase)) {
			nextCheck = checked.Add(reconnectBase)
		}
		if !time.Now().Before(nextCheck) {
			up := c.check(ctx, !connected)
			c.takeTrouble() // a failure to check is none to check for
			checked = time.Now()
			if up {
				check.reset()
				nextCheck = checked.Add(jitter(checkConnected))
			} else {
				nextCheck = checked.Add(check.next())
			}
			connected = up
		}
		t := time.NewTimer(min(time.Until(nextCheck), c.repost(time.Now())))
		select {
		case <-t.C:
		case <-c.poke:
		case <-ctx.Done():
		}
		t.Stop()
	}
	c.mu.Lock()
	c.run = nil
	c.endEra()
	c.mu.Unlock()
	c.end(dht.ErrClosed)
	c.children.Wait()
	c.http.CloseIdleConnections()
	return nil
}

// takeTrouble tells whether a server failed or became another since Run looked.
func (c *Client) takeTrouble() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.trouble || c.moved
	c.trouble = false
	return t
}

// check asks for the state of the server's node and tells whether that is
// connected. When the server is another one, or there again after it was not,
// it may have forgotten us: all is asked of it again.
func (c *Client) check(ctx context.Context, again bool) bool {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	info, err := c.askInfo(ctx)
	if err != nil {
		c.log.Debug("proxy server does not answer", "err", err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if (again || c.moved) && info.Status == dht.Connected {
		c.moved = false
		window := min(time.Duration(len(c.pubs))*repostSpread, maxRepostSpread)
		for p := range c.pubs {
			p.next = time.Now()
			if window > 0 {
				p.next = p.next.Add(rand.N(window))
			}
		}
		for _, watchers := range c.watchers {
			for w := range watchers {
				w.tell(pushed{renew: true, fetch: true})
			}
		}
	}
	return info.Status == dht.Connected
}

// repost posts the values whose time has come, and returns the time until the
// next one.
func (c *Client) repost(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	working := 0
	for p := range c.pubs {
		if p.working {
			working++
		}
	}
	next := checkConnected
	for p := range c.pubs {
		if p.working {
			continue
		}
		if wait := p.next.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		if working >= maxReposts {
			continue // the end of one wakes Run
		}
		working++
		p.working = true
		ctx := c.run
		c.children.Go(func() { c.repostOne(ctx, p) })
	}
	return next
}

func (c *Client) repostOne(ctx context.Context, p *publication) {
	ctx, cancel := context.WithTimeout(ctx, headerTime)
	defer cancel()
	err := c.post(ctx, p.key, p.value, true)
	if err != nil {
		c.log.Debug("value not posted again", "key", p.key, "err", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.working = false
	if err != nil {
		p.next = time.Now().Add(p.retry.next())
	} else {
		p.retry.reset()
		p.next = time.Now().Add(republishTime - jitter(time.Hour))
	}
	c.wake()
}
