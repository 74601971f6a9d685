package obs_test

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kith-im/kith/internal/obs"
)

func text(t *testing.T, r *obs.Registry) string {
	t.Helper()
	var b strings.Builder
	n, err := r.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v for %d bytes", n, err, b.Len())
	}
	return b.String()
}

func TestExpositionGolden(t *testing.T) {
	var r obs.Registry
	r.Counter("kith_packets_total", "Packets, by direction.\nTwo lines, one \\.", obs.Label{Name: "dir", Value: "in"}).Add(7)
	r.Counter("kith_packets_total", "ignored", obs.Label{Name: "dir", Value: "a\"b\\c\nd\xff"}).Inc()
	r.Gauge("kith_nodes", "Nodes known.").Set(12.5)
	r.GaugeFunc("kith_up", "Always one.", func() float64 { return 1 })
	r.CounterFunc("kith_bytes_total", "Bytes.", func() float64 { return 1 << 40 },
		obs.Label{Name: "z", Value: "1"}, obs.Label{Name: "a", Value: "2"})
	h := r.Histogram("kith_search_seconds", "Search time.", []float64{0.1, 1}, obs.Label{Name: "op", Value: "get"})
	for _, v := range []float64{0.05, 0.1, 0.5, 2, math.NaN()} {
		h.Observe(v)
	}
	r.Gauge("kith_limit", "No limit.").Set(math.Inf(1))

	want, err := os.ReadFile(filepath.Join("testdata", "metrics.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text(t, &r)); diff != "" {
		t.Errorf("exposition differs (-want +got):\n%s", diff)
	}
}

func TestNilRegistryGivesMetricsThatWork(t *testing.T) {
	var r *obs.Registry
	c := r.Counter("a_total", "")
	c.Inc()
	g := r.Gauge("b", "")
	g.Add(-2)
	r.Histogram("c", "", nil).Observe(1)
	r.GaugeFunc("d", "", func() float64 { return 1 })
	if c.Value() != 1 || g.Value() != -2 {
		t.Errorf("values are %d and %v", c.Value(), g.Value())
	}
	if got := text(t, r); got != "" {
		t.Errorf("a nil registry shows %q", got)
	}
}

func TestSameNameAndLabelsGiveTheSameMetric(t *testing.T) {
	var r obs.Registry
	a := r.Counter("a_total", "", obs.Label{Name: "x", Value: "1"}, obs.Label{Name: "y", Value: "2"})
	b := r.Counter("a_total", "", obs.Label{Name: "y", Value: "2"}, obs.Label{Name: "x", Value: "1"})
	if a != b {
		t.Error("the order of labels matters")
	}
	r.GaugeFunc("f", "", func() float64 { return 1 })
	r.GaugeFunc("f", "", func() float64 { return 2 })
	if got := text(t, &r); !strings.Contains(got, "\nf 2\n") {
		t.Errorf("the second function does not replace the first: %s", got)
	}
}

func TestLabelSetsAreBounded(t *testing.T) {
	var r obs.Registry
	const all = 1000
	for i := range all {
		r.Counter("a_total", "", obs.Label{Name: "peer", Value: fmt.Sprint(i) + strings.Repeat("é", 200)}).Inc()
	}
	got := text(t, &r)
	if n := strings.Count(got, "a_total{"); n != 129 {
		t.Errorf("%d series", n)
	}
	if want := fmt.Sprintf("a_total{peer=\"other\"} %d\n", all-128); !strings.Contains(got, want) {
		t.Errorf("no %q in the exposition", want)
	}
	if len(got) > 129*200 || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("label values are not cut at a character: %d bytes", len(got))
	}
}

func TestContradictionsPanic(t *testing.T) {
	for name, f := range map[string]func(*obs.Registry){
		"kind":            func(r *obs.Registry) { r.Gauge("a_total", "") },
		"function":        func(r *obs.Registry) { r.CounterFunc("a_total", "", nil) },
		"label names":     func(r *obs.Registry) { r.Counter("a_total", "", obs.Label{Name: "x"}) },
		"metric name":     func(r *obs.Registry) { r.Counter("0a", "") },
		"label name":      func(r *obs.Registry) { r.Counter("b", "", obs.Label{Name: "a-b"}) },
		"label twice":     func(r *obs.Registry) { r.Counter("b", "", obs.Label{Name: "a"}, obs.Label{Name: "a"}) },
		"label le":        func(r *obs.Registry) { r.Counter("b", "", obs.Label{Name: "le"}) },
		"nine labels":     func(r *obs.Registry) { r.Counter("b", "", make([]obs.Label, 9)...) },
		"unsorted":        func(r *obs.Registry) { r.Histogram("h", "", []float64{2, 1}) },
		"equal bounds":    func(r *obs.Registry) { r.Histogram("h", "", []float64{1, 1}) },
		"infinite bound":  func(r *obs.Registry) { r.Histogram("h", "", []float64{1, math.Inf(1)}) },
		"too many bounds": func(r *obs.Registry) { r.Histogram("h", "", make([]float64, 65)) },
		"other buckets": func(r *obs.Registry) {
			r.Histogram("h", "", []float64{1})
			r.Histogram("h", "", []float64{2})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var r obs.Registry
			r.Counter("a_total", "")
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			f(&r)
		})
	}
}

func TestMetricFunctionsMayUseTheRegistry(t *testing.T) {
	var r obs.Registry
	r.GaugeFunc("a", "", func() float64 { return float64(r.Counter("b_total", "").Value()) })
	text(t, &r)
}

func TestMetricsAreSafeForConcurrentUse(t *testing.T) {
	var r obs.Registry
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 500 {
				r.Counter("c_total", "").Inc()
				r.Gauge("g", "").Add(1)
				r.Histogram("h", "", []float64{250}).Observe(float64(i))
				if i%100 == 0 {
					_, _ = r.WriteTo(&strings.Builder{})
				}
			}
		})
	}
	wg.Wait()
	for _, want := range []string{"\nc_total 2000\n", "\ng 2000\n", "h_bucket{le=\"250\"} 1004\n", "h_sum 499000\n", "h_count 2000\n"} {
		if got := text(t, &r); !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

func TestWriteToReportsTheWriter(t *testing.T) {
	var r obs.Registry
	r.Counter("a_total", "")
	if _, err := r.WriteTo(failing{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("error is %v", err)
	}
}

func TestHandler(t *testing.T) {
	var r obs.Registry
	obs.AddRuntime(&r)
	get := httptest.NewRecorder()
	r.ServeHTTP(get, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if ct := get.Header().Get("Content-Type"); get.Code != http.StatusOK || !strings.HasPrefix(ct, "text/plain; version=0.0.4") {
		t.Errorf("GET gives %d, %s", get.Code, ct)
	}
	for _, name := range []string{"go_goroutines", "go_memory_bytes"} {
		if body := get.Body.String(); !strings.Contains(body, "\n"+name+" ") || strings.Contains(body, "\n"+name+" 0\n") {
			t.Errorf("no figure for %s in %s", name, body)
		}
	}
	post := httptest.NewRecorder()
	r.ServeHTTP(post, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	if post.Code != http.StatusMethodNotAllowed || post.Header().Get("Allow") == "" {
		t.Errorf("POST gives %d", post.Code)
	}
}

func BenchmarkCounter(b *testing.B) {
	c := new(obs.Registry).Counter("a_total", "")
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Inc()
		}
	})
}
