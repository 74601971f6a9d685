package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Info is a snapshot of a core.
type Info struct {
	V4, V6     FamilyInfo
	Keys       int
	Values     int
	Bytes      int64
	Limit      int64 // of Bytes
	Searches   int
	Sockets    int // of ours, at others
	Publishing int
	Listeners  int // of others, here
	Requests   int // in flight
	Partial    int // messages being put together
}

// FamilyInfo is a snapshot of one address family; the zero value when the node
// does not have it.
type FamilyInfo struct {
	Status   int // Disconnected, Connecting or Connected
	Good     int
	Dubious  int
	Known    int
	Depth    int
	Estimate int
	Public   netip.Addr // what most say our address is
	RTT      time.Duration
}

// Info returns a snapshot.
func (c *Core) Info(now time.Time) Info {
	if now.After(c.now) {
		c.now = now
	}
	i := Info{
		Keys: len(c.store.shelves), Values: c.store.values, Bytes: c.store.bytes, Limit: c.store.limit,
		Searches: len(c.searches), Sockets: len(c.sockets), Publishing: len(c.puts),
		Listeners: len(c.watch.all), Requests: len(c.requests), Partial: len(c.parts.open),
	}
	if c.v4 != nil {
		i.V4 = c.familyInfo(c.v4)
	}
	if c.v6 != nil {
		i.V6 = c.familyInfo(c.v6)
	}
	return i
}

func (c *Core) familyInfo(f *family) FamilyInfo {
	i := FamilyInfo{
		Status: c.status(f), Known: len(f.table.nodes), Depth: f.table.depth(), Estimate: f.table.estimate(),
		Public: f.ours.best(), RTT: f.rtt.mean,
	}
	for _, n := range f.table.nodes {
		switch {
		case n.good(c.now):
			i.Good++
		case !n.expired:
			i.Dubious++
		}
	}
	return i
}

// Entry is a stored value as it is saved.
type Entry struct {
	Key     wire.Key
	Value   *wire.Value
	Created time.Time
	Expires time.Time
	From    netip.Addr // source, invalid for our own
}

// Export yields the stored values, in no particular order.
func (c *Core) Export(yield func(Entry) bool) {
	for key, sh := range c.store.shelves {
		for _, s := range sh.values {
			if !yield(Entry{key, s.Value, s.created, s.expires, s.from}) {
				return
			}
		}
	}
}

// Import stores a saved value until it expires, and tells whether it did. Its
// signature is checked as that of any value.
func (c *Core) Import(now time.Time, e Entry, out *Outbox) bool {
	c.enter(now, out)
	defer func() { c.out = nil }()
	if !e.Expires.After(c.now) || e.Key.IsZero() || e.Value.ID == 0 || e.Value.Size() > wire.MaxValueSize {
		return false
	}
	if sh := c.store.shelves[e.Key]; sh != nil && sh.get(e.Value.ID) != nil {
		return false
	}
	v, ok := admit(e.Key, e.Value, netip.AddrPortFrom(e.From, 0), func() bool { return e.Value.VerifySignature() == nil })
	if !ok {
		return false
	}
	expires := e.Expires
	if last := c.now.Add(Life(v.Type)); expires.After(last) {
		expires = last
	}
	s := &stored{Packed: detach(v), created: e.Created, expires: expires, from: e.From}
	if !c.store.put(c.now, e.Key, s) {
		return false
	}
	sh := c.store.shelves[e.Key]
	sh.owing = true // whoever else held it may be gone: compare with the network soon
	c.watchShelf(e.Key, sh)
	return true
}
