//go:build linux

package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/kith-im/kith/interop/lab"
)

// Durability counts acknowledged values that a fresh client cannot read from a
// freshly started network.
type Durability struct {
	Subjects []Subject
	Nodes    int
	Rounds   int           // fresh networks for each subject
	Count    int           // puts in a round
	Size     int           // bytes of a value
	Window   int           // puts and gets under way at once
	Settle   time.Duration // age of the network at the first put
	Progress io.Writer
}

// Run does the measurement.
func (b Durability) Run(ctx context.Context) (*Report, error) {
	r := &Report{
		Bench:    "durability",
		Settings: map[string]any{"nodes": b.Nodes, "count": b.Count, "size": b.Size, "settle": b.Settle.String()},
		Columns:  []string{"acknowledged", "unreachable", "still unreachable", "put p99 ms", "get p99 ms"},
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, s := range b.Subjects {
			v, err := b.round(ctx, s)
			if err != nil {
				return r, fmt.Errorf("durability of %s, round %d: %w", s.Nodes.Name(), round, err)
			}
			say(b.Progress, "round %d: %s: %v of %v unreachable", round, s.Nodes.Name(), v["unreachable"], v["acknowledged"])
			r.Rows = append(r.Rows, Row{Nodes: s.Nodes.Name(), Client: s.Client.Name(), Op: "put+get", Round: round, Values: v})
		}
	}
	for _, s := range b.Subjects {
		sum := map[string]float64{}
		for _, row := range r.Rows {
			if row.Nodes == s.Nodes.Name() && row.Client == s.Client.Name() {
				for _, c := range r.Columns[:3] {
					sum[c] += row.Values[c]
				}
			}
		}
		r.Rows = append(r.Rows, Row{Nodes: s.Nodes.Name(), Client: s.Client.Name(), Op: "sum", Values: sum})
	}
	return r, nil
}

func (b Durability) round(ctx context.Context, s Subject) (map[string]float64, error) {
	site, err := newSite(lab.Impairment{})
	if err != nil {
		return nil, err
	}
	defer site.close()
	net, err := site.start(ctx, lab.Kinds(s.Nodes, b.Nodes), b.Settle)
	if err != nil {
		return nil, err
	}
	writer, err := site.client(ctx, s.Client, net)
	if err != nil {
		return nil, err
	}
	work := lab.Bulk{Op: "put", Prefix: "durable-", Count: b.Count, Size: b.Size, Window: b.Window, Timeout: opTimeout}
	puts, took, err := writer.Bulk(ctx, work)
	if err != nil {
		return nil, err
	}
	v := map[string]float64{"put p99 ms": summary(puts, took)["p99 ms"]}
	writer.Kill() // what only the publisher holds does not count

	reader, err := site.client(ctx, s.Client, net)
	if err != nil {
		return nil, err
	}
	work.Op = "get"
	gets, took, err := reader.Bulk(ctx, work)
	if err != nil {
		return nil, err
	}
	v["get p99 ms"] = summary(gets, took)["p99 ms"]
	for i := range puts {
		if !puts[i].OK {
			continue
		}
		v["acknowledged"]++
		if gets[i].OK {
			continue
		}
		v["unreachable"]++
		again := work
		again.First, again.Count = i, 1
		second, _, err := reader.Bulk(ctx, again)
		if err != nil {
			return nil, err
		}
		if !second[0].OK {
			v["still unreachable"]++
		}
	}
	for _, c := range []string{"acknowledged", "unreachable", "still unreachable"} {
		v[c] += 0 // a zero is a result too
	}
	return v, nil
}
