package simnet_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// short gives a context that ends after five seconds.
func short(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestLatency(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 80 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
		ha, hb := w.NewHost("a", ip(server1)), w.NewHost("b", ip(server2))
		a, b := open(t, ha, ":1"), open(t, hb, ":1")
		measure := func(want time.Duration) {
			t.Helper()
			start := time.Now()
			a.send("x", b.at(server2))
			b.want("x")
			if took := time.Since(start); took != want {
				t.Errorf("took %v, want %v", took, want)
			}
		}
		measure(80 * time.Millisecond)
		hb.SetAccess(simnet.Link{Latency: 5 * time.Millisecond})
		measure(85 * time.Millisecond)
		w.SetLink(hb, ha, simnet.Link{Latency: time.Millisecond})
		measure(6 * time.Millisecond)
	})
}

func TestRate(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		ha, hb := w.NewHost("a", ip(server1)), w.NewHost("b", ip(server2))
		a, b := open(t, ha, ":1"), open(t, hb, ":1")
		ha.SetAccess(simnet.Link{Rate: 100_000})
		start := time.Now()
		const count, size = 50, 1000 - 28
		for range count {
			a.send(string(make([]byte, size)), b.at(server2))
		}
		for range count {
			b.want(string(make([]byte, size)))
		}
		if took := time.Since(start); took < 490*time.Millisecond || took > 520*time.Millisecond {
			t.Errorf("50 kB at 100 kB/s took %v", took)
		}
		for range 300 {
			a.send(string(make([]byte, size)), b.at(server2))
		}
		if got := w.Stats().UDP.Dropped[simnet.DropRate].Packets; got < 150 || got > 250 {
			t.Errorf("%d of 300 packets dropped, want those that wait for more than a second", got)
		}
	})
}

// chatter has hosts send to one another, and gives the world's digest and counters.
func chatter(t *testing.T, seed uint64, hosts, packets int) (digest uint64, stats simnet.Stats) {
	cfg := simnet.Config{Seed: seed, Link: simnet.Link{
		Latency: 40 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.05, Duplicate: 0.02, Reorder: 0.01,
	}}
	bubble(t, cfg, func(t *testing.T, w *simnet.World) {
		socks := make([]sock, hosts)
		for i := range socks {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			socks[i] = open(t, w.NewHost(fmt.Sprint(i), addr), ":4222")
		}
		var readers, writers sync.WaitGroup
		for i, s := range socks {
			readers.Go(func() {
				d := make([]netx.Datagram, 8)
				for i := range d {
					d[i].Buf = make([]byte, 256)
				}
				for {
					if _, err := s.ReadBatch(d); err != nil {
						return
					}
				}
			})
			writers.Go(func() {
				d := []netx.Datagram{{Buf: make([]byte, 200), N: 200}}
				for n := range packets / hosts {
					binary.BigEndian.PutUint64(d[0].Buf, uint64(n))
					to := (i + n*7 + 1) % hosts
					d[0].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(to >> 8), byte(to)}), 4222)
					if _, err := s.WriteBatch(d); err != nil {
						t.Error(err)
					}
					time.Sleep(10 * time.Millisecond)
				}
			})
		}
		writers.Wait()
		time.Sleep(time.Second)
		digest, stats = w.Digest(), w.Stats()
		w.Close()
		readers.Wait()
	})
	return digest, stats
}

func TestDeterminism(t *testing.T) {
	digest, stats := chatter(t, 42, 20, 2000)
	for range 3 {
		if d, s := chatter(t, 42, 20, 2000); d != digest || s != stats {
			t.Fatalf("same seed: digest %x and %x, counters %+v and %+v", d, digest, s, stats)
		}
	}
	if d, _ := chatter(t, 43, 20, 2000); d == digest {
		t.Fatalf("another seed gives the same digest %x", d)
	}
	if digest == 0 {
		t.Fatal("digest of nothing")
	}
}

