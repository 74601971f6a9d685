//go:build linux

package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/interop/lab"
)

// TestFlood has a client put far more than our nodes' default limits let one
// address ask at once. It must be slowed down, not shut out.
func TestFlood(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7161, "python3-opendht")
	limits := dht.Limits{Storage: 64 << 20} // the default, as all else is then
	door := w.kith(dht.Config{Limits: limits})
	for range 3 {
		w.kith(dht.Config{Limits: limits, Bootstrap: []string{addrOf(door).String()}})
	}
	py := w.py(addrOf(door))
	w.pyPut(py, "warm-up", []byte("x"), 0, "")
	const puts = 2000
	samples, took, err := py.Bulk(w.ctx, lab.Bulk{Op: "put", Prefix: "flood", Count: puts, Size: 64, Window: 64, Timeout: 30 * time.Second})
	w.must(err)
	good := 0
	for _, s := range samples {
		if s.OK {
			good++
		}
	}
	w.Logf("%d of %d puts acknowledged in %v", good, puts, took.Round(time.Millisecond))
	if good < puts*99/100 {
		w.Errorf("only %d of %d puts were acknowledged", good, puts)
	}
	reader := w.py(addrOf(door))
	samples, _, err = reader.Bulk(w.ctx, lab.Bulk{Op: "get", Prefix: "flood", Count: 100, Size: 64, Window: 8, Timeout: 30 * time.Second})
	w.must(err)
	for i, s := range samples {
		if !s.OK {
			w.Errorf("value %d is not found", i)
		}
	}
	w.pyPut(py, "afterwards", []byte("still welcome"), 1, "")
}

// TestOldTokens lets all tokens that a client has become invalid: our node is
// started again with its id and address, and with other secrets.
func TestOldTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7162, "python3-opendht")
	// An address that no other test takes while the node is down: none of the
	// ports that the system hands out.
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 71, 62}), 7162)
	node, stop := w.startKith(dht.Config{Addrs: []netip.AddrPort{addr}})
	py := w.py(addr)
	w.pyPut(py, "k", []byte("before"), 1, "")
	events, cancel, err := py.Listen(w.ctx, "k")
	w.must(err)
	defer cancel()
	w.pyValue(events, 1, []byte("before"))
	stop()
	again, _ := w.startKith(dht.Config{ID: node.ID(), Addrs: node.Addrs()})
	w.pyPut(py, "k", []byte("after"), 2, "")
	w.until("the node has the value", func() bool { return has(w.get(again, "k", everything), 2, []byte("after")) })
	w.pyPut(py, "k", []byte("and more"), 3, "")
	w.pyValue(events, 3, []byte("and more"))
}

// TestRefusedPuts has a client's puts refused, which we say in a key that it does
// not know, and go on.
func TestRefusedPuts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 7163, "python3-opendht")
	nodes := w.kiths(3)
	w.put(nodes[0], "k", &dht.Value{ID: 1, Data: []byte("first")})
	py := w.py(addrOf(nodes[1]))
	w.pyPut(py, "warm-up", []byte("x"), 0, "")
	for i := range 20 {
		if _, err := py.Put(w.ctx, "k", fmt.Append(nil, "second ", i), 1, ""); err != nil {
			w.Fatal(err)
		}
	}
	if got := w.get(nodes[2], "k", everything); !has(got, 1, []byte("first")) {
		w.Errorf("got %q", quote(got))
	}
	for i := range 20 {
		w.pyPut(py, "k", fmt.Append(nil, "new ", i), uint64(10+i), "")
	}
	reader := w.kith(dht.Config{Bootstrap: []string{addrOf(nodes[1]).String()}, ReadOnly: true})
	got := w.get(reader, "k", everything)
	for i := range 20 {
		if !has(got, dht.ValueID(10+i), fmt.Append(nil, "new ", i)) {
			w.Errorf("put %d after the refusals is missing", i)
		}
	}
	// Ours are told.
	if err := reader.Put(w.ctx, keyOf("k"), &dht.Value{ID: 1, Data: []byte("third")}); !errors.Is(err, dht.ErrRefused) {
		w.Errorf("a put under a taken id: %v, want a refusal", err)
	}
}
