package kadsim

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// A Scenario is a network's life to be measured: it grows, values are put into it,
// and while its nodes come and go the values are looked for. The zero value of a
// field means its default.
type Scenario struct {
	Nodes    int           // that run at any time, 2 to 1,000,000; default 1000
	Seed     uint64        // everything follows from it
	Link     simnet.Link   // between any two nodes; default 20 to 30 ms and 1 % loss
	Churn    float64       // share of the nodes that is replaced per minute, 0 to 1; default none
	Settle   time.Duration // before the values are put; default one minute
	Duration time.Duration // after that; default 10 minutes
	Puts     int           // values, each put once by a random node; default 100
	Size     int           // of a value in bytes, up to 64 KiB; default 64
	// Type of the values, which decides how long they live. They are looked for as
	// long as the network runs, so let Duration be shorter. The default is a type
	// that lives for a week.
	Type   wire.TypeID
	Rounds int        // how often all values are looked for in Duration; default 5
	Config kad.Config // of the nodes; Self and Rand are set for each
}

// DefaultLink is the link of scenarios that name none.
var DefaultLink = simnet.Link{Latency: 20 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01}

func (s Scenario) orDefault() (Scenario, error) {
	s.Nodes = cmp.Or(s.Nodes, 1000)
	s.Settle = cmp.Or(s.Settle, time.Minute)
	s.Duration = cmp.Or(s.Duration, 10*time.Minute)
	s.Puts = cmp.Or(s.Puts, 100)
	s.Size = cmp.Or(s.Size, 64)
	s.Rounds = cmp.Or(s.Rounds, 5)
	s.Type = cmp.Or(s.Type, wire.TypeTrustRequest)
	if s.Link == (simnet.Link{}) {
		s.Link = DefaultLink
	}
	switch {
	case s.Nodes < 2 || s.Nodes > 1e6:
		return s, fmt.Errorf("simulate %d nodes: want 2 to 1,000,000", s.Nodes)
	case s.Churn < 0 || s.Churn > 1:
		return s, fmt.Errorf("simulate a churn of %v per minute: want 0 to 1", s.Churn)
	case s.Puts < 0 || s.Rounds < 0 || s.Settle < 0 || s.Duration < 0:
		return s, errors.New("simulate: negative count or time")
	case s.Size < 8 || s.Size > wire.MaxValueSize:
		return s, fmt.Errorf("simulate values of %d bytes: want 8 to %d", s.Size, wire.MaxValueSize)
	}
	return s, nil
}

// Progress is how far a scenario is.
type Progress struct {
	Phase string        // "grow", "settle", "put" or "run"
	Part  float64       // of the phase, 0 to 1
	Time  time.Duration // simulated so far
	Nodes int           // that run
}

// A Report is what a scenario measured. All of it follows from the scenario.
type Report struct {
	Nodes    int        `json:"nodes"`
	Seed     uint64     `json:"seed"`
	Seconds  float64    `json:"simulated_seconds"`
	Joined   int        `json:"joined"` // nodes in all
	Left     int        `json:"left"`
	Put      Operations `json:"put"`
	Get      Operations `json:"get"`
	Survival []Survival `json:"survival"`
	Traffic  Traffic    `json:"traffic"` // after the network has settled, with the puts and gets
	Packets  uint64     `json:"packets"` // sent, in all
	Lost     uint64     `json:"lost"`    // of them
	Digest   string     `json:"digest"`  // of every packet that was delivered
}

// Operations sums up puts or gets.
type Operations struct {
	Count    int     `json:"count"`
	OK       int     `json:"ok"` // puts that were acknowledged, gets that found the value
	Success  float64 `json:"success"`
	Requests float64 `json:"requests"`     // per operation, without retries
	Rounds   float64 `json:"round_trips"`  // per operation, in times of the mean round trip
	P50      float64 `json:"p50_ms"`       // until done
	P99      float64 `json:"p99_ms"`       // until done
	First    float64 `json:"first_p50_ms"` // until the first value, of gets
}

// Survival is how many of the acknowledged values were found at a time.
type Survival struct {
	Seconds float64 `json:"seconds"` // since the puts
	Found   int     `json:"found"`
	Of      int     `json:"of"`
	// Replaced is the share of the nodes that ran when the values were put and are
	// gone since.
	Replaced float64 `json:"replaced"`
}

