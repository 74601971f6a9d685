//go:build linux

package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/kith-im/kith/interop/lab"
)

// Idle measures what nodes cost that nobody uses.
type Idle struct {
	Kinds    []lab.NodeKind
	Nodes    int // in each network; 1 is a lone node
	Rounds   int
	Settle   time.Duration
	For      time.Duration // how long to watch
	Progress io.Writer
}

// Run does the measurement. Figures are means over the nodes of a network.
func (b Idle) Run(ctx context.Context) (*Report, error) {
	r := &Report{
		Bench:    "idle",
		Settings: map[string]any{"nodes": b.Nodes, "settle": b.Settle.String(), "for": b.For.String()},
		Columns:  []string{"RSS MiB", "threads", "CPU %", "datagrams/min", "bytes/min"},
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, kind := range b.Kinds {
			say(b.Progress, "round %d: %d %s nodes", round, b.Nodes, kind.Name())
			v, err := b.watch(ctx, kind)
			if err != nil {
				return r, fmt.Errorf("idle %s: %w", kind.Name(), err)
			}
			r.Rows = append(r.Rows, Row{Nodes: kind.Name(), Op: "idle", Round: round, Values: v})
		}
	}
	return r, nil
}

func (b Idle) watch(ctx context.Context, kind lab.NodeKind) (map[string]float64, error) {
	site, err := newSite(lab.Impairment{})
	if err != nil {
		return nil, err
	}
	defer site.close()
	net, err := site.start(ctx, lab.Kinds(kind, b.Nodes), b.Settle)
	if err != nil {
		return nil, err
	}
	before, err := site.nodes.Traffic()
	if err != nil {
		return nil, err
	}
	cpu, start := net.CPU(), time.Now()
	if err := pause(ctx, b.For); err != nil {
		return nil, err
	}
	took, n := time.Since(start), float64(len(net.Nodes))
	v := map[string]float64{"CPU %": 100 * (net.CPU() - cpu).Seconds() / took.Seconds() / n}
	for _, node := range net.Nodes {
		u, err := node.Usage()
		if err != nil {
			return nil, err
		}
		v["RSS MiB"] += float64(u.RSS) / (1 << 20) / n
		v["threads"] += float64(u.Threads) / n
	}
	if site.counts() {
		after, err := site.nodes.Traffic()
		if err != nil {
			return nil, err
		}
		d := after.Sub(before)
		v["datagrams/min"] = float64(d.Datagrams) / took.Minutes() / n
		v["bytes/min"] = float64(d.Bytes) / took.Minutes() / n
	}
	return v, nil
}
