//go:build linux

package interop

import (
	"net/netip"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/interop/lab"
)

// loopback6 is an address of our nodes, and skips where there is no IPv6.
func (w *world) loopback6() netip.AddrPort {
	w.Helper()
	addr := netip.AddrPortFrom(netip.IPv6Loopback(), 0)
	n, err := dht.New(dht.Config{Addrs: []netip.AddrPort{addr}})
	if err != nil {
		w.Skipf("no IPv6 here: %v", err)
	}
	n.Close()
	return addr
}

func TestIPv6(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7151, "dhtnode")
	addr6 := w.loopback6()
	c := w.nodeConfig()
	real, err := w.lab.StartCLI(w.ctx, c) // it binds both families
	w.must(err)
	real6 := netip.AddrPortFrom(netip.IPv6Loopback(), real.Config.Port)
	kith := w.kith(dht.Config{Addrs: []netip.AddrPort{addr6}, Bootstrap: []string{real6.String()}})

	w.put(kith, "six", &dht.Value{ID: 1, Data: []byte("from-kith"), UserType: "text/plain"})
	w.until("dhtnode gets it", func() bool {
		vs, err := real.Get(w.ctx, "six")
		return err == nil && len(vs) == 1 && vs[0].Data == "from-kith"
	})
	id, err := real.Put(w.ctx, "six-back", "from-dhtnode")
	w.must(err)
	if got := w.get(kith, "six-back", everything); len(got) != 1 || uint64(got[0].ID) != id {
		w.Errorf("Kith got %q", quote(got))
	}

	// A node of ours with both families joins by either and brings values across.
	both := w.kith(dht.Config{
		Addrs:     []netip.AddrPort{netip.AddrPortFrom(loopback, 0), addr6},
		Bootstrap: []string{real.Addr().String()},
	})
	w.until("both families are connected", func() bool {
		info, err := both.Info(w.ctx)
		w.must(err)
		return info.IPv4.Status == dht.Connected && info.IPv6.Status == dht.Connected
	})
	only4 := w.kith(dht.Config{Bootstrap: []string{addrOf(both).String()}})
	w.put(both, "across", &dht.Value{ID: 2, Data: []byte("on both sides")})
	for name, n := range map[string]*dht.Node{"IPv4": only4, "IPv6": kith} {
		if got := w.get(n, "across", everything); !has(got, 2, []byte("on both sides")) {
			w.Errorf("the node with %s only got %q", name, quote(got))
		}
	}
	mark, err := real.Listen(w.ctx, "six")
	w.must(err)
	w.put(kith, "six", &dht.Value{ID: 3, Data: []byte("pushed"), UserType: "text/plain"})
	if v, err := real.WaitValue(w.ctx, mark, "pushed"); err != nil || v.ID != 3 {
		w.Errorf("dhtnode heard %+v, %v", v, err)
	}
}

// TestNetworkID has nodes of two networks meet: they must not hear one another.
func TestNetworkID(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7152, "dhtnode", "python3-opendht")
	net := w.reals(2)
	kith := w.kith(dht.Config{})
	ours, _ := w.startKith(dht.Config{NetworkID: 7153, Bootstrap: []string{net.Bootstrap().String()}})
	public, _ := w.startKith(dht.Config{NetworkID: 1, Bootstrap: []string{net.Bootstrap().String()}})
	foreign := *w
	foreign.network = 7153
	py := foreign.py(addrOf(kith))
	if r, err := py.Put(w.ctx, "k", []byte("x"), 1, ""); err != nil || r.Done {
		w.Errorf("a put into another network: %+v, %v", r, err)
	}
	// Long enough for every first attempt to have been answered.
	same := w.kith(dht.Config{Bootstrap: []string{net.Bootstrap().String()}})
	w.put(same, "k", &dht.Value{Data: []byte("y")})
	for _, n := range []*dht.Node{ours, public, kith} {
		info, err := n.Info(w.ctx)
		w.must(err)
		if info.Status == dht.Connected || info.IPv4.Known > 0 {
			w.Errorf("a node of network %d knows one of 7152: %+v", info.Network, info.IPv4)
		}
	}
}

