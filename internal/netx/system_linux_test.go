package netx

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func openUDP(t *testing.T, addr string) *udpConn {
	t.Helper()
	c, err := (&System{}).ListenPacket(t.Context(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Skipf("no %s here: %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*udpConn)
}

func option(t *testing.T, c *udpConn, f func(fd int) error) {
	t.Helper()
	var err error
	cerr := c.read.raw.Control(func(fd uintptr) { err = f(int(fd)) })
	if cerr != nil || err != nil {
		t.Fatalf("socket option: %v, %v", cerr, err)
	}
}

func TestSocketOptions(t *testing.T) {
	c := openUDP(t, "[::]:0")
	option(t, c, func(fd int) error {
		only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		if only != 1 {
			t.Error("IPV6_V6ONLY is not set")
		}
		return err
	})
	option(t, openUDP(t, "127.0.0.1:0"), func(fd int) error {
		size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
		if size < socketBuffer/32 {
			t.Errorf("receive buffer of %d bytes", size)
		}
		return err
	})
}

// TestNoAllocation holds the promise that moving packets costs no garbage.
func TestNoAllocation(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		for _, width := range []int{1, 16, 100} {
			a, b := openUDP(t, addr), openUDP(t, addr)
			out, in := make([]Datagram, width), make([]Datagram, width)
			for i := range width {
				out[i] = Datagram{Buf: make([]byte, 100), N: 100, Addr: b.LocalAddr()}
				in[i].Buf = make([]byte, 200)
			}
			allocs := testing.AllocsPerRun(50, func() {
				if _, err := a.WriteBatch(out); err != nil {
					t.Fatal(err)
				}
				for got := 0; got < width; {
					n, err := b.ReadBatch(in)
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			})
			if allocs != 0 {
				t.Errorf("%s, %d packets: %v allocations", addr, width, allocs)
			}
		}
	}
}

// TestSoftErrors has the kernel report dead destinations on the socket, as other
// systems do by themselves, and checks that calls about other packets succeed.
func TestSoftErrors(t *testing.T) {
	a, b, dead := openUDP(t, "127.0.0.1:0"), openUDP(t, "127.0.0.1:0"), openUDP(t, "127.0.0.1:0")
	option(t, a, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
	dead.Close()
	lost := []Datagram{{Buf: []byte("?"), N: 1, Addr: dead.LocalAddr()}}
	out := []Datagram{{Buf: []byte("!"), N: 1, Addr: b.LocalAddr()}}
	in := []Datagram{{Buf: make([]byte, 10)}, {Buf: make([]byte, 10)}}
	for range 10 {
		if _, err := a.WriteBatch(lost); err != nil {
			t.Fatalf("write to a dead port: %v", err)
		}
		if _, err := a.WriteBatch(out); err != nil { // meets the error of the one before
			t.Fatalf("write after a dead port: %v", err)
		}
		if n, err := b.ReadBatch(in); n != 1 || err != nil {
			t.Fatalf("ReadBatch = %d, %v", n, err)
		}
		a.WriteBatch(lost)
		back := []Datagram{{Buf: []byte("!"), N: 1, Addr: a.LocalAddr()}}
		if _, err := b.WriteBatch(back); err != nil {
			t.Fatal(err)
		}
		if n, err := a.ReadBatch(in); n != 1 || err != nil { // so does this
			t.Fatalf("ReadBatch after a dead port = %d, %v", n, err)
		}
	}
}

func TestZoneCache(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	var z zoneCache
	for range 2 {
		if got := z.name(uint32(lo.Index)); got != "lo" {
			t.Errorf("interface %d is %q", lo.Index, got)
		}
		if got := z.name(1 << 30); got != "1073741824" {
			t.Errorf("an interface that is not there is %q", got)
		}
		for name, want := range map[string]uint32{"lo": uint32(lo.Index), "77": 77} {
			if got, err := z.index(name); got != want || err != nil {
				t.Errorf("index of %q = %d, %v", name, got, err)
			}
		}
		if got, err := z.index("no such interface"); err == nil {
			t.Errorf("index of nothing = %d", got)
		}
	}
	for i := range 10 * maxZones {
		z.name(uint32(1<<30 + i))
	}
	if len(z.names) > maxZones {
		t.Errorf("the cache has grown to %d names", len(z.names))
	}
}

// inNamespace is set for the copy of the test that runs in a network of its own.
const inNamespace = "NETX_TEST_NAMESPACE"

// TestNamespace checks what needs interfaces that come and go: it runs itself
// again in a fresh network namespace, where the user may make one.
func TestNamespace(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		t.Run("Changes", testSystemChanges)
		t.Run("LinkLocal", testLinkLocal)
		t.Run("Multicast", testEveryInterface)
		return
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("no ip command here")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNamespace$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("in the namespace: %v", err)
	}
	t.Logf("%s", out.Bytes())
}

// runIP changes the namespace's interfaces.
func runIP(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Skipf("ip %v: %v: %s", args, err, out)
	}
}

func testSystemChanges(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := (&System{}).Changes(ctx)
	for _, step := range [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", "192.0.2.9/32", "dev", "lo"},
		{"addr", "add", "2001:db8::9/128", "dev", "lo"},
		{"addr", "del", "192.0.2.9/32", "dev", "lo"},
	} {
		runIP(t, step...)
		select {
		case <-changes:
		case <-time.After(5 * time.Second): // less than a poll takes
			t.Errorf("no change after ip %v", step)
		}
	}
	select {
	case <-changes:
		t.Error("a change too many")
	case <-time.After(2 * settle):
	}
	cancel()
	select {
	case _, ok := <-changes:
		if ok {
			t.Error("a change after the end")
		}
	case <-time.After(5 * time.Second):
		t.Error("the channel is open after the context's end")
	}
}

func testLinkLocal(t *testing.T) {
	runIP(t, "link", "set", "lo", "up")
	runIP(t, "addr", "add", "fe80::1/64", "dev", "lo", "nodad")
	a, b := openUDP(t, "[fe80::1%lo]:0"), openUDP(t, "[::]:0")
	to := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), b.LocalAddr().Port())
	d := []Datagram{{Buf: make([]byte, 10)}, {Buf: make([]byte, 10)}}
	for range 50 { // the kernel may still be setting the address up: it drops packets then
		if _, err := a.WriteBatch([]Datagram{{Buf: []byte("x"), N: 1, Addr: to}}); err != nil {
			t.Fatal(err)
		}
		b.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := b.ReadBatch(d[:1])
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if n != 1 || err != nil || d[0].Addr != a.LocalAddr() {
			t.Fatalf("ReadBatch = %d from %v, %v; want it from %v", n, d[0].Addr, err, a.LocalAddr())
		}
		return
	}
	t.Fatal("nothing arrives")
}

