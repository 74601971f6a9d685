package netx

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// socketBuffer is the size in bytes that is asked for each direction of a UDP
// socket. A node that joins the DHT gets bursts of thousands of small packets;
// the system's default of about 200 KiB drops them.
const socketBuffer = 4 << 20

// System is the operating system's network. The zero value is ready for use and
// is what production runs with. Its fields must not change once it is in use.
type System struct {
	// Resolver looks up host names; nil is Go's own resolver, which reads the
	// system's configuration but calls no C code. Android keeps that
	// configuration elsewhere, so a program there sets a Resolver.
	Resolver *net.Resolver
	// MulticastOn tells on which interfaces ListenMulticast joins and sends;
	// nil is every one that is able to.
	MulticastOn func(Interface) bool
}

var _ Network = (*System)(nil)

// ListenPacket implements [Network]. The socket asks for buffers of 4 MiB and
// takes what the system grants. Every failure is a *net.OpError.
func (s *System) ListenPacket(ctx context.Context, addr netip.AddrPort) (PacketConn, error) {
	var lc net.ListenConfig
	conn, err := listenUDP(ctx, &lc, addr)
	if err != nil {
		return nil, err
	}
	return newPacketConn(conn)
}

// listenUDP binds addr for its own family and enlarges the socket's buffers.
func listenUDP(ctx context.Context, lc *net.ListenConfig, addr netip.AddrPort) (*net.UDPConn, error) {
	if !addr.IsValid() {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: &net.AddrError{Err: "no address", Addr: addr.String()}}
	}
	addr = unmap(addr)
	network := "udp4"
	if addr.Addr().Is6() {
		network = "udp6" // net sets IPV6_V6ONLY for it, also on the wildcard address
	}
	pc, err := lc.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	conn := pc.(*net.UDPConn)
	grow(conn.SetReadBuffer)
	grow(conn.SetWriteBuffer)
	return conn, nil
}

// grow sets a socket buffer as large as the system grants. Linux cuts the
// request by itself; the BSDs refuse what is too much.
func grow(set func(int) error) {
	for size := socketBuffer; size >= socketBuffer/16; size /= 2 {
		if set(size) == nil {
			return
		}
	}
}

// Listen implements [Network].
func (s *System) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	if !isStream(network) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: net.UnknownNetworkError(network)}
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, network, addr)
}

// Dial implements [Network]. A name with addresses of both families is dialled
// the RFC 6555 way.
func (s *System) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if !isStream(network) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: net.UnknownNetworkError(network)}
	}
	d := net.Dialer{Resolver: s.resolver()}
	return d.DialContext(ctx, network, addr)
}

func isStream(network string) bool {
	switch network {
	case "tcp", "tcp4", "tcp6", "unix":
		return true
	}
	return false
}

// Lookup implements [Network]. It returns IPv4 and IPv6 addresses in the order
// of the resolver, at least one; failures are *net.DNSError.
func (s *System) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	addrs, err := s.resolver().LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs, nil
}

func (s *System) resolver() *net.Resolver {
	if s.Resolver != nil {
		return s.Resolver
	}
	return &net.Resolver{PreferGo: true}
}

// Interfaces implements [Network]. An interface that vanishes during the call is
// left out.
func (s *System) Interfaces() ([]Interface, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []Interface
	for i := range ifs {
		if ifs[i].Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := ifs[i].Addrs()
		if err != nil {
			continue
		}
		out = append(out, Interface{
			Name:      ifs[i].Name,
			Index:     ifs[i].Index,
			MTU:       ifs[i].MTU,
			Loopback:  ifs[i].Flags&net.FlagLoopback != 0,
			Multicast: ifs[i].Flags&net.FlagMulticast != 0,
			Addrs:     prefixes(addrs),
		})
	}
	return out, nil
}

func prefixes(addrs []net.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		if !ok {
			continue
		}
		ip = ip.Unmap()
		ones, bits := n.Mask.Size()
		if bits == 128 && ip.Is4() {
			ones -= 96
		}
		if p := netip.PrefixFrom(ip, ones); p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

func unmap(ap netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
