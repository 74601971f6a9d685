package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

const (
	sends = 3 // of one request, at most

	// maxRequests bounds the requests in flight; past it, new ones fail at once.
	maxRequests = 1 << 17
)

// A request is a request of ours that waits for its answer.
type request struct {
	tid   uint32
	f     *family
	node  *node // nil when only an address is asked
	addr  netip.AddrPort
	body  wire.Request
	sent  time.Time // first time
	tries int
	rto   time.Duration
	tm    timer
	owner requestOwner
}

// A requestOwner hears what becomes of a request: replied at most once, and else
// failed; late, any number of times before, when an answer takes longer than the
// node's round-trip time lets expect. Put replies come once for each value: the
// first one counts.
type requestOwner interface {
	replied(r *request, m *wire.Message)
	late(r *request)
	failed(r *request, code int) // code of an error answer, or 0 when silent
}

// nobody is the owner of requests whose answer only shows that a node lives.
type nobody struct{}

func (nobody) replied(*request, *wire.Message) {}
func (nobody) late(*request)                   {}
func (nobody) failed(*request, int)            {}

// ask sends a request to n. It returns nil when too many are in flight.
func (c *Core) ask(f *family, n *node, body wire.Request, owner requestOwner) *request {
	return c.start(&request{f: f, node: n, addr: n.addr, body: body, owner: owner})
}

// askAddr sends a request to an address whose node id is not known, or not to be
// trusted.
func (c *Core) askAddr(f *family, a netip.AddrPort, body wire.Request, owner requestOwner) *request {
	return c.start(&request{f: f, addr: a, body: body, owner: owner})
}

func (c *Core) start(r *request) *request {
	limit := maxRequests
	switch r.owner.(type) {
	case pushed, *stranger, inventory, handover: // for others: the rest is for our own tasks
		limit /= 2
	}
	if len(c.requests) >= limit {
		return nil
	}
	// Random ids, checked with the address, keep others from answering for a node.
	for r.tid == 0 || c.requests[r.tid] != nil || c.sockets[r.tid] != nil {
		r.tid = c.rand.Uint32()
	}
	c.requests[r.tid] = r
	r.sent = c.now
	var own rtt
	if r.node != nil {
		own = r.node.rtt
	}
	r.rto = own.timeout(&r.f.rtt)
	c.stats.Asked[r.body.Method]++
	c.transmit(r)
	return r
}

func (c *Core) transmit(r *request) {
	r.tries++
	c.send(r.addr, c.env.AppendRequest(c.out.buf, r.tid, &r.body))
	if len(r.body.Values) > 0 && !wire.Inline(r.body.Values) {
		c.sendParts(r.addr, r.tid, r.body.Values)
	}
	c.after(&r.tm, c.jitter(r.rto, 0.1), func() { c.timeout(r) })
}

func (c *Core) timeout(r *request) {
	if r.tries >= sends {
		c.stats.Timeouts++
		c.drop(r)
		if r.node != nil {
			c.expire(r.f, r.node)
		}
		r.owner.failed(r, 0)
		return
	}
	r.owner.late(r)
	if c.requests[r.tid] != r {
		return // its owner gave it up
	}
	c.stats.Retries++
	r.rto = min(2*r.rto, 2*maxRTO)
	c.transmit(r)
}

// drop forgets a request; its answer will be unexpected.
func (c *Core) drop(r *request) {
	c.timers.stop(&r.tm)
	delete(c.requests, r.tid)
}

// disown lets a request that nobody waits for run to its end, so that a node that
// is dead is found to be.
func (c *Core) disown(r *request) {
	if r != nil && c.requests[r.tid] == r {
		r.owner = nobody{}
	}
}

// Failed tells that a packet could not be sent to an address at all, as when the
// host has no route. The requests to it fail at once.
func (c *Core) Failed(now time.Time, to netip.AddrPort, out *Outbox) {
	c.enter(now, out)
	var hit []*request
	for _, r := range c.requests {
		if r.addr == to {
			hit = append(hit, r)
		}
	}
	sortByTID(hit)
	for _, r := range hit {
		if c.requests[r.tid] != r {
			continue
		}
		c.drop(r)
		if r.node != nil {
			c.expire(r.f, r.node)
		}
		r.owner.failed(r, 0)
	}
	c.out = nil
}

