//go:build linux

package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/interop/lab"
)

func TestPlainValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7111, "dhtnode", "python3-opendht")
	net := w.reals(6)
	join := net.Bootstrap().String()
	kith := w.kith(dht.Config{Bootstrap: []string{join}})
	py := w.py(net.Bootstrap())
	w.pyPut(py, "warm-up", []byte("x"), 0, "")

	w.sub("Kith to real", func(w *world) {
		for i := range 4 {
			w.put(kith, "k", &dht.Value{ID: dht.ValueID(i + 1), Data: fmt.Append(nil, "value ", i), UserType: fmt.Sprint("text/", i%2)})
		}
		reader := w.py(net.Nodes[3].Addr())
		got := w.pyGet(reader, "k")
		if len(got) != 4 {
			w.Errorf("got %d values", len(got))
		}
		for i := range 4 {
			if !pyHas(got, uint64(i+1), fmt.Append(nil, "value ", i)) {
				w.Errorf("value %d is missing", i)
			}
		}
		for _, v := range got {
			if want := fmt.Sprint("text/", (v.ID-1)%2); v.UserType != want {
				w.Errorf("value %x has user type %q, want %q", v.ID, v.UserType, want)
			}
		}
	})
	w.sub("real to Kith", func(w *world) {
		for i := range 4 {
			w.pyPut(py, "r", fmt.Append(nil, "value ", i), uint64(i+1), fmt.Sprint("text/", i%2))
		}
		w.put(kith, "r", &dht.Value{ID: 9, Type: wire.TypeIM, Data: []byte("typed")})
		reader := w.kith(dht.Config{Bootstrap: []string{join}})
		for _, c := range []struct {
			q    dht.Query
			want []dht.ValueID
		}{
			{everything, []dht.ValueID{1, 2, 3, 4, 9}},
			{whereID(3), []dht.ValueID{3}},
			{whereID(77), nil},
			{whereUser("text/1"), []dht.ValueID{2, 4}},
			{whereType(wire.TypeIM), []dht.ValueID{9}},
			{whereType(wire.TypeUserData), []dht.ValueID{1, 2, 3, 4}},
		} {
			got := w.get(reader, "r", c.q)
			same := len(got) == len(c.want)
			for i := range c.want {
				same = same && got[i].ID == c.want[i]
			}
			if !same {
				w.Errorf("%+v: got %q, want %v", c.q, quote(got), c.want)
			}
			for _, v := range got {
				if want := fmt.Append(nil, "value ", v.ID-1); v.ID < 9 && !bytes.Equal(v.Data, want) {
					w.Errorf("value %x is %q", v.ID, v.Data)
				}
			}
		}
	})
	w.sub("nothing there", func(w *world) {
		if got := w.get(kith, "void", everything); len(got) != 0 {
			w.Errorf("Kith got %q", quote(got))
		}
		if got := w.pyGet(py, "void"); len(got) != 0 {
			w.Errorf("the Python client got %+v", got)
		}
	})
	w.sub("the first writer of an id wins", func(w *world) {
		w.pyPut(py, "taken", []byte("mine"), 4, "")
		late := w.kith(dht.Config{Bootstrap: []string{join}})
		if err := late.Put(w.ctx, keyOf("taken"), &dht.Value{ID: 4, Data: []byte("stolen")}); !errors.Is(err, dht.ErrRefused) {
			w.Errorf("a put under a taken id: %v, want a refusal", err)
		}
		reader := w.kith(dht.Config{Bootstrap: []string{join}})
		if got := w.get(reader, "taken", everything); len(got) != 1 || !has(got, 4, []byte("mine")) {
			w.Errorf("got %q", quote(got))
		}
	})
}

