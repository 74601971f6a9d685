package simnet_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/netx/simnet"
)

var kinds = []simnet.NATKind{simnet.FullCone, simnet.AddressRestricted, simnet.PortRestricted, simnet.Symmetric}

const (
	natAddr  = "203.0.113.1"
	nat2Addr = "203.0.113.2"
	server1  = "198.51.100.1"
	server2  = "198.51.100.2"
)

// behind makes a NAT with one host behind it that has one socket.
func behind(t *testing.T, w *simnet.World, kind simnet.NATKind, outer string) (*simnet.NAT, sock) {
	t.Helper()
	n := w.NewNAT(kind, ip(outer))
	return n, open(t, n.NewHost("inner of "+outer, ip("192.168.1.2")), ":5000")
}

// TestNATTable is the truth table of each kind: who is let in, and whether two
// destinations see the same mapping.
func TestNATTable(t *testing.T) {
	for _, tt := range []struct {
		kind                              simnet.NATKind
		sameMapping                       bool
		samePort, otherPort, otherAddress bool
	}{
		{simnet.FullCone, true, true, true, true},
		{simnet.AddressRestricted, true, true, true, false},
		{simnet.PortRestricted, true, true, false, false},
		{simnet.Symmetric, false, true, false, false},
	} {
		t.Run(tt.kind.String(), func(t *testing.T) {
			bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
				_, in := behind(t, w, tt.kind, natAddr)
				s1 := w.NewHost("s1", ip(server1))
				same, otherPort := open(t, s1, ":1"), open(t, s1, ":2")
				otherAddress := open(t, w.NewHost("s2", ip(server2)), ":1")

				in.send("hello", same.at(server1))
				mapped := same.want("hello")
				if mapped.Addr() != ip(natAddr) || mapped.Port() < 1024 {
					t.Fatalf("mapped to %v", mapped)
				}
				for _, c := range []struct {
					name string
					from sock
					at   string
					let  bool
				}{
					{"same port", same, server1, tt.samePort},
					{"other port", otherPort, server1, tt.otherPort},
					{"other address", otherAddress, server2, tt.otherAddress},
				} {
					c.from.send(c.name, mapped)
					got, from := in.recv()
					if (got == c.name) != c.let {
						t.Errorf("from %s: got %q, want to get it: %v", c.name, got, c.let)
					}
					if c.let && from != c.from.at(c.at) {
						t.Errorf("from %s: source %v, want %v", c.name, from, c.from.at(c.at))
					}
				}
				// Once sent to, the other is let in by the mapping that it sees.
				in.send("and you", otherAddress.at(server2))
				second := otherAddress.want("and you")
				if (second == mapped) != tt.sameMapping {
					t.Errorf("mappings %v and %v, want the same: %v", mapped, second, tt.sameMapping)
				}
				otherAddress.send("thanks", second)
				in.want("thanks")
				if drops := w.Stats().UDP.Dropped; drops[simnet.DropNAT] != w.Stats().UDP.Drops() {
					t.Errorf("dropped %v, want all by the NAT", drops)
				}
			})
		})
	}
}

// TestHolePunching tries every pair of kinds, after both sides have learned their
// mapping from a server, as ICE does it.
func TestHolePunching(t *testing.T) {
	for _, k1 := range kinds {
		for _, k2 := range kinds {
			// A symmetric NAT's new port is unknown to the other side: it must not
			// filter by port.
			want := !(k1 == simnet.Symmetric && k2 >= simnet.PortRestricted || k2 == simnet.Symmetric && k1 >= simnet.PortRestricted)
			t.Run(k1.String()+" and "+k2.String(), func(t *testing.T) {
				bubble(t, simnet.Config{Link: simnet.Link{Latency: 20 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
					stun := open(t, w.NewHost("stun", ip(server1)), ":3478")
					_, a := behind(t, w, k1, natAddr)
					_, b := behind(t, w, k2, nat2Addr)
					a.send("?", stun.at(server1))
					atA := stun.want("?")
					b.send("?", stun.at(server1))
					atB := stun.want("?")
					// Both send at once, and answer where packets come from.
					connected := false
					for range 3 {
						a.send("check", atB)
						b.send("check", atA)
						if got, from := b.recv(); got != "" {
							atA = from
						}
						if got, from := a.recv(); got != "" {
							atB, connected = from, true
						}
					}
					if connected != want {
						t.Errorf("connected: %v, want %v", connected, want)
					}
				})
			})
		}
	}
}

func TestNATExpiry(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) {
			bubble(t, simnet.Config{Timeout: time.Minute}, func(t *testing.T, w *simnet.World) {
				_, in := behind(t, w, kind, natAddr)
				out := open(t, w.NewHost("s", ip(server1)), ":1")
				in.send("1", out.at(server1))
				mapped := out.want("1")
				time.Sleep(59 * time.Second)
				in.send("2", out.at(server1)) // prolongs it
				if again := out.want("2"); again != mapped {
					t.Fatalf("mapping moved from %v to %v", mapped, again)
				}
				time.Sleep(59 * time.Second)
				out.send("3", mapped) // does not
				in.want("3")
				time.Sleep(2 * time.Second)
				out.send("4", mapped)
				in.wantNothing()
				in.send("5", out.at(server1))
				if again := out.want("5"); again == mapped {
					t.Fatalf("the expired mapping %v came back", again)
				}
			})
		})
	}
}

