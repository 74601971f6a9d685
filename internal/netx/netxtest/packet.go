package netxtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

func testExchange(t *testing.T, n *nets) {
	a, b := n.pair(t)
	for _, size := range []int{0, 1, 100, 1200, 9000, 65507} {
		p := bytes.Repeat([]byte{byte(size)}, size)
		send(t, a, b.LocalAddr(), p)
		expect(t, b, p, a.LocalAddr())
		send(t, b, a.LocalAddr(), p)
		expect(t, a, p, b.LocalAddr())
	}
}

func testBatchOrder(t *testing.T, n *nets) {
	a, b := n.pair(t)
	const count = 200 // more than one system call moves
	var out [][]byte
	for i := range count {
		out = append(out, binary.BigEndian.AppendUint16(bytes.Repeat([]byte("x"), i), uint16(i)))
	}
	send(t, a, b.LocalAddr(), out...)
	for _, width := range []int{1, 3, 100} { // the last one takes all that is left
		if err := b.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for len(out) > 0 {
			d := make([]netx.Datagram, width)
			for i := range d {
				d[i].Buf = make([]byte, 512)
			}
			got, err := b.ReadBatch(d)
			if err != nil || got < 1 || got > width {
				t.Fatalf("ReadBatch of %d = %d, %v", width, got, err)
			}
			for _, p := range d[:got] {
				if len(p.Buf) != 512 {
					t.Fatalf("Buf has %d bytes, had 512", len(p.Buf))
				}
				if !bytes.Equal(p.Buf[:p.N], out[0]) || p.Addr != a.LocalAddr() {
					t.Fatalf("packet of %d bytes from %v, want %d bytes from %v", p.N, p.Addr, len(out[0]), a.LocalAddr())
				}
				out = out[1:]
			}
			if width < 100 && len(out)%10 == 0 {
				break
			}
		}
	}
	if n, err := a.WriteBatch(nil); n != 0 || err != nil {
		t.Fatalf("WriteBatch of nothing = %d, %v", n, err)
	}
}

func testTruncation(t *testing.T, n *nets) {
	a, b := n.pair(t)
	send(t, a, b.LocalAddr(), []byte("0123456789"), []byte("abc"))
	b.SetReadDeadline(time.Now().Add(patience))
	var got []string
	for len(got) < 2 {
		d := []netx.Datagram{{Buf: make([]byte, 4)}, {Buf: make([]byte, 4)}}
		n, err := b.ReadBatch(d)
		if err != nil {
			t.Fatalf("ReadBatch: %v", err)
		}
		for _, p := range d[:n] {
			got = append(got, string(p.Buf[:p.N]))
			if p.Addr != a.LocalAddr() {
				t.Fatalf("cut packet came from %v, want %v", p.Addr, a.LocalAddr())
			}
		}
	}
	if got[0] != "0123" || got[1] != "abc" {
		t.Fatalf("got %q, want the first cut to 4 bytes and the second whole", got)
	}
}

func testDeadline(t *testing.T, n *nets) {
	a, b := n.pair(t)
	d := []netx.Datagram{{Buf: make([]byte, 10)}}
	for _, after := range []time.Duration{-time.Hour, 0, 20 * time.Millisecond} {
		b.SetReadDeadline(time.Now().Add(after))
		got, err := b.ReadBatch(d)
		wantErr(t, "ReadBatch past its deadline", err, os.ErrDeadlineExceeded)
		wantTimeout(t, "ReadBatch past its deadline", err)
		if got != 0 {
			t.Fatalf("ReadBatch past its deadline gave %d packets", got)
		}
	}
	// The deadline bounds reads only, and can be taken back.
	send(t, b, a.LocalAddr(), []byte("out"))
	expect(t, a, []byte("out"), b.LocalAddr())
	b.SetReadDeadline(time.Time{})
	send(t, a, b.LocalAddr(), []byte("in"))
	if got, err := b.ReadBatch(d); got != 1 || err != nil {
		t.Fatalf("ReadBatch without deadline = %d, %v", got, err)
	}
}

