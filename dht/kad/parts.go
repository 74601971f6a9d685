package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Bounds of the values that arrive in parts.
const (
	partsLife     = 10 * time.Second // of a whole message
	partsSilence  = 3 * time.Second  // between two parts
	maxPartialSum = 16 << 20         // bytes set aside for answers to us, and as many for the rest
	partialCost   = 4 << 10          // bytes that a message counts beside its values
	maxEarly      = 64               // parts that came before what announces them
)

// A partKey tells which message a part belongs to: its sender's address counts, so
// that nobody else can add to it.
type partKey struct {
	from netip.AddrPort
	tid  uint32
}

// A partial is a message whose values arrive in parts.
type partial struct {
	key    partKey
	m      wire.Message // the announcing message, detached
	r      *request     // that it answers, or nil for a request
	values []partialValue
	budget *budget
	bytes  int // set aside
	begun  time.Time
	tm     timer
}

type partialValue struct {
	size    int    // as announced
	buf     []byte // made when the first part comes
	missing []span // not there yet, ascending; none when the size is too much
}

// A span is the bytes [from, to).
type span struct{ from, to int }

// assembly puts together what arrives in parts.
type assembly struct {
	open    map[partKey]*partial
	answers budget // of what we asked for
	unasked budget // of requests and pushes of others
	early   []earlyPart
}

type earlyPart struct {
	key   partKey
	index int
	off   int
	data  []byte
	at    time.Time
}

// awaitParts begins to collect the values that m announces. It is false, and
// nothing is begun, when there is nothing to wait for.
func (c *Core) awaitParts(from netip.AddrPort, m *wire.Message, r *request) bool {
	key := partKey{from, m.TID}
	if p := c.parts.open[key]; p != nil {
		if p.r == r && p.awaits(m.Sizes) {
			// A retry: parts that are missing still come.
			if r != nil {
				c.timers.stop(&r.tm)
			}
			c.partsTimeout(p)
			return true
		}
		if r == nil && p.r != nil && c.requests[p.r.tid] == p.r {
			c.ignore(BadPart) // who answers us does not begin another message meanwhile
			return false
		}
		c.closeParts(p)
	}
	p := &partial{key: key, r: r, begun: c.now, budget: &c.parts.unasked}
	if r != nil {
		p.budget = &c.parts.answers
	}
	cost := partialCost + 64*len(m.Sizes) + len(m.Nodes4) + len(m.Nodes6)
	wanted := 0
	for _, size := range m.Sizes {
		v := partialValue{size: size}
		if size > 0 && size <= wire.MaxPackedSize+wireSlack && cost+wanted+size <= p.budget.each {
			v.missing = []span{{0, size}}
			wanted += size
		}
		p.values = append(p.values, v)
	}
	if wanted == 0 {
		c.ignore(BadPart)
		return false
	}
	if c.parts.open == nil {
		c.parts.open = make(map[partKey]*partial)
	}
	c.parts.open[key] = p
	p.budget.add(p)
	if !c.reserve(p, cost) {
		c.closeParts(p)
		c.ignore(BadPart)
		return r != nil // it is asked again, when there may be room
	}
	p.m = m.Header()
	if r != nil {
		c.timers.stop(&r.tm) // the answer has begun
	}
	c.partsTimeout(p)
	early := c.parts.early
	c.parts.early = nil
	for _, e := range early {
		switch {
		case e.key == key && c.parts.open[key] == p:
			c.addPart(p, e.index, e.off, e.data)
		case e.key != key && c.now.Sub(e.at) < partsSilence:
			c.parts.early = append(c.parts.early, e)
		}
	}
	return true
}

// wireSlack is how much larger than [wire.MaxPackedSize] a signed value may be,
// whose owner key does not count as size.
const wireSlack = 4 << 10

// awaits tells whether values of these sizes are what p collects.
func (p *partial) awaits(sizes []int) bool {
	return slices.EqualFunc(p.values, sizes, func(v partialValue, size int) bool { return v.size == size })
}

// partsTimeout waits for the next part. When it does not come, what we asked for is
// asked for again, and what has come is kept: of many parts some are always lost.
func (c *Core) partsTimeout(p *partial) {
	wait := partsSilence
	asked := p.r != nil && c.requests[p.r.tid] == p.r
	if asked {
		wait = time.Duration(p.r.tries) * max(p.r.rto, 4*minRTO)
	}
	left := p.begun.Add(partsLife).Sub(c.now)
	if asked { // however often the answer begins anew
		left = min(left, p.r.sent.Add(2*partsLife).Sub(c.now))
	}
	c.after(&p.tm, min(wait, left), func() {
		asked = asked && c.requests[p.r.tid] == p.r
		if asked && p.r.tries < sends && left > wait {
			// Its owner is not told that it is late: the node answers.
			c.stats.Retries++
			c.transmit(p.r)
			c.timers.stop(&p.r.tm)
			c.partsTimeout(p)
			return
		}
		c.closeParts(p)
		c.ignore(BadPart)
		if asked {
			p.r.tries = sends
			c.timeout(p.r)
		}
	})
}