// TestScale is the size that whole-node simulations need; it takes a second or two.
func TestScale(t *testing.T) {
	packets := 100_000
	if testing.Short() {
		packets = 20_000
	}
	start := time.Now()
	_, stats := chatter(t, 1, 500, packets)
	u := stats.UDP
	t.Logf("%d packets in %v: %+v", u.Sent.Packets, time.Since(start), u)
	if u.Sent.Packets != uint64(packets) || u.Sent.Packets+u.Duplicated.Packets != u.Delivered.Packets+u.Drops().Packets {
		t.Errorf("the counters do not add up: %+v", u)
	}
	if loss := float64(u.Dropped[simnet.DropLoss].Packets) / float64(packets); loss < 0.045 || loss > 0.055 {
		t.Errorf("loss %.4f, want 0.05", loss)
	}
	if u.Dropped[simnet.DropLoss] != u.Drops() {
		t.Errorf("dropped for other causes than loss: %v", u.Dropped)
	}
}

func TestPartition(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
		h := []*simnet.Host{w.NewHost("a", ip("10.0.0.1")), w.NewHost("b", ip("10.0.0.2")), w.NewHost("c", ip("10.0.0.3"))}
		a, b, c := open(t, h[0], ":1"), open(t, h[1], ":1"), open(t, h[2], ":1")
		w.Partition(h[:1], h[1:2])
		a.send("cut", b.at("10.0.0.2"))
		b.send("cut", a.at("10.0.0.1"))
		a.wantNothing()
		b.wantNothing()
		a.send("around", c.at("10.0.0.3"))
		c.want("around")
		w.Heal()
		a.send("healed", b.at("10.0.0.2"))
		b.want("healed")
		a.send("under way", b.at("10.0.0.2"))
		w.Partition(h[1:2], h)
		b.wantNothing()
		b.send("self", b.at("10.0.0.2")) // never cut off from itself
		b.want("self")
		if got := w.Stats().UDP.Dropped[simnet.DropPartition].Packets; got != 3 {
			t.Errorf("%d packets dropped by partitions, want 3", got)
		}
	})
}

func TestFirewall(t *testing.T) {
	bubble(t, simnet.Config{Timeout: time.Minute}, func(t *testing.T, w *simnet.World) {
		ha, hb := w.NewHost("a", ip(server1)), w.NewHost("b", ip(server2))
		ha.SetFirewall(true)
		a, b, other := open(t, ha, ":1"), open(t, hb, ":1"), open(t, hb, ":2")
		b.send("unasked", a.at(server1))
		a.wantNothing()
		a.send("question", b.at(server2))
		b.want("question")
		b.send("answer", a.at(server1))
		a.want("answer")
		other.send("from another port", a.at(server1))
		a.wantNothing()
		time.Sleep(2 * time.Minute)
		b.send("too late", a.at(server1))
		a.wantNothing()
		a.send("self", a.at(server1))
		a.want("self")

		l, err := ha.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := hb.Dial(short(t), "tcp", l.Addr().String()); err == nil {
			t.Fatal("dialled through the firewall")
		}
		if _, err := hb.Dial(short(t), "tcp", net.JoinHostPort(server1, "80")); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dialled through the firewall: %v", err)
		}
		ha.SetFirewall(false)
		c, err := hb.Dial(short(t), "tcp", net.JoinHostPort(server1, "80"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestMulticastScope(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		group := netip.MustParseAddrPort("239.192.0.1:8888")
		home := w.NewNAT(simnet.FullCone, ip(natAddr))
		office := w.NewLAN(simnet.Link{})
		members := map[string]sock{}
		for name, h := range map[string]*simnet.Host{
			"home 1":   home.NewHost("home 1", ip("192.168.1.1")),
			"home 2":   home.NewHost("home 2", ip("192.168.1.2")),
			"office 1": office.NewHost("office 1", ip("198.51.100.11")),
			"office 2": office.NewHost("office 2", ip("198.51.100.12")),
			"public 1": w.NewHost("public 1", ip("198.51.100.21")),
			"public 2": w.NewHost("public 2", ip("198.51.100.22")),
		} {
			c, err := h.ListenMulticast(t.Context(), group)
			if err != nil {
				t.Fatal(err)
			}
			members[name] = sock{c, t}
		}
		bystander := open(t, home.NewHost("bystander", ip("192.168.1.3")), ":8888")
		for from, hear := range map[string][]string{
			"home 1":   {"home 1", "home 2"},
			"office 2": {"office 1", "office 2"},
			"public 1": {"public 1"},
		} {
			members[from].send(from, group)
			for name, s := range members {
				if slices.Contains(hear, name) {
					s.want(from)
				} else {
					s.wantNothing()
				}
			}
		}
		bystander.wantNothing()
		bystander.send("no member", group) // need not be one to send
		if from := members["home 1"].want("no member"); from != bystander.at("192.168.1.3") {
			t.Errorf("came from %v", from)
		}
	})
}

func TestHostChanges(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		h, peer := w.NewHost("h", ip("10.0.0.1")), open(t, w.NewHost("p", ip("10.0.0.9")), ":1")
		s := open(t, h, ":1")
		ctx, cancel := context.WithCancel(t.Context())
		changes := h.Changes(ctx)
		signalled := func(want bool) {
			t.Helper()
			select {
			case <-changes:
				if !want {
					t.Error("a change too many")
				}
			default:
				if want {
					t.Error("no change signalled")
				}
			}
		}
		signalled(false)
		h.SetAddrs(ip("10.0.0.2"))
		h.SetAddrs(ip("10.0.0.3"))
		signalled(true)
		signalled(false) // they are one, as nobody looked in between
		s.send("hello", peer.at("10.0.0.9"))
		if from := peer.want("hello"); from.Addr() != ip("10.0.0.3") {
			t.Errorf("came from %v", from)
		}
		peer.send("to the old address", s.at("10.0.0.1"))
		s.wantNothing()

		h.SetUp(false)
		signalled(true)
		if ifs, err := h.Interfaces(); err != nil || len(ifs) != 1 || !ifs[0].Loopback {
			t.Errorf("interfaces while down: %+v, %v", ifs, err)
		}
		_, err := s.WriteBatch([]netx.Datagram{{Addr: peer.at("10.0.0.9")}})
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("send while down: %v", err)
		}
		peer.send("to nobody", s.at("10.0.0.3"))
		s.wantNothing()
		h.SetUp(true)
		signalled(true)
		h.SetUp(true)
		signalled(false)

		home := w.NewNAT(simnet.FullCone, ip(natAddr))
		h.Move(home.LAN, ip("192.168.1.2"))
		signalled(true)
		s.send("moved", peer.at("10.0.0.9"))
		if from := peer.want("moved"); from.Addr() != ip(natAddr) {
			t.Errorf("came from %v", from)
		}
		cancel()
		if _, ok := <-changes; ok {
			t.Error("the channel is open after the context's end")
		}
	})
}

