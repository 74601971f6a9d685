package kadsim

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity/identitytest"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// Acknowledged puts into a network that has just started are all found.
func TestFreshNetwork(t *testing.T) {
	t.Parallel()
	w := New(21, wan)
	for range 64 { // all at once, as a laboratory starts
		w.Add(kad.Config{}, 1)
	}
	w.Run(20 * time.Second)
	n := scaled(1000)
	keys := make([]wire.Key, n)
	acked, open := make([]bool, n), 0
	for i := range keys {
		keys[i] = w.RandomKey()
		h := w.Pick()
		open++
		h.Do(func(now time.Time, out *kad.Outbox) {
			v := &wire.Value{ID: 1, Data: fmt.Append(nil, i)}
			h.Core.Put(now, keys[i], v, time.Time{}, false, func(err error) { open--; acked[i] = err == nil }, out)
		})
		w.Run(20 * time.Millisecond)
	}
	w.RunUntil(time.Minute, func() bool { return open == 0 })
	lost, ok := 0, 0
	for i, key := range keys {
		if !acked[i] {
			continue
		}
		ok++
		if got := get(t, w, w.Pick(), key); len(got) != 1 {
			lost++
		}
	}
	t.Logf("%d of %d puts acknowledged, %d lost", ok, n, lost)
	if ok < n || lost > 0 {
		t.Error("acknowledged values are lost")
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0.01, 0.02, 0.05} {
		for _, size := range []int{50, 64_000} {
			t.Run(fmt.Sprintf("%v of %d bytes", loss, size), func(t *testing.T) {
				w := New(31, simnet.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: loss, Reorder: 0.05, Duplicate: 0.01})
				grow(w, 50)
				w.Run(10 * time.Second)
				text := strings.Repeat("x", size)
				n := scaled(40)
				if size > 1000 {
					n = scaled(16)
				}
				var total, worst time.Duration
				for range n {
					key := w.RandomKey()
					put(t, w, w.Pick(), key, text)
					begun := w.Now
					if got := get(t, w, w.Pick(), key); len(got) != 1 || got[0] != text {
						t.Errorf("%d values are found", len(got))
					}
					total += w.Now.Sub(begun)
					worst = max(worst, w.Now.Sub(begun))
				}
				t.Logf("get: mean %v, worst %v", total/time.Duration(n), worst)
			})
		}
	}
}

// events collects what a listen is told.
func listenAt(h *Host, key wire.Key) *[]string {
	list := new([]string)
	h.Do(func(now time.Time, out *kad.Outbox) {
		h.Core.Listen(now, key, wire.Query{}, func(v *wire.Value, expired bool) {
			s := string(v.Data)
			if expired {
				s = "-" + s
			}
			*list = append(*list, s)
		}, out)
	})
	return list
}

func signed(t *testing.T, id wire.ValueID, seq uint16, text string) *wire.Value {
	t.Helper()
	k := identitytest.Key(0)
	v := &wire.Value{ID: id, Seq: seq, Data: []byte(text), Owner: k.Public().DER()}
	sig, err := k.Sign(v.SignedBytes())
	if err != nil {
		t.Fatal(err)
	}
	v.Signature = sig
	return v
}

func putValue(t *testing.T, w *World, h *Host, key wire.Key, v *wire.Value, permanent bool) *kad.Put {
	t.Helper()
	done := false
	var err error
	var p *kad.Put
	h.Do(func(now time.Time, out *kad.Outbox) {
		p = h.Core.Put(now, key, v, time.Time{}, permanent, func(e error) { done, err = true, e }, out)
	})
	if !w.RunUntil(time.Minute, func() bool { return done }) || err != nil {
		t.Fatalf("put: done %v, error %v", done, err)
	}
	return p
}

func same(t *testing.T, what string, got *[]string, want ...string) {
	t.Helper()
	if fmt.Sprint(*got) != fmt.Sprint(want) {
		t.Errorf("%s: events %q, want %q", what, *got, want)
	}
	*got = nil
}

func TestListen(t *testing.T) {
	t.Parallel()
	w := New(41, wan)
	grow(w, 60)
	w.Run(10 * time.Second)
	key := w.RandomKey()
	put(t, w, w.Alive()[3], key, "before")
	events := listenAt(w.Alive()[10], key)
	w.Run(5 * time.Second)
	same(t, "what is there", events, "before")
	put(t, w, w.Alive()[4], key, "after")
	w.Run(2 * time.Second)
	same(t, "what comes", events, "after")
	putValue(t, w, w.Alive()[5], key, signed(t, 7, 1, "v1"), false)
	w.Run(2 * time.Second)
	putValue(t, w, w.Alive()[6], key, signed(t, 7, 2, "v2"), false)
	w.Run(2 * time.Second)
	same(t, "an edit", events, "v1", "v2")
	if got := get(t, w, w.Alive()[20], key); len(got) != 3 {
		t.Errorf("after the edit there is %q", got)
	}
	w.Run(9 * time.Minute)
	same(t, "nothing changes", events)
	w.Run(2 * time.Minute)
	slices.Sort(*events)
	// A node that the edit did not reach may have kept the first version.
	if *events = slices.DeleteFunc(*events, func(s string) bool { return s == "-v1" }); len(*events) != 3 {
		t.Errorf("at the end: %q", *events)
	}
	same(t, "at the end", events, "-after", "-before", "-v2")
	if got := get(t, w, w.Alive()[20], key); len(got) != 0 {
		t.Errorf("expired values are found: %q", got)
	}
	put(t, w, w.Alive()[4], key, "again") // the listen goes on
	w.Run(2 * time.Second)
	same(t, "after long", events, "again")
}

