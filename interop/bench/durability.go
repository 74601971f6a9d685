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

// Mixed measures a network of two kinds of node while half of either dies.
type Mixed struct {
	Kinds    [2]lab.NodeKind
	Client   ClientKind
	Nodes    int // of each kind
	Rounds   int
	Count    int // values
	Size     int
	Window   int
	Settle   time.Duration
	Progress io.Writer
}

// Run does the measurement.
func (b Mixed) Run(ctx context.Context) (*Report, error) {
	r := &Report{
		Bench:    "mixed",
		Settings: map[string]any{"nodes": 2 * b.Nodes, "count": b.Count, "size": b.Size, "settle": b.Settle.String()},
		Columns:  []string{"ops/s", "p50 ms", "p99 ms", "first p50 ms", "ok", "of"},
	}
	for round := 1; round <= b.Rounds; round++ {
		say(b.Progress, "round %d", round)
		rows, err := b.round(ctx)
		for _, row := range rows {
			row.Round = round
			r.Rows = append(r.Rows, row)
		}
		if err != nil {
			return r, fmt.Errorf("mixed network, round %d: %w", round, err)
		}
	}
	return r, nil
}

func (b Mixed) round(ctx context.Context) ([]Row, error) {
	site, err := newSite(lab.Impairment{})
	if err != nil {
		return nil, err
	}
	defer site.close()
	var kinds []lab.NodeKind
	for range b.Nodes {
		kinds = append(kinds, b.Kinds[0], b.Kinds[1])
	}
	net, err := site.start(ctx, kinds, b.Settle)
	if err != nil {
		return nil, err
	}
	var clients [2]Client
	for i := range clients {
		if clients[i], err = site.client(ctx, b.Client, net); err != nil {
			return nil, err
		}
	}
	var rows []Row
	phase := func(name, op, prefix string, client Client) error {
		samples, took, err := client.Bulk(ctx, lab.Bulk{
			Op: op, Prefix: prefix, Count: b.Count, Size: b.Size, Window: b.Window, Timeout: opTimeout,
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		kinds := b.Kinds[0].Name() + "+" + b.Kinds[1].Name()
		rows = append(rows, Row{Nodes: kinds, Client: b.Client.Name(), Op: name, Values: summary(samples, took)})
		return nil
	}
	if err := phase("put, all alive", "put", "before-", clients[0]); err != nil {
		return rows, err
	}
	if err := phase("get, all alive", "get", "before-", clients[1]); err != nil {
		return rows, err
	}
	// Nodes alternate in kind; of every four, the last two die: half of either.
	// They die one by one while the reader works.
	killed := make(chan struct{})
	go func() {
		defer close(killed)
		for i, node := range net.Nodes {
			if i%4 >= 2 {
				node.Kill()
				pause(ctx, 10*time.Millisecond)
			}
		}
	}()
	err = phase("get, half dying", "get", "before-", clients[1])
	<-killed
	if err != nil {
		return rows, err
	}
	for _, p := range []struct {
		name, op, prefix string
		client           int
	}{
		{"put, half dead", "put", "after-", 0},
		{"get old, half dead", "get", "before-", 1},
		{"get new, half dead", "get", "after-", 1},
	} {
		if err := phase(p.name, p.op, p.prefix, clients[p.client]); err != nil {
			return rows, err
		}
	}
	return rows, nil
}
