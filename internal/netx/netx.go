// Package netx is the one door to the network: every packet, connection,
// listener and name lookup of Kith goes through a [Network].
//
// [System] is the operating system's network. Package simnet has an in-memory
// internet whose hosts are Networks too; both pass the contract suite of package
// netxtest. The package owns no goroutine unless a method says so, and it does
// not retry, encrypt or authenticate anything.
package netx

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Network is everything that the program may do to the network outside.
// Implementations are safe for concurrent use.
type Network interface {
	// ListenPacket opens a UDP socket. An unspecified address is bound for that
	// family only ("udp4" or "udp6" follow from the address); port 0 picks a free one.
	ListenPacket(ctx context.Context, addr netip.AddrPort) (PacketConn, error)
	// ListenMulticast opens a UDP socket bound with address reuse to the group's
	// port and joined to the group on every multicast-capable interface. What is
	// sent to the group goes out on each of them, is heard by the sender too, and
	// stays on the link; so a listener can get a packet more than once.
	ListenMulticast(ctx context.Context, group netip.AddrPort) (PacketConn, error)
	// Listen opens a TCP listener; "tcp", "tcp4", "tcp6" or "unix".
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	// Dial opens a TCP connection; the host may be a name.
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
	// Lookup resolves a host name, or parses an address literal, without a lookup.
	Lookup(ctx context.Context, host string) ([]netip.Addr, error)
	// Interfaces lists the interfaces that are up, with their addresses.
	Interfaces() ([]Interface, error)
	// Changes gives a value each time that the set of interfaces or addresses
	// may have changed, until ctx ends, when it is closed. Slow readers miss
	// repeats, never the last change.
	Changes(ctx context.Context) <-chan struct{}
}

// Interface is one network interface that is up.
type Interface struct {
	Name      string
	Index     int
	MTU       int
	Loopback  bool
	Multicast bool
	Addrs     []netip.Prefix
}

// Datagram is one UDP packet in a batch. Its owner is the caller: conns neither
// keep Buf nor change its length.
type Datagram struct {
	Buf  []byte         // read: space to fill; write: Buf[:N] is sent
	N    int            // bytes of payload in Buf
	Addr netip.AddrPort // read: source, never IPv4-mapped; write: destination
}

// PacketConn is a UDP socket that moves packets in batches.
// Reads and writes may run concurrently.
type PacketConn interface {
	// ReadBatch waits for at least one packet and fills as many datagrams as are
	// at hand, at most len(d). A packet longer than its Buf is cut. It fails with
	// net.ErrClosed after Close and with os.ErrDeadlineExceeded past the deadline.
	ReadBatch(d []Datagram) (int, error)
	// WriteBatch sends the datagrams in order and returns how many were handed to
	// the network; the error is about the next one. A full send queue is waited for.
	WriteBatch(d []Datagram) (int, error)
	// Clone returns a second handle on the same socket, so that several goroutines
	// can read and write without sharing a lock. It gives errors.ErrUnsupported
	// where the platform has no such thing. Each handle is closed on its own.
	Clone() (PacketConn, error)
	// LocalAddr is the bound address.
	LocalAddr() netip.AddrPort
	// SetReadDeadline bounds ReadBatch; the zero time means none.
	SetReadDeadline(t time.Time) error
	// Close frees the handle and wakes its blocked calls.
	Close() error
}
