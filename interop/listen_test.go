//go:build linux

package interop

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/interop/lab"
)

// TestListen has both kinds listen at nodes of both kinds.
func TestListen(t *testing.T) {
	t.Parallel()
	t.Run("at dhtnodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7131, "dhtnode", "python3-opendht")
		testListen(w, w.reals(5).Bootstrap())
	})
	t.Run("at Kith nodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7132, "dhtnode", "python3-opendht")
		testListen(w, addrOf(w.kiths(5)[0]))
	})
}

func testListen(w *world, join netip.AddrPort) {
	kith := w.kith(dht.Config{Bootstrap: []string{join.String()}})
	py := w.py(join)
	w.pyPut(py, "news", []byte("old by real"), 1, "text/a")
	w.put(kith, "news", &dht.Value{ID: 2, Data: []byte("old by Kith"), UserType: "text/b"})

	listener := w.kith(dht.Config{Bootstrap: []string{join.String()}})
	all, some := w.listen(listener, "news", everything), w.listen(listener, "news", whereUser("text/b"))
	pyListener := w.py(join)
	w.pyPut(pyListener, "warm-up", []byte("x"), 0, "")
	events, cancel, err := pyListener.Listen(w.ctx, "news")
	w.must(err)
	cli := w.cli(join, false)
	mark, err := cli.Listen(w.ctx, "news")
	w.must(err)

	heard := func(id uint64, text string) {
		w.Helper()
		all.value(dht.ValueID(id), []byte(text))
		w.pyValue(events, id, []byte(text))
		if v, err := cli.WaitValue(w.ctx, mark, hexOf(text)); err != nil || v.ID != id {
			w.Errorf("dhtnode heard %+v, %v", v, err)
		}
	}
	// What is there comes in any order.
	all.wait("both old values", func(dht.Event) bool { return len(all.seen) == 2 })
	for _, e := range all.seen {
		if e.Expired || e.Value.ID != 1 && e.Value.ID != 2 {
			w.Errorf("heard %+v", e)
		}
	}
	old := map[uint64]bool{}
	w.waitPy(events, "both old values", func(e lab.PyEvent) bool { old[e.ID] = true; return len(old) == 2 })
	for _, text := range []string{"old by real", "old by Kith"} {
		if _, err := cli.WaitValue(w.ctx, mark, hexOf(text)); err != nil {
			w.Error(err)
		}
	}
	// What is new.
	w.pyPut(py, "news", []byte("new by real"), 3, "text/a")
	heard(3, "new by real")
	w.put(kith, "news", &dht.Value{ID: 4, Data: []byte("new by Kith"), UserType: "text/b"})
	heard(4, "new by Kith")
	// What is put again is no news; the next event is of what comes after.
	w.pyPut(py, "news", []byte("new by real"), 3, "text/a")
	w.put(kith, "news", &dht.Value{ID: 4, Data: []byte("new by Kith"), UserType: "text/b"})
	w.put(kith, "news", &dht.Value{ID: 5, Data: []byte("last"), UserType: "text/b"})
	heard(5, "last")
	if len(all.seen) != 5 {
		w.Errorf("heard %d events, want 5", len(all.seen))
	}
	// The filter.
	some.value(5, []byte("last"))
	for _, e := range some.seen {
		if e.Value.UserType != "text/b" {
			w.Errorf("the filter let %x of type %q through", uint64(e.Value.ID), e.Value.UserType)
		}
	}
	if len(some.seen) != 3 {
		w.Errorf("%d events passed the filter, want 3", len(some.seen))
	}

	w.sub("cancelled", func(w *world) {
		some.stop()
		w.must(cancel())
		w.put(kith, "news", &dht.Value{ID: 6, Data: []byte("unheard"), UserType: "text/b"})
		all.value(6, []byte("unheard"))
		select {
		case e := <-some.events:
			w.Errorf("a cancelled listen gave %+v", e)
		case e := <-events:
			w.Errorf("a cancelled listen gave the client %+v", e)
		default:
		}
	})
}

// putOld stores a value at single nodes as if it had been made some time ago.
func (a *asker) putOld(at []netip.AddrPort, key string, v *dht.Value, made time.Time) {
	a.w.Helper()
	for _, addr := range at {
		m, _ := a.ask(addr, wire.Request{Method: wire.Find, Key: keyOf(key)})
		token := slices.Clone(m.Token)
		a.ask(addr, wire.Request{
			Method: wire.Put, Key: keyOf(key), Values: []wire.Packed{wire.Pack(v)}, Created: made.Unix(), Token: token,
		})
	}
}

