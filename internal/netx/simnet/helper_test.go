package simnet_test

import (
	"errors"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// bubble runs a test in a bubble with a world.
func bubble(t *testing.T, cfg simnet.Config, f func(t *testing.T, w *simnet.World)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := simnet.New(cfg)
		defer w.Close()
		f(t, w)
	})
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// sock is a socket with which tests talk in strings.
type sock struct {
	netx.PacketConn
	t *testing.T
}

// open binds a socket of a host: an address with port, or a port of the IPv4 wildcard.
func open(t *testing.T, h *simnet.Host, addr string) sock {
	t.Helper()
	if addr[0] == ':' {
		addr = "0.0.0.0" + addr
	}
	c, err := h.ListenPacket(t.Context(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatalf("ListenPacket(%s) on %v: %v", addr, h, err)
	}
	return sock{c, t}
}

func (s sock) send(text string, to netip.AddrPort) {
	s.t.Helper()
	if _, err := s.WriteBatch([]netx.Datagram{{Buf: []byte(text), N: len(text), Addr: to}}); err != nil {
		s.t.Fatalf("send %q to %v: %v", text, to, err)
	}
}

// recv gives what arrives within a second, or nothing.
func (s sock) recv() (string, netip.AddrPort) {
	s.t.Helper()
	s.SetReadDeadline(time.Now().Add(time.Second))
	d := []netx.Datagram{{Buf: make([]byte, 2000)}}
	if _, err := s.ReadBatch(d); errors.Is(err, os.ErrDeadlineExceeded) {
		return "", netip.AddrPort{}
	} else if err != nil {
		s.t.Fatalf("recv: %v", err)
	}
	return string(d[0].Buf[:d[0].N]), d[0].Addr
}

// want checks that a packet arrives, and gives its source.
func (s sock) want(text string) netip.AddrPort {
	s.t.Helper()
	got, from := s.recv()
	if got != text {
		s.t.Fatalf("%v got %q from %v, want %q", s.LocalAddr(), got, from, text)
	}
	return from
}

// wantNothing checks that no packet arrives.
func (s sock) wantNothing() {
	s.t.Helper()
	if got, from := s.recv(); from.IsValid() {
		s.t.Fatalf("%v got %q from %v, want nothing", s.LocalAddr(), got, from)
	}
}

func (s sock) at(addr string) netip.AddrPort {
	return netip.AddrPortFrom(ip(addr), s.LocalAddr().Port())
}
