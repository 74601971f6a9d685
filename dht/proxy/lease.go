package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht"
)

// leaseTime is for how long a permanent value or a subscription is kept after
// the client last asked for it, and noticeTime how long before the end it is told.
const (
	leaseTime  = 24 * time.Hour
	noticeTime = 2 * time.Hour
)

// errOverQuota is about a client that has as many leases as it may.
var errOverQuota = errors.New("too many leases")

// lease is something that is done for a client for a time: a permanent value, or
// a subscription if it has no value.
type lease struct {
	key     dht.Key
	value   *dht.Value
	client  netip.Prefix // whose quota it counts against
	sub     subscriber
	expires time.Time
	noticed bool // the client was told of the end

	pub     dht.Publication    // of the value, nil if not (yet) published
	stop    context.CancelFunc // ends the subscription's listen, nil if there is none
	working bool               // a child is at it
	retry   backoff
	retryAt time.Time
}

type putKey struct {
	key dht.Key
	id  dht.ValueID
}

type subKey struct {
	key             dht.Key
	token, clientID string
}

// book has all leases. Its user locks it.
type book struct {
	puts  map[putKey]*lease
	byKey map[dht.Key][]*lease // the puts
	subs  map[subKey]*lease
	count map[netip.Prefix]int
	bytes int64
}

// findPut gives the lease of a value, also when a client put the same before
// and gives no id now.
func (b *book) findPut(key dht.Key, v *dht.Value, clientID string) *lease {
	if v.ID != 0 {
		return b.puts[putKey{key, v.ID}]
	}
	for _, l := range b.byKey[key] {
		if l.sub.ClientID == clientID && l.value.SameContent(v) {
			return l
		}
	}
	return nil
}

// room tells whether a client may have one more lease of that many bytes.
func (b *book) room(limits Limits, client netip.Prefix, bytes int64) bool {
	return len(b.puts)+len(b.subs) < limits.Leases && b.count[client] < limits.ClientLeases &&
		b.bytes+bytes <= limits.LeaseBytes
}

func (b *book) add(l *lease) {
	if b.puts == nil {
		b.puts = make(map[putKey]*lease)
		b.byKey = make(map[dht.Key][]*lease)
		b.subs = make(map[subKey]*lease)
		b.count = make(map[netip.Prefix]int)
	}
	b.count[l.client]++
	b.bytes += l.size()
	if l.value == nil {
		b.subs[l.subKey()] = l
		return
	}
	b.puts[putKey{l.key, l.value.ID}] = l
	b.byKey[l.key] = append(b.byKey[l.key], l)
}

// edit changes the value or the subscriber of a lease; what it is named by stays.
func (b *book) edit(l *lease, v *dht.Value, sub subscriber) {
	b.bytes -= l.size()
	l.value, l.sub = v, sub
	b.bytes += l.size()
}

// remove takes a lease off and ends what is done for it.
func (b *book) remove(l *lease) {
	if b.count[l.client]--; b.count[l.client] <= 0 {
		delete(b.count, l.client)
	}
	b.bytes -= l.size()
	if l.value == nil {
		delete(b.subs, l.subKey())
		if l.stop != nil {
			l.stop()
		}
		return
	}
	delete(b.puts, putKey{l.key, l.value.ID})
	rest := b.byKey[l.key]
	for i := range rest {
		if rest[i] == l {
			rest = append(rest[:i], rest[i+1:]...)
			break
		}
	}
	if b.byKey[l.key] = rest; len(rest) == 0 {
		delete(b.byKey, l.key)
	}
	if l.pub != nil {
		l.pub.Cancel()
	}
}

// has tells whether the lease is still in the book.
func (b *book) has(l *lease) bool {
	if l.value == nil {
		return b.subs[l.subKey()] == l
	}
	return b.puts[putKey{l.key, l.value.ID}] == l
}

// taken tells whether there is a lease for the same.
func (b *book) taken(l *lease) bool {
	if l.value == nil {
		return b.subs[l.subKey()] != nil
	}
	return b.puts[putKey{l.key, l.value.ID}] != nil
}

// all calls f for each lease; f may remove it.
func (b *book) all(f func(*lease)) {
	for _, l := range b.puts {
		f(l)
	}
	for _, l := range b.subs {
		f(l)
	}
}

// size is what a lease counts against the limit, in bytes.
func (l *lease) size() int64 {
	n := l.sub.size()
	if l.value != nil {
		n += int64(cost(l.value))
	}
	return n
}

func (l *lease) subKey() subKey { return subKey{l.key, l.sub.Token, l.sub.ClientID} }