// TestExpiryIsTold puts values of a type that lives a minute as if they had been
// made most of a minute ago, and has listeners of both kinds wait for the end.
func TestExpiryIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7133, "python3-opendht")
	nodes := w.kiths(3)
	var addrs []netip.AddrPort
	for _, n := range nodes {
		addrs = append(addrs, addrOf(n))
	}
	py := w.py(addrs[0])
	w.pyPut(py, "warm-up", []byte("x"), 0, "")
	events, cancel, err := py.Listen(w.ctx, "brief")
	w.must(err)
	defer cancel()
	feed := w.listen(w.kith(dht.Config{Bootstrap: []string{addrs[0].String()}}), "brief", everything)

	a := w.asker()
	brief := &dht.Value{ID: 1, Type: wire.TypeICE, Data: []byte("gone soon")}
	renewed := &dht.Value{ID: 2, Type: wire.TypeICE, Data: []byte("put again")}
	made := time.Now().Add(-52 * time.Second)
	a.putOld(addrs, "brief", renewed, made)
	a.putOld(addrs, "brief", brief, made)
	for _, v := range []*dht.Value{renewed, brief} {
		feed.value(v.ID, v.Data)
		w.pyValue(events, uint64(v.ID), v.Data)
	}
	a.putOld(addrs, "brief", renewed, time.Now())

	e := feed.wait("an end", func(e dht.Event) bool { return e.Expired })
	if took := time.Since(made); e.Value.ID != 1 || took < 59*time.Second || took > 80*time.Second {
		w.Errorf("%x ended after %v, want 1 and a minute", uint64(e.Value.ID), took)
	}
	if e := w.waitPy(events, "an end", func(e lab.PyEvent) bool { return e.Expired }); e.ID != 1 {
		w.Errorf("the client was told of the end of %x", e.ID)
	}
	if got := w.pyGet(w.py(addrs[1]), "brief"); len(got) != 1 || got[0].ID != 2 {
		w.Errorf("a client gets %+v after the end", got)
	}
}

// TestExpiryAtDhtnodes has dhtnodes hold a value whose making Kith told of.
func TestExpiryAtDhtnodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7135, "dhtnode")
	net := w.reals(3)
	made := time.Now().Add(-52 * time.Second)
	a := w.asker()
	for _, n := range net.Nodes {
		a.putOld([]netip.AddrPort{n.Addr()}, "brief", &dht.Value{ID: 1, Type: wire.TypeICE, Data: []byte("x")}, made)
	}
	reader := w.kith(dht.Config{Bootstrap: []string{net.Bootstrap().String()}, ReadOnly: true})
	if got := w.get(reader, "brief", everything); len(got) != 1 {
		w.Fatalf("got %q", quote(got))
	}
	w.until("the value's end", func() bool { return len(w.get(reader, "brief", everything)) == 0 })
	if took := time.Since(made); took < 59*time.Second {
		w.Errorf("it ended after %v, want a minute", took)
	}
}

// TestListenSurvives kills the nodes that serve a listen: first all but one, of
// which the listener must notice nothing, then the last.
func TestListenSurvives(t *testing.T) {
	t.Parallel()
	const nodes, serving = 6, 4
	// run kills with kill(i) the nodes in the order of their distance from the key.
	run := func(w *world, kill func(i int), put func(id uint64, text string), heard func(id uint64) bool) {
		w.until("the listen is served", func() bool { put(1, "one"); return heard(1) })
		for i := range serving - 1 {
			kill(i)
		}
		begun := time.Now()
		put(2, "two")
		w.until("a value after three of four died", func() bool { return heard(2) })
		w.Logf("heard of a put in %v with one of four servers left", time.Since(begun).Round(time.Millisecond))
		kill(serving - 1)
		begun = time.Now()
		put(3, "three")
		w.until("a value after all four died", func() bool { return heard(3) })
		w.Logf("heard of a put %v after the last server died", time.Since(begun).Round(time.Millisecond))
	}
	t.Run("Kith listens at dhtnodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7134, "dhtnode", "python3-opendht")
		net := w.reals(nodes)
		slices.SortFunc(net.Nodes, func(a, b *lab.Node) int { return nearer("steady", a.ID, b.ID) })
		join := net.Nodes[nodes-1].Addr()
		listener := w.kith(dht.Config{Bootstrap: []string{join.String()}, ReadOnly: true}) // else it stores the value itself
		feed := w.listen(listener, "steady", everything)
		py := w.py(join)
		heard := map[uint64]bool{}
		run(w, func(i int) { net.Nodes[i].Kill() },
			func(id uint64, text string) { w.pyPut(py, "steady", []byte(text), id, "") },
			func(id uint64) bool {
				for len(feed.events) > 0 {
					heard[uint64((<-feed.events).Value.ID)] = true
				}
				return heard[id]
			})
	})
	t.Run("real listens at Kith nodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7136, "python3-opendht")
		type server struct {
			n    *dht.Node
			stop func()
		}
		var servers []server
		var bootstrap []string
		for range nodes {
			n, stop := w.startKith(dht.Config{Bootstrap: bootstrap})
			servers = append(servers, server{n, stop})
			bootstrap = []string{addrOf(servers[0].n).String()}
		}
		slices.SortFunc(servers, func(a, b server) int { return nearer("steady", a.n.ID(), b.n.ID()) })
		writer := w.kith(dht.Config{Bootstrap: bootstrap, ReadOnly: true})
		py := w.py(addrOf(servers[nodes-1].n))
		w.pyPut(py, "warm-up", []byte("x"), 0, "")
		events, cancel, err := py.Listen(w.ctx, "steady")
		w.must(err)
		defer cancel()
		heard := map[uint64]bool{}
		run(w, func(i int) { servers[i].stop() },
			func(id uint64, text string) {
				w.put(writer, "steady", &dht.Value{ID: dht.ValueID(id), Data: []byte(text)})
			},
			func(id uint64) bool {
				for len(events) > 0 {
					heard[(<-events).ID] = true
				}
				return heard[id]
			})
	})
}

// nearer orders node ids by their distance from a key.
func nearer[ID ~[20]byte](key string, a, b ID) int {
	if keyOf(key).Closer(dht.NodeID(a), dht.NodeID(b)) {
		return -1
	}
	return 1
}
