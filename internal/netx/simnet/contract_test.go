package simnet_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/netxtest"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// neighbours makes a world of two hosts on one network.
func neighbours(link simnet.Link, addrA, addrB string) netxtest.Make {
	return func(t *testing.T) (netx.Network, netx.Network, netip.Addr, netip.Addr) {
		a, b := netip.MustParseAddr(addrA), netip.MustParseAddr(addrB)
		w := simnet.New(simnet.Config{Seed: 1})
		t.Cleanup(func() { w.Close() })
		lan := w.NewLAN(link)
		return lan.NewHost("a", a), lan.NewHost("b", b), a, b
	}
}

func TestContract(t *testing.T) {
	for _, tt := range []struct {
		name  string
		nets  netxtest.Make
		clock func(*testing.T, netxtest.Make)
	}{
		{"v4", neighbours(simnet.Link{}, "198.51.100.1", "198.51.100.2"), netxtest.Run},
		{"v6", neighbours(simnet.Link{}, "2001:db8::1", "2001:db8::2"), netxtest.Run},
		{"v4/slow", neighbours(simnet.Link{Latency: time.Millisecond}, "198.51.100.1", "198.51.100.2"), netxtest.Run},
		{"v4/bubble", neighbours(simnet.Link{Latency: 10 * time.Millisecond}, "198.51.100.1", "198.51.100.2"), netxtest.RunBubble},
		{"v6/bubble", neighbours(simnet.Link{Latency: 10 * time.Millisecond}, "2001:db8::1", "2001:db8::2"), netxtest.RunBubble},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.clock(t, tt.nets) })
	}
}

// TestContractLoopback runs the contract inside one host.
func TestContractLoopback(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "198.51.100.1"} {
		netxtest.RunBubble(t, func(t *testing.T) (netx.Network, netx.Network, netip.Addr, netip.Addr) {
			w := simnet.New(simnet.Config{Link: simnet.Link{Latency: time.Second}})
			t.Cleanup(func() { w.Close() })
			h := w.NewHost("a", netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8::1"))
			return h, h, netip.MustParseAddr(addr), netip.MustParseAddr(addr)
		})
	}
}
