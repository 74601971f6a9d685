package simnet

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// NATKind is how a NAT maps and filters, by the names of RFC 3489 section 5.
type NATKind uint8

// The kinds. The first three map an inner address and port to one outer port
// whatever the destination is (endpoint-independent mapping, RFC 4787).
const (
	FullCone          NATKind = iota // lets everybody in to a mapped port
	AddressRestricted                // lets in the addresses that were sent to
	PortRestricted                   // lets in the addresses and ports that were sent to
	Symmetric                        // has a mapping for each destination, and lets only that in
)

// String gives the name of a kind.
func (k NATKind) String() string {
	switch k {
	case FullCone:
		return "full cone"
	case AddressRestricted:
		return "address restricted"
	case PortRestricted:
		return "port restricted"
	case Symmetric:
		return "symmetric"
	}
	return fmt.Sprintf("NATKind(%d)", uint8(k))
}

// tcpTimeout is how long a NAT remembers a TCP connection (RFC 5382, REQ-5).
const tcpTimeout = 2*time.Hour + 4*time.Minute

// NAT is a router that translates addresses; hosts are put behind it by the
// methods of its inside.
type NAT struct {
	*LAN    // the inside
	outside *realm
	outer   []netip.Addr
	hairpin bool
	udp4    natTable
	udp6    natTable
	tcp4    natTable
	tcp6    natTable
}

func newNAT(w *World, kind NATKind, outside *realm, outer []netip.Addr) *NAT {
	n := &NAT{outside: outside, outer: slices.Clone(outer)}
	n.LAN = &LAN{world: w, realm: &realm{owners: make(map[netip.Addr]owner), uplink: n}, multicast: true}
	for i, t := range []*natTable{&n.udp4, &n.udp6, &n.tcp4, &n.tcp6} {
		*t = natTable{kind: kind, first: firstNATPort, timeout: w.cfg.Timeout, byInner: make(map[natKey]*mapping), byPort: make(map[uint16]*mapping)}
		if i >= 2 {
			t.timeout = tcpTimeout
		}
		for _, a := range slices.Backward(outer) { // the first of a family wins
			if a.Is6() == (i%2 == 1) {
				t.outer = a
			}
		}
		t.seed = uint64(hash(w.cfg.Seed).addr(netip.AddrPortFrom(t.outer, uint16(i))))
	}
	return n
}

// SetHairpin sets whether hosts inside reach one another by the outer address;
// by default they do not.
func (n *NAT) SetHairpin(on bool) {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	n.hairpin = on
}

// Forward maps a port of the outer address for good and for everybody, as a user
// or UPnP would: network is "udp" or "tcp". It fails when the port is mapped.
func (n *NAT) Forward(network string, port uint16, inner netip.AddrPort) error {
	p, err := parseProtocol(network)
	if err != nil {
		return err
	}
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	if !n.translates(inner.Addr()) {
		return fmt.Errorf("simnet: NAT has no outer address for %v", inner)
	}
	return n.table(p, inner.Addr()).forward(n.world.now(), port, inner)
}

// Unforward takes a Forward back.
func (n *NAT) Unforward(network string, port uint16) error {
	p, err := parseProtocol(network)
	if err != nil {
		return err
	}
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	for _, six := range []bool{false, true} {
		t := n.tableOf(p, six)
		if m := t.byPort[port]; m != nil && m.fixed {
			t.drop(m)
		}
	}
	return nil
}

// Reset forgets all mappings but forwarded ones, as a router does that restarts.
func (n *NAT) Reset() {
	n.world.mu.Lock()
	defer n.world.mu.Unlock()
	for _, t := range []*natTable{&n.udp4, &n.udp6, &n.tcp4, &n.tcp6} {
		for _, m := range t.byPort {
			if !m.fixed {
				t.drop(m)
			}
		}
	}
}

func parseProtocol(network string) (protocol, error) {
	switch network {
	case "udp":
		return udp, nil
	case "tcp":
		return tcp, nil
	}
	return 0, fmt.Errorf("simnet: network %q, want udp or tcp", network)
}

// translates tells whether the NAT handles the family of a.
func (n *NAT) translates(a netip.Addr) bool { return n.tableOf(udp, a.Is6()).outer.IsValid() }

func (n *NAT) table(p protocol, a netip.Addr) *natTable { return n.tableOf(p, a.Is6()) }

func (n *NAT) tableOf(p protocol, six bool) *natTable {
	switch {
	case p == udp && !six:
		return &n.udp4
	case p == udp:
		return &n.udp6
	case !six:
		return &n.tcp4
	}
	return &n.tcp6
}

