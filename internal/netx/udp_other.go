//go:build !linux

package netx

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// udpConn is one handle on a UDP socket where there is no call for batches: it
// moves one packet at a time.
type udpConn struct {
	conn  *net.UDPConn
	local netip.AddrPort

	mu    sync.Mutex // guards spare
	spare []byte
}

// maxDatagram is the largest UDP payload that a read can give.
const maxDatagram = 65535

// refusesShort is whether a read into a buffer that is too small fails, and the
// sender's address is lost, where other systems cut the packet.
const refusesShort = runtime.GOOS == "windows"

func newPacketConn(conn *net.UDPConn) (PacketConn, error) {
	return &udpConn{conn: conn, local: unmap(conn.LocalAddr().(*net.UDPAddr).AddrPort())}, nil
}

// ReadBatch implements [PacketConn].
func (c *udpConn) ReadBatch(d []Datagram) (int, error) {
	if len(d) == 0 {
		return 0, nil
	}
	var err error
	if refusesShort && len(d[0].Buf) < maxDatagram {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.spare == nil {
			c.spare = make([]byte, maxDatagram)
		}
		var n int
		n, d[0].Addr, err = c.conn.ReadFromUDPAddrPort(c.spare)
		d[0].N = copy(d[0].Buf, c.spare[:n])
	} else {
		d[0].N, d[0].Addr, err = c.conn.ReadFromUDPAddrPort(d[0].Buf)
	}
	if err != nil {
		return 0, err
	}
	d[0].Addr = unmap(d[0].Addr)
	return 1, nil
}

// WriteBatch implements [PacketConn].
func (c *udpConn) WriteBatch(d []Datagram) (int, error) {
	for i := range d {
		if d[i].N < 0 || d[i].N > len(d[i].Buf) {
			return i, &net.OpError{Op: "write", Net: "udp", Source: c.conn.LocalAddr(), Err: syscall.EINVAL}
		}
		if err := c.writeOne(&d[i]); err != nil {
			return i, err
		}
	}
	return len(d), nil
}

// fullTries bounds how often, a millisecond apart, a packet is offered to a full queue.
const fullTries = 10

// writeOne sends one packet. The BSDs do not wait for room in the interface's
// queue but fail with ENOBUFS.
func (c *udpConn) writeOne(d *Datagram) error {
	var err error
	for range fullTries {
		_, err = c.conn.WriteToUDPAddrPort(d.Buf[:d.N], unmap(d.Addr))
		if !errors.Is(err, syscall.ENOBUFS) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return err
}

// Clone implements [PacketConn].
func (c *udpConn) Clone() (PacketConn, error) { return clone(c.conn) }

// LocalAddr implements [PacketConn].
func (c *udpConn) LocalAddr() netip.AddrPort { return c.local }

// SetReadDeadline implements [PacketConn].
func (c *udpConn) SetReadDeadline(t time.Time) error { return c.conn.SetReadDeadline(t) }

// Close implements [PacketConn].
func (c *udpConn) Close() error { return c.conn.Close() }
