package simnet

import "time"

// event is something that the world does at a time.
type event struct {
	at time.Duration // since the world began
	// Ties are broken by what the event is about rather than by who came first,
	// since goroutines that run at the same instant have no order.
	flow uint64
	nth  uint64
	do   action
}

// action is run with the world locked.
type action interface{ run(w *World) }

// actionFunc makes an action of a function.
type actionFunc func(w *World)

func (f actionFunc) run(w *World) { f(w) }

func (e *event) before(f *event) bool {
	if e.at != f.at {
		return e.at < f.at
	}
	if e.flow != f.flow {
		return e.flow < f.flow
	}
	return e.nth < f.nth
}

// eventQueue is a binary heap of events, the earliest at the root.
type eventQueue []event

func (q *eventQueue) push(e event) {
	h := append(*q, e)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
	*q = h
}

func (q *eventQueue) pop() event {
	h := *q
	first := h[0]
	last := len(h) - 1
	h[0], h[last] = h[last], event{}
	h = h[:last]
	*q = h
	i := 0
	for {
		down := 2*i + 1
		if down >= last {
			return first
		}
		if right := down + 1; right < last && h[right].before(&h[down]) {
			down = right
		}
		if !h[down].before(&h[i]) {
			return first
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
}

// now is the time since the world began.
func (w *World) now() time.Duration { return time.Since(w.epoch) }

// schedule queues an event. Those who call it call settle before they unlock the world.
func (w *World) schedule(e event) { w.events.push(e) }

// settle runs what is due and sets the timer for the rest. It is called with the
// world locked, and not from actions.
func (w *World) settle() {
	if w.closed {
		w.events = nil
		return
	}
	now := w.now()
	for len(w.events) > 0 && w.events[0].at <= now {
		e := w.events.pop()
		e.do.run(w)
	}
	if len(w.events) == 0 {
		return
	}
	next := w.events[0].at
	if w.armed != 0 && w.armed <= next {
		return
	}
	w.armed = next
	if w.timer == nil {
		w.timer = time.AfterFunc(next-now, w.tick)
	} else {
		w.timer.Reset(next - now)
	}
}

func (w *World) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = 0
	w.settle()
}
