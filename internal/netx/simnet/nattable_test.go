package simnet

import (
	"net/netip"
	"testing"
	"time"
)

func testTable(kind NATKind) *natTable {
	return &natTable{
		kind: kind, first: 60000, outer: netip.MustParseAddr("203.0.113.1"), timeout: time.Minute,
		byInner: make(map[natKey]*mapping), byPort: make(map[uint16]*mapping),
	}
}

// TestNATPortsRunOut checks that no port is given twice, and what happens when
// none is left.
func TestNATPortsRunOut(t *testing.T) {
	table := testTable(PortRestricted)
	dst := netip.MustParseAddrPort("198.51.100.1:1")
	const ports = 1<<16 - 60000
	inner := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 16), 1}), uint16(i))
	}
	seen := make(map[uint16]bool)
	for i := range ports {
		at, ok := table.out(0, inner(i), dst)
		if !ok || seen[at.Port()] || at.Port() < 60000 {
			t.Fatalf("mapping %d: %v, %v", i, at, ok)
		}
		seen[at.Port()] = true
	}
	if at, ok := table.out(0, inner(ports), dst); ok {
		t.Fatalf("a port too many: %v", at)
	}
	if _, ok := table.out(2*time.Minute, inner(ports), dst); !ok {
		t.Fatal("expired mappings hold their ports")
	}
}

// TestNATForgetsPeers checks that a mapping that talks to ever new peers stays small.
func TestNATForgetsPeers(t *testing.T) {
	table := testTable(PortRestricted)
	src := netip.MustParseAddrPort("10.0.0.1:1")
	for i := range 50 * maxPeers {
		now := time.Duration(i) * 100 * time.Millisecond
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 16)}), uint16(i))
		at, ok := table.out(now, src, dst)
		if _, in := table.in(now, dst, at); !ok || !in {
			t.Fatalf("packet %d: out %v, in %v", i, ok, in)
		}
	}
	for _, m := range table.byInner {
		if len(m.peers) > 2*maxPeers {
			t.Errorf("%d peers remembered", len(m.peers))
		}
	}
}

func TestFirewallForgets(t *testing.T) {
	f := &firewall{timeout: time.Minute, sent: make(map[flowKey]time.Duration)}
	src := netip.MustParseAddrPort("10.0.0.1:1")
	for i := range 50_000 {
		dst := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, 1}), uint16(i))
		f.out(time.Duration(i)*100*time.Millisecond, src, dst)
	}
	if len(f.sent) > 1300 { // two minutes' worth
		t.Errorf("%d flows remembered", len(f.sent))
	}
}