// testEveryInterface checks that both families reach a group through each of
// several interfaces.
func testEveryInterface(t *testing.T) {
	runIP(t, "link", "set", "lo", "up")
	runIP(t, "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	for _, name := range []string{"v0", "v1"} {
		runIP(t, "link", "set", name, "up")
	}
	runIP(t, "addr", "add", "192.0.2.1/24", "dev", "v0")
	runIP(t, "addr", "add", "198.51.100.1/24", "dev", "v1")
	runIP(t, "addr", "add", "fe80::10/64", "dev", "v0", "nodad")
	runIP(t, "addr", "add", "fe80::11/64", "dev", "v1", "nodad")
	for _, group := range []string{"239.192.0.1:8888", "[ff08::101]:8888", "[ff12::101]:8888"} {
		g := netip.MustParseAddrPort(group)
		c, err := (&System{MulticastOn: func(i Interface) bool { return !i.Loopback }}).ListenMulticast(t.Context(), g)
		if err != nil {
			t.Fatalf("%s: %v", group, err)
		}
		defer c.Close()
		if n, err := c.WriteBatch([]Datagram{{Buf: []byte("here"), N: 4, Addr: g}}); n != 1 || err != nil {
			t.Fatalf("%s: WriteBatch = %d, %v", group, n, err)
		}
		sources := make(map[netip.Addr]bool)
		c.SetReadDeadline(time.Now().Add(time.Second))
		for len(sources) < 2 {
			d := []Datagram{{Buf: make([]byte, 10)}}
			if _, err := c.ReadBatch(d); err != nil {
				t.Fatalf("%s: heard only %v: %v", group, sources, err)
			}
			sources[d[0].Addr.Addr()] = true
		}
		t.Logf("%s: heard %v", group, sources)
	}
}