// TestLocalDiscovery has nodes find one another by multicast, in a namespace whose
// loopback interface is told to carry it.
func TestLocalDiscovery(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		network uint32
		first   string
	}{{"dhtnode is there first", 7154, "dhtnode"}, {"Kith is there first", 7155, "kith"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.network, "dhtnode", "netns")
			ip, err := exec.LookPath("ip")
			if err != nil {
				w.Skip("no ip command to make loopback carry multicast: apt-get install iproute2")
			}
			host, err := lab.NewIsland()
			w.must(err)
			w.Cleanup(func() { host.Close() })
			w.must(host.Do(func() error {
				if err := exec.Command(ip, "link", "set", "lo", "multicast", "on").Run(); err != nil {
					return err
				}
				return exec.Command(ip, "route", "add", "224.0.0.0/4", "dev", "lo").Run()
			}))
			w.host = host
			cfg := w.nodeConfig()
			cfg.Args = []string{"-D"}
			var real *lab.DhtnodeCLI
			var kith *dht.Node
			start := map[string]func(){
				"dhtnode": func() { real, err = w.lab.StartCLI(w.ctx, cfg); w.must(err) },
				"kith":    func() { kith, _ = w.startKith(dht.Config{Discovery: true}) },
			}
			start[c.first]()
			delete(start, c.first)
			for _, f := range start {
				f()
			}
			begun := time.Now()
			w.must(kith.WaitConnected(w.ctx))
			w.Logf("found after %v", time.Since(begun).Round(time.Millisecond))
			w.put(kith, "here", &dht.Value{ID: 1, Data: []byte("x")})
			w.until("dhtnode gets it", func() bool {
				vs, err := real.Get(w.ctx, "here")
				return err == nil && len(vs) == 1
			})
		})
	}
}

// TestStateFiles has each kind begin with the file that the other wrote, and
// nothing else to join by.
func TestStateFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7156, "dhtnode")
	net := w.reals(3)
	w.sub("Kith reads dhtnode's", func(w *world) {
		name := filepath.Join(w.TempDir(), "state")
		real := w.cli(net.Bootstrap(), false, "-f", name)
		_, err := real.Put(w.ctx, "kept", "by-dhtnode")
		w.must(err)
		real.Stop(5 * time.Second)
		st, err := dht.LoadState(name)
		w.must(err)
		if len(st.Nodes) == 0 || [20]byte(st.ID) != [20]byte(real.ID) {
			w.Fatalf("dhtnode %x wrote a state of %v with %d nodes; its log ends:\n%s", real.ID, st.ID, len(st.Nodes), real.Tail())
		}
		kith, _ := w.startKith(dht.Config{StateFile: name})
		w.must(kith.WaitConnected(w.ctx))
		if got := w.get(kith, "kept", everything); len(got) != 1 {
			w.Errorf("got %q", quote(got))
		}
	})
	w.sub("dhtnode reads Kith's", func(w *world) {
		name := filepath.Join(w.TempDir(), "state")
		kith, stop := w.startKith(dht.Config{Bootstrap: []string{net.Bootstrap().String()}, StateFile: name})
		w.must(kith.WaitConnected(w.ctx))
		w.put(kith, "kept too", &dht.Value{ID: 1, Data: []byte("by-kith"), UserType: "text/plain"})
		stop()
		real := w.cli(netip.AddrPort{}, false, "-f", name)
		if [20]byte(real.ID) != [20]byte(kith.ID()) {
			w.Errorf("dhtnode has the id %x, not %v", real.ID, kith.ID())
		}
		vs, err := real.Get(w.ctx, dht.KeyOf("kept too").String())
		if err != nil || len(vs) != 1 || vs[0].Data != "by-kith" {
			w.Errorf("dhtnode got %+v, %v", vs, err)
		}
	})
}
