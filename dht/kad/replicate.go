package kad

import (
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Values outlive the nodes that store them: when one of the k nodes nearest to a
// key is gone, or a nearer one has come, those that hold the values hand them on.
const (
	replicateEvery = 60 * time.Second
	handers        = 2       // of the nearest holders hand on, in case one is about to go
	handBytes      = 1 << 18 // handed on at a time, or all to one node
)

// assumeReplicas notes who else was probably given the values of a key.
func (c *Core) assumeReplicas(key wire.Key, sh *shelf) {
	sh.replicas = c.keepers(key)
	sh.checked = c.now
	c.after(&sh.check, c.jitter(replicateEvery, 0.5), func() { c.replicate(key, sh) })
}

// keepers returns the ids of those of the k nodes nearest to key, with us, that
// are not us.
func (c *Core) keepers(key wire.Key) []wire.NodeID {
	var ids []wire.NodeID
	for f := range c.families {
		for _, n := range c.keepersIn(f, key) {
			if !slices.Contains(ids, n.id) {
				ids = append(ids, n.id)
			}
		}
	}
	return ids
}

// keepersIn returns the nodes that should hold the values of key in one family, or
// none when we should not.
func (c *Core) keepersIn(f *family, key wire.Key) []*node {
	var room [5 * k]*node
	list := f.table.closest(room[:0], key, k, func(n *node) bool { return !n.expired })
	if len(list) == k {
		if key.Closer(list[k-1].id, c.cfg.Self) {
			return nil
		}
		list = list[:k-1]
	}
	return slices.Clone(list)
}

// replicate hands the values of a key on to those who should have them and do not.
func (c *Core) replicate(key wire.Key, sh *shelf) {
	if len(sh.values) == 0 || c.store.shelves[key] != sh {
		sh.replicas = nil
		return
	}
	since := sh.checked
	sh.checked = c.now
	c.after(&sh.check, c.jitter(replicateEvery, 0.3), func() { c.replicate(key, sh) })
	again := sh.owing
	sh.owing = false
	for f := range c.families {
		if c.churning(f) {
			c.pingKeepers(f, key)
		}
		if again || !f.nearMoved.Before(since) {
			c.handOn(f, key, sh)
		}
	}
	if now := c.keepers(key); len(now) > 0 {
		sh.replicas = slices.DeleteFunc(sh.replicas, func(id wire.NodeID) bool { return !slices.Contains(now, id) })
	}
}

// pingKeepers asks the nodes that should hold the values of a key whether they
// live, when they were silent for long.
func (c *Core) pingKeepers(f *family, key wire.Key) {
	for _, n := range c.keepersIn(f, key) {
		if c.now.Sub(n.replied) > churnPing {
			c.ping(f, n)
		}
	}
}

// handOn hands the values of a key on in one family. A node counts as a replica
// only once it was given the values by us, or when we came to have them: what
// others should have handed to it they may have failed to.
func (c *Core) handOn(f *family, key wire.Key, sh *shelf) {
	before := 0 // holders that are nearer to the key than we are
	var to []*node
	for _, n := range c.keepersIn(f, key) {
		if !slices.Contains(sh.replicas, n.id) {
			to = append(to, n)
		} else if key.Closer(n.id, c.cfg.Self) {
			before++
		}
	}
	if before >= handers {
		return
	}
	bytes := 0
	for _, n := range to {
		if bytes > handBytes {
			sh.owing = true
			return
		}
		sh.replicas = append(sh.replicas, n.id)
		for _, s := range sh.values {
			if !s.from.IsValid() || s.expires.Sub(c.now) < 10*time.Second {
				continue // our own puts look after themselves
			}
			bytes += len(s.Bytes)
			c.hand(f, n, s)
		}
	}
}

// hand gives one value to one node.
func (c *Core) hand(f *family, n *node, s *stored) {
	if !n.hasToken(c.now) {
		c.ask(f, n, wire.Request{Method: wire.Find, Key: s.key}, hander{c, n, s})
		return
	}
	c.stats.Replicated++
	c.ask(f, n, wire.Request{
		Method: wire.Put, Key: s.key, Values: []wire.Packed{s.Packed}, Created: s.created.Unix(), Token: n.token,
	}, hander{c, n, s})
}

// hander is the owner of requests that hand a value on: of the put, and before it
// of a find that fetches a token.
type hander struct {
	c *Core
	n *node
	s *stored
}

func (h hander) replied(r *request, _ *wire.Message) {
	if r.body.Method == wire.Find && h.n.hasToken(h.c.now) {
		h.c.hand(r.f, h.n, h.s)
	}
}

func (h hander) late(*request) {}

// failed lets it be tried again.
func (h hander) failed(*request, int) {
	if sh := h.c.store.shelves[h.s.key]; sh != nil {
		sh.replicas = slices.DeleteFunc(sh.replicas, func(id wire.NodeID) bool { return id == h.n.id })
		sh.owing = true
	}
}
