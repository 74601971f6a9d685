//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/interop/lab"
)

// TestPublicationMoves kills all nodes that hold a value whose owner keeps it
// alive: it must turn up at those that come in their place.
func TestPublicationMoves(t *testing.T) {
	t.Parallel()
	t.Run("of Kith, at dhtnodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7141, "dhtnode", "python3-opendht")
		first := w.reals(4)
		owner := w.kith(dht.Config{Bootstrap: []string{first.Bootstrap().String()}})
		pub, err := owner.Publish(w.ctx, keyOf("lasting"), &dht.Value{ID: 3, Data: []byte("still here")})
		w.must(err)
		defer pub.Cancel()
		a := w.asker()
		if n := a.holders(addrsOf(first), "lasting"); n != 4 {
			w.Errorf("%d of 4 nodes have it", n)
		}
		c := w.nodeConfig()
		c.Bootstrap = addrOf(owner)
		var second lab.Network
		for range 4 {
			n, err := w.lab.StartNode(w.ctx, lab.Dhtnode{}, c)
			w.must(err)
			second.Nodes = append(second.Nodes, n)
		}
		first.Kill()
		begun := time.Now()
		w.until("the new nodes have the value", func() bool { return a.holders(addrsOf(&second), "lasting") == 4 })
		w.Logf("all have it %v after the others died", time.Since(begun).Round(time.Millisecond))
		if got := w.pyGet(w.py(second.Bootstrap()), "lasting"); !pyHas(got, 3, []byte("still here")) {
			w.Errorf("a client gets %+v", got)
		}
	})
	t.Run("of dhtnode, at Kith nodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7142, "dhtnode")
		var first []func()
		var door *dht.Node
		for range 4 {
			cfg := dht.Config{}
			if door != nil {
				cfg.Bootstrap = []string{addrOf(door).String()}
			}
			n, stop := w.startKith(cfg)
			if door == nil {
				door = n
			} else {
				w.must(n.WaitConnected(w.ctx))
			}
			first = append(first, stop)
		}
		owner := w.cli(addrOf(door), false)
		id, err := owner.PutPermanent(w.ctx, "lasting", "still-here")
		w.must(err)
		var second []netip.AddrPort
		for range 4 {
			second = append(second, addrOf(w.kith(dht.Config{Bootstrap: []string{owner.Addr().String()}})))
		}
		for _, stop := range first {
			stop()
		}
		begun := time.Now()
		// The reference looks for new holders of its own accord, or those that have
		// the value hand it on before they are gone.
		a := w.asker()
		w.until("a new node has the value", func() bool {
			_, err := owner.Get(w.ctx, "lasting") // which makes it look around
			w.must(err)
			return a.holders(second, "lasting") > 0
		})
		w.Logf("a new node has it %v after the others died", time.Since(begun).Round(time.Millisecond))
		reader := w.kith(dht.Config{Bootstrap: []string{second[0].String()}, ReadOnly: true})
		if got := w.get(reader, "lasting", everything); len(got) != 1 || uint64(got[0].ID) != id {
			w.Errorf("got %q", quote(got))
		}
	})
}

func addrsOf(net *lab.Network) (list []netip.AddrPort) {
	for _, n := range net.Nodes {
		list = append(list, n.Addr())
	}
	return list
}

// A member is a node of a mixed network that can be killed.
type member struct {
	addr netip.AddrPort
	kill func()
}

