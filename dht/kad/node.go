package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// How long what we know of a node counts.
const (
	goodFor  = 15 * time.Minute // heard of so recently, a node is passed on to others
	tokenFor = 10 * time.Minute // issuers accept tokens for at least 15 min
	forgetIn = 60 * time.Minute // an expired node is kept so long for rejoining

	// goneAfter is how long a node is silent before it is asked where it is when
	// another address claims its id.
	goneAfter = 15 * time.Second
)

// A node is another node of the network, as one address family reaches it.
type node struct {
	id      wire.NodeID
	addr    netip.AddrPort
	heard   time.Time // last packet from it
	replied time.Time // last answer to a request of ours
	expired bool      // did not answer a request with all its retries
	kith    bool      // speaks our dialect
	indexed bool      // is in the routing table
	probing bool      // a ping is out to it

	token   []byte
	tokenAt time.Time

	pushing []*listenTask // listens of ours that it serves

	authErrors int // refusals of our token in a row
	rtt        rtt
}

// good tells whether n is worth telling others about.
func (n *node) good(now time.Time) bool {
	return !n.expired && now.Sub(n.heard) < goodFor && !n.replied.IsZero()
}

// hasToken tells whether we hold a write token that its issuer still accepts.
func (n *node) hasToken(now time.Time) bool {
	return len(n.token) > 0 && now.Sub(n.tokenAt) < tokenFor
}

// forgetPath forgets what belongs to the way between the node and our address.
func (n *node) forgetPath() { n.token, n.rtt, n.probing = nil, rtt{}, false }

// Bounds of the time to wait for an answer before asking again.
const (
	firstRTO = 400 * time.Millisecond // nothing is known of anybody
	minRTO   = 80 * time.Millisecond
	maxRTO   = 1500 * time.Millisecond
)

// An rtt estimates a round-trip time and its spread as RFC 6298 does.
type rtt struct {
	mean, dev time.Duration
}

func (r *rtt) observe(d time.Duration) {
	if r.mean == 0 {
		r.mean, r.dev = d, d/2
		return
	}
	diff := r.mean - d
	if diff < 0 {
		diff = -diff
	}
	r.dev += (diff - r.dev) / 4
	r.mean += (d - r.mean) / 8
}

// timeout returns how long to wait for an answer; other is what is known of nodes
// at large, for one that was never measured.
func (r *rtt) timeout(other *rtt) time.Duration {
	if r.mean == 0 {
		if other == nil || other.mean == 0 {
			return firstRTO
		}
		return min(max(2*other.mean+4*other.dev, minRTO), firstRTO)
	}
	return min(max(r.mean+4*r.dev, minRTO), maxRTO)
}

// network returns the block of addresses that one operator is assumed to control:
// a /24 or a /48. Loopback and private addresses have none, since the nodes of a
// laboratory or an office may share a block without being one.
func network(a netip.Addr) (netip.Prefix, bool) {
	if local(a) {
		return netip.Prefix{}, false
	}
	bits := 24
	if a.Is6() {
		bits = 48
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// local tells whether an address means something only near its host.
func local(a netip.Addr) bool { return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() }

// source returns what rate limits and quotas count together: an IPv4 address or
// the first 64 bits of an IPv6 address.
func source(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// martian tells whether no node can have that address.
func martian(a netip.AddrPort) bool {
	ip := a.Addr()
	switch {
	case a.Port() == 0 || !ip.IsValid() || ip.IsUnspecified() || ip.IsMulticast() || ip.Is4In6():
		return true
	case ip.Is4():
		b := ip.As4()
		return b[0] == 0 || b[0] >= 224
	}
	return false
}