// A value that is kept alive outlives its type, and those who hold it.
func TestPermanent(t *testing.T) {
	t.Parallel()
	w := New(51, wan)
	grow(w, 60)
	w.Run(10 * time.Second)
	key := w.RandomKey()
	owner := w.Alive()[0]
	p := putValue(t, w, owner, key, &wire.Value{ID: 3, Data: []byte("stay")}, true)
	events := listenAt(w.Alive()[30], key)
	for range 3 {
		w.Run(10 * time.Minute)
		if got := get(t, w, w.Alive()[20], key); len(got) != 1 {
			t.Errorf("at %v there is %q", w.Now.Sub(start()), got)
		}
	}
	same(t, "kept alive", events, "stay")
	// All who hold it die.
	killed := 0
	for i := len(w.Alive()) - 1; i >= 0; i-- {
		if h := w.Alive()[i]; h != owner && h.Core.Info(w.Now).Values > 0 {
			w.Kill(h)
			killed++
		}
	}
	if killed < 8 {
		t.Errorf("only %d nodes hold it", killed)
	}
	w.Run(10 * time.Minute)
	reader := w.Alive()[len(w.Alive())-1]
	if got := get(t, w, reader, key); len(got) != 1 {
		t.Errorf("after all holders died there is %q", got)
	}
	copies := 0
	for _, h := range w.Alive() {
		if h.Core.Info(w.Now).Values > 0 {
			copies++
		}
	}
	if copies < 8 {
		t.Errorf("%d copies are there", copies)
	}
	owner.Do(func(now time.Time, out *kad.Outbox) { owner.Core.CancelPut(now, p, out) })
	w.Run(12 * time.Minute)
	if got := get(t, w, reader, key); len(got) != 0 {
		t.Errorf("after the cancel there is %q", got)
	}
}

// A node that gets another address goes on: its listens, its puts and those who
// know it.
func TestAddressChange(t *testing.T) {
	t.Parallel()
	w := New(61, wan)
	grow(w, 60)
	w.Run(30 * time.Second)
	h := w.Alive()[10]
	key := w.RandomKey()
	events := listenAt(h, key)
	kept := w.RandomKey()
	putValue(t, w, h, kept, &wire.Value{ID: 3, Data: []byte("mine")}, true)
	w.Run(time.Second)
	w.Move(h, netip.MustParseAddrPort("203.0.113.77:4999"))
	w.Run(10 * time.Second)
	put(t, w, w.Alive()[4], key, "news")
	w.Run(3 * time.Second)
	same(t, "after the move", events, "news")
	put(t, w, h, w.RandomKey(), "x")
	w.Run(20 * time.Minute)
	if got := get(t, w, w.Alive()[20], kept); len(got) != 1 {
		t.Errorf("what it keeps alive: %q", got)
	}
	knows := 0
	for _, other := range w.Alive() {
		for _, n := range other.Core.Nodes(w.Now) {
			if n.ID == h.Core.Self() {
				knows++
				if n.Addr != h.Addr {
					t.Errorf("it is known at %s", n.Addr)
				}
			}
		}
	}
	if knows < 20 {
		t.Errorf("%d of 60 know it at its new address", knows)
	}
}

// The same seed gives the same packets also with listens, publications, moves and
// nodes that come and go.
func TestDeterminismOfEverything(t *testing.T) {
	t.Parallel()
	run := func(seed uint64) (uint64, string) {
		w := New(seed, simnet.Link{Latency: 10 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.03, Duplicate: 0.01})
		grow(w, 50)
		var all []*[]string
		keys := make([]wire.Key, 12)
		for i := range keys {
			keys[i] = w.RandomKey()
		}
		for i := range 200 {
			h := w.Pick()
			key := keys[i%len(keys)]
			switch i % 5 {
			case 0:
				all = append(all, listenAt(h, key))
			case 1, 2:
				h.Do(func(now time.Time, out *kad.Outbox) {
					v := &wire.Value{ID: wire.ValueID(i + 1), Data: fmt.Append(nil, strings.Repeat("x", i*20), i), Type: wire.TypeID(i % 6 * 3)}
					h.Core.Put(now, key, v, time.Time{}, i%2 == 0, func(error) {}, out)
				})
			case 3:
				h.Do(func(now time.Time, out *kad.Outbox) {
					h.Core.Get(now, key, wire.Query{}, func(*wire.Value) {}, func(error) {}, out)
				})
			case 4:
				if i%20 == 4 {
					w.Move(h, netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, byte(i), 113, 1}), 4222))
				} else {
					w.Kill(h)
					w.Add(kad.Config{}, 2)
				}
			}
			w.Run(3 * time.Second)
		}
		text := ""
		for _, list := range all {
			text += fmt.Sprintln(len(*list), *list)
		}
		return w.Digest(), fmt.Sprint(len(text))
	}
	digest, events := run(71)
	for range 2 {
		if d, e := run(71); d != digest || e != events {
			t.Errorf("digests %x and %x, events %s and %s", digest, d, events, e)
		}
	}
	if d, _ := run(72); d == digest {
		t.Error("another seed gives the same packets")
	}
}
