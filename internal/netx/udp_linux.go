package netx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxBatch is how many datagrams go into one recvmmsg or sendmmsg. More than
// that gains nothing: the system call is then a small part of the cost.
const maxBatch = 64

// maxSoftErrors bounds how many errors left behind by earlier packets one call
// takes off the socket before it reports one.
const maxSoftErrors = 64

// udpConn is one handle on a UDP socket. Each direction has a lock, because the
// header arrays that the kernel reads and fills are kept between calls: no call
// allocates. The system calls never block; only the poller waits.
type udpConn struct {
	conn  *net.UDPConn
	local netip.AddrPort
	read  batch
	write batch
}

// batch is the state of one direction of a handle.
type batch struct {
	mu    sync.Mutex
	raw   syscall.RawConn
	hdrs  []unix.Mmsghdr
	iovs  []unix.Iovec
	names []unix.RawSockaddrInet6 // large enough for RawSockaddrInet4
	zones zoneCache

	// step is one attempt of the pending call, made once since a closure per
	// call would be an allocation. n is its input (headers to move) and done and
	// errno are its result.
	step  func(fd uintptr) bool
	n     int
	done  int
	errno syscall.Errno
}

func newPacketConn(conn *net.UDPConn) (PacketConn, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	c := &udpConn{conn: conn, local: unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort())}
	c.read.raw, c.write.raw = raw, raw
	c.read.step, c.write.step = c.read.recv, c.write.send
	return c, nil
}

// reserve makes room for n headers, at most maxBatch, and returns how many there are.
func (b *batch) reserve(n int) int {
	n = min(n, maxBatch)
	if n <= len(b.hdrs) {
		return n
	}
	b.hdrs = make([]unix.Mmsghdr, n)
	b.iovs = make([]unix.Iovec, n)
	b.names = make([]unix.RawSockaddrInet6, n)
	for i := range b.hdrs {
		h := &b.hdrs[i].Hdr
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
	}
	return n
}

// release forgets the caller's buffers.
func (b *batch) release(n int) {
	for i := range b.iovs[:n] {
		b.iovs[i].Base = nil
	}
}

// recv is the step of ReadBatch. It reports whether the call is over.
func (b *batch) recv(fd uintptr) bool {
	for {
		var n uintptr
		var errno syscall.Errno
		if b.n == 1 { // cheaper than a batch of one
			h := &b.hdrs[0].Hdr
			h.Namelen = unix.SizeofSockaddrInet6
			n, _, errno = unix.Syscall6(unix.SYS_RECVFROM, fd,
				uintptr(unsafe.Pointer(b.iovs[0].Base)), uintptr(b.iovs[0].Len), unix.MSG_DONTWAIT,
				uintptr(unsafe.Pointer(h.Name)), uintptr(unsafe.Pointer(&h.Namelen)))
			b.hdrs[0].Len = uint32(n)
			n = 1
		} else {
			for i := range b.hdrs[:b.n] {
				b.hdrs[i].Hdr.Namelen = unix.SizeofSockaddrInet6
			}
			n, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd,
				uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(b.n), unix.MSG_DONTWAIT, 0, 0)
		}
		switch errno {
		case 0:
			b.done, b.errno = int(n), 0
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			b.done, b.errno = 0, errno
			return true
		}
	}
}

