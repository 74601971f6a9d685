package dht

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

var natKinds = []simnet.NATKind{simnet.FullCone, simnet.AddressRestricted, simnet.PortRestricted, simnet.Symmetric}

// Behind any NAT a node can put, get, publish and listen, and goes on hearing long
// after the NAT would have forgotten a silent peer.
func TestBehindNAT(t *testing.T) {
	for _, kind := range natKinds {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := cluster(t, 12, simnet.Link{})
				defer l.stop()
				nat := l.world.NewNAT(kind, addr("50.0.0.1"))
				client := l.start(nat.NewHost("client", addr("192.168.1.2")), Config{Bootstrap: []string{boot}})
				l.connect(client)

				key := KeyOf("nat")
				l.put(client, key, "from inside")
				l.want(l.nodes[9], key, "from inside")
				l.want(client, key, "from inside")

				heard, kept := KeyOf("heard"), KeyOf("kept")
				events := l.listen(client, heard)
				if _, err := client.Publish(t.Context(), kept, &Value{Data: []byte("kept")}); err != nil {
					t.Fatal(err)
				}
				for i := range 4 {
					time.Sleep(time.Duration(i*5) * time.Minute)
					text := fmt.Sprint("push ", i)
					l.put(l.nodes[3+i], heard, text)
					l.hears(events, text, time.Second)
				}
				l.want(l.nodes[9], kept, "kept")
			})
		})
	}
}

// A NAT that restarts forgets everything: listens go on after the next contact.
func TestNATRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		nat := l.world.NewNAT(simnet.PortRestricted, addr("50.0.0.1"))
		client := l.start(nat.NewHost("client", addr("192.168.1.2")), Config{Bootstrap: []string{boot}})
		l.connect(client)
		events := l.listen(client, KeyOf("heard"))
		time.Sleep(time.Minute)
		nat.Reset()
		time.Sleep(6 * time.Minute) // renewals are every 4.5 minutes
		l.put(l.nodes[2], KeyOf("heard"), "after")
		l.hears(events, "after", time.Second)
	})
}

// Nobody keeps a read-only node in mind, and it can do everything nevertheless.
func TestReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		phone := l.start(l.world.NewHost("phone", addr("60.0.0.1")), Config{Bootstrap: []string{boot}, ReadOnly: true})
		l.connect(phone)
		key := KeyOf("phone")
		events := l.listen(phone, key)
		time.Sleep(time.Minute)
		l.put(phone, key, "mine")
		l.hears(events, "mine", time.Second)
		l.put(l.nodes[5], key, "yours")
		l.hears(events, "yours", time.Second)
		l.want(l.nodes[7], key, "mine", "yours")
		time.Sleep(time.Hour)
		for i, n := range l.nodes {
			if slices.ContainsFunc(n.Export().Nodes, func(n wire.Node) bool { return n.ID == phone.ID() }) {
				t.Errorf("node %d keeps the read-only node", i)
			}
		}
	})
}

// A host that gets another address, or none for a while, goes on where it was.
func TestNetworkChange(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(h *simnet.Host)
		within time.Duration // after which all is as before
	}{
		{"other address", func(h *simnet.Host) { h.SetAddrs(addr("70.0.0.1")) }, 15 * time.Second},
		{"down for 30 s", func(h *simnet.Host) {
			h.SetUp(false)
			time.Sleep(30 * time.Second)
			h.SetUp(true)
		}, 15 * time.Second},
		{"down for an hour", func(h *simnet.Host) {
			h.SetUp(false)
			time.Sleep(time.Hour)
			h.SetUp(true)
		}, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := cluster(t, 12, simnet.Link{})
				defer l.stop()
				h := l.world.NewHost("mobile", addr("60.0.0.1"))
				mobile := l.start(h, Config{Bootstrap: []string{boot}})
				l.connect(mobile)
				heard, kept := KeyOf("heard"), KeyOf("kept")
				events := l.listen(mobile, heard)
				if _, err := mobile.Publish(t.Context(), kept, &Value{Data: []byte("kept")}); err != nil {
					t.Fatal(err)
				}
				l.put(l.nodes[3], heard, "before")
				l.hears(events, "before", time.Second)

				c.change(h)
				time.Sleep(c.within)
				l.put(l.nodes[4], heard, "after")
				l.hears(events, "after", time.Second)
				time.Sleep(30 * time.Minute)
				l.want(l.nodes[9], kept, "kept")
				l.put(l.nodes[5], heard, "later")
				l.hears(events, "later", time.Second)
				if i, err := mobile.Info(t.Context()); err != nil || i.Status != Connected || i.Listens > 16 {
					t.Errorf("%+v, error %v", i, err)
				}
			})
		})
	}
}