// closeParts gives up collecting. A request that p answers waits by itself again.
func (c *Core) closeParts(p *partial) {
	c.timers.stop(&p.tm)
	delete(c.parts.open, p.key)
	p.budget.remove(p)
	if r := p.r; r != nil && c.requests[r.tid] == r && r.tm.pos == 0 {
		c.after(&r.tm, r.rto, func() { c.timeout(r) })
	}
}

// handleParts takes parts of values.
func (c *Core) handleParts(f *family, from netip.AddrPort, m *wire.Message) {
	key := partKey{from, m.TID}
	p := c.parts.open[key]
	if p == nil {
		// Parts can overtake what announces them; from strangers they count as
		// requests, so that they cannot be used to flood.
		if _, proven := c.proven.get(c.now, from); !proven || !c.limiter.allow(c.now, from.Addr(), true) {
			c.ignore(BadPart)
			return
		}
		if len(c.parts.early) >= maxEarly {
			c.parts.early = slices.DeleteFunc(c.parts.early, func(e earlyPart) bool { return c.now.Sub(e.at) >= partsSilence })
		}
		for _, piece := range m.Pieces {
			if len(c.parts.early) >= maxEarly || len(piece.Data) > 2*wire.PieceSize {
				c.ignore(BadPart)
				return
			}
			c.parts.early = append(c.parts.early, earlyPart{key, piece.Index, piece.Offset, append([]byte(nil), piece.Data...), c.now})
		}
		return
	}
	if n := f.table.get(p.m.From); n != nil && n.addr == from {
		n.heard = c.now
	}
	for _, piece := range m.Pieces {
		if c.parts.open[key] != p {
			return
		}
		c.addPart(p, piece.Index, piece.Offset, piece.Data)
	}
}

func (c *Core) addPart(p *partial, index, off int, data []byte) {
	if index < 0 || index >= len(p.values) || off < 0 || len(data) == 0 || len(data) > p.values[index].size-off {
		c.ignore(BadPart)
		return
	}
	v := &p.values[index]
	if v.buf == nil && len(v.missing) > 0 {
		if !c.reserve(p, v.size) {
			c.ignore(BadPart)
			return
		}
		v.buf = make([]byte, v.size)
	}
	if !v.fill(off, data) {
		return // had it
	}
	c.partsTimeout(p)
	for i := range p.values {
		if len(p.values[i].missing) > 0 {
			return
		}
	}
	c.closeParts(p)
	c.assembled(p)
}

// fill copies what is still missing of the bytes at off, so that a part that came
// first cannot be overwritten.
func (v *partialValue) fill(off int, data []byte) bool {
	end := off + len(data)
	filled := false
	var rest []span
	for _, s := range v.missing {
		from, to := max(s.from, off), min(s.to, end)
		if from >= to {
			rest = append(rest, s)
			continue
		}
		filled = true
		copy(v.buf[from:to], data[from-off:])
		if s.from < from {
			rest = append(rest, span{s.from, from})
		}
		if to < s.to {
			rest = append(rest, span{to, s.to})
		}
	}
	if len(rest) > 2*wire.MaxPackedSize/wire.PieceSize {
		return false // cut into crumbs on purpose
	}
	v.missing = rest
	return filled
}

// assembled goes on with a message whose values are all there.
func (c *Core) assembled(p *partial) {
	for i := range p.values {
		if len(p.values[i].buf) == 0 {
			continue // too large: the others still count
		}
		v, err := wire.ParseValue(p.values[i].buf)
		if err != nil {
			c.ignore(BadValues)
			continue
		}
		p.m.Values = append(p.m.Values, v)
	}
	f := c.familyOf(p.key.from.Addr())
	switch {
	case p.r != nil:
		if c.requests[p.r.tid] == p.r {
			c.complete(f, p.r, &p.m)
		}
	case p.m.Kind == wire.Reply:
		c.pushedReply(p.key.from, &p.m)
	case p.m.Method == wire.Put:
		c.takePut(p.key.from, &p.m)
	case p.m.Method == wire.Update:
		c.handleUpdate(f, p.key.from, &p.m, 0)
	}
}
