package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Bounds of the signatures that are checked for others.
const (
	maxPutSigned = 8   // signed values of one put
	checkRate    = 64  // signatures per second and source
	checkBurst   = 256 // of one source at once
)

// A Check is a put with signed values, which the core does not verify itself: that
// is slow. Who called [Core.Receive] does it, with [wire.Message.CheckSignatures]
// and outside of any lock, and then calls [Core.Deliver]. The message is valid as
// long as the one that was received.
type Check struct {
	From    netip.AddrPort
	Message *wire.Message
}

// checks is what is left to a source.
type checks struct {
	left float32
	at   time.Time
}

// mayCheck charges a source for n signatures and tells whether it has that many.
func (c *Core) mayCheck(from netip.Addr, n int) bool {
	if c.cfg.Limits.Requests < 0 {
		return true
	}
	src := source(from)
	s, known := c.checks.get(c.now, src)
	if !known {
		s = checks{checkBurst, c.now}
	}
	s.left = min(checkBurst, s.left+checkRate*float32(c.now.Sub(s.at).Seconds()))
	s.at = c.now
	ok := s.left >= float32(n)
	if ok {
		s.left -= float32(n)
	}
	c.checks.set(c.now, src, s)
	return ok
}

// takePut stores the values of a put that has come whole, or has their signatures
// checked first.
func (c *Core) takePut(from netip.AddrPort, m *wire.Message) {
	signed, fresh := 0, false
	for _, v := range m.Values {
		switch {
		case v.ID == 0:
			c.sendError(from, m.TID, wire.CodeNoKey, "Put with invalid ID", 0)
			return
		case v.Signed():
			signed++
			fresh = fresh || !c.has(m.Key, v)
		}
	}
	switch {
	case signed > maxPutSigned:
		c.sendError(from, m.TID, wire.CodeNoKey, "Put with too many signed values", 0)
	case !fresh:
		c.storePut(from, m)
	case !c.mayCheck(from.Addr(), signed):
		c.ignore(RateLimited)
	default:
		c.out.checks = append(c.out.checks, Check{from, m})
	}
}

// has tells whether the same content is stored, so that nothing needs to be checked.
func (c *Core) has(key wire.Key, v *wire.Value) bool {
	sh := c.store.shelves[key]
	if sh == nil {
		return false
	}
	s := sh.get(v.ID)
	return s != nil && s.expires.After(c.now) && s.Value.SameContent(v)
}

// Deliver goes on with a put whose signatures were checked.
func (c *Core) Deliver(now time.Time, put Check, out *Outbox) {
	c.enter(now, out)
	c.storePut(put.From, put.Message)
	c.out = nil
}

func (c *Core) storePut(from netip.AddrPort, m *wire.Message) {
	for i, v := range m.Values {
		no := c.keep(m.Key, v, c.creation(m.Created), from, func() bool { return m.SignatureOK(i) })
		c.reply(from, m.TID, &wire.Answer{ValueID: v.ID, Refused: no}, 0)
	}
}