// Values that were put while a listener was away are heard when it is back.
func TestMissedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 20, simnet.Link{})
		defer l.stop()
		h := l.world.NewHost("mobile", addr("60.0.0.1"))
		mobile := l.start(h, Config{Bootstrap: []string{boot}})
		l.connect(mobile)
		events := l.listen(mobile, KeyOf("heard"))
		time.Sleep(time.Minute)
		h.SetUp(false)
		time.Sleep(20 * time.Second)
		l.put(l.nodes[4], KeyOf("heard"), "missed")
		time.Sleep(10 * time.Second)
		h.SetUp(true)
		l.hears(events, "missed", 30*time.Second)
	})
}

// Both halves of a parted network go on, and are one again after it heals.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 24, simnet.Link{})
		defer l.stop()
		key := KeyOf("before")
		if _, err := l.nodes[1].Publish(t.Context(), key, &Value{Data: []byte("before")}); err != nil {
			t.Fatal(err)
		}
		events := l.listen(l.nodes[15], KeyOf("across"))
		time.Sleep(5 * time.Minute)
		l.world.Partition(l.hosts[:12], l.hosts[12:])
		time.Sleep(5 * time.Minute)
		l.put(l.nodes[2], KeyOf("left"), "left")
		l.put(l.nodes[14], KeyOf("right"), "right")
		l.want(l.nodes[9], KeyOf("left"), "left")
		l.want(l.nodes[20], KeyOf("right"), "right")
		l.want(l.nodes[20], KeyOf("left"))
		l.world.Heal()
		time.Sleep(2 * time.Hour)
		l.want(l.nodes[20], key, "before")
		l.put(l.nodes[2], KeyOf("whole"), "whole")
		l.want(l.nodes[22], KeyOf("whole"), "whole")
		l.put(l.nodes[3], KeyOf("across"), "across")
		l.hears(events, "across", 5*time.Second)
	})
}

// So are the halves of a network that was parted for so long that each has forgotten
// the other.
func TestLongPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 24, simnet.Link{})
		defer l.stop()
		l.world.Partition(l.hosts[:12], l.hosts[12:])
		time.Sleep(2 * time.Hour)
		l.world.Heal()
		time.Sleep(2 * time.Hour)
		for i := range 12 {
			key := KeyOf(fmt.Sprint("whole ", i))
			l.put(l.nodes[i], key, "whole")
			l.want(l.nodes[12+i], key, "whole")
		}
	})
}

// Names that cannot be looked up at the start are tried again.
func TestBootstrapNameComesLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		n := l.start(l.world.NewHost("late", addr("60.0.0.1")), Config{Bootstrap: []string{"nowhere.example", "boot.example:4222"}})
		time.Sleep(time.Minute)
		if i, _ := n.Info(t.Context()); i.Status == Connected {
			t.Fatal("connected to nobody")
		}
		l.world.SetName("boot.example", addr(boot))
		began := time.Now()
		l.connect(n)
		if d := time.Since(began); d > 90*time.Second {
			t.Errorf("connected after %v", d)
		}
		if err := n.Bootstrap(t.Context(), "nowhere.example", "bad:0"); err == nil {
			t.Error("names that do not exist are no error")
		}
	})
}

func TestBadBootstrap(t *testing.T) {
	for _, text := range []string{"", ":4222", "host:0", "host:65536", "host:x", "[::1]:"} {
		if _, err := New(Config{Bootstrap: []string{text}}); err == nil {
			t.Errorf("bootstrap address %q is taken", text)
		}
	}
	for text, want := range map[string]string{
		"h": "h 4222", "h:1": "h 1", "::1": "::1 4222", "[::1]": "::1 4222", "[::1]:2": "::1 2", "10.0.0.1": "10.0.0.1 4222",
	} {
		if host, port, err := splitHostPort(text); err != nil || fmt.Sprint(host, " ", port) != want {
			t.Errorf("%q is %s %d, error %v", text, host, port, err)
		}
	}
}

// A13: every bootstrap node lies. A node that was in the network before finds it
// again by the nodes that it remembers.
func TestHostileBootstrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 20, simnet.Link{})
		defer l.stop()
		l.put(l.nodes[3], KeyOf("real"), "real")

		// The liars are a network of their own, which knows nothing else.
		liars := newLab(t, simnet.Link{})
		liars.world.Close()
		liars.world = l.world
		defer func() { liars.end(); liars.runs.Wait() }()
		for i := range 8 {
			cfg := Config{}
			if i > 0 {
				cfg.Bootstrap = []string{"66.0.0.1"}
			}
			h := liars.world.NewHost(fmt.Sprint("liar", i), netip.AddrFrom4([4]byte{66, byte(i), 0, 1}))
			cfg.Seed = 1000 + uint64(i)
			liars.start(h, cfg)
		}

		h := l.world.NewHost("victim", addr("60.0.0.1"))
		first := l.make(h, Config{Bootstrap: []string{boot}})
		l.runs.Go(func() error { return first.Run(l.ctx) })
		l.connect(first)
		time.Sleep(5 * time.Minute)
		state := first.Export()
		if len(state.Nodes) < 8 {
			t.Fatalf("the state has %d nodes", len(state.Nodes))
		}
		first.Close()
		time.Sleep(time.Second)

		second := l.start(h, Config{Bootstrap: []string{"66.0.0.1", "66.1.0.1", "66.2.0.1"}, State: state})
		l.connect(second)
		l.put(l.nodes[5], KeyOf("real"), "after")
		l.want(second, KeyOf("real"), "after", "real")
		l.put(second, KeyOf("back"), "back")
		l.want(l.nodes[11], KeyOf("back"), "back")
	})
}

