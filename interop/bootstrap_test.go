//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/interop/lab"
)

// TestStrangerIsAnswered lets fresh real clients begin at our nodes. The first
// answers that a stranger gets from us are cut down so that they are no larger
// than its questions; a real peer must accept them, or it could not join.
func TestStrangerIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7101, "dhtnode", "python3-opendht")
	alone := w.kith(dht.Config{})

	w.sub("the answer is cut down", func(w *world) {
		a := w.asker()
		kind := []byte{0xa1, 'y'} // the key of what peers call optional
		for _, q := range []wire.Request{{Method: wire.Ping}, {Method: wire.Find, Key: keyOf("x")}} {
			if _, b := a.ask(addrOf(alone), q); bytes.Contains(b, kind) {
				w.Errorf("the answer to a stranger's %v has its kind: this test shows nothing", q.Method)
			}
		}
	})
	w.sub("one Kith node is all there is", func(w *world) {
		p := w.py(addrOf(alone))
		begun := time.Now()
		w.pyPut(p, "first", []byte("hello"), 1, "")
		w.Logf("joined and put in %v", time.Since(begun))
		if took := time.Since(begun); took > 5*time.Second {
			w.Errorf("a client needed %v to join through a Kith node", took)
		}
		if got := w.get(alone, "first", everything); !has(got, 1, []byte("hello")) {
			w.Errorf("the node has %q", quote(got))
		}
	})
	w.sub("dhtnode begins at Kith", func(w *world) {
		begun := time.Now()
		n := w.cli(addrOf(alone), false)
		w.Logf("joined and put in %v", time.Since(begun))
		if vs, err := n.Get(w.ctx, "first"); err != nil || len(vs) != 1 {
			w.Errorf("it got %+v, %v", vs, err)
		}
	})
}

// TestRealsJoinThroughKith has one Kith node introduce real nodes and clients to
// one another.
func TestRealsJoinThroughKith(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7102, "dhtnode", "python3-opendht")
	door := w.kith(dht.Config{})
	c := w.nodeConfig()
	c.Bootstrap = addrOf(door)
	var net lab.Network
	for range 4 {
		n, err := w.lab.StartNode(w.ctx, lab.Dhtnode{}, c)
		w.must(err)
		net.Nodes = append(net.Nodes, n)
	}
	w.must(net.Acquaint(w.ctx)) // each knows at least the three others
	w.must(door.WaitConnected(w.ctx))

	a, b := w.py(addrOf(door)), w.py(addrOf(door))
	w.pyPut(a, "met", []byte("through the door"), 5, "")
	if got := w.pyGet(b, "met"); !pyHas(got, 5, []byte("through the door")) {
		w.Errorf("the other client got %+v", got)
	}
	// They get on without the node that introduced them.
	door.Close()
	late := w.py(net.Nodes[3].Addr())
	if got := w.pyGet(late, "met"); !pyHas(got, 5, []byte("through the door")) {
		w.Errorf("without the door, a client got %+v", got)
	}
}

// TestOneKindStores has all values stored by nodes of one kind and all clients of
// the other.
func TestOneKindStores(t *testing.T) {
	t.Parallel()
	t.Run("Kith stores", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7103, "dhtnode", "python3-opendht")
		nodes := w.kiths(9)
		writer := w.py(addrOf(nodes[2]))
		for i := range 20 {
			w.pyPut(writer, fmt.Sprint("item ", i), payload(fmt.Sprint(i), 100*i+1), uint64(i+1), "")
		}
		writer.Kill() // it stores its own values, too
		reader, cli := w.py(addrOf(nodes[5])), w.cli(addrOf(nodes[7]), false)
		for i := range 20 {
			if got := w.pyGet(reader, fmt.Sprint("item ", i)); !pyHas(got, uint64(i+1), payload(fmt.Sprint(i), 100*i+1)) {
				w.Errorf("item %d: got %d values", i, len(got))
			}
		}
		id, err := cli.Put(w.ctx, "word", "spoken")
		w.must(err)
		cli.Kill()
		again := w.cli(addrOf(nodes[1]), false)
		if vs, err := again.Get(w.ctx, "word"); err != nil || len(vs) != 1 || vs[0].ID != id {
			w.Errorf("dhtnode got %+v, %v", vs, err)
		}
	})
	t.Run("dhtnode stores", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t, 7104, "dhtnode")
		net := w.reals(9)
		writer, stop := w.startKith(dht.Config{Bootstrap: []string{net.Nodes[2].Addr().String()}})
		for i := range 20 {
			w.put(writer, fmt.Sprint("item ", i), &dht.Value{ID: dht.ValueID(i + 1), Data: payload(fmt.Sprint(i), 100*i+1)})
		}
		stop()
		reader := w.kith(dht.Config{Bootstrap: []string{net.Nodes[5].Addr().String()}})
		for i := range 20 {
			if got := w.get(reader, fmt.Sprint("item ", i), everything); !has(got, dht.ValueID(i+1), payload(fmt.Sprint(i), 100*i+1)) {
				w.Errorf("item %d: got %q", i, quote(got))
			}
		}
	})
}
