package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
)

// Bounds of the storage below the configured total. A source is an IPv4 address
// or an IPv6 /64.
const (
	maxKeyValues = 4096    // values of one key
	maxKeyBytes  = 4 << 20 // bytes of one key
	valueCost    = 256     // bytes of book-keeping that count with a value
)

// maxUntold is how much longer a value may live without its listeners being told.
const maxUntold = 10 * time.Second

// A stored is one value of one key.
type stored struct {
	wire.Packed
	key     wire.Key
	created time.Time
	expires time.Time
	told    time.Time  // the expiry that listeners know
	from    netip.Addr // source that it counts for; invalid for our own
	cost    int64
	owner   identity.KeyID // of the value
	pos     int            // in its tenant's heap
}

// A shelf has the values of a key and those who listen to it.
type shelf struct {
	values    []*stored
	bytes     int64
	listeners []*listener
	replicas  []replica // nodes that are taken to hold these values too
	owing     bool      // some who should hold them were left for later
	asking    int       // nodes that are being asked what they hold
	check     timer
}

func (s *shelf) get(id wire.ValueID) *stored {
	for _, v := range s.values {
		if v.Value.ID == id {
			return v
		}
	}
	return nil
}

// full tells whether a value of that cost has no room on the shelf.
func (s *shelf) full(cost int64) bool {
	return len(s.values) > 0 && (len(s.values) >= maxKeyValues || s.bytes+cost > maxKeyBytes)
}

// evictable returns what has to go first when the shelf is full and v comes: what
// expires first of the block that takes most of the shelf. It is nil when that is
// v's own block.
func (s *shelf) evictable(v *stored) *stored {
	if !v.from.IsValid() || v.cost > maxKeyBytes {
		return nil
	}
	mine := blockOf(v.from)
	taken := map[netip.Prefix]int64{mine: v.cost}
	for _, have := range s.values {
		if have.from.IsValid() {
			taken[blockOf(have.from)] += have.cost
		}
	}
	var first *stored
	for _, have := range s.values {
		if !have.from.IsValid() {
			continue
		}
		b := blockOf(have.from)
		if taken[b] <= taken[mine] {
			continue
		}
		if first == nil || taken[b] > taken[blockOf(first.from)] || b == blockOf(first.from) && have.expires.Before(first.expires) {
			first = have
		}
	}
	return first
}

// A storage keeps values until they expire, within limit bytes in all. When it is
// full, the block of addresses that takes most, and in it the source that takes
// most, loses what would expire first: a flood pushes out itself, not others.
type storage struct {
	limit   int64
	shelves map[wire.Key]*shelf
	tenants tenants
	bytes   int64
	values  int
	// gone is called for each value that leaves, cleared for each shelf that does.
	gone    func(*shelf, *stored)
	cleared func(*shelf)
}

func newStorage(limit int64) storage {
	return storage{limit: limit, shelves: make(map[wire.Key]*shelf)}
}

// shelf returns the shelf of a key, a new one when there is none.
func (s *storage) shelf(key wire.Key) *shelf {
	sh := s.shelves[key]
	if sh == nil {
		sh = &shelf{}
		s.shelves[key] = sh
	}
	return sh
}

// put stores a value; the caller has judged that it may be, and that none with
// that id is there. It is false when there is no room for it.
func (s *storage) put(now time.Time, key wire.Key, v *stored) bool {
	v.key, v.told, v.owner = key, v.expires, v.Value.OwnerID()
	v.cost = int64(len(v.Bytes)) + valueCost
	sh := s.shelves[key]
	if sh != nil && sh.full(v.cost) {
		s.sweepShelf(now, key, sh)
	}
	for sh = s.shelves[key]; sh != nil && sh.full(v.cost); sh = s.shelves[key] {
		first := sh.evictable(v)
		if first == nil {
			return false
		}
		s.remove(first)
	}
	if !s.makeRoom(now, v) {
		return false
	}
	sh = s.shelf(key)
	sh.values = append(sh.values, v)
	sh.bytes += v.cost
	s.tenants.add(v)
	s.bytes += v.cost
	s.values++
	return true
}

// makeRoom evicts until v fits, or tells that v itself would be the first to go.
func (s *storage) makeRoom(now time.Time, v *stored) bool {
	if v.cost > s.limit {
		return false
	}
	for s.bytes+v.cost > s.limit {
		first := s.tenants.evictable(v)
		if first == nil || first.from == v.from && first.expires.After(v.expires) && first.expires.After(now) {
			return false
		}
		s.remove(first)
	}
	return true
}

// replace puts another value with the same id in the place of old.
func (s *storage) replace(now time.Time, old, v *stored) bool {
	s.takeOut(s.shelves[old.key], old) // it changes, it does not go
	if s.put(now, old.key, v) {
		return true
	}
	s.put(now, old.key, old)
	return false
}

// renew lets a value live as one that was made at the given time, and tells
// whether listeners should hear of it: not of every few seconds. Copies that are handed on do not live
// longer for it, else a value could go from node to node for ever.
func (s *storage) renew(v *stored, created time.Time) bool {
	e := created.Add(Life(v.Value.Type))
	if !e.After(v.expires) {
		return false
	}
	v.created, v.expires = created, e
	s.tenants.moved(v)
	if e.Sub(v.told) < min(Life(v.Value.Type)/10, maxUntold) {
		return false
	}
	v.told = e
	return true
}

// remove takes a value out and forgets what is empty then.
func (s *storage) remove(v *stored) {
	sh := s.shelves[v.key]
	s.takeOut(sh, v)
	if s.gone != nil {
		s.gone(sh, v)
	}
	s.tidy(v.key, sh)
}

func (s *storage) takeOut(sh *shelf, v *stored) {
	for i, other := range sh.values {
		if other == v {
			sh.values[i] = sh.values[len(sh.values)-1]
			sh.values[len(sh.values)-1] = nil
			sh.values = sh.values[:len(sh.values)-1]
			break
		}
	}
	sh.bytes -= v.cost
	s.tenants.remove(v)
	s.bytes -= v.cost
	s.values--
}

// tidy forgets a shelf with nothing on it.
func (s *storage) tidy(key wire.Key, sh *shelf) {
	if len(sh.values) == 0 && len(sh.listeners) == 0 && s.shelves[key] == sh {
		delete(s.shelves, key)
		if s.cleared != nil {
			s.cleared(sh)
		}
	}
}

func (s *storage) sweepShelf(now time.Time, key wire.Key, sh *shelf) {
	for i := len(sh.values) - 1; i >= 0; i-- {
		if !sh.values[i].expires.After(now) {
			s.remove(sh.values[i])
		}
	}
	s.tidy(key, sh)
}

// sweep removes what has expired.
func (s *storage) sweep(now time.Time) {
	for _, v := range s.tenants.due(now) {
		s.remove(v)
	}
}
