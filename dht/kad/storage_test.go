package kad

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

func testStored(id wire.ValueID, size int, from string, expires time.Time) *stored {
	s := &stored{Packed: wire.Packed{Value: &wire.Value{ID: id}, Bytes: make([]byte, size)}, expires: expires}
	if from != "" {
		s.from = source(netip.MustParseAddr(from))
	}
	return s
}

// Attack A6: a flood pushes out itself, not others.
func TestStorageFlood(t *testing.T) {
	tests := []struct {
		name string
		from func(i int) string
	}{
		{"one address", func(int) string { return "198.51.100.1" }},
		{"one /24", func(i int) string { return fmt.Sprintf("198.51.100.%d", i%256) }},
		{"one /64", func(i int) string { return fmt.Sprintf("2001:db8:1:1::%x", i+1) }},
		{"one /48", func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i%65536) }},
		{"three blocks", func(i int) string { return fmt.Sprintf("198.51.%d.%d", i%3, i/3%256) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newStorage(1 << 20)
			r := rand.New(rand.NewPCG(1, 1))
			honest := map[wire.Key]wire.ValueID{}
			for i := range 200 { // of 200 sources, 1 KiB each, that expire soon
				key := wire.Key(randomID(r))
				honest[key] = wire.ValueID(i + 1)
				if !s.put(epoch, key, testStored(wire.ValueID(i+1), 1024-valueCost, address(i).Addr().String(), epoch.Add(time.Minute))) {
					t.Fatal("no room for honest values")
				}
			}
			own := wire.Key{1}
			s.put(epoch, own, testStored(1, 1000, "", epoch.Add(time.Second)))
			for i := range 20_000 {
				key := wire.Key(randomID(r))
				s.put(epoch, key, testStored(1, 100+r.IntN(2000), test.from(i), epoch.Add(time.Duration(i)*time.Second)))
				if i%5000 == 0 {
					checkStorage(t, &s)
				}
			}
			for key, id := range honest {
				if sh := s.shelves[key]; sh == nil || sh.get(id) == nil {
					t.Fatal("an honest value was pushed out")
				}
			}
			if s.shelves[own] == nil {
				t.Error("our own value was pushed out")
			}
			// And somebody new still finds room.
			if !s.put(epoch, wire.Key{2}, testStored(9, 1000, "203.0.113.1", epoch.Add(time.Minute))) {
				t.Error("no room for a newcomer")
			}
			checkStorage(t, &s)
		})
	}
}

func TestStorageLimits(t *testing.T) {
	s := newStorage(64 << 20)
	gone := 0
	s.gone = func(*shelf, *stored) { gone++ }
	key := wire.Key{1}
	n := 0
	for i := range 2 * maxKeyValues {
		if s.put(epoch, key, testStored(wire.ValueID(i+1), 10, "192.0.2.1", epoch.Add(time.Minute))) {
			n++
		}
	}
	if n != maxKeyValues || gone != 0 {
		t.Errorf("%d values fit under a key, %d are gone", n, gone)
	}
	if !s.put(epoch.Add(2*time.Minute), key, testStored(1<<30, 10, "192.0.2.1", epoch.Add(time.Hour))) || gone != maxKeyValues {
		t.Errorf("expired values do not make room: %d gone", gone)
	}
	if s.put(epoch, key, testStored(5, maxKeyBytes, "192.0.2.1", epoch.Add(time.Hour))) {
		t.Error("more bytes than a key may have")
	}
	small := newStorage(1000)
	if small.put(epoch, key, testStored(1, 1000, "192.0.2.1", epoch.Add(time.Hour))) {
		t.Error("a value larger than everything fits")
	}
	// Whoever takes most loses what expires first, unless that is the newcomer.
	two := newStorage(3 * (valueCost + 100))
	for i := range 3 {
		two.put(epoch, wire.Key{byte(i)}, testStored(1, 100, "192.0.2.1", epoch.Add(time.Duration(10-i)*time.Minute)))
	}
	if two.put(epoch, wire.Key{7}, testStored(1, 100, "192.0.2.1", epoch.Add(time.Minute))) {
		t.Error("a value that expires first pushes out one of the same source")
	}
	if !two.put(epoch, wire.Key{8}, testStored(1, 100, "192.0.2.1", epoch.Add(time.Hour))) || two.shelves[wire.Key{2}] != nil {
		t.Error("the wrong value made room")
	}
}