func testDeadlineWakes(t *testing.T, n *nets) {
	a, _ := n.pair(t)
	done := blockedRead(a)
	if err := a.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "ReadBatch", await(t, "end of the read", done), os.ErrDeadlineExceeded)
}

// blockedRead starts a read that waits, most likely, by the time it returns.
func blockedRead(c netx.PacketConn) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := c.ReadBatch([]netx.Datagram{{Buf: make([]byte, 10)}})
		done <- err
	}()
	time.Sleep(5 * time.Millisecond) // whether it waits yet changes nothing about the result
	return done
}

func testClose(t *testing.T, n *nets) {
	a, b := n.pair(t)
	if err := a.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	_, err := a.ReadBatch([]netx.Datagram{{Buf: make([]byte, 10)}})
	wantErr(t, "ReadBatch after Close", err, net.ErrClosed)
	_, err = a.WriteBatch([]netx.Datagram{{Buf: []byte("x"), N: 1, Addr: b.LocalAddr()}})
	wantErr(t, "WriteBatch after Close", err, net.ErrClosed)
	_, err = a.Clone()
	if err == nil {
		t.Fatal("Clone after Close succeeded")
	}
	wantErr(t, "SetReadDeadline after Close", a.SetReadDeadline(time.Now()), net.ErrClosed)
	wantErr(t, "second Close", a.Close(), net.ErrClosed)
	again := listenPacket(t, n.a, a.LocalAddr()) // the port is free again
	send(t, b, again.LocalAddr(), []byte("hello"))
	expect(t, again, []byte("hello"), b.LocalAddr())
}

func testCloseWakesAll(t *testing.T, n *nets) {
	a, _ := n.pair(t)
	one, two := blockedRead(a), blockedRead(a)
	a.Close()
	wantErr(t, "first read", await(t, "end of the first read", one), net.ErrClosed)
	wantErr(t, "second read", await(t, "end of the second read", two), net.ErrClosed)
}

// clone skips where the platform has no such thing.
func clone(t *testing.T, c netx.PacketConn) netx.PacketConn {
	t.Helper()
	other, err := c.Clone()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip("no Clone here")
	}
	if err != nil {
		t.Fatalf("Clone: %v", err)
	}
	t.Cleanup(func() { other.Close() })
	return other
}

func testClone(t *testing.T, n *nets) {
	a, b := n.pair(t)
	twin := clone(t, b)
	if twin.LocalAddr() != b.LocalAddr() {
		t.Fatalf("clone is at %v, want %v", twin.LocalAddr(), b.LocalAddr())
	}
	// Deadlines are each handle's own.
	b.SetReadDeadline(time.Now().Add(-time.Second))
	send(t, a, b.LocalAddr(), []byte("one"))
	expect(t, twin, []byte("one"), a.LocalAddr())
	send(t, twin, a.LocalAddr(), []byte("two"))
	expect(t, a, []byte("two"), b.LocalAddr())
	// So is Close.
	done := blockedRead(twin)
	twin.SetReadDeadline(time.Time{})
	b.Close()
	send(t, a, b.LocalAddr(), []byte("three"))
	if err := await(t, "packet on the clone", done); err != nil {
		t.Fatalf("clone after Close of the other handle: %v", err)
	}
	if _, err := n.b.ListenPacket(t.Context(), twin.LocalAddr()); err == nil {
		t.Fatal("the port is free although a handle is open")
	}
	twin.Close()
	listenPacket(t, n.b, twin.LocalAddr())
}

