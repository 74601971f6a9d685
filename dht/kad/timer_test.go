package kad

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestTimers(t *testing.T) {
	var h timers
	var ran []int
	list := make([]timer, 6)
	for i := range list {
		list[i].run = func() { ran = append(ran, i) }
	}
	at := func(s int) time.Time { return epoch.Add(time.Duration(s) * time.Second) }
	h.set(&list[0], at(3))
	h.set(&list[1], at(1))
	h.set(&list[2], at(2))
	h.set(&list[3], at(2)) // after 2, which was set before
	h.set(&list[4], at(9))
	h.set(&list[1], at(2)) // moved behind both
	h.stop(&list[0])
	h.stop(&list[0])
	h.stop(&list[5]) // never set
	list[2].run = func() {
		ran = append(ran, 2)
		h.set(&list[5], at(2)) // due at once
	}
	if next, ok := h.next(); !ok || !next.Equal(at(2)) {
		t.Errorf("next is %v, %v", next, ok)
	}
	h.runDue(at(5))
	if want := []int{2, 3, 1, 5}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
	if next, ok := h.next(); !ok || !next.Equal(at(9)) {
		t.Errorf("next is %v, %v", next, ok)
	}
	h.stop(&list[4])
	if _, ok := h.next(); ok {
		t.Error("a stopped timer is due")
	}
}

func TestTimersRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	var h timers
	var last time.Time
	list := make([]timer, 200)
	for i := range list {
		list[i].run = func() {
			if list[i].at.Before(last) {
				t.Error("timers run out of order")
			}
			last = list[i].at
		}
	}
	now := epoch
	set := 0
	for range 5000 {
		tm := &list[r.IntN(len(list))]
		switch r.IntN(4) {
		case 0:
			h.stop(tm)
		case 1:
			now = now.Add(time.Duration(r.IntN(100)))
			h.runDue(now)
		default:
			h.set(tm, now.Add(time.Duration(r.IntN(1000))))
		}
		set = 0
		for i := range list {
			if list[i].pos > 0 {
				set++
				if h.heap[list[i].pos-1] != &list[i] {
					t.Fatal("a timer has lost its place")
				}
			}
		}
		if set != len(h.heap) {
			t.Fatalf("%d timers are set, the heap has %d", set, len(h.heap))
		}
	}
}
