package netxtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/kith-im/kith/internal/netx"
)

func testNettest(t *testing.T, makeNets Make) {
	a, b, _, addrB := makeNets(t)
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		l, err := b.Listen(t.Context(), "tcp", net.JoinHostPort(addrB.String(), "0"))
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = a.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			l.Close()
			return nil, nil, nil, err
		}
		c2, err = l.Accept()
		return c1, c2, func() {
			c1.Close()
			c2.Close()
			l.Close()
		}, err
	})
}

// connect makes a TCP connection: c1 dialled, c2 accepted.
func (n *nets) connect(t *testing.T) (c1, c2 net.Conn) {
	t.Helper()
	l := listen(t, n.b, "tcp", net.JoinHostPort(n.addrB.String(), "0"))
	return dial(t, n.a, l)
}

func listen(t *testing.T, n netx.Network, network, addr string) net.Listener {
	t.Helper()
	l, err := n.Listen(t.Context(), network, addr)
	if err != nil {
		t.Fatalf("Listen(%s, %s): %v", network, addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, n netx.Network, l net.Listener) (c1, c2 net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c1, err := n.Dial(ctx, l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatalf("Dial(%v): %v", l.Addr(), err)
	}
	t.Cleanup(func() { c1.Close() })
	c2, err = l.Accept()
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	t.Cleanup(func() { c2.Close() })
	c1.SetDeadline(time.Now().Add(patience))
	c2.SetDeadline(time.Now().Add(patience))
	return c1, c2
}

func echo(t *testing.T, c1, c2 net.Conn) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(c2, c2)
		done <- errors.Join(err, c2.Close())
	}()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	go c1.Write(want)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c1, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("echo: %v, equal %v", err, bytes.Equal(got, want))
	}
	c1.Close()
	if err := await(t, "end of the stream", done); err != nil {
		t.Fatalf("echo server: %v", err)
	}
}

func testEcho(t *testing.T, n *nets) {
	c1, c2 := n.connect(t)
	if c1.RemoteAddr().String() != c2.LocalAddr().String() || c1.LocalAddr().String() != c2.RemoteAddr().String() {
		t.Errorf("addresses: %v→%v and %v→%v", c1.LocalAddr(), c1.RemoteAddr(), c2.LocalAddr(), c2.RemoteAddr())
	}
	if at, err := netip.ParseAddrPort(c2.RemoteAddr().String()); err != nil || at.Addr() != n.addrA || c2.RemoteAddr().Network() != "tcp" {
		t.Errorf("accepted from %v, want %v", c2.RemoteAddr(), n.addrA)
	}
	echo(t, c1, c2)
}

func testHalfClose(t *testing.T, n *nets) {
	c1, c2 := n.connect(t)
	if _, err := c1.Write([]byte("question")); err != nil {
		t.Fatal(err)
	}
	if err := c1.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatalf("CloseWrite: %v", err)
	}
	if got, err := io.ReadAll(c2); string(got) != "question" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
	if _, err := c1.Write([]byte("more")); err == nil {
		t.Fatal("Write after CloseWrite succeeded")
	}
	if _, err := c2.Write([]byte("answer")); err != nil {
		t.Fatalf("Write in the open direction: %v", err)
	}
	c2.Close()
	if got, err := io.ReadAll(c1); string(got) != "answer" || err != nil {
		t.Fatalf("read %q, %v", got, err)
	}
}

// testBackPressure checks that a reader that does not read stops the writer, and
// that nothing is lost.
func testBackPressure(t *testing.T, n *nets) {
	c1, c2 := n.connect(t)
	total, chunk := 0, make([]byte, 64<<10)
	c1.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		wrote, err := c1.Write(chunk)
		total += wrote
		if err != nil {
			wantTimeout(t, "Write", err)
			break
		}
		if total > 256<<20 {
			t.Fatalf("wrote %d bytes that nobody reads", total)
		}
	}
	c1.Close()
	if got, err := io.Copy(io.Discard, c2); got != int64(total) || err != nil {
		t.Fatalf("read %d bytes of %d: %v", got, total, err)
	}
}

func testRefused(t *testing.T, n *nets) {
	l := listen(t, n.b, "tcp", net.JoinHostPort(n.addrB.String(), "0"))
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := n.a.Dial(ctx, "tcp", l.Addr().String())
	wantErrno(t, "Dial of a closed port", err, syscall.ECONNREFUSED)
}

func testAcceptClosed(t *testing.T, n *nets) {
	l := listen(t, n.b, "tcp", net.JoinHostPort(n.addrB.String(), "0"))
	done := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		done <- err
	}()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	wantErr(t, "Accept", await(t, "end of Accept", done), net.ErrClosed)
	listen(t, n.b, "tcp", l.Addr().String()) // the port is free again
}

func testListenConflict(t *testing.T, n *nets) {
	l := listen(t, n.b, "tcp", net.JoinHostPort(n.addrB.String(), "0"))
	_, err := n.b.Listen(t.Context(), "tcp", l.Addr().String())
	wantErrno(t, "second Listen", err, syscall.EADDRINUSE)
}

func testDialCancelled(t *testing.T, n *nets) {
	l := listen(t, n.b, "tcp", net.JoinHostPort(n.addrB.String(), "0"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := n.a.Dial(ctx, "tcp", l.Addr().String()); err == nil {
		c.Close()
		t.Fatal("Dial with a context that has ended succeeded")
	}
}

func testUnknownNetwork(t *testing.T, n *nets) {
	for _, network := range []string{"", "udp", "ip", "tcp5", "unixgram"} {
		if _, err := n.a.Listen(t.Context(), network, "127.0.0.1:0"); err == nil {
			t.Errorf("Listen(%q) succeeded", network)
		}
		if _, err := n.a.Dial(t.Context(), network, "127.0.0.1:9"); err == nil {
			t.Errorf("Dial(%q) succeeded", network)
		}
	}
	for _, addr := range []string{"", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000"} {
		if _, err := n.a.Dial(t.Context(), "tcp", addr); err == nil {
			t.Errorf("Dial(tcp, %q) succeeded", addr)
		}
	}
}

func testUnix(t *testing.T, n *nets) {
	l := listen(t, n.a, "unix", filepath.Join(t.TempDir(), "s"))
	c1, c2 := dial(t, n.a, l)
	echo(t, c1, c2)
	l.Close()
	if _, err := n.a.Dial(t.Context(), "unix", l.Addr().String()); err == nil {
		t.Fatal("Dial of a closed socket succeeded")
	}
}