// One block of addresses cannot keep others from storing under a key.
func TestStorageFullKey(t *testing.T) {
	s := newStorage(64 << 20)
	key := wire.Key{1}
	for i := range maxKeyValues {
		from := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String()
		if !s.put(epoch, key, testStored(wire.ValueID(i+1), 10, from, epoch.Add(time.Hour))) {
			t.Fatalf("value %d has no room", i)
		}
	}
	if !s.put(epoch, key, testStored(1<<20, 10, "198.51.100.1", epoch.Add(time.Minute))) {
		t.Error("another block has no room")
	}
	if s.put(epoch, key, testStored(1<<21, 10, "192.0.2.77", epoch.Add(2*time.Hour))) {
		t.Error("the block that fills the key gets more")
	}
	if s.shelves[key].get(1<<20) == nil || len(s.shelves[key].values) != maxKeyValues {
		t.Error("the wrong value made room")
	}
}

// Property: after any operations the accounts add up.
func TestStorageRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	s := newStorage(100_000)
	left := 0
	s.gone = func(*shelf, *stored) { left++ }
	cleared := 0
	s.cleared = func(*shelf) { cleared++ }
	put := 0
	now := epoch
	for step := range 20_000 {
		now = now.Add(time.Duration(r.IntN(1000)) * time.Millisecond)
		key := wire.Key{byte(r.IntN(20))}
		id := wire.ValueID(1 + r.IntN(8))
		from := ""
		switch r.IntN(4) {
		case 0:
			from = fmt.Sprintf("2001:db8:%x:%x::1", r.IntN(3), r.IntN(4))
		case 1, 2:
			from = fmt.Sprintf("192.0.%d.%d", r.IntN(3), r.IntN(4))
		}
		v := testStored(id, r.IntN(5000), from, now.Add(time.Duration(r.IntN(600))*time.Second))
		sh := s.shelves[key]
		var old *stored
		if sh != nil {
			old = sh.get(id)
		}
		switch op := r.IntN(10); {
		case old == nil:
			if s.put(now, key, v) {
				put++
			}
		case op < 3:
			s.replace(now, old, v)
		case op < 6:
			s.renew(old, now.Add(-time.Duration(r.IntN(900))*time.Second))
		case op < 7:
			s.remove(old)
		case op < 8:
			s.sweep(now)
			for _, sh := range s.shelves {
				for _, v := range sh.values {
					if !v.expires.After(now) {
						t.Fatal("an expired value survives a sweep")
					}
				}
			}
		}
		if step%20 == 0 {
			checkStorage(t, &s)
		}
	}
	if put-left != s.values || put < 1000 || cleared == 0 {
		t.Errorf("%d put, %d left, %d there, %d shelves cleared", put, left, s.values, cleared)
	}
}

// An edit in place keeps what belongs to the key.
func TestStorageReplace(t *testing.T) {
	s := newStorage(1 << 20)
	s.gone = func(*shelf, *stored) { t.Error("an edited value is told to be gone") }
	s.cleared = func(*shelf) { t.Error("the shelf is cleared") }
	key := wire.Key{1}
	old := testStored(1, 100, "192.0.2.1", epoch.Add(time.Minute))
	s.put(epoch, key, old)
	sh := s.shelves[key]
	if !s.replace(epoch, old, testStored(1, 200, "192.0.2.9", epoch.Add(time.Hour))) || s.shelves[key] != sh || len(sh.values) != 1 {
		t.Error("the value is not replaced on its shelf")
	}
	if s.replace(epoch, sh.values[0], testStored(1, 2<<20, "192.0.2.9", epoch.Add(time.Hour))) || len(sh.values) != 1 || len(sh.values[0].Bytes) != 200 {
		t.Error("a version without room pushed out the old one")
	}
	checkStorage(t, &s)
}