// Traffic is per node and second.
type Traffic struct {
	Bytes   float64 `json:"bytes_sent"`
	Packets float64 `json:"packets_sent"`
}

// Run runs a scenario and calls progress, which may be nil, now and then. It ends
// early with ctx's error.
func (s Scenario) Run(ctx context.Context, progress func(Progress)) (Report, error) {
	s, err := s.orDefault()
	if err != nil {
		return Report{}, err
	}
	r := &run{Scenario: s, ctx: ctx, progress: progress, w: New(s.Seed, s.Link)}
	for _, phase := range []struct {
		name string
		run  func() error
	}{
		{"grow", r.grow},
		{"settle", func() error { return r.pass(s.Settle, nil) }},
		{"put", r.put},
		{"run", r.watch},
	} {
		r.phase = phase.name
		if err := phase.run(); err != nil {
			return Report{}, fmt.Errorf("simulate: %s: %w", phase.name, err)
		}
	}
	return r.report(), nil
}

// run is a scenario that runs.
type run struct {
	Scenario
	ctx      context.Context
	progress func(Progress)
	phase    string
	w        *World
	left     int
	debt     float64 // nodes to be replaced

	settled        time.Time // since when traffic counts
	packets, bytes uint64    // then
	born           int       // nodes that ran when the values were put
	values         []*value
	putAt          time.Time
	puts, gets     tally
	survival       []Survival
	reported       time.Time
}

type value struct {
	key   wire.Key
	id    wire.ValueID
	acked bool
}

// step is how much simulated time passes at a go.
const step = 100 * time.Millisecond