// send is the step of WriteBatch. It reports whether the call is over.
func (b *batch) send(fd uintptr) bool {
	for {
		var n uintptr
		var errno syscall.Errno
		if b.n == 1 {
			h := &b.hdrs[0].Hdr
			_, _, errno = unix.Syscall6(unix.SYS_SENDTO, fd,
				uintptr(unsafe.Pointer(b.iovs[0].Base)), uintptr(b.iovs[0].Len), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL,
				uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
			n = 1
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_SENDMMSG, fd,
				uintptr(unsafe.Pointer(&b.hdrs[0])), uintptr(b.n), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		}
		switch errno {
		case 0:
			b.done, b.errno = int(n), 0
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			b.done, b.errno = 0, errno
			return true
		}
	}
}

// isSoft tells errors that ICMP left on the socket about an earlier packet, to
// whomever: they say nothing about the call that meets them.
func isSoft(errno syscall.Errno) bool {
	switch errno {
	case syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
		syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENOPROTOOPT, syscall.EPROTO, syscall.EACCES, syscall.EMSGSIZE:
		return true
	}
	return false
}

// ReadBatch implements [PacketConn].
func (c *udpConn) ReadBatch(d []Datagram) (int, error) {
	if len(d) == 0 {
		return 0, nil
	}
	b := &c.read
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n = b.reserve(len(d))
	for i := range b.n {
		b.iovs[i].Base = unsafe.SliceData(d[i].Buf)
		b.iovs[i].SetLen(len(d[i].Buf))
	}
	defer b.release(b.n)
	for range maxSoftErrors {
		if err := b.raw.Read(b.step); err != nil {
			return 0, c.fail("read", err)
		}
		if !isSoft(b.errno) {
			break
		}
	}
	if b.errno != 0 {
		return 0, c.fail("read", os.NewSyscallError("recvmmsg", b.errno))
	}
	for i := range b.done {
		d[i].N = min(int(b.hdrs[i].Len), len(d[i].Buf))
		d[i].Addr = b.addr(i)
	}
	return b.done, nil
}

// WriteBatch implements [PacketConn].
func (c *udpConn) WriteBatch(d []Datagram) (int, error) {
	b := &c.write
	b.mu.Lock()
	defer b.mu.Unlock()
	sent := 0
	for sent < len(d) {
		n, err := c.writeSome(d[sent:])
		sent += n
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// writeSome sends one kernel batch of d. It returns an error only with n = 0.
func (c *udpConn) writeSome(d []Datagram) (int, error) {
	b := &c.write
	n := b.reserve(len(d))
	b.n = 0
	defer b.release(n)
	for i := range n {
		if err := c.put(i, &d[i]); err != nil {
			if i == 0 {
				return 0, c.fail("write", err)
			}
			break // send those before it; the next round reports it
		}
		b.n++
	}
	// A send takes the pending error of an earlier packet off the socket and
	// fails with it, so such an error is believed only the second time.
	for range 2 {
		if err := b.raw.Write(b.step); err != nil {
			return 0, c.fail("write", err)
		}
		if !isSoft(b.errno) || b.errno == syscall.EMSGSIZE {
			break
		}
	}
	if b.errno != 0 {
		return 0, c.fail("write", os.NewSyscallError("sendmmsg", b.errno))
	}
	return b.done, nil
}

// put fills header i from a datagram.
func (c *udpConn) put(i int, d *Datagram) error {
	b := &c.write
	if d.N < 0 || d.N > len(d.Buf) {
		return fmt.Errorf("datagram of %d bytes in a buffer of %d: %w", d.N, len(d.Buf), syscall.EINVAL)
	}
	b.iovs[i].Base = unsafe.SliceData(d.Buf)
	b.iovs[i].SetLen(d.N)
	addr := d.Addr.Addr().Unmap()
	switch {
	case addr.Is4() && c.local.Addr().Is4():
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&b.names[i]))
		sa.Family = unix.AF_INET
		putPort(&sa.Port, d.Addr.Port())
		sa.Addr = addr.As4()
		b.hdrs[i].Hdr.Namelen = unix.SizeofSockaddrInet4
	case addr.Is6() && c.local.Addr().Is6():
		sa := &b.names[i]
		sa.Family = unix.AF_INET6
		putPort(&sa.Port, d.Addr.Port())
		sa.Addr = addr.As16()
		sa.Flowinfo = 0
		sa.Scope_id = 0
		if zone := addr.Zone(); zone != "" {
			id, err := b.zones.index(zone)
			if err != nil {
				return fmt.Errorf("zone of %v: %w", addr, err)
			}
			sa.Scope_id = id
		}
		b.hdrs[i].Hdr.Namelen = unix.SizeofSockaddrInet6
	default:
		return fmt.Errorf("destination %v for socket %v: %w", d.Addr, c.local, syscall.EAFNOSUPPORT)
	}
	return nil
}

// addr parses the source that the kernel wrote into header i.
func (b *batch) addr(i int) netip.AddrPort {
	sa := &b.names[i]
	switch {
	case sa.Family == unix.AF_INET && b.hdrs[i].Hdr.Namelen >= unix.SizeofSockaddrInet4:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), getPort(&sa.Port))
	case sa.Family == unix.AF_INET6 && b.hdrs[i].Hdr.Namelen >= unix.SizeofSockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.Scope_id != 0 && addr.Is6() {
			addr = addr.WithZone(b.zones.name(sa.Scope_id))
		}
		return netip.AddrPortFrom(addr, getPort(&sa.Port))
	}
	return netip.AddrPort{}
}

// The port in a sockaddr is in network byte order whatever the machine's is.

func putPort(p *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], port)
}

func getPort(p *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:])
}

// fail gives an error the form of package net's. Errors of the poller are one
// already; what is inside tells net.ErrClosed and os.ErrDeadlineExceeded.
func (c *udpConn) fail(op string, err error) error {
	var inner *net.OpError
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &net.OpError{Op: op, Net: "udp", Source: net.UDPAddrFromAddrPort(c.local), Err: err}
}

// Clone implements [PacketConn].
func (c *udpConn) Clone() (PacketConn, error) { return clone(c.conn) }

// LocalAddr implements [PacketConn].
func (c *udpConn) LocalAddr() netip.AddrPort { return c.local }

// SetReadDeadline implements [PacketConn].
func (c *udpConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// Close implements [PacketConn].
func (c *udpConn) Close() error { return c.conn.Close() }
