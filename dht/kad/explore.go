package kad

import (
	"encoding/binary"
	"math/bits"

	"github.com/kith-im/kith/dht/wire"
)

// Whoever wants to hide what is stored under a key puts nodes of his own next to
// it. A search meets that by dealing with more nodes than usual, and by looking for
// those that the crowd does not tell of.
const (
	// region is how many nodes are expected as near to a key as those that count,
	// at least. Whoever puts many nodes of his own next to a key does not push the
	// others out of it, since it is not the nodes that are counted.
	region = 7

	// What tells that nodes were put next to a key on purpose: so many in the
	// region, or k of them where crowdRegion are expected. About one key in twelve
	// looks so by chance, which costs a few requests more.
	crowd       = 13
	crowdRegion = 4
	regionParts = 4 // that the region is explored in then

	// When that is no chance any more, the exploration goes several ways at once,
	// since one alone may meet others of the crowd's like and end there.
	crowdSure  = 2.5
	surelyWays = 5
)

// widen makes the search deal with all nodes of the region around the key when
// more than k are known, which may be there to hide the value.
func (s *search) widen() {
	if len(s.nodes) < k || len(s.f.table.nodes) < estimateFrom || s.f.homes == 0 {
		return // too little is known to suspect anybody
	}
	all := float64(s.f.table.estimate())
	if all*part(s.key, s.nodes[k-1].n.id) > region {
		return
	}
	var room [maxWidth]*candidate
	counted := s.appendCounted(room[:0], maxWidth)
	n := 0
	for n < len(counted) && all*part(s.key, counted[n].n.id) <= region {
		n++
	}
	s.width = max(s.width, n)
	if s.sure {
		s.width = max(s.width, min(n+k, maxWidth))
	}
	if !s.crowded && (n >= crowd || n >= k && all*part(s.key, counted[k-1].n.id) <= crowdRegion) {
		s.crowded = true
		s.c.stats.Widened++
		ways := 1
		if n >= crowd || all*part(s.key, counted[k-1].n.id) <= crowdSure {
			s.sure, ways = true, surelyWays
			s.width = max(s.width, min(n+k, maxWidth))
		}
		s.explore(bits.Len(uint(all/region))-1, ways)
	}
}

// part returns which part of all ids is nearer to key than id.
func part(key wire.Key, id wire.NodeID) float64 {
	return float64(binary.BigEndian.Uint64(key[:])^binary.BigEndian.Uint64(id[:])) / (1 << 64)
}

// explore looks for the nodes of each part of the region, which shares the first so
// many bits with the key. A crowd next to the key would else be all that nodes tell
// of: their answers name no more than k.
func (s *search) explore(shared, ways int) {
	for i := max(shared, 0); i < max(shared, 0)+regionParts; i++ {
		target := s.key
		target[i/8] ^= 0x80 >> (i % 8)
		var room [surelyWays + 4*k]*node
		for _, n := range s.f.table.closest(room[:0], target, ways, func(n *node) bool { return s.apart(n, target) }) {
			s.scout(target, n, scout{})
		}
	}
}

// scoutSteps is how many nodes one exploration asks, each nearer to its target than
// the one before, and how many of them may be dead.
const scoutSteps = 6

// apart tells whether a node lies on the target's side of the key or farther away,
// so that it is none of the crowd that may be next to the key.
func (s *search) apart(n *node, target wire.Key) bool {
	return !n.expired && wire.CommonBits(n.id, s.key) <= wire.CommonBits(target, s.key)
}

// scout asks n, or the known node nearest to target, for nodes near target.
func (s *search) scout(target wire.Key, n *node, o scout) {
	o.waived = new(bool)
	if n == nil {
		var room [1 + 4*k]*node
		list := s.f.table.closest(room[:0], target, 1, func(n *node) bool { return s.apart(n, target) })
		if len(list) == 0 {
			return
		}
		n = list[0]
	}
	body := wire.Request{Method: wire.Find, Key: target, Want: s.want()}
	o.s, o.n = s, n
	if s.c.ask(s.f, n, body, o) != nil {
		s.exploring++
	}
}

// scout is the owner of finds that explore a region.
type scout struct {
	s     *search
	n     *node
	steps int // that led nearer
	dead  int // nodes that did not answer

	waived *bool // nobody waits for it: it is late
}

// finished tells the search that one request less is in flight.
func (o scout) finished() {
	if !*o.waived {
		o.s.exploring--
	}
}

func (o scout) replied(r *request, m *wire.Message) {
	o.finished()
	target, next := r.body.Key, o.n
	o.s.hear(r.addr.Addr(), m, func(n *node) {
		if o.s.apart(n, target) && target.Closer(n.id, next.id) {
			next = n
		}
	})
	if next != o.n && o.steps < scoutSteps {
		o.steps++
		o.s.scout(target, next, o)
	}
	o.s.widen()
	o.s.step()
}

func (o scout) late(*request) {
	o.finished()
	*o.waived = true
	o.s.step()
}

func (o scout) failed(r *request, _ int) {
	o.finished()
	if o.dead < scoutSteps {
		o.dead++
		o.s.scout(r.body.Key, nil, o)
	}
	o.s.step()
}