func TestNames(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
		h := w.NewHost("h", ip(server1), ip("2001:db8::1"))
		both := []netip.Addr{ip("2001:db8::1"), ip(server1)}
		w.SetName("Example.Org", both...)
		start := time.Now()
		if got, err := h.Lookup(t.Context(), "example.ORG."); err != nil || !slices.Equal(got, both) {
			t.Errorf("Lookup = %v, %v", got, err)
		}
		if took := time.Since(start); took != 20*time.Millisecond {
			t.Errorf("Lookup took %v", took)
		}
		var dns *net.DNSError
		if _, err := h.Lookup(t.Context(), "other.example"); !errors.As(err, &dns) || !dns.IsNotFound {
			t.Errorf("Lookup of an unknown name: %v", err)
		}
		l, err := h.Listen(t.Context(), "tcp4", ":80") // IPv4 only: the dialler falls back
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Dial(t.Context(), "tcp", "example.org:80")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		l.Close()
		w.SetName("example.org")
		h.SetUp(false)
		if _, err := h.Lookup(t.Context(), "example.org"); !errors.As(err, &dns) || !dns.IsTemporary || dns.IsNotFound {
			t.Errorf("Lookup while down: %v", err)
		}
	})
}

func TestOverflow(t *testing.T) {
	bubble(t, simnet.Config{ReceiveBuffer: 10 * 1024}, func(t *testing.T, w *simnet.World) {
		a, b := open(t, w.NewHost("a", ip(server1)), ":1"), open(t, w.NewHost("b", ip(server2)), ":1")
		for i := range 50 {
			a.send(fmt.Sprintf("%0512d", i), b.at(server2))
		}
		for i := range 10 { // the first are kept
			b.want(fmt.Sprintf("%0512d", i))
		}
		b.wantNothing()
		if got := w.Stats().UDP.Dropped[simnet.DropOverflow]; got.Packets != 40 || got.Bytes != 40*512 {
			t.Errorf("overflow %+v, want 40 packets", got)
		}
	})
}