// pass lets time pass with churn, until done when that is set.
func (r *run) pass(d time.Duration, done func() bool) error {
	end := r.w.Now.Add(d)
	for begun := r.w.Now; r.w.Now.Before(end); {
		if done != nil && done() {
			return nil
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		r.tell(float64(r.w.Now.Sub(begun)) / float64(d))
		r.w.Run(min(step, end.Sub(r.w.Now)))
		if r.phase == "grow" {
			continue
		}
		for r.debt += r.Churn * float64(r.Nodes) * step.Minutes(); r.debt >= 1; r.debt-- {
			r.w.Kill(r.w.Pick())
			r.left++
			r.w.Add(r.Config, 2)
		}
	}
	return nil
}

func (r *run) tell(part float64) {
	if r.progress != nil && r.w.Now.Sub(r.reported) >= time.Second {
		r.reported = r.w.Now
		r.progress(Progress{Phase: r.phase, Part: part, Time: r.w.Now.Sub(start()), Nodes: len(r.w.Alive())})
	}
}

// grow starts the nodes, a few more at a time the more there are.
func (r *run) grow() error {
	for n := 0; n < r.Nodes; n = len(r.w.Alive()) {
		for range min(1+n/20, r.Nodes-n) {
			r.w.Add(r.Config, 3)
		}
		if err := r.ctx.Err(); err != nil {
			return err
		}
		r.tell(float64(n) / float64(r.Nodes))
		r.w.Run(step)
	}
	return nil
}

// patience is how long an operation may take.
const patience = time.Minute

func (r *run) put() error {
	r.settled, r.packets, r.bytes = r.w.Now, r.w.Packets, r.w.Bytes
	r.putAt = r.w.Now
	r.born = len(r.w.Alive())
	open := 0
	for range r.Puts {
		v := &value{key: r.w.RandomKey(), id: wire.ValueID(r.w.rand.Uint64() | 1)}
		r.values = append(r.values, v)
		data := make([]byte, r.Size)
		for i := range data {
			data[i] = byte(r.w.rand.Uint32())
		}
		h := r.w.Pick()
		open++
		o := r.puts.begin(r.w, h)
		h.Do(func(now time.Time, out *kad.Outbox) {
			h.Core.Put(now, v.key, &wire.Value{ID: v.id, Type: r.Type, Data: data}, time.Time{}, false, func(err error) {
				open--
				v.acked = err == nil
				o.end(v.acked)
			}, out)
		})
		// One at a time, mostly, so that requests can be told apart.
		if err := r.pass(step, func() bool { return open == 0 }); err != nil {
			return err
		}
	}
	return r.pass(patience, func() bool { return open == 0 })
}

// watch looks for all values again and again.
func (r *run) watch() error {
	began := r.w.Now
	for i := range r.Rounds {
		at := began.Add(r.Duration * time.Duration(i+1) / time.Duration(r.Rounds))
		if err := r.pass(at.Sub(r.w.Now), nil); err != nil {
			return err
		}
		if err := r.look(); err != nil {
			return err
		}
	}
	if r.Rounds == 0 {
		return r.pass(r.Duration, nil)
	}
	return nil
}

func (r *run) look() error {
	sv := Survival{Seconds: r.w.Now.Sub(r.putAt).Seconds()}
	old := 0
	for _, h := range r.w.Alive() {
		if !h.Born.After(r.putAt) {
			old++
		}
	}
	sv.Replaced = 1 - float64(old)/float64(r.born)
	open := 0
	for _, v := range r.values {
		if !v.acked {
			continue
		}
		sv.Of++
		h := r.w.Pick()
		open++
		found := false
		o := r.gets.begin(r.w, h)
		h.Do(func(now time.Time, out *kad.Outbox) {
			h.Core.Get(now, v.key, wire.WhereID(v.id), func(*wire.Value) {
				if !found {
					found = true
					o.first()
				}
			}, func(error) {
				open--
				if found {
					sv.Found++
				}
				o.end(found)
			}, out)
		})
		if err := r.pass(step, func() bool { return open == 0 }); err != nil {
			return err
		}
	}
	// Nodes that leave take their open gets with them.
	if err := r.pass(5*time.Second, func() bool { return open == 0 }); err != nil {
		return err
	}
	sv.Of -= open
	r.gets.count -= open
	r.survival = append(r.survival, sv)
	return nil
}

func (r *run) report() Report {
	w := r.w
	rep := Report{
		Nodes: r.Nodes, Seed: r.Seed, Seconds: w.Now.Sub(start()).Seconds(), Joined: w.made, Left: r.left,
		Survival: r.survival, Packets: w.Packets, Lost: w.Lost, Digest: fmt.Sprintf("%016x", w.Digest()),
	}
	trip := 2*r.Link.Latency + r.Link.Jitter
	rep.Put, rep.Get = r.puts.sum(trip), r.gets.sum(trip)
	if d := w.Now.Sub(r.settled).Seconds() * float64(r.Nodes); d > 0 {
		rep.Traffic = Traffic{Bytes: float64(w.Bytes-r.bytes) / d, Packets: float64(w.Packets-r.packets) / d}
	}
	return rep
}

// A tally counts operations.
type tally struct {
	count, ok int
	requests  uint64
	times     []time.Duration
	firsts    []time.Duration
}

// An operation is one that goes on.
type operation struct {
	t     *tally
	w     *World
	h     *Host
	begun time.Time
	asked uint64
}

func asked(h *Host) uint64 {
	a := h.Core.Stats().Asked
	return a[wire.Find] + a[wire.Get] + a[wire.Put] + a[wire.Refresh]
}

func (t *tally) begin(w *World, h *Host) *operation {
	t.count++
	return &operation{t: t, w: w, h: h, begun: w.Now, asked: asked(h)}
}

func (o *operation) first() { o.t.firsts = append(o.t.firsts, o.w.Now.Sub(o.begun)) }

func (o *operation) end(ok bool) {
	if ok {
		o.t.ok++
	}
	o.t.requests += asked(o.h) - o.asked
	o.t.times = append(o.t.times, o.w.Now.Sub(o.begun))
}

func (t *tally) sum(trip time.Duration) Operations {
	s := Operations{Count: t.count, OK: t.ok}
	if len(t.times) == 0 {
		return s
	}
	total := time.Duration(0)
	for _, d := range t.times {
		total += d
	}
	n := float64(len(t.times))
	s.Success = float64(t.ok) / float64(t.count)
	s.Requests = float64(t.requests) / n
	if trip > 0 {
		s.Rounds = float64(total) / float64(trip) / n
	}
	s.P50, s.P99, s.First = quantile(t.times, 0.5), quantile(t.times, 0.99), quantile(t.firsts, 0.5)
	return s
}

// quantile returns milliseconds.
func quantile(list []time.Duration, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return float64(list[min(int(q*float64(len(list))), len(list)-1)].Microseconds()) / 1000
}
