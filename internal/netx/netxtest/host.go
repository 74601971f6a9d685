package netxtest

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

func testLookup(t *testing.T, n *nets) {
	for host, want := range map[string]string{
		"192.0.2.1":          "192.0.2.1",
		"2001:db8::1":        "2001:db8::1",
		"::ffff:192.0.2.1":   "192.0.2.1",
		"fe80::1%zone":       "fe80::1%zone",
		n.addrA.String():     n.addrA.String(),
		"0:0:0:0:0:0:0:0001": "::1",
	} {
		got, err := n.a.Lookup(t.Context(), host)
		if err != nil || !slices.Equal(got, []netip.Addr{netip.MustParseAddr(want)}) {
			t.Errorf("Lookup(%q) = %v, %v; want %s", host, got, err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := n.a.Lookup(ctx, "name.invalid"); err == nil {
		t.Errorf("Lookup with a context that has ended = %v", got)
	}
}

func testInterfaces(t *testing.T, n *nets) {
	for _, side := range []struct {
		net  netx.Network
		addr netip.Addr
	}{{n.a, n.addrA}, {n.b, n.addrB}} {
		ifs, err := side.net.Interfaces()
		if err != nil {
			t.Fatalf("Interfaces: %v", err)
		}
		found := false
		seen := make(map[int]bool)
		for _, i := range ifs {
			if i.Name == "" || i.Index <= 0 || i.MTU < 0 || seen[i.Index] {
				t.Errorf("odd interface %+v", i)
			}
			seen[i.Index] = true
			for _, p := range i.Addrs {
				if !p.IsValid() || p.Addr().Is4In6() {
					t.Errorf("odd address %v of %s", p, i.Name)
				}
				if p.Addr() == side.addr {
					found = true
					if i.Loopback != side.addr.IsLoopback() {
						t.Errorf("%v is on %s, which is loopback: %v", side.addr, i.Name, i.Loopback)
					}
				}
			}
		}
		if !found {
			t.Errorf("no interface has %v: %+v", side.addr, ifs)
		}
	}
}

func testChanges(t *testing.T, n *nets) {
	ctx, cancel := context.WithCancel(t.Context())
	changes := n.a.Changes(ctx)
	select {
	case _, ok := <-changes:
		t.Fatalf("a value although nothing changed (open: %v)", ok)
	case <-time.After(10 * time.Millisecond):
	}
	cancel()
	for {
		if _, ok := <-changes; !ok { // the test's own time limit ends a wait for ever
			return
		}
	}
}
