package simnet

import (
	"slices"
	"testing"
	"time"
)

func TestEventQueue(t *testing.T) {
	d := dice{state: 1}
	var q eventQueue
	var want []event
	for range 1000 {
		e := event{at: time.Duration(d.next() % 20), flow: d.next() % 5, nth: d.next()}
		q.push(e)
		want = append(want, e)
	}
	slices.SortFunc(want, func(a, b event) int {
		switch {
		case a.before(&b):
			return -1
		case b.before(&a):
			return 1
		}
		return 0
	})
	for i, w := range want {
		if got := q.pop(); got != w {
			t.Fatalf("event %d is %+v, want %+v", i, got, w)
		}
	}
	if len(q) != 0 {
		t.Fatalf("%d events left", len(q))
	}
}
