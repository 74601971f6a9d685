package kad

import (
	"bytes"
	"cmp"
	"container/heap"
	"net/netip"
	"slices"
	"time"
)

// A tenant is the values of one source: an IPv4 address or an IPv6 /64. The value
// that expires first is on top.
type tenant struct {
	from   netip.Addr
	block  *block
	values []*stored
	bytes  int64
	pos    int // in the block's heap
}

func (t *tenant) Len() int           { return len(t.values) }
func (t *tenant) Less(i, j int) bool { return t.values[i].expires.Before(t.values[j].expires) }
func (t *tenant) Swap(i, j int) {
	t.values[i], t.values[j] = t.values[j], t.values[i]
	t.values[i].pos, t.values[j].pos = i, j
}

func (t *tenant) Push(x any) {
	v := x.(*stored)
	v.pos = len(t.values)
	t.values = append(t.values, v)
}

func (t *tenant) Pop() any {
	last := len(t.values) - 1
	v := t.values[last]
	t.values[last] = nil
	t.values = t.values[:last]
	return v
}

// A block is the tenants of one /24 or /48, the one with most bytes on top.
type block struct {
	name    netip.Prefix
	tenants []*tenant
	bytes   int64
	pos     int // in the heap of all blocks
}

func (b *block) Len() int           { return len(b.tenants) }
func (b *block) Less(i, j int) bool { return b.tenants[i].bytes > b.tenants[j].bytes }
func (b *block) Swap(i, j int) {
	b.tenants[i], b.tenants[j] = b.tenants[j], b.tenants[i]
	b.tenants[i].pos, b.tenants[j].pos = i, j
}

func (b *block) Push(x any) {
	t := x.(*tenant)
	t.pos = len(b.tenants)
	b.tenants = append(b.tenants, t)
}

func (b *block) Pop() any {
	last := len(b.tenants) - 1
	t := b.tenants[last]
	b.tenants[last] = nil
	b.tenants = b.tenants[:last]
	return t
}

// tenants accounts for who takes how much of a storage. What is our own, with no
// source, is counted apart and never evicted. The zero value is empty.
type tenants struct {
	own    *tenant
	byFrom map[netip.Addr]*tenant
	byName map[netip.Prefix]*block
	blocks blockHeap
}

// A blockHeap has the block with most bytes on top.
type blockHeap []*block

func (h blockHeap) Len() int           { return len(h) }
func (h blockHeap) Less(i, j int) bool { return h[i].bytes > h[j].bytes }
func (h blockHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i, j
}

func (h *blockHeap) Push(x any) {
	b := x.(*block)
	b.pos = len(*h)
	*h = append(*h, b)
}

func (h *blockHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return b
}

func blockOf(from netip.Addr) netip.Prefix {
	if p, ok := network(from); ok {
		return p
	}
	return netip.PrefixFrom(from, from.BitLen())
}

func (ts *tenants) of(from netip.Addr) *tenant {
	if !from.IsValid() {
		if ts.own == nil {
			ts.own = &tenant{}
		}
		return ts.own
	}
	if t := ts.byFrom[from]; t != nil {
		return t
	}
	if ts.byFrom == nil {
		ts.byFrom, ts.byName = make(map[netip.Addr]*tenant), make(map[netip.Prefix]*block)
	}
	name := blockOf(from)
	b := ts.byName[name]
	if b == nil {
		b = &block{name: name}
		ts.byName[name] = b
		heap.Push(&ts.blocks, b)
	}
	t := &tenant{from: from, block: b}
	ts.byFrom[from] = t
	heap.Push(b, t)
	return t
}

func (ts *tenants) add(v *stored) {
	t := ts.of(v.from)
	heap.Push(t, v)
	ts.charge(t, v.cost)
}

func (ts *tenants) remove(v *stored) {
	t := ts.of(v.from)
	heap.Remove(t, v.pos)
	ts.charge(t, -v.cost)
	if t.block == nil || len(t.values) > 0 {
		return
	}
	delete(ts.byFrom, t.from)
	heap.Remove(t.block, t.pos)
	if len(t.block.tenants) == 0 {
		delete(ts.byName, t.block.name)
		heap.Remove(&ts.blocks, t.block.pos)
	}
}

// moved restores the order after v's expiry has changed.
func (ts *tenants) moved(v *stored) { heap.Fix(ts.of(v.from), v.pos) }

func (ts *tenants) charge(t *tenant, cost int64) {
	t.bytes += cost
	if t.block == nil {
		return
	}
	t.block.bytes += cost
	heap.Fix(t.block, t.pos)
	heap.Fix(&ts.blocks, t.block.pos)
}

// evictable returns what has to go first for v to be stored: a value of whoever
// takes most once v is counted. It is nil when there is only our own.
func (ts *tenants) evictable(v *stored) *stored {
	if len(ts.blocks) == 0 {
		return nil
	}
	b := ts.blocks[0]
	if v.from.IsValid() {
		if mine := ts.byName[blockOf(v.from)]; mine != nil && mine.bytes+v.cost >= b.bytes {
			b = mine
		}
	}
	t := b.tenants[0]
	if mine := ts.byFrom[v.from]; mine != nil && mine.block == b && mine.bytes+v.cost >= t.bytes {
		t = mine
	}
	return t.values[0]
}

// due returns what has expired, earliest first.
func (ts *tenants) due(now time.Time) []*stored {
	var list []*stored
	collect := func(t *tenant) {
		if len(t.values) == 0 || t.values[0].expires.After(now) {
			return
		}
		for _, v := range t.values {
			if !v.expires.After(now) {
				list = append(list, v)
			}
		}
	}
	if ts.own != nil {
		collect(ts.own)
	}
	for _, b := range ts.blocks {
		for _, t := range b.tenants {
			collect(t)
		}
	}
	slices.SortFunc(list, func(a, b *stored) int {
		if c := a.expires.Compare(b.expires); c != 0 {
			return c
		}
		if c := bytes.Compare(a.key[:], b.key[:]); c != 0 {
			return c
		}
		return cmp.Compare(a.Value.ID, b.Value.ID)
	})
	return list
}