// TestRealFiltersAtKith has a dhtnode ask Kith nodes for some of the values of a key.
func TestRealFiltersAtKith(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7112, "dhtnode")
	nodes := w.kiths(3)
	for i := range 4 {
		w.put(nodes[0], "k", &dht.Value{ID: dht.ValueID(i + 1), Data: []byte("x"), UserType: fmt.Sprint("text/", i%2)})
	}
	w.put(nodes[0], "k", &dht.Value{ID: 9, Type: wire.TypeIM, Data: []byte("x")})
	cli := w.cli(addrOf(nodes[1]), false)
	for where, want := range map[string][]uint64{
		"":                             {1, 2, 3, 4, 9},
		" WHERE id=3":                  {3},
		" WHERE id=77":                 nil,
		" WHERE value_type=3":          {9},
		" WHERE user_type=text/1":      {2, 4},
		" WHERE id=2,user_type=text/0": nil,
	} {
		_, mark, err := cli.Do(w.ctx, "g k"+where, "Get: completed")
		w.must(err)
		var got []uint64
		for _, v := range cli.Values(mark) {
			got = append(got, v.ID)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			w.Errorf("get k%s: %v, want %v", where, got, want)
		}
	}
}

// largeSizes are of values that travel in parts. The last is the most that there
// may be.
var largeSizes = []int{3_000, 60_000, wire.MaxValueSize}

// exchangeLarge moves large values both ways by put, get and listen.
func exchangeLarge(w *world, join netip.AddrPort) {
	kith := w.kith(dht.Config{Bootstrap: []string{join.String()}})
	py := w.py(join)
	w.pyPut(py, "warm-up", []byte("x"), 0, "")
	feed := w.listen(kith, "large from real", everything)
	events, cancel, err := py.Listen(w.ctx, "large from Kith")
	w.must(err)
	defer cancel()

	for i, size := range largeSizes {
		w.put(kith, "large from Kith", &dht.Value{ID: dht.ValueID(i + 1), Data: payload("kith", size)})
		w.pyValue(events, uint64(i+1), payload("kith", size))
		w.pyPut(py, "large from real", payload("real", size), uint64(i+1), "")
		feed.value(dht.ValueID(i+1), payload("real", size))
	}
	// Readers that have not stored anything themselves.
	reader, pyReader := w.kith(dht.Config{Bootstrap: []string{join.String()}}), w.py(join)
	got := w.get(reader, "large from real", everything)
	pyGot := w.pyGet(pyReader, "large from Kith")
	for i, size := range largeSizes {
		if !has(got, dht.ValueID(i+1), payload("real", size)) {
			w.Errorf("Kith did not get %d bytes: %q", size, quote(got))
		}
		if !pyHas(pyGot, uint64(i+1), payload("kith", size)) {
			w.Errorf("the Python client did not get %d bytes", size)
		}
	}
}

func TestLargeValues(t *testing.T) {
	t.Parallel()
	t.Run("at dhtnodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7113, "dhtnode", "python3-opendht")
		exchangeLarge(w, w.reals(5).Bootstrap())
	})
	t.Run("at Kith nodes", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7114, "python3-opendht")
		exchangeLarge(w, addrOf(w.kiths(5)[0]))
	})
	t.Run("with packets lost", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7115, "dhtnode", "python3-opendht", "netns")
		s, err := lab.NewSwitch()
		w.must(err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		w.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				w.Error(err)
			}
		})
		link := func(seed uint64) lab.Impairment {
			return lab.Impairment{Delay: 2 * time.Millisecond, Loss: 0.005, Seed: seed} // two links to a way
		}
		host := func(name string, seed uint64) *lab.Host {
			h, err := s.AddHost(name, link(seed), link(seed+100))
			w.must(err)
			return h
		}
		// Two storage nodes of each kind, and clients of both kinds.
		c := w.nodeConfig()
		c.Host = host("door", 1)
		door, err := w.lab.StartNode(w.ctx, lab.Dhtnode{}, c)
		w.must(err)
		c.Host, c.Bootstrap = host("second", 2), door.Addr()
		_, err = w.lab.StartNode(w.ctx, lab.Dhtnode{}, c)
		w.must(err)
		for i := range 2 {
			w.host = host(fmt.Sprint("kith", i), uint64(10+i))
			w.kith(dht.Config{Bootstrap: []string{door.Addr().String()}, Network: w.host.Inside(&netx.System{})})
		}
		w.host = host("clients", 20)
		exchangeLarge(w, door.Addr())
		if s.Dropped() == 0 {
			w.Error("no packet was lost")
		}
	})
}