func testCloneConcurrent(t *testing.T, n *nets) {
	a, b := n.pair(t)
	twins := []netx.PacketConn{b, clone(t, b)}
	const count = 400
	var mu sync.Mutex
	seen := make(map[uint16]int)
	all := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, c := range twins {
		defer c.Close()
		wg.Go(func() {
			d := make([]netx.Datagram, 8)
			for i := range d {
				d[i].Buf = make([]byte, 16)
			}
			for {
				got, err := c.ReadBatch(d)
				if err != nil {
					return
				}
				mu.Lock()
				for _, p := range d[:got] {
					seen[binary.BigEndian.Uint16(p.Buf[:p.N])]++
				}
				if len(seen) == count {
					select {
					case <-all:
					default:
						close(all)
					}
				}
				mu.Unlock()
			}
		})
	}
	for from := range 4 { // several writers on one handle
		wg.Go(func() {
			for i := range count / 4 {
				p := binary.BigEndian.AppendUint16(nil, uint16(from*count/4+i))
				if _, err := a.WriteBatch([]netx.Datagram{{Buf: p, N: len(p), Addr: b.LocalAddr()}}); err != nil {
					t.Errorf("WriteBatch: %v", err)
				}
			}
		})
	}
	await(t, "delivery of all packets", all)
	mu.Lock()
	defer mu.Unlock()
	for i, times := range seen {
		if times != 1 {
			t.Fatalf("packet %d came %d times", i, times)
		}
	}
}

func testPortZero(t *testing.T, n *nets) {
	seen := make(map[netip.AddrPort]bool)
	for range 10 {
		c := listenPacket(t, n.a, netip.AddrPortFrom(n.addrA, 0))
		at := c.LocalAddr()
		if at.Addr() != n.addrA || at.Port() == 0 || seen[at] {
			t.Fatalf("bound at %v after %v", at, seen)
		}
		seen[at] = true
	}
}

func testBindConflict(t *testing.T, n *nets) {
	c := listenPacket(t, n.a, netip.AddrPortFrom(n.addrA, 0))
	_, err := n.a.ListenPacket(t.Context(), c.LocalAddr())
	wantErrno(t, "second bind", err, syscall.EADDRINUSE)
	any := netip.AddrPortFrom(wildcard(n.addrA), c.LocalAddr().Port())
	_, err = n.a.ListenPacket(t.Context(), any)
	wantErrno(t, "bind of the wildcard address", err, syscall.EADDRINUSE)
	if _, err = n.a.ListenPacket(t.Context(), netip.AddrPort{}); err == nil {
		t.Fatal("bound to no address")
	}
	other := netip.MustParseAddr("203.0.113.77") // TEST-NET-3, nobody's
	_, err = n.a.ListenPacket(t.Context(), netip.AddrPortFrom(other, 0))
	wantErrno(t, "bind of a foreign address", err, syscall.EADDRNOTAVAIL)
}

func wildcard(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func testWildcard(t *testing.T, n *nets) {
	a := listenPacket(t, n.a, netip.AddrPortFrom(wildcard(n.addrA), 0))
	b := listenPacket(t, n.b, netip.AddrPortFrom(wildcard(n.addrB), 0))
	atA := netip.AddrPortFrom(n.addrA, a.LocalAddr().Port())
	atB := netip.AddrPortFrom(n.addrB, b.LocalAddr().Port())
	if !a.LocalAddr().Addr().IsUnspecified() {
		t.Fatalf("LocalAddr is %v, want the wildcard", a.LocalAddr())
	}
	send(t, a, atB, []byte("ping"))
	expect(t, b, []byte("ping"), atA)
	send(t, b, atA, []byte("pong"))
	expect(t, a, []byte("pong"), atB)
	// One family only: the same port is free in the other.
	other := netip.IPv6Unspecified()
	if n.addrA.Is6() {
		other = netip.IPv4Unspecified()
	}
	c, err := n.a.ListenPacket(t.Context(), netip.AddrPortFrom(other, a.LocalAddr().Port()))
	if errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("the wildcard socket took the port of the other family too: %v", err)
	}
	if err == nil {
		c.Close()
	}
}

// testNobodyThere checks that what comes back about a dead address hurts nobody.
func testNobodyThere(t *testing.T, n *nets) {
	a, b := n.pair(t)
	dead := listenPacket(t, n.b, netip.AddrPortFrom(n.addrB, 0))
	dead.Close()
	done := make(chan error, 1)
	a.SetReadDeadline(time.Now().Add(patience))
	go func() {
		_, err := a.ReadBatch([]netx.Datagram{{Buf: make([]byte, 10)}})
		done <- err
	}()
	for range 5 {
		send(t, a, dead.LocalAddr(), []byte("?"))
	}
	time.Sleep(5 * time.Millisecond)
	send(t, b, a.LocalAddr(), []byte("!"))
	if err := await(t, "packet", done); err != nil {
		t.Fatalf("ReadBatch: %v", err)
	}
}

