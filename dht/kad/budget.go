package kad

import (
	"net/netip"
	"slices"
)

// A budget bounds the bytes that are set aside for messages in parts, in all and
// for each source, so that no source takes the room of the others.
type budget struct {
	each    int  // bytes of one source, at most
	evict   bool // whether who came first makes room
	bytes   int
	sources map[netip.Addr]*partSource
}

type partSource struct {
	addr  netip.Addr
	bytes int
	open  []*partial // oldest first
}

func (b *budget) of(p *partial) *partSource { return b.sources[source(p.key.from.Addr())] }

func (b *budget) add(p *partial) {
	s := b.of(p)
	if s == nil {
		if b.sources == nil {
			b.sources = make(map[netip.Addr]*partSource)
		}
		s = &partSource{addr: source(p.key.from.Addr())}
		b.sources[s.addr] = s
	}
	s.open = append(s.open, p)
}

func (b *budget) remove(p *partial) {
	s := b.of(p)
	b.bytes -= p.bytes
	s.bytes -= p.bytes
	if s.open = slices.DeleteFunc(s.open, func(o *partial) bool { return o == p }); len(s.open) == 0 {
		delete(b.sources, s.addr)
	}
}

// heaviest returns the source that has most bytes, and among equals the one of the
// lowest address, so that the same inputs always hit the same one.
func (b *budget) heaviest() *partSource {
	var most *partSource
	for _, s := range b.sources {
		if most == nil || s.bytes > most.bytes || s.bytes == most.bytes && s.addr.Less(most.addr) {
			most = s
		}
	}
	return most
}

// reserve sets n more bytes aside for p, which is in its budget, and tells whether
// there was room. The oldest messages of the same source make room for it, and then
// those of the source that has most. Answers to us never do: their number is bound
// by what we ask, and each is given up in time.
func (c *Core) reserve(p *partial, n int) bool {
	b := p.budget
	own := b.of(p)
	for own.bytes+n > b.each {
		if !c.makeRoom(own, p) {
			return false
		}
	}
	for b.bytes+n > maxPartialSum {
		if !c.makeRoom(b.heaviest(), p) {
			return false
		}
	}
	p.bytes += n
	own.bytes += n
	b.bytes += n
	return true
}

// makeRoom gives up the oldest message of s but keep, and tells whether it could.
func (c *Core) makeRoom(s *partSource, keep *partial) bool {
	if !keep.budget.evict {
		return false
	}
	for _, p := range s.open {
		if p != keep {
			c.closeParts(p)
			c.ignore(BadPart)
			return true
		}
	}
	return false
}
