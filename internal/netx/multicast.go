package netx

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// multicastTTL keeps multicast packets on the link that they are sent on.
const multicastTTL = 1

// ListenMulticast implements [Network]. The socket is bound to the wildcard
// address of the group's family, so it gets unicast packets to that port too. A
// packet to a multicast address without a zone goes out on each joined interface
// (a listener on the same machine can see it several times), with a hop limit of
// one. Interfaces that come up later are not joined: open a new socket on
// [Network.Changes]. Clone gives errors.ErrUnsupported, since the handles would
// share the choice of the interface.
func (s *System) ListenMulticast(ctx context.Context, group netip.AddrPort) (PacketConn, error) {
	group = unmap(group)
	if !group.Addr().IsMulticast() {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: &net.AddrError{Err: "not a multicast address", Addr: group.String()}}
	}
	ifs, err := s.multicastInterfaces()
	if err != nil {
		return nil, err
	}
	bind := netip.AddrPortFrom(netip.IPv4Unspecified(), group.Port())
	if group.Addr().Is6() {
		bind = netip.AddrPortFrom(netip.IPv6Unspecified(), group.Port())
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = reuseAddr(fd) }); err != nil {
			return err
		}
		return serr
	}}
	conn, err := listenUDP(ctx, &lc, bind)
	if err != nil {
		return nil, err
	}
	socket := newGroupSocket(conn, group.Addr())
	if err := socket.join(group.Addr(), ifs); err != nil {
		conn.Close()
		return nil, err
	}
	pc, err := newPacketConn(conn)
	if err != nil {
		return nil, err
	}
	return &multicastConn{PacketConn: pc, socket: socket}, nil
}

// multicastInterfaces lists the interfaces that are worth a try. Loopback counts
// although some systems do not mark it as able: it serves two programs on a
// machine that is offline.
func (s *System) multicastInterfaces() ([]*net.Interface, error) {
	ifs, err := s.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []*net.Interface
	for _, ifi := range ifs {
		if !ifi.Multicast && !ifi.Loopback || s.MulticastOn != nil && !s.MulticastOn(ifi) {
			continue
		}
		if n, err := net.InterfaceByIndex(ifi.Index); err == nil {
			out = append(out, n)
		}
	}
	return out, nil
}

// groupSocket sets the multicast options of a socket of either family.
type groupSocket struct {
	joinGroup    func(*net.Interface, net.Addr) error
	setInterface func(*net.Interface) error
	setTTL       func(int) error
	setLoopback  func(bool) error
	joined       []*net.Interface
}

func newGroupSocket(conn *net.UDPConn, group netip.Addr) *groupSocket {
	if group.Is4() {
		p := ipv4.NewPacketConn(conn)
		return &groupSocket{joinGroup: p.JoinGroup, setInterface: p.SetMulticastInterface, setTTL: p.SetMulticastTTL, setLoopback: p.SetMulticastLoopback}
	}
	p := ipv6.NewPacketConn(conn)
	return &groupSocket{joinGroup: p.JoinGroup, setInterface: p.SetMulticastInterface, setTTL: p.SetMulticastHopLimit, setLoopback: p.SetMulticastLoopback}
}

// join joins the group wherever the system lets it, but at least once.
func (g *groupSocket) join(group netip.Addr, ifs []*net.Interface) error {
	if err := errors.Join(g.setTTL(multicastTTL), g.setLoopback(true)); err != nil {
		return fmt.Errorf("join %v: %w", group, err)
	}
	errs := []error{errors.New("no interface for it")}
	addr := &net.UDPAddr{IP: group.AsSlice()}
	for _, ifi := range ifs {
		if zone := group.Zone(); zone != "" && zone != ifi.Name {
			continue
		}
		if err := g.joinGroup(ifi, addr); err != nil {
			errs = append(errs, fmt.Errorf("on %s: %w", ifi.Name, err))
			continue
		}
		g.joined = append(g.joined, ifi)
	}
	if len(g.joined) == 0 {
		return fmt.Errorf("join %v: %w", group, errors.Join(errs...))
	}
	return nil
}

// multicastConn sends multicast packets on every interface that it joined.
type multicastConn struct {
	PacketConn
	mu     sync.Mutex // guards the socket's outgoing interface, from the choice to the send
	socket *groupSocket
}

// WriteBatch implements [PacketConn].
func (c *multicastConn) WriteBatch(d []Datagram) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range d {
		if err := c.writeOne(d[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(d), nil
}

// writeOne sends one datagram. To a group it fails only where no interface takes it.
func (c *multicastConn) writeOne(d []Datagram) error {
	to := d[0].Addr.Addr()
	if !to.Unmap().IsMulticast() || to.Zone() != "" {
		_, err := c.PacketConn.WriteBatch(d)
		return err
	}
	var errs []error
	for _, ifi := range c.socket.joined {
		err := c.socket.setInterface(ifi)
		if err == nil {
			_, err = c.PacketConn.WriteBatch(d)
		}
		if err == nil {
			continue
		}
		errs = append(errs, fmt.Errorf("on %s: %w", ifi.Name, err))
	}
	if len(errs) == len(c.socket.joined) {
		return errors.Join(errs...)
	}
	return nil
}

// Clone implements [PacketConn].
func (c *multicastConn) Clone() (PacketConn, error) {
	return nil, fmt.Errorf("clone multicast socket: %w", errors.ErrUnsupported)
}
