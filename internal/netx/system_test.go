package netx_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/netxtest"
)

// loopbackOnly keeps the tests' multicast packets on this machine.
func loopbackOnly(i netx.Interface) bool { return i.Loopback }

func system(t *testing.T, addr string) netxtest.Make {
	a := netip.MustParseAddr(addr)
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "0"))
	if err != nil {
		t.Skipf("no %s here: %v", addr, err)
	}
	l.Close()
	return func(*testing.T) (netx.Network, netx.Network, netip.Addr, netip.Addr) {
		s := &netx.System{MulticastOn: loopbackOnly}
		return s, s, a, a
	}
}

func TestSystem4(t *testing.T) { netxtest.Run(t, system(t, "127.0.0.1")) }
func TestSystem6(t *testing.T) { netxtest.Run(t, system(t, "::1")) }