func testBadWrites(t *testing.T, n *nets) {
	a, b := n.pair(t)
	good := netx.Datagram{Buf: []byte("ok"), N: 2, Addr: b.LocalAddr()}
	otherFamily := netip.MustParseAddrPort("[2001:db8::1]:9")
	if n.addrA.Is6() {
		otherFamily = netip.MustParseAddrPort("192.0.2.1:9")
	}
	for name, bad := range map[string]netx.Datagram{
		"too large":    {Buf: make([]byte, 1<<16), N: 1 << 16, Addr: b.LocalAddr()},
		"other family": {Buf: []byte("x"), N: 1, Addr: otherFamily},
		"no address":   {Buf: []byte("x"), N: 1},
		"N negative":   {Buf: []byte("x"), N: -1, Addr: b.LocalAddr()},
		"N past Buf":   {Buf: []byte("x"), N: 2, Addr: b.LocalAddr()},
	} {
		got, err := a.WriteBatch([]netx.Datagram{good, bad, good})
		if got != 1 || err == nil {
			t.Errorf("%s: WriteBatch = %d, %v; want 1 and an error", name, got, err)
		}
		expect(t, b, []byte("ok"), a.LocalAddr())
	}
	b.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if got, err := b.ReadBatch([]netx.Datagram{{Buf: make([]byte, 10)}}); got != 0 {
		t.Fatalf("a datagram after the bad one was sent: %d, %v", got, err)
	}
	if n.addrA.Is4() { // an IPv4-mapped destination is that of IPv4
		mapped := netip.AddrPortFrom(netip.AddrFrom16(n.addrB.As16()), b.LocalAddr().Port())
		send(t, a, mapped, []byte("mapped"))
		expect(t, b, []byte("mapped"), a.LocalAddr())
	}
}

// testBufferOwner checks that a buffer is the caller's again once a call is over.
func testBufferOwner(t *testing.T, n *nets) {
	a, b := n.pair(t)
	p := []byte("before")
	send(t, a, b.LocalAddr(), p)
	copy(p, "after!")
	expect(t, b, []byte("before"), a.LocalAddr())
}

// testMulticast skips where no interface can; the networks reach one another.
func testMulticast(t *testing.T, n *nets) {
	probe := listenPacket(t, n.a, netip.AddrPortFrom(n.addrA, 0))
	group := netip.AddrPortFrom(netip.MustParseAddr("239.192.75.1"), probe.LocalAddr().Port())
	if n.addrA.Is6() {
		group = netip.AddrPortFrom(netip.MustParseAddr("ff12::6b69:7468"), probe.LocalAddr().Port())
	}
	probe.Close()
	a, err := n.a.ListenMulticast(t.Context(), group)
	if err != nil {
		t.Skipf("no multicast here: %v", err)
	}
	defer a.Close()
	b, err := n.b.ListenMulticast(t.Context(), group) // the port is shared
	if err != nil {
		t.Fatalf("second ListenMulticast: %v", err)
	}
	defer b.Close()
	for _, c := range []netx.PacketConn{a, b} {
		if at := c.LocalAddr(); at.Port() != group.Port() {
			t.Fatalf("bound at %v, want port %d", at, group.Port())
		}
	}
	d := []netx.Datagram{{Buf: []byte("here"), N: 4, Addr: group}}
	if _, err := a.WriteBatch(d); errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Skipf("no route for multicast here: %v", err)
	} else if err != nil {
		t.Fatalf("send to the group: %v", err)
	}
	for _, c := range []netx.PacketConn{b, a} { // the sender hears itself
		p, from := receive(t, c)
		if string(p) != "here" || from.Port() != group.Port() || from.Addr().IsMulticast() {
			t.Fatalf("got %q from %v", p, from)
		}
	}
	if _, err := n.a.ListenMulticast(t.Context(), netip.AddrPortFrom(n.addrA, 0)); err == nil {
		t.Fatal("joined a group that is a unicast address")
	}
}