// Nodes with both families make one network of those with one.
func TestDualStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		var dual []*Node
		for i := range 16 {
			h := l.world.NewHost(fmt.Sprint("dual", i), netip.AddrFrom4([4]byte{byte(30 + i), 0, 0, 1}),
				netip.AddrFrom16([16]byte{0x20, 1, 0x0d, 0xb8, byte(i), 15: 1}))
			cfg := Config{}
			if i > 0 {
				cfg.Bootstrap = []string{boot, "2001:db8::1"}
			}
			dual = append(dual, l.start(h, cfg))
		}
		v4 := l.start(l.world.NewHost("four", addr("60.0.0.1")), Config{Bootstrap: []string{boot}})
		v6 := l.start(l.world.NewHost("six", addr("2001:db8:ff::1")), Config{Bootstrap: []string{"2001:db8::1"}})
		l.connect(append(dual, v4, v6)...)
		time.Sleep(time.Minute)

		key := KeyOf("families")
		on4, on6 := l.listen(v4, key), l.listen(v6, key)
		time.Sleep(time.Second)
		l.put(dual[3], key, "dual")
		for _, n := range []*Node{v4, v6, dual[9]} {
			l.want(n, key, "dual")
		}
		l.hears(on4, "dual", time.Second)
		l.hears(on6, "dual", time.Second)
		l.put(v4, key, "four")
		l.put(v6, key, "six")
		l.want(dual[11], key, "dual", "four", "six")
		if i, _ := dual[5].Info(t.Context()); i.IPv4.Status != Connected || i.IPv6.Status != Connected || len(i.PublicAddrs) != 2 {
			t.Errorf("%+v", i)
		}
		if i, _ := v6.Info(t.Context()); i.IPv4.Status == Connected || i.IPv6.Status != Connected {
			t.Errorf("IPv6 only: %+v", i)
		}
		if got := dual[0].Addrs(); len(got) != 2 || got[0].Port() != DefaultPort || got[1].Port() != DefaultPort {
			t.Errorf("bound to %v", got)
		}
	})
}

// Nodes of another network id are not joined, even when they are asked.
func TestNetworkIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		other := l.start(l.world.NewHost("other", addr("60.0.0.1")), Config{NetworkID: 5, Bootstrap: []string{boot}})
		other2 := l.start(l.world.NewHost("other2", addr("61.0.0.1")), Config{NetworkID: 5, Bootstrap: []string{boot, "60.0.0.1"}})
		l.connect(other, other2)
		key := KeyOf("isolated")
		l.put(l.nodes[2], key, "public")
		l.put(other, key, "five")
		l.want(l.nodes[5], key, "public")
		l.want(other2, key, "five")
		if i, _ := other.Info(t.Context()); i.IPv4.Good != 1 || i.Network != 5 {
			t.Errorf("%+v", i)
		}
	})
}

func TestBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		h := l.world.NewHost("host", addr("30.0.0.1"), addr("2001:db8::1"))
		one := netip.MustParseAddrPort("30.0.0.1:5000")
		n := l.start(h, Config{Addrs: []netip.AddrPort{one}})
		if got := n.Addrs(); !slices.Equal(got, []netip.AddrPort{one}) {
			t.Errorf("bound to %v, want %v", got, one)
		}
		for name, addrs := range map[string][]netip.AddrPort{
			"taken":            {one},
			"two of a family":  {netip.MustParseAddrPort("30.0.0.1:1"), netip.MustParseAddrPort("127.0.0.1:1")},
			"somebody else's":  {netip.MustParseAddrPort("31.0.0.1:1")},
			"second one taken": {netip.MustParseAddrPort("[2001:db8::1]:5001"), one},
		} {
			if n, err := New(Config{Network: h, Addrs: addrs}); err == nil {
				t.Errorf("%s: bound to %v", name, n.Addrs())
			}
		}
		// What failed left nothing open.
		l.start(h, Config{Addrs: []netip.AddrPort{netip.MustParseAddrPort("[2001:db8::1]:5001")}})
		free := l.start(h, Config{Network: h})
		if got := free.Addrs(); len(got) != 2 || got[0].Port() != got[1].Port() {
			t.Errorf("bound to %v", got)
		}
		if _, err := New(Config{Network: h, Port: DefaultPort}); err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("a port that is taken: %v", err)
		}
	})
}
