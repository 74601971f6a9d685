//go:build linux

// Package bench measures DHT nodes from outside, over UDP, side by side with the
// reference implementation: single requests, lookups, delay and loss, loss of
// acknowledged values, mixed networks, and idle cost.
//
// Every benchmark starts its own nodes in a [lab.Lab] and ends them; what it
// starts dies with its context. Wall-clock figures depend on the machine and its
// load: compare runs of the same hour only, and trust CPU per operation and
// messages per operation more.
package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kith-im/kith/interop/lab"
)

// Row is one line of results. Values are found by column name; a column without
// a value was not measured.
type Row struct {
	Nodes  string             `json:"nodes"`  // kind of node under test
	Client string             `json:"client"` // kind of client, if one took part
	Op     string             `json:"op"`
	Round  int                `json:"round,omitempty"` // 1 and up; 0 when over all rounds
	Values map[string]float64 `json:"values"`
}

// Report is the outcome of a benchmark.
type Report struct {
	Bench    string         `json:"bench"`
	Settings map[string]any `json:"settings"`
	Columns  []string       `json:"columns"`
	Rows     []Row          `json:"rows"`
}

// JSON writes the report as one document.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	keys := make([]string, 0, len(r.Settings))
	for k := range r.Settings {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	fmt.Fprintf(w, "%s:", r.Bench)
	for _, k := range keys {
		fmt.Fprintf(w, " %s=%v", k, r.Settings[k])
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(tw, "nodes\tclient\top\tround\t%s\t\n", strings.Join(r.Columns, "\t"))
	for _, row := range r.Rows {
		round := "all"
		if row.Round > 0 {
			round = fmt.Sprint(row.Round)
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t", row.Nodes, row.Client, row.Op, round)
		for _, c := range r.Columns {
			if v, ok := row.Values[c]; ok {
				fmt.Fprintf(tw, "%s\t", short(v))
			} else {
				fmt.Fprint(tw, "-\t")
			}
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// short writes a number with three digits that count.
func short(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.3f", v)
	}
}

// quantile gives the value below which the fraction q of the sorted list lies.
func quantile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// summary gives the figures of a workload: ops/s, latencies in milliseconds, and
// the share that went well.
func summary(samples []lab.Sample, took time.Duration) map[string]float64 {
	var all, first []float64
	ok := 0
	for _, s := range samples {
		if s.OK {
			ok++
		}
		all = append(all, ms(s.Latency))
		if s.First >= 0 {
			first = append(first, ms(s.First))
		}
	}
	slices.Sort(all)
	slices.Sort(first)
	v := map[string]float64{
		"ops/s":  float64(len(samples)) / took.Seconds(),
		"p50 ms": quantile(all, 0.5),
		"p99 ms": quantile(all, 0.99),
		"ok":     float64(ok),
		"of":     float64(len(samples)),
	}
	if len(first) > 0 {
		v["first p50 ms"] = quantile(first, 0.5)
		v["first p99 ms"] = quantile(first, 0.99)
	}
	return v
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
