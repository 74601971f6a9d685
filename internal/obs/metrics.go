package obs

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// maxSeries bounds the label sets of one metric. The next one is counted
	// under overflowValue, so that label values taken from the network cannot
	// fill memory.
	maxSeries     = 128
	maxBuckets    = 64
	overflowValue = "other"
)

// Label is one dimension of a metric. The name is fixed in code; the value is
// free text, of which 128 bytes are kept.
type Label struct{ Name, Value string }

// Registry is a set of metrics. Its zero value is ready to use, and a nil
// *Registry gives working metrics that nobody sees, so a package need not ask
// whether it is observed. It is safe for concurrent use.
//
// The methods that make a metric return the one that exists when name and labels
// are the same. They panic when the code contradicts itself: a bad metric or label
// name, or one name used for two kinds, sets of label names or sets of buckets.
type Registry struct {
	mu       sync.Mutex
	families map[string]*family
}

// family is all series of one name.
type family struct {
	name, help string
	kind       kind
	isFunc     bool     // read by functions
	labels     []string // sorted names
	buckets    []float64
	series     map[string]*series // by rendered labels; guarded by Registry.mu
}

type kind string

const (
	kindCounter   kind = "counter"
	kindGauge     kind = "gauge"
	kindHistogram kind = "histogram"
)

// series is the figures of one label set; exactly one field is set.
type series struct {
	counter   *Counter
	gauge     *Gauge
	histogram *Histogram
	read      func() float64 // guarded by Registry.mu
}

// Counter is a number that only grows. The zero value is ready to use.
type Counter struct{ n atomic.Uint64 }

// Inc adds one.
func (c *Counter) Inc() { c.n.Add(1) }

// Add adds n.
func (c *Counter) Add(n uint64) { c.n.Add(n) }

// Value returns the count.
func (c *Counter) Value() uint64 { return c.n.Load() }

// Gauge is a number that goes up and down. The zero value is ready to use.
type Gauge struct{ bits atomic.Uint64 }

// Set replaces the value.
func (g *Gauge) Set(v float64) { g.bits.Store(math.Float64bits(v)) }

// Add adds v, which may be negative.
func (g *Gauge) Add(v float64) { addFloat(&g.bits, v) }

// Value returns the present value.
func (g *Gauge) Value() float64 { return math.Float64frombits(g.bits.Load()) }

// Histogram counts observations by size. It comes from [Registry.Histogram].
type Histogram struct {
	bounds []float64       // ascending upper bounds, inclusive
	counts []atomic.Uint64 // one more than bounds: the last is for the rest
	sum    atomic.Uint64   // bits of a float64
}

// Observe counts one value. Not-a-number is ignored.
func (h *Histogram) Observe(v float64) {
	if math.IsNaN(v) {
		return
	}
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	addFloat(&h.sum, v)
}

func addFloat(bits *atomic.Uint64, v float64) {
	for {
		old := bits.Load()
		if bits.CompareAndSwap(old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

// DurationBuckets returns bounds in seconds, from 1 ms to 30 s, for times that a
// person or a timeout would notice.
func DurationBuckets() []float64 {
	return []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

// Counter returns the counter of that name and those labels. By convention the
// name ends in _total.
func (r *Registry) Counter(name, help string, labels ...Label) *Counter {
	return r.get(family{name: name, help: help, kind: kindCounter}, labels).counter
}

// Gauge returns the gauge of that name and those labels.
func (r *Registry) Gauge(name, help string, labels ...Label) *Gauge {
	return r.get(family{name: name, help: help, kind: kindGauge}, labels).gauge
}

// GaugeFunc registers a function that is asked for the value on every read, from
// the goroutine that reads. It must be safe to call at any time. A second function
// for the same name and labels replaces the first.
func (r *Registry) GaugeFunc(name, help string, read func() float64, labels ...Label) {
	r.setFunc(family{name: name, help: help, kind: kindGauge}, labels, read)
}

// CounterFunc is GaugeFunc for numbers that only grow and are counted elsewhere.
func (r *Registry) CounterFunc(name, help string, read func() float64, labels ...Label) {
	r.setFunc(family{name: name, help: help, kind: kindCounter}, labels, read)
}

// Histogram returns the histogram of that name and those labels. The buckets are
// ascending inclusive upper bounds, at most 64; nil means [DurationBuckets].
func (r *Registry) Histogram(name, help string, buckets []float64, labels ...Label) *Histogram {
	if buckets == nil {
		buckets = DurationBuckets()
	}
	if len(buckets) > maxBuckets || !slices.IsSortedFunc(buckets, ascending) || slices.ContainsFunc(buckets, notFinite) {
		panic(fmt.Sprintf("obs: buckets of %s are not at most %d ascending finite numbers", name, maxBuckets))
	}
	f := family{name: name, help: help, kind: kindHistogram, buckets: slices.Clone(buckets)}
	return r.get(f, labels).histogram
}

// ascending orders equal numbers as out of order: no two bounds may be the same.
func ascending(a, b float64) int {
	if a == b {
		return -1
	}
	return cmp.Compare(a, b)
}

func notFinite(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }

func (r *Registry) setFunc(f family, labels []Label, read func() float64) {
	f.isFunc = true
	s := r.get(f, labels)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.read = read
}

// get returns the series of f's name and labels, and makes it when it is new.
func (r *Registry) get(f family, labels []Label) *series {
	names, key := renderLabels(f.name, labels)
	f.labels = names
	if r == nil {
		return f.newSeries()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.families[f.name]
	if have == nil {
		if r.families == nil {
			r.families = make(map[string]*family)
		}
		have = &f
		have.series = make(map[string]*series)
		r.families[f.name] = have
	}
	if have.kind != f.kind || have.isFunc != f.isFunc ||
		!slices.Equal(have.labels, f.labels) || !slices.Equal(have.buckets, f.buckets) {
		panic("obs: " + f.name + " is registered twice with different kinds, labels or buckets")
	}
	s := have.series[key]
	if s == nil && len(have.series) >= maxSeries {
		_, key = renderLabels(f.name, overflowLabels(names))
		s = have.series[key]
	}
	if s == nil {
		s = f.newSeries()
		have.series[key] = s
	}
	return s
}

func (f *family) newSeries() *series {
	switch {
	case f.isFunc:
		return new(series)
	case f.kind == kindCounter:
		return &series{counter: new(Counter)}
	case f.kind == kindGauge:
		return &series{gauge: new(Gauge)}
	default:
		return &series{histogram: &Histogram{
			bounds: f.buckets,
			counts: make([]atomic.Uint64, len(f.buckets)+1),
		}}
	}
}
