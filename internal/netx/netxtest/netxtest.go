// Package netxtest is the contract of netx.Network as tests: every network
// passes it, so code that works on one works on the others.
//
// The tests own all goroutines that they start and send nothing but to the
// addresses that they are given, a multicast group and nobody else. They do not
// look up names that are not address literals.
package netxtest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// Make gives the two networks of one test, which may be the same one, and the
// address of each, which the other reaches without loss, duplicates or reordering.
// Both addresses are of one family. What it opens it closes by t.Cleanup.
type Make func(t *testing.T) (a, b netx.Network, addrA, addrB netip.Addr)

// patience bounds each wait for something that must happen.
const patience = 10 * time.Second

// Run checks the contract.
func Run(t *testing.T, makeNets Make) {
	run(t, makeNets, func(t *testing.T, f func(*testing.T)) { f(t) })
	t.Run("Stream", func(t *testing.T) { testNettest(t, makeNets) })
}

// RunBubble checks the contract with each test in a bubble of testing/synctest:
// the network may use neither the real clock nor sockets, and may leave no
// goroutine behind.
func RunBubble(t *testing.T, makeNets Make) {
	run(t, makeNets, synctest.Test)
}

func run(t *testing.T, makeNets Make, wrap func(*testing.T, func(*testing.T))) {
	tests := []struct {
		name string
		test func(*testing.T, *nets)
	}{
		{"Packet/Exchange", testExchange},
		{"Packet/BatchOrder", testBatchOrder},
		{"Packet/Truncation", testTruncation},
		{"Packet/Deadline", testDeadline},
		{"Packet/DeadlineWakes", testDeadlineWakes},
		{"Packet/Close", testClose},
		{"Packet/CloseWakesAll", testCloseWakesAll},
		{"Packet/Clone", testClone},
		{"Packet/CloneConcurrent", testCloneConcurrent},
		{"Packet/PortZero", testPortZero},
		{"Packet/BindConflict", testBindConflict},
		{"Packet/Wildcard", testWildcard},
		{"Packet/NobodyThere", testNobodyThere},
		{"Packet/BadWrites", testBadWrites},
		{"Packet/BufferOwner", testBufferOwner},
		{"Multicast", testMulticast},
		{"TCP/Echo", testEcho},
		{"TCP/HalfClose", testHalfClose},
		{"TCP/BackPressure", testBackPressure},
		{"TCP/Refused", testRefused},
		{"TCP/AcceptClosed", testAcceptClosed},
		{"TCP/BindConflict", testListenConflict},
		{"TCP/DialCancelled", testDialCancelled},
		{"TCP/UnknownNetwork", testUnknownNetwork},
		{"Unix", testUnix},
		{"Lookup", testLookup},
		{"Interfaces", testInterfaces},
		{"Changes", testChanges},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wrap(t, func(t *testing.T) {
				a, b, addrA, addrB := makeNets(t)
				tt.test(t, &nets{a: a, b: b, addrA: addrA, addrB: addrB})
			})
		})
	}
}

// nets is the world of one test.
type nets struct {
	a, b         netx.Network
	addrA, addrB netip.Addr
}

// pair opens a socket on each side.
func (n *nets) pair(t *testing.T) (a, b netx.PacketConn) {
	t.Helper()
	return listenPacket(t, n.a, netip.AddrPortFrom(n.addrA, 0)), listenPacket(t, n.b, netip.AddrPortFrom(n.addrB, 0))
}

func listenPacket(t *testing.T, n netx.Network, addr netip.AddrPort) netx.PacketConn {
	t.Helper()
	c, err := n.ListenPacket(t.Context(), addr)
	if err != nil {
		t.Fatalf("ListenPacket(%v): %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// send writes payloads to one address as one batch.
func send(t *testing.T, c netx.PacketConn, to netip.AddrPort, payloads ...[]byte) {
	t.Helper()
	d := make([]netx.Datagram, len(payloads))
	for i, p := range payloads {
		d[i] = netx.Datagram{Buf: p, N: len(p), Addr: to}
	}
	if n, err := c.WriteBatch(d); n != len(d) || err != nil {
		t.Fatalf("WriteBatch of %d to %v = %d, %v", len(d), to, n, err)
	}
}

// receive reads exactly one packet.
func receive(t *testing.T, c netx.PacketConn) ([]byte, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatalf("SetReadDeadline: %v", err)
	}
	d := []netx.Datagram{{Buf: make([]byte, 1<<16)}}
	n, err := c.ReadBatch(d)
	if n != 1 || err != nil {
		t.Fatalf("ReadBatch = %d, %v", n, err)
	}
	return d[0].Buf[:d[0].N], d[0].Addr
}

// expect reads one packet and compares payload and source.
func expect(t *testing.T, c netx.PacketConn, payload []byte, from netip.AddrPort) {
	t.Helper()
	got, addr := receive(t, c)
	if !bytes.Equal(got, payload) {
		t.Fatalf("got %d bytes %.40q, want %d bytes %.40q", len(got), got, len(payload), payload)
	}
	if addr != from {
		t.Fatalf("packet came from %v, want %v", addr, from)
	}
}

// await gives the value of a channel that must have one soon.
func await[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

// wantErrno compares where errors of the system have the same names everywhere.
func wantErrno(t *testing.T, what string, err error, want syscall.Errno) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s succeeded, want %v", what, want)
	}
	if runtime.GOOS != "windows" && !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func wantTimeout(t *testing.T, what string, err error) {
	t.Helper()
	if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() {
		t.Fatalf("%s: %v is not a net.Error that is a timeout", what, err)
	}
}