// TestMixedNetwork kills half of a network of both kinds. What was acknowledged to
// a Kith client must have been at as many nodes as there are copies, and what any
// living node has must still be found, by both kinds.
func TestMixedNetwork(t *testing.T) {
	t.Parallel()
	const (
		each   = 16 // nodes of a kind
		values = 40 // of each kind of client
	)
	w := newWorld(t, 7143, "dhtnode", "python3-opendht")
	door := w.kith(dht.Config{})
	c := w.nodeConfig()
	c.Bootstrap = addrOf(door)
	kinds := [2][]member{}
	var reals lab.Network
	for i := range each {
		n, err := w.lab.StartNode(w.ctx, lab.Dhtnode{}, c)
		w.must(err)
		reals.Nodes = append(reals.Nodes, n)
		kinds[0] = append(kinds[0], member{n.Addr(), n.Kill})
		if i > 0 { // the door is one, too
			k, stop := w.startKith(dht.Config{Bootstrap: []string{addrOf(door).String()}})
			w.must(k.WaitConnected(w.ctx))
			kinds[1] = append(kinds[1], member{addrOf(k), stop})
		}
	}
	w.must(reals.Acquaint(w.ctx))
	everybody := []netip.AddrPort{addrOf(door)}
	for _, members := range kinds {
		for _, m := range members {
			everybody = append(everybody, m.addr)
		}
	}

	writer := w.kith(dht.Config{Bootstrap: []string{addrOf(door).String()}, ReadOnly: true})
	py := w.py(addrOf(door))
	for i := range values {
		w.put(writer, fmt.Sprint("kith ", i), &dht.Value{ID: 1, Data: payload("kith", 50+i)})
		w.pyPut(py, fmt.Sprint("real ", i), payload("real", 50+i), 1, "")
	}
	writer.Close() // both hold what they have put
	py.Kill()

	// Who has what.
	a := w.asker()
	at := map[string]map[netip.AddrPort]bool{}
	fewest := map[string]int{"kith": 99, "real": 99}
	for kind := range fewest {
		sum := 0
		for i := range values {
			key := fmt.Sprint(kind, " ", i)
			at[key] = map[netip.AddrPort]bool{}
			for _, addr := range everybody {
				if len(a.stored(addr, key)) > 0 {
					at[key][addr] = true
				}
			}
			sum += len(at[key])
			fewest[kind] = min(fewest[kind], len(at[key]))
		}
		w.Logf("puts of %s: %.1f copies in the mean, %d at least", kind, float64(sum)/values, fewest[kind])
	}
	if fewest["kith"] < 7 { // the Python client, which is gone, may have been the eighth
		w.Errorf("a value acknowledged to Kith was at %d nodes", fewest["kith"])
	}

	// Half of each kind dies, but not the last that has a value.
	dead := map[netip.AddrPort]bool{}
	spared := func(addr netip.AddrPort) bool {
		for _, holders := range at {
			last := holders[addr]
			for h := range holders {
				last = last && (h == addr || dead[h])
			}
			if last {
				return true
			}
		}
		return false
	}
	for _, members := range kinds {
		rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
		killed := 0
		for _, m := range members {
			if killed < each/2 && !spared(m.addr) {
				killed++
				dead[m.addr] = true
				m.kill()
			}
		}
		if killed < each/2 {
			w.Logf("only %d of a kind could be killed", killed)
		}
	}
	reader := w.kith(dht.Config{Bootstrap: []string{addrOf(door).String()}, ReadOnly: true})
	pyReader := w.py(addrOf(door))
	w.pyPut(pyReader, "warm-up", []byte("x"), 0, "")
	var mu sync.Mutex
	lost, slowest := map[string]int{}, map[string]time.Duration{}
	note := func(who string, begun time.Time, found bool) {
		mu.Lock()
		defer mu.Unlock()
		slowest[who] = max(slowest[who], time.Since(begun))
		if !found {
			lost[who]++
		}
	}
	var g errgroup.Group
	g.SetLimit(8)
	for kind := range fewest {
		for i := range values {
			key, data := fmt.Sprint(kind, " ", i), payload(kind, 50+i)
			g.Go(func() error {
				begun := time.Now()
				found := false
				for v, err := range reader.Get(w.ctx, keyOf(key), everything) {
					found = found || err == nil && bytes.Equal(v.Data, data)
				}
				note(kind+" to kith", begun, found)
				return nil
			})
			g.Go(func() error {
				begun := time.Now()
				r, err := pyReader.Get(w.ctx, key)
				note(kind+" to real", begun, pyHas(r.Values, 1, data))
				return err
			})
		}
	}
	w.must(g.Wait())
	w.Logf("slowest: %v", slowest)
	w.Logf("not found of %d each: %v", values, lost)
	if lost["kith to kith"]+lost["real to kith"] > 0 {
		w.Errorf("Kith did not find values that living nodes have: %v", lost)
	}
	if lost["kith to real"] > 0 {
		w.Errorf("the reference did not find what Kith had put: %v", lost)
	}
}
