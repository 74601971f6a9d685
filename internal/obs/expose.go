package obs

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxLabels     = 8
	maxLabelValue = 128 // bytes
	contentType   = "text/plain; version=0.0.4; charset=utf-8"
)

// WriteTo writes all metrics in the Prometheus text format 0.0.4, names and labels
// in alphabetical order, and returns the bytes written and the error of w.
func (r *Registry) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, f := range r.snapshot() {
		f.expose(&b)
	}
	n, err := b.WriteTo(w)
	if err != nil {
		return n, fmt.Errorf("write metrics: %w", err)
	}
	return n, nil
}

// ServeHTTP answers GET and HEAD with the metrics; it makes a *Registry an
// [http.Handler]. It asks for no authentication: whoever mounts it decides who may
// read.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "metrics are read with GET", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", contentType)
	// An error here means that the reader went away; there is nobody to tell.
	_, _ = r.WriteTo(w)
}

// exposed is a family as it was at one moment, so that metric functions run
// without the registry's lock.
type exposed struct {
	*family
	keys []string
	rows []series
}

func (r *Registry) snapshot() []exposed {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]exposed, 0, len(r.families))
	for _, name := range slices.Sorted(maps.Keys(r.families)) {
		e := exposed{family: r.families[name]}
		e.keys = slices.Sorted(maps.Keys(e.series))
		for _, key := range e.keys {
			e.rows = append(e.rows, *e.series[key])
		}
		all = append(all, e)
	}
	return all
}

func (e *exposed) expose(b *bytes.Buffer) {
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", e.name, escape(e.help, false), e.name, e.kind)
	for i, s := range e.rows {
		key := e.keys[i]
		switch {
		case s.counter != nil:
			fmt.Fprintf(b, "%s%s %d\n", e.name, braces(key), s.counter.Value())
		case s.gauge != nil:
			fmt.Fprintf(b, "%s%s %s\n", e.name, braces(key), number(s.gauge.Value()))
		case s.histogram != nil:
			s.histogram.expose(b, e.name, key)
		case s.read != nil:
			fmt.Fprintf(b, "%s%s %s\n", e.name, braces(key), number(s.read()))
		}
	}
}

// expose derives the total from the buckets that it has just read: with figures
// that change meanwhile, the two would otherwise disagree.
func (h *Histogram) expose(b *bytes.Buffer, name, key string) {
	prefix := key
	if prefix != "" {
		prefix += ","
	}
	var total uint64
	for i := range h.counts {
		bound := math.Inf(1)
		if i < len(h.bounds) {
			bound = h.bounds[i]
		}
		total += h.counts[i].Load()
		fmt.Fprintf(b, "%s_bucket{%sle=%q} %d\n", name, prefix, number(bound), total)
	}
	sum := math.Float64frombits(h.sum.Load())
	fmt.Fprintf(b, "%s_sum%s %s\n%s_count%s %d\n", name, braces(key), number(sum), name, braces(key), total)
}

func braces(key string) string {
	if key == "" {
		return ""
	}
	return "{" + key + "}"
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// renderLabels returns the sorted names and the text between the braces.
func renderLabels(metric string, labels []Label) (names []string, key string) {
	if !validName(metric, true) || len(labels) > maxLabels {
		panic(fmt.Sprintf("obs: metric %q has a bad name or more than %d labels", metric, maxLabels))
	}
	sorted := slices.SortedFunc(slices.Values(labels), func(a, b Label) int {
		return cmp.Compare(a.Name, b.Name)
	})
	var b strings.Builder
	for i, l := range sorted {
		if !validName(l.Name, false) || l.Name == "le" || i > 0 && sorted[i-1].Name == l.Name {
			panic(fmt.Sprintf("obs: metric %s has the bad label name %q", metric, l.Name))
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(l.Name + `="` + escape(clip(l.Value), true) + `"`)
		names = append(names, l.Name)
	}
	return names, b.String()
}

func overflowLabels(names []string) []Label {
	labels := make([]Label, len(names))
	for i, name := range names {
		labels[i] = Label{name, overflowValue}
	}
	return labels
}

func validName(s string, colon bool) bool {
	if s == "" || !colon && strings.HasPrefix(s, "__") {
		return false
	}
	for i, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_', colon && c == ':':
		case '0' <= c && c <= '9' && i > 0:
		default:
			return false
		}
	}
	return true
}

// clip makes s valid UTF-8 of at most maxLabelValue bytes.
func clip(s string) string {
	s = strings.ToValidUTF8(s, string(utf8.RuneError))
	if len(s) <= maxLabelValue {
		return s
	}
	end := maxLabelValue
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// escape makes s fit a help line or, with quotes, a label value.
func escape(s string, quotes bool) string {
	s = strings.ReplaceAll(s, `\`, `\\`)
	s = strings.ReplaceAll(s, "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}
