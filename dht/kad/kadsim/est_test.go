package kadsim

import (
	"fmt"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

func TestEst(t *testing.T) {
	for _, n := range []int{64, 300, 1000} {
		w := New(1, wan)
		grow(w, n)
		w.Run(10 * time.Second)
		for range 3 {
			known := 0
			var wd, finds, gets, rounds uint64
			for _, h := range w.Alive() {
				i := h.Core.Info(w.Now).V4
				known += i.Known
				wd += h.Core.Stats().Widened
				finds += h.Core.Stats().Asked[wire.Find]
			}
			for i := range 50 {
				key := w.RandomKey()
				put(t, w, w.Pick(), key, fmt.Sprint(i))
				h := w.Pick()
				before := h.Core.Stats().Asked[wire.Get]
				b := w.Now
				get(t, w, h, key)
				gets += h.Core.Stats().Asked[wire.Get] - before
				rounds += uint64(w.Now.Sub(b) / time.Millisecond)
			}
			t.Log(n, "known", known/n, "widened", wd, "finds/node", finds/uint64(n), "gets", float64(gets)/50, "ms", rounds/50)
			w.Run(4 * time.Minute)
		}
	}
}