// TestStreamPartition checks that a connection survives a partition without loss,
// but not one that never ends.
func TestStreamPartition(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 10 * time.Millisecond, Loss: 0.1}}, func(t *testing.T, w *simnet.World) {
		ha, hb := w.NewHost("a", ip(server1)), w.NewHost("b", ip(server2))
		l, err := hb.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := ha.Dial(t.Context(), "tcp", net.JoinHostPort(server2, "80"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		w.Partition([]*simnet.Host{ha}, []*simnet.Host{hb})
		if _, err := ha.Dial(short(t), "tcp", net.JoinHostPort(server2, "80")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Dial across a partition: %v", err)
		}
		if _, err := c.Write([]byte("hello ")); err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := s.Read(make([]byte, 10)); n != 0 || err == nil {
			t.Fatalf("Read across a partition = %d, %v", n, err)
		}
		w.Heal()
		if _, err := c.Write([]byte("world")); err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(time.Minute))
		got := make([]byte, 11)
		if _, err := io.ReadFull(s, got); string(got) != "hello world" {
			t.Fatalf("read %q, %v", got, err)
		}
		s.SetReadDeadline(time.Time{})
		w.Partition([]*simnet.Host{ha}, []*simnet.Host{hb})
		c.Write([]byte("never"))
		if _, err := s.Read(got); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("Read across an endless partition: %v", err)
		}
		if _, err := c.Write(got); !errors.Is(err, syscall.ETIMEDOUT) {
			t.Errorf("Write across an endless partition: %v", err)
		}
	})
}

func TestStreamReset(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 10 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
		ha, hb := w.NewHost("a", ip(server1)), w.NewHost("b", ip(server2))
		l, err := hb.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := ha.Dial(t.Context(), "tcp", net.JoinHostPort(server2, "80"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if n, err := c.Read(make([]byte, 10)); n != 0 || err != io.EOF {
			t.Fatalf("Read = %d, %v; want EOF", n, err)
		}
		if _, err := c.Write([]byte("anybody there?")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if _, err := c.Write([]byte("hm")); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("Write to a closed connection: %v", err)
		}
		// Who waits for Accept when the listener closes is reset.
		c, err = ha.Dial(t.Context(), "tcp", net.JoinHostPort(server2, "80"))
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("Read = %v, want a reset", err)
		}
	})
}

// TestClose checks that the end of the world wakes everybody.
func TestClose(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: time.Hour}}, func(t *testing.T, w *simnet.World) {
		h, far := w.NewHost("h", ip(server1)), w.NewHost("far", ip(server2))
		s := open(t, h, ":1")
		l, err := h.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := h.Dial(t.Context(), "tcp", "127.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for name, call := range map[string]func() error{
			"ReadBatch": func() error { _, err := s.ReadBatch(make([]netx.Datagram, 1)); return err },
			"Accept": func() error {
				l.Accept()
				_, err := l.Accept()
				return err
			},
			"Read":   func() error { _, err := c.Read(make([]byte, 1)); return err },
			"Write":  func() error { _, err := c.Write(make([]byte, 1<<20)); return err },
			"Dial":   func() error { _, err := far.Dial(t.Context(), "tcp", net.JoinHostPort(server1, "80")); return err },
			"Lookup": func() error { _, err := h.Lookup(t.Context(), "example.org"); return errors.Unwrap(err) },
		} {
			wg.Go(func() {
				if err := call(); !errors.Is(err, net.ErrClosed) {
					t.Errorf("%s: %v, want net.ErrClosed", name, err)
				}
			})
		}
		changes := h.Changes(t.Context())
		synctest.Wait()
		start := time.Now()
		w.Close()
		wg.Wait()
		if _, ok := <-changes; ok {
			t.Error("a change at the end of the world")
		}
		if _, err := h.ListenPacket(t.Context(), netip.MustParseAddrPort("0.0.0.0:0")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("ListenPacket after Close: %v", err)
		}
		if _, ok := <-h.Changes(t.Context()); ok {
			t.Error("a change after the end of the world")
		}
		if err := w.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("Close took %v", took)
		}
	})
}