func TestNATHairpin(t *testing.T) {
	for _, on := range []bool{false, true} {
		bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
			n, a := behind(t, w, simnet.FullCone, natAddr)
			n.SetHairpin(on)
			b := open(t, n.NewHost("b", ip("192.168.1.3")), ":5000")
			s := open(t, w.NewHost("s", ip(server1)), ":1")
			a.send("?", s.at(server1))
			atA := s.want("?")
			b.send("inside", a.at("192.168.1.2")) // the direct way always works
			a.want("inside")
			b.send("hairpin", atA)
			if !on {
				a.wantNothing()
				return
			}
			if from := a.want("hairpin"); from.Addr() != ip(natAddr) {
				t.Errorf("hairpinned packet came from %v, want the outer address", from)
			}
		})
	}
}

func TestNATNested(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		carrier := w.NewNAT(simnet.PortRestricted, ip(natAddr))
		home := carrier.NewNAT(simnet.FullCone, ip("100.64.0.7"))
		in := open(t, home.NewHost("in", ip("192.168.1.2")), ":5000")
		middle := open(t, carrier.NewHost("middle", ip("100.64.0.8")), ":1")
		out := open(t, w.NewHost("s", ip(server1)), ":1")

		in.send("out", out.at(server1))
		mapped := out.want("out")
		if mapped.Addr() != ip(natAddr) {
			t.Fatalf("came from %v, want the outermost address", mapped)
		}
		out.send("back", mapped)
		if from := in.want("back"); from != out.at(server1) {
			t.Fatalf("answer came from %v", from)
		}
		in.send("near", middle.at("100.64.0.8"))
		near := middle.want("near")
		if near.Addr() != ip("100.64.0.7") {
			t.Fatalf("came from %v, want the home NAT's address", near)
		}
		middle.send("back", near)
		in.want("back")
	})
}

// TestNATIPv6 checks that a NAT for IPv4 leaves IPv6 alone.
func TestNATIPv6(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		n := w.NewNAT(simnet.Symmetric, ip(natAddr))
		in := open(t, n.NewHost("in", ip("192.168.1.2"), ip("2001:db8:1::2"), ip("fd00::2")), "[::]:5000")
		out := open(t, w.NewHost("s", ip("2001:db8:2::1")), "[::]:1")
		out.send("unasked", in.at("2001:db8:1::2"))
		if from := in.want("unasked"); from != out.at("2001:db8:2::1") {
			t.Fatalf("came from %v", from)
		}
		in.send("hello", out.at("2001:db8:2::1"))
		if from := out.want("hello"); from != in.at("2001:db8:1::2") {
			t.Fatalf("came from %v", from)
		}
		out.send("private", in.at("fd00::2"))
		in.wantNothing()
	})
}

func TestNATForward(t *testing.T) {
	for _, kind := range kinds {
		bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
			n, in := behind(t, w, kind, natAddr)
			if err := n.Forward("udp", 7000, in.at("192.168.1.2")); err != nil {
				t.Fatal(err)
			}
			if err := n.Forward("udp", 7000, in.at("192.168.1.3")); err == nil {
				t.Fatal("forwarded a port twice")
			}
			if err := n.Forward("icmp", 7000, in.at("192.168.1.2")); err == nil {
				t.Fatal("forwarded ICMP")
			}
			forwarded := netip.AddrPortFrom(ip(natAddr), 7000)
			out := open(t, w.NewHost("s", ip(server1)), ":1")
			time.Sleep(time.Hour)
			n.Reset()
			out.send("hello", forwarded)
			in.send("answer", in.want("hello"))
			if from := out.want("answer"); from != forwarded && kind != simnet.Symmetric {
				t.Errorf("%v: answer came from %v, want %v", kind, from, forwarded)
			}
			if err := n.Unforward("udp", 7000); err != nil {
				t.Fatal(err)
			}
			out.send("hello", forwarded)
			in.wantNothing()
		})
	}
}

func TestNATReset(t *testing.T) {
	bubble(t, simnet.Config{}, func(t *testing.T, w *simnet.World) {
		n, in := behind(t, w, simnet.FullCone, natAddr)
		out := open(t, w.NewHost("s", ip(server1)), ":1")
		in.send("hello", out.at(server1))
		mapped := out.want("hello")
		n.Reset()
		out.send("gone", mapped)
		in.wantNothing()
	})
}

func TestNATStream(t *testing.T) {
	bubble(t, simnet.Config{Link: simnet.Link{Latency: 30 * time.Millisecond}}, func(t *testing.T, w *simnet.World) {
		n := w.NewNAT(simnet.PortRestricted, ip(natAddr))
		in := n.NewHost("in", ip("192.168.1.2"))
		out := w.NewHost("s", ip(server1))
		l, err := out.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		c, err := in.Dial(t.Context(), "tcp", net.JoinHostPort(server1, "80"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if from := s.RemoteAddr().(*net.TCPAddr).AddrPort(); from.Addr() != ip(natAddr) {
			t.Errorf("accepted from %v", from)
		}
		c.Close()
		s.Close()
		// From outside only a forwarded port works.
		il, err := in.Listen(t.Context(), "tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Dial(short(t), "tcp", net.JoinHostPort(natAddr, "80")); err == nil {
			t.Fatal("dialled into the NAT")
		}
		if err := n.Forward("tcp", 80, netip.MustParseAddrPort("192.168.1.2:80")); err != nil {
			t.Fatal(err)
		}
		c, err = out.Dial(short(t), "tcp", net.JoinHostPort(natAddr, "80"))
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		il.Close()
	})
}
