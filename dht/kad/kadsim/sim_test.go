package kadsim

import (
	"fmt"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

var wan = simnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01}

func grow(w *World, n int) {
	for len(w.Alive()) < n {
		w.Add(kad.Config{}, 2)
		w.Run(50 * time.Millisecond)
	}
}

func put(t *testing.T, w *World, h *Host, key wire.Key, text string) {
	t.Helper()
	done := false
	var err error
	v := &wire.Value{ID: wire.ValueID(w.Rand().Uint64() | 1), Data: []byte(text)}
	h.Do(func(now time.Time, out *kad.Outbox) {
		h.Core.Put(now, key, v, time.Time{}, false, func(e error) { done, err = true, e }, out)
	})
	if !w.RunUntil(time.Minute, func() bool { return done }) || err != nil {
		t.Fatalf("put: done %v, error %v", done, err)
	}
}

func get(t *testing.T, w *World, h *Host, key wire.Key) []string {
	t.Helper()
	done := false
	var list []string
	h.Do(func(now time.Time, out *kad.Outbox) {
		h.Core.Get(now, key, wire.Query{}, func(v *wire.Value) { list = append(list, string(v.Data)) }, func(error) { done = true }, out)
	})
	if !w.RunUntil(time.Minute, func() bool { return done }) {
		t.Fatal("get does not end")
	}
	return list
}

func TestPutGet(t *testing.T) {
	for _, n := range []int{2, 3, 16, 64, scaled(300)} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := New(1, wan)
			grow(w, n)
			w.Run(5 * time.Second)
			asked := uint64(0)
			for i := range 50 {
				key := w.RandomKey()
				put(t, w, w.Pick(), key, fmt.Sprint(i))
				h := w.Pick()
				before := h.Core.Stats().Asked[wire.Get]
				if got := get(t, w, h, key); len(got) != 1 || got[0] != fmt.Sprint(i) {
					t.Errorf("get %d: %q", i, got)
				}
				asked += h.Core.Stats().Asked[wire.Get] - before
			}
			t.Logf("%d nodes: %.1f requests per get", n, float64(asked)/50)
		})
	}
}
