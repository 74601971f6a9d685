//go:build unix

package dht

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// badConn fails to send, and to read for its first reads.
type badConn struct {
	netx.PacketConn
	send  error
	fails int
}

func (c *badConn) WriteBatch(b []netx.Datagram) (int, error) {
	if c.send != nil {
		return 0, c.send
	}
	return c.PacketConn.WriteBatch(b)
}

func (c *badConn) ReadBatch(b []netx.Datagram) (int, error) {
	if c.fails > 0 {
		c.fails--
		return 0, syscall.ENOBUFS
	}
	return c.PacketConn.ReadBatch(b)
}

// Only an address without a route is given up at once.
func TestSendErrors(t *testing.T) {
	for err, atOnce := range map[error]bool{syscall.ENETUNREACH: true, syscall.EHOSTUNREACH: true, syscall.EPERM: false, syscall.ENOBUFS: false, syscall.EMSGSIZE: false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, simnet.Link{})
			defer l.stop()
			n := l.make(l.world.NewHost("a", addr(boot)), Config{})
			n.v4.conn = &badConn{PacketConn: n.v4.conn, send: err}
			l.runs.Go(func() error { return n.Run(l.ctx) })
			synctest.Wait()
			began := time.Now()
			if _, _, err := n.Ping(t.Context(), netip.MustParseAddrPort("30.0.1.1:4222")); err == nil {
				t.Error("a ping that was not sent is answered")
			}
			if got := time.Since(began) == 0; got != atOnce {
				t.Errorf("%v: given up after %v", err, time.Since(began))
			}
		})
	}
}

// A node outlasts errors of its socket, but not a minute of nothing else.
func TestReadErrors(t *testing.T) {
	for fails, survives := range map[int]bool{105: true, 1 << 30: false} {
		synctest.Test(t, func(t *testing.T) {
			l := newLab(t, simnet.Link{})
			defer l.world.Close()
			n := l.make(l.world.NewHost("a", addr(boot)), Config{})
			bad := &badConn{PacketConn: n.v4.conn, fails: fails}
			n.v4.conn = bad
			done := make(chan error, 1)
			go func() { done <- n.Run(l.ctx) }()
			time.Sleep(3 * time.Minute)
			select {
			case err := <-done:
				if survives || !errors.Is(err, syscall.ENOBUFS) {
					t.Errorf("after %d failures: %v", fails, err)
				}
			default:
				if !survives {
					t.Error("it goes on")
				}
				l.end()
				<-done
			}
			l.end()
		})
	}
}

func TestZeroKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		n := l.start(l.world.NewHost("a", addr(boot)), Config{})
		if _, err := l.get(n, Key{}); !errors.Is(err, ErrRefused) {
			t.Errorf("get: %v", err)
		}
		for _, err := range n.Listen(t.Context(), Key{}, Query{}) {
			if !errors.Is(err, ErrRefused) {
				t.Errorf("listen: %v", err)
			}
			break
		}
	})
}
