package kad

import (
	"net/netip"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

const (
	k = 8 // copies of a value, entries of a node list

	// bucketSize bounds the nodes that share the same number of leading bits with
	// our id. It is larger than k: knowing more of the far side makes lookups
	// shorter and an eclipse dearer, and costs no traffic, since only silent nodes
	// are asked.
	bucketSize = 40

	// sameNetworkInBucket and sameNetwork bound the nodes of one /24 or /48.
	sameNetworkInBucket = 2
	sameNetwork         = 12
)

// A table is the routing table of one address family: nodes that have answered
// us, sorted by id, so that those nearest to any key lie together.
type table struct {
	self     wire.NodeID
	nodes    []*node
	bucket   [8*wire.IDSize + 1]uint16
	network  map[netip.Prefix]uint16
	samples  [32]float64 // sizes of the network that searches told of
	searched int         // searches that did
	size     int         // what estimate returned, 0 when that may have changed
}

func (t *table) find(id wire.NodeID) (int, bool) {
	return slices.BinarySearchFunc(t.nodes, id, func(n *node, id wire.NodeID) int { return n.id.Compare(id) })
}

// get returns the node with that id, or nil.
func (t *table) get(id wire.NodeID) *node {
	if i, ok := t.find(id); ok {
		return t.nodes[i]
	}
	return nil
}

// wants tells whether a node with that id and address would be let in, maybe in
// place of one that has died.
func (t *table) wants(now time.Time, id wire.NodeID, addr netip.Addr) bool {
	b := wire.CommonBits(t.self, id)
	if block, ok := network(addr); ok {
		if t.network[block] >= sameNetwork {
			return false
		}
		same := 0
		for _, n := range t.inBucket(b) {
			if other, ok := network(n.addr.Addr()); ok && other == block {
				same++
			}
		}
		if same >= sameNetworkInBucket {
			return false
		}
	}
	return int(t.bucket[b]) < bucketSize || t.replaceable(now, b) != nil
}

// inBucket returns the nodes that share just so many leading bits with our id,
// which lie together.
func (t *table) inBucket(b int) []*node {
	if t.bucket[b] == 0 || b == 8*wire.IDSize {
		return nil
	}
	first := t.self
	first[b/8] ^= 0x80 >> (b % 8)
	first[b/8] &= 0xff << (7 - b%8)
	clear(first[b/8+1:])
	i, _ := t.find(first)
	return t.nodes[i : i+int(t.bucket[b])]
}

// replaceable returns a node of the bucket that may make room: an expired one,
// else the one that was silent for longest, if that is past [goodFor].
func (t *table) replaceable(now time.Time, bucket int) *node {
	var worst *node
	for _, n := range t.inBucket(bucket) {
		if n.expired {
			return n
		}
		if now.Sub(n.heard) > goodFor && (worst == nil || n.heard.Before(worst.heard)) {
			worst = n
		}
	}
	return worst
}

// insert lets n in if it is wanted and tells whether it is in.
func (t *table) insert(now time.Time, n *node) bool {
	i, ok := t.find(n.id)
	if ok {
		return t.nodes[i] == n
	}
	if !t.wants(now, n.id, n.addr.Addr()) {
		return false
	}
	b := wire.CommonBits(t.self, n.id)
	if int(t.bucket[b]) >= bucketSize {
		t.remove(t.replaceable(now, b))
		i, _ = t.find(n.id)
	}
	t.nodes = slices.Insert(t.nodes, i, n)
	n.indexed = true
	t.bucket[b]++
	t.count(n, +1)
	return true
}

func (t *table) remove(n *node) {
	i, ok := t.find(n.id)
	if !ok || t.nodes[i] != n {
		return
	}
	t.nodes = slices.Delete(t.nodes, i, i+1)
	n.indexed = false
	t.bucket[wire.CommonBits(t.self, n.id)]--
	t.count(n, -1)
}

func (t *table) count(n *node, by int) {
	t.size = 0
	block, ok := network(n.addr.Addr())
	if !ok {
		return
	}
	if t.network == nil {
		t.network = make(map[netip.Prefix]uint16)
	}
	if t.network[block] += uint16(by); t.network[block] == 0 {
		delete(t.network, block)
	}
}

// closest appends to dst the want nodes nearest to key that accept takes, nearest
// first.
func (t *table) closest(dst []*node, key wire.Key, want int, accept func(*node) bool) []*node {
	// The nodes that share at least p bits with key are one run of the sorted
	// slice, and nearer than all others. Widen that run from the longest p down.
	hi, _ := t.find(wire.NodeID(key))
	lo := hi // the run is [lo, hi)
	base := len(dst)
	for len(dst)-base < want && (lo > 0 || hi < len(t.nodes)) {
		p := -1
		if lo > 0 {
			p = wire.CommonBits(key, t.nodes[lo-1].id)
		}
		if hi < len(t.nodes) {
			p = max(p, wire.CommonBits(key, t.nodes[hi].id))
		}
		start := len(dst)
		for lo > 0 && wire.CommonBits(key, t.nodes[lo-1].id) >= p {
			lo--
			if accept(t.nodes[lo]) {
				dst = append(dst, t.nodes[lo])
			}
		}
		for hi < len(t.nodes) && wire.CommonBits(key, t.nodes[hi].id) >= p {
			if accept(t.nodes[hi]) {
				dst = append(dst, t.nodes[hi])
			}
			hi++
		}
		group := dst[start:]
		slices.SortFunc(group, func(a, b *node) int {
			if key.Closer(a.id, b.id) {
				return -1
			}
			return 1
		})
	}
	return dst[:min(len(dst), base+want)]
}

// depth is how many leading bits of our id the k nearest known nodes share; with
// it the size of the network can be guessed.
func (t *table) depth() int {
	total := 0
	for b := len(t.bucket) - 1; b >= 0; b-- {
		if total += int(t.bucket[b]); total >= k {
			return b
		}
	}
	return 0
}

// estimateFrom is how many of the nodes next to us tell of the size of the network,
// besides the k nearest.
const estimateFrom = 2 * k

// estimate guesses the number of nodes in the network: from how near the nearest
// nodes were to the keys that were searched for lately, and before that from how
// near the nearest are to us. A table that knows few nodes but its neighbours must
// not take them for all there are.
func (t *table) estimate() int {
	if t.size > 0 {
		return t.size
	}
	if n := min(t.searched, len(t.samples)); n >= minSamples {
		list := slices.Clone(t.samples[:n])
		slices.Sort(list)
		t.size = max(1, int(list[n/2]))
		return t.size
	}
	var room [estimateFrom + 4*k]*node
	near := t.closest(room[:0], wire.Key(t.self), estimateFrom, func(n *node) bool { return !n.expired })
	t.size = len(near) + 1
	for _, from := range [...]int{k, estimateFrom} {
		if len(near) >= from {
			t.size = max(t.size, int(density(wire.Key(t.self), near[from-1].id, from)))
		}
	}
	return t.size
}

// minSamples is how many searches have to tell of the size of the network before
// they are believed. An attack on a few keys does not move their median.
const minSamples = 5

// density returns how many nodes a network probably has in which the n-th nearest to
// key is the given one: half of all networks of that size have it nearer.
func density(key wire.Key, id wire.NodeID, n int) float64 {
	return min((float64(n)-1.0/3)/max(part(key, id), 1e-12), 1<<40)
}

// sample notes how near the k-th nearest node was to a key.
func (t *table) sample(key wire.Key, id wire.NodeID) {
	t.samples[t.searched%len(t.samples)] = density(key, id, k)
	t.searched++
	t.size = 0
}
