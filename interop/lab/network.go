//go:build linux

package lab

import (
	"context"
	"net"
	"net/netip"

	"github.com/kith-im/kith/internal/netx"
)

// Inside gives a network whose sockets are the host's, for clients that run in
// this process. A nil host gives n itself.
func (h *Host) Inside(n netx.Network) netx.Network {
	if h == nil {
		return n
	}
	return inside{Network: n, host: h}
}

// inside opens sockets with the thread in the host's namespace; a socket stays
// where it was opened. What is not overridden needs no namespace (Lookup), or is
// of no use in one whose interfaces never change (Changes).
type inside struct {
	netx.Network
	host *Host
}

func (n inside) ListenPacket(ctx context.Context, addr netip.AddrPort) (c netx.PacketConn, err error) {
	err = n.host.Do(func() (err error) {
		c, err = n.Network.ListenPacket(ctx, addr)
		return err
	})
	return c, err
}

func (n inside) ListenMulticast(ctx context.Context, group netip.AddrPort) (c netx.PacketConn, err error) {
	err = n.host.Do(func() (err error) {
		c, err = n.Network.ListenMulticast(ctx, group)
		return err
	})
	return c, err
}

func (n inside) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	err = n.host.Do(func() (err error) {
		l, err = n.Network.Listen(ctx, network, addr)
		return err
	})
	return l, err
}

func (n inside) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = n.host.Do(func() (err error) {
		c, err = n.Network.Dial(ctx, network, addr)
		return err
	})
	return c, err
}

func (n inside) Interfaces() (list []netx.Interface, err error) {
	err = n.host.Do(func() (err error) {
		list, err = n.Network.Interfaces()
		return err
	})
	return list, err
}
