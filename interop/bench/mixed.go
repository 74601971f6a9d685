//go:build linux

package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/kith-im/kith/interop/lab"
)

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
	writer, err := site.client(ctx, b.Client, net)
	if err != nil {
		return nil, err
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
	if err := phase("put, all alive", "put", "before-", writer); err != nil {
		return rows, err
	}
	// Readers come after the puts: as nodes they would store some of the values.
	reader, err := site.client(ctx, b.Client, net)
	if err != nil {
		return rows, err
	}
	if err := phase("get, all alive", "get", "before-", reader); err != nil {
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
	err = phase("get, half dying", "get", "before-", reader)
	<-killed
	if err != nil {
		return rows, err
	}
	if err := phase("put, half dead", "put", "after-", writer); err != nil {
		return rows, err
	}
	if err := phase("get old, half dead", "get", "before-", reader); err != nil {
		return rows, err
	}
	if reader, err = site.client(ctx, b.Client, net); err != nil {
		return rows, err
	}
	return rows, phase("get new, half dead", "get", "after-", reader)
}