// expire marks a node that did not answer.
func (c *Core) expire(f *family, n *node) {
	if n.expired {
		return
	}
	n.expired = true
	c.moved(f, n, true)
	for _, t := range n.pushing { // others are to push instead, soon
		c.after(&t.s.tm, c.jitter(time.Second, 0.9), t.s.resync)
	}
}

// handleReply takes a reply or an error.
func (c *Core) handleReply(f *family, from netip.AddrPort, m *wire.Message) {
	r := c.requests[m.TID]
	if r == nil || r.addr != from || r.node != nil && r.node.id != m.From {
		if m.Kind == wire.Reply && c.pushedReply(from, m) {
			return
		}
		c.ignore(Unexpected)
		return
	}
	if len(m.Sizes) > 0 && m.Kind == wire.Reply && c.awaitParts(from, m, r) {
		return // complete is called with the values
	}
	c.complete(f, r, m)
}

// complete hands an answer to the request's owner.
func (c *Core) complete(f *family, r *request, m *wire.Message) {
	c.drop(r)
	n := c.answered(f, r, m)
	if m.Kind == wire.Error {
		c.refused(n, m.Code)
		r.owner.failed(r, m.Code)
		return
	}
	if r.body.Method >= wire.Put && r.body.Method <= wire.Refresh {
		n.authErrors = 0
	}
	r.owner.replied(r, m)
}

// answered notes that a node answered a request of ours, and is thus real.
func (c *Core) answered(f *family, r *request, m *wire.Message) *node {
	n := r.node
	if n == nil {
		n = c.meet(f, m.From, r.addr)
		r.node = n
	}
	c.proven.set(c.now, r.addr, struct{}{})
	if r.tries == 1 { // a retry's answer may be to either
		d := c.now.Sub(r.sent)
		n.rtt.observe(d)
		f.rtt.observe(d)
	}
	back := n.expired
	n.heard, n.replied, n.expired, n.probing = c.now, c.now, false, false
	if back {
		c.moved(f, n, false)
	}
	n.kith = m.Kith
	if len(m.Token) > 0 {
		n.token, n.tokenAt = append(n.token[:0:0], m.Token...), c.now
	}
	if m.Addr.IsValid() && m.Addr.Is4() == n.addr.Addr().Is4() && !martian(netip.AddrPortFrom(m.Addr, 1)) {
		f.ours.vote(blockOf(n.addr.Addr()), m.Addr)
	}
	if !m.ReadOnly && !n.indexed {
		c.learn(f, n)
	}
	return n
}

// meet returns the node with that id at an address that has proven itself: the
// known one, moved there when it did not answer at its old address, or a new one.
// Ids prove nothing: whoever claims one does not push out who still answers.
func (c *Core) meet(f *family, id wire.NodeID, addr netip.AddrPort) *node {
	n := f.table.get(id)
	if n == nil {
		return &node{id: id, addr: addr}
	}
	if n.addr == addr {
		return n
	}
	moved := &node{id: id, addr: addr}
	if !n.expired {
		if c.now.Sub(n.heard) > goneAfter {
			c.ping(f, n)
		}
		return moved
	}
	f.table.remove(n)
	if !f.table.insert(c.now, moved) {
		f.table.insert(c.now, n)
	}
	return moved
}

// learn lets a node that answered into the routing table.
func (c *Core) learn(f *family, n *node) {
	if f.table.get(n.id) == nil && f.table.insert(c.now, n) {
		f.bootstrap.reset()
		c.moved(f, n, false)
	}
}

// moved notes that a node came, came back, or was lost.
func (c *Core) moved(f *family, n *node, lost bool) {
	f.table.size = 0
	if n.indexed && lost && wire.CommonBits(n.id, c.cfg.Self) >= f.table.depth() {
		f.nearLost = c.now
	}
}

// refused acts on an error answer.
func (c *Core) refused(n *node, code int) {
	if code != wire.CodeUnauthorized {
		return
	}
	n.token = nil
	if n.authErrors++; n.authErrors > 3 {
		n.expired = true
	}
}

// ping asks n whether it lives.
func (c *Core) ping(f *family, n *node) {
	if n.probing {
		return
	}
	if c.ask(f, n, wire.Request{Method: wire.Ping}, prober{n}) != nil {
		n.probing = true
	}
}

// prober is the owner of pings.
type prober struct{ n *node }

func (p prober) replied(*request, *wire.Message) { p.n.probing = false }
func (p prober) late(*request)                   {}
func (p prober) failed(*request, int)            { p.n.probing = false }
