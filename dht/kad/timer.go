package kad

import "time"

// A timer is work that is due at a time. The zero value is not scheduled.
type timer struct {
	at  time.Time
	run func()
	seq uint64
	pos int // in the heap, from 1; 0 when not scheduled
}

// A timers is a heap of timers, earliest first and, among equals, in the order
// of scheduling, so that the same inputs always run in the same order.
type timers struct {
	heap []*timer
	seq  uint64
}

func (h *timers) less(i, j int) bool {
	a, b := h.heap[i], h.heap[j]
	if !a.at.Equal(b.at) {
		return a.at.Before(b.at)
	}
	return a.seq < b.seq
}

func (h *timers) swap(i, j int) {
	h.heap[i], h.heap[j] = h.heap[j], h.heap[i]
	h.heap[i].pos, h.heap[j].pos = i+1, j+1
}

// set schedules t, or moves it when it is scheduled already.
func (h *timers) set(t *timer, at time.Time) {
	h.seq++
	t.at, t.seq = at, h.seq
	if t.pos == 0 {
		h.heap = append(h.heap, t)
		t.pos = len(h.heap)
	}
	h.fix(t.pos - 1)
}

// stop takes t out; it is allowed when t is not scheduled.
func (h *timers) stop(t *timer) {
	if t.pos == 0 {
		return
	}
	i, last := t.pos-1, len(h.heap)-1
	h.swap(i, last)
	h.heap[last] = nil
	h.heap = h.heap[:last]
	t.pos = 0
	if i < last {
		h.fix(i)
	}
}

func (h *timers) fix(i int) {
	for i > 0 && h.less(i, (i-1)/2) {
		h.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		child := 2*i + 1
		if child >= len(h.heap) {
			return
		}
		if child+1 < len(h.heap) && h.less(child+1, child) {
			child++
		}
		if !h.less(child, i) {
			return
		}
		h.swap(i, child)
		i = child
	}
}

// next returns when the earliest timer is due.
func (h *timers) next() (time.Time, bool) {
	if len(h.heap) == 0 {
		return time.Time{}, false
	}
	return h.heap[0].at, true
}

// runDue runs what is due, including what that schedules for now.
func (h *timers) runDue(now time.Time) {
	for len(h.heap) > 0 && !h.heap[0].at.After(now) {
		t := h.heap[0]
		h.stop(t)
		t.run()
	}
}