// natTable is the state of a NAT for one protocol and family. It is pure: time is
// an argument, and ports are a function of the seed.
type natTable struct {
	kind    NATKind
	outer   netip.Addr
	first   uint16 // port
	seed    uint64
	timeout time.Duration
	byInner map[natKey]*mapping
	byPort  map[uint16]*mapping
}

// natKey is what a mapping is for; dst is zero where the kind does not tell
// destinations apart.
type natKey struct{ inner, dst netip.AddrPort }

type mapping struct {
	key   natKey
	inner netip.AddrPort
	port  uint16
	used  time.Duration // last packet outwards; only these prolong it (RFC 4787, REQ-6)
	fixed bool
	// peers holds when each destination was last sent to: address and port, or
	// the address with port 0 where the kind filters by that alone.
	peers map[netip.AddrPort]time.Duration
}

// firstNATPort is where the ports begin that a NAT gives out.
const firstNATPort = 1024

// maxPeers is when a mapping looks for peers that it may forget.
const maxPeers = 1024

// out translates the source of a packet that leaves; false when all ports are taken.
func (t *natTable) out(now time.Duration, src, dst netip.AddrPort) (netip.AddrPort, bool) {
	key := natKey{inner: src}
	if t.kind == Symmetric {
		key.dst = dst
	}
	m := t.byInner[key]
	if m != nil && t.expired(m, now) {
		t.drop(m)
		m = nil
	}
	if m == nil {
		port, ok := t.freePort(now, key)
		if !ok {
			return netip.AddrPort{}, false
		}
		m = &mapping{key: key, inner: src, port: port, peers: make(map[netip.AddrPort]time.Duration)}
		t.byInner[key], t.byPort[port] = m, m
	}
	m.used = now
	if len(m.peers) >= maxPeers {
		for p, last := range m.peers {
			if now-last > t.timeout {
				delete(m.peers, p)
			}
		}
	}
	m.peers[t.peer(dst)] = now
	return netip.AddrPortFrom(t.outer, m.port), true
}

// in translates the destination of a packet that comes; false when it is not let in.
func (t *natTable) in(now time.Duration, src, dst netip.AddrPort) (netip.AddrPort, bool) {
	m := t.byPort[dst.Port()]
	if m == nil || dst.Addr() != t.outer {
		return netip.AddrPort{}, false
	}
	if t.expired(m, now) {
		t.drop(m)
		return netip.AddrPort{}, false
	}
	if m.fixed || t.kind == FullCone {
		return m.inner, true
	}
	last, ok := m.peers[t.peer(src)]
	return m.inner, ok && now-last <= t.timeout
}

// peer is what the filter knows of an endpoint outside.
func (t *natTable) peer(a netip.AddrPort) netip.AddrPort {
	if t.kind == AddressRestricted {
		return netip.AddrPortFrom(a.Addr(), 0)
	}
	return a
}

func (t *natTable) expired(m *mapping, now time.Duration) bool {
	return !m.fixed && now-m.used > t.timeout
}

func (t *natTable) drop(m *mapping) {
	if t.byInner[m.key] == m {
		delete(t.byInner, m.key)
	}
	delete(t.byPort, m.port)
}

// freePort picks a port by the key and the time, so that what other hosts do at
// the same instant does not change it, and a mapping that comes again gets another.
func (t *natTable) freePort(now time.Duration, key natKey) (uint16, bool) {
	ports := 1<<16 - uint64(t.first)
	start := uint64(hash(t.seed).addr(key.inner).addr(key.dst).word(uint64(now)))
	for i := range ports {
		port := t.first + uint16((start+i)%ports)
		m := t.byPort[port]
		if m != nil && t.expired(m, now) {
			t.drop(m)
			m = nil
		}
		if m == nil {
			return port, true
		}
	}
	return 0, false
}

// forward makes a mapping that stays. Packets of the inner endpoint leave by the
// same port, except where the kind has a mapping for each destination.
func (t *natTable) forward(now time.Duration, port uint16, inner netip.AddrPort) error {
	if m := t.byPort[port]; m != nil && !t.expired(m, now) {
		return fmt.Errorf("simnet: port %d of the NAT is taken by %v", port, m.inner)
	} else if m != nil {
		t.drop(m)
	}
	m := &mapping{key: natKey{inner: inner}, inner: inner, port: port, fixed: true, peers: make(map[netip.AddrPort]time.Duration)}
	t.byPort[port] = m
	if t.kind != Symmetric {
		t.byInner[m.key] = m
	}
	return nil
}
