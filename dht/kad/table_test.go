package kad

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

func randomID(r *rand.Rand) (id wire.NodeID) {
	for i := 0; i < len(id); i += 4 {
		binary.BigEndian.PutUint32(id[i:], r.Uint32())
	}
	return id
}

// address returns the i-th of addresses that are each in a block of their own.
func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(20 + i>>16), byte(i >> 8), byte(i), 1}), 4222)
}

func TestClosest(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{0, 1, 7, 8, 9, 60, 400} {
		tb := table{self: randomID(r)}
		for i := range size {
			n := &node{id: randomID(r), addr: address(i), expired: i%5 == 4}
			if i%3 == 0 { // a crowd next to us
				copy(n.id[:], tb.self[:2])
			}
			tb.insert(epoch, n)
		}
		checkTable(t, &tb)
		for try := range 200 {
			key := wire.Key(randomID(r))
			switch {
			case try == 0:
				key = wire.Key(tb.self)
			case try%4 == 1 && len(tb.nodes) > 0:
				key = wire.Key(tb.nodes[r.IntN(len(tb.nodes))].id)
			case try%4 == 2:
				copy(key[:], tb.self[:1+r.IntN(3)])
			}
			alive := func(n *node) bool { return !n.expired }
			want := slices.DeleteFunc(slices.Clone(tb.nodes), func(n *node) bool { return n.expired })
			slices.SortFunc(want, func(a, b *node) int {
				if key.Closer(a.id, b.id) {
					return -1
				}
				return 1
			})
			for _, count := range []int{1, 8, 24, 1000} {
				prefix := []*node{{}}
				got := tb.closest(prefix, key, count, alive)
				if got[0] != prefix[0] {
					t.Fatal("what was in dst is gone")
				}
				if !slices.Equal(got[1:], want[:min(count, len(want))]) {
					t.Fatalf("size %d, key %s, %d wanted: wrong nodes", size, key, count)
				}
			}
		}
	}
}

func TestTableDiversity(t *testing.T) {
	tests := []struct {
		name, format string
		limited      bool
	}{
		{"one /24", "198.51.100.%d", true},
		{"one /48", "2001:db8:7:%d::1", true},
		{"private", "10.1.2.%d", false},
		{"loopback", "127.0.0.%d", false},
		{"unique local", "fd00::%d", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			tb := table{self: randomID(r)}
			for i := range 200 {
				addr := netip.MustParseAddrPort(addrPort(test.format, 1+i))
				n := &node{id: randomID(r), addr: addr}
				copy(n.id[:2], tb.self[:2])
				n.id[i%12/8] ^= 0x80 >> (i % 12 % 8)
				tb.insert(epoch, n)
			}
			checkTable(t, &tb)
			if !test.limited {
				if len(tb.nodes) < 150 {
					t.Errorf("%d of 200 nodes were let in", len(tb.nodes))
				}
				return
			}
			if len(tb.nodes) != sameNetwork {
				t.Errorf("%d nodes of one block were let in, want %d", len(tb.nodes), sameNetwork)
			}
			for b, n := range tb.bucket {
				if n > sameNetworkInBucket {
					t.Errorf("%d nodes of one block in bucket %d", n, b)
				}
			}
			other := &node{id: randomID(r), addr: address(1)}
			if !tb.insert(epoch, other) {
				t.Error("a node of another block is not let in")
			}
		})
	}
}

func TestTableReplacement(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	self := randomID(r)
	now := epoch.Add(time.Hour)
	far := func(i int) *node {
		n := &node{id: randomID(r), addr: address(i), heard: now}
		n.id[0] = ^self[0]
		return n
	}
	full := func() *table {
		tb := &table{self: self}
		for i := range bucketSize {
			if !tb.insert(now, far(i)) {
				t.Fatal("the bucket is full too early")
			}
		}
		return tb
	}
	tests := []struct {
		name   string
		change func(*table) (victim *node)
	}{
		{"all good", func(*table) *node { return nil }},
		{"one expired", func(tb *table) *node { tb.nodes[7].expired = true; return tb.nodes[7] }},
		{"silent but not for long", func(tb *table) *node { tb.nodes[3].heard = now.Add(-goodFor); return nil }},
		{"the longest silent", func(tb *table) *node {
			tb.nodes[3].heard = now.Add(-goodFor - time.Second)
			tb.nodes[9].heard = now.Add(-goodFor - time.Minute)
			return tb.nodes[9]
		}},
		{"expired before silent", func(tb *table) *node {
			tb.nodes[3].heard = now.Add(-time.Hour)
			tb.nodes[9].expired = true
			return tb.nodes[9]
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tb := full()
			victim := test.change(tb)
			n := far(1000)
			if got, want := tb.insert(now, n), victim != nil; got != want {
				t.Fatalf("newcomer let in: %v, want %v", got, want)
			}
			checkTable(t, tb)
			if victim != nil && (tb.get(victim.id) != nil || victim.indexed || tb.get(n.id) != n) {
				t.Error("the wrong node made room")
			}
		})
	}
	tb := full()
	twin := &node{id: tb.nodes[0].id, addr: address(2000)}
	if tb.insert(now, twin) || tb.get(twin.id) == twin {
		t.Error("a second node with a known id is let in")
	}
	tb.remove(twin)
	if len(tb.nodes) != bucketSize {
		t.Error("a node with the same id was removed")
	}
}

func TestEstimate(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{5, 100, 3000} {
		total := 0.0
		const tries = 12
		for range tries {
			tb := table{self: randomID(r)}
			for i := range size {
				tb.insert(epoch, &node{id: randomID(r), addr: address(i)})
			}
			total += float64(tb.estimate())
		}
		if mean := total / tries; mean < 0.7*float64(size) || mean > 1.5*float64(size) {
			t.Errorf("%d nodes are taken for %.0f", size, mean)
		}
	}
}
