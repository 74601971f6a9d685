package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kith-im/kith/dht/kad/kadsim"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// progressEvery is the real time between two lines of progress.
const progressEvery = 2 * time.Second

type simCmd struct {
	Nodes    int           `default:"1000" placeholder:"N" help:"Nodes that run at any time, 2 to 1,000,000 (default: 1000)."`
	Churn    churn         `default:"0%/min" placeholder:"SHARE" help:"Share of the nodes that is replaced each minute, such as 5%/min (default: none)."`
	Seed     uint64        `default:"1" placeholder:"N" help:"Everything follows from it (default: 1)."`
	Settle   time.Duration `default:"1m" placeholder:"TIME" help:"How long the network settles before values are put (default: 1m)."`
	Duration time.Duration `default:"10m" placeholder:"TIME" help:"How long it runs after that (default: 10m)."`
	Latency  time.Duration `default:"20ms" placeholder:"TIME" help:"How long every packet takes at least (default: 20ms)."`
	Jitter   time.Duration `default:"10ms" placeholder:"TIME" help:"How much longer it may take (default: 10ms)."`
	Loss     share         `default:"1%" placeholder:"SHARE" help:"Share of packets that vanish (default: 1%)."`
	Puts     int           `default:"100" placeholder:"N" help:"Values that are put, each once (default: 100)."`
	Size     byteSize      `default:"64" placeholder:"SIZE" help:"Size of a value, 8 bytes to 64KiB (default: 64)."`
	Rounds   int           `default:"5" placeholder:"N" help:"How often all values are looked for (default: 5)."`
}

// Help implements kong.HelpProvider.
func (*simCmd) Help() string {
	return "The nodes are the real code and the packets the real bytes; clock and network are simulated. The same flags give the " +
		"same run, and so the same digest, which sums up every packet that was delivered. Progress goes to stderr, but not with --json, " +
		"which prints the report as one document: operations with success from 0 to 1, traffic per node and second, and the share of " +
		"the values that were still found as time went by.\n\n" +
		"Examples:\n\n" +
		"  kith sim --nodes 1000 --duration 2m\n" +
		"  kith sim --nodes 5000 --churn 5%/min --seed 42 --duration 10m --latency 30ms --loss 1% --json"
}

// Run executes the command.
func (c *simCmd) Run(ctx context.Context, app *App) error {
	if c.Nodes <= 0 || c.Puts <= 0 || c.Rounds <= 0 || c.Settle <= 0 || c.Duration <= 0 || c.Latency < 0 || c.Jitter < 0 {
		return Fail(KindUsage, fmt.Errorf("counts and times are more than zero, latency and jitter not negative"), "see kith sim --help")
	}
	s := kadsim.Scenario{
		Nodes: c.Nodes, Churn: float64(c.Churn), Seed: c.Seed, Settle: c.Settle, Duration: c.Duration,
		Puts: c.Puts, Size: int(c.Size), Rounds: c.Rounds,
		// A link of nothing but zeros stands for the default one: a nanosecond makes it another.
		Link: simnet.Link{Latency: max(c.Latency, 1), Jitter: c.Jitter, Loss: float64(c.Loss)},
	}
	var told time.Time
	phase, began := "", time.Duration(0)
	report, err := s.Run(ctx, func(p kadsim.Progress) {
		if p.Phase != phase {
			phase, began = p.Phase, p.Time
		}
		if now := time.Now(); now.Sub(told) >= progressEvery {
			told = now
			app.Note("%-6s %s, %s, %v of simulated time", p.Phase, c.part(p, p.Time-began), count(p.Nodes, "node"), p.Time.Truncate(time.Second))
		}
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // nothing but the scenario itself can be wrong
		return Fail(KindUsage, err, "see kith sim --help")
	}
	return app.Print(report, simText(report))
}

// part says how much of a phase is over, which has taken some simulated time so far.
// How long puts take nobody knows before.
func (c *simCmd) part(p kadsim.Progress, took time.Duration) string {
	var part float64
	switch p.Phase {
	case "grow":
		part = float64(p.Nodes) / float64(c.Nodes)
	case "settle":
		part = took.Seconds() / c.Settle.Seconds()
	case "run":
		part = took.Seconds() / c.Duration.Seconds()
	default:
		return "  …  "
	}
	return fmt.Sprintf("%3.0f %%", 100*min(part, 1))
}

// simText is the report for people.
func simText(r kadsim.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, "nodes     %d at the end: %d joined and %d left, in %v of simulated time\n", r.Nodes, r.Joined, r.Left, time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
	for _, o := range []struct {
		name string
		kadsim.Operations
	}{{"puts", r.Put}, {"gets", r.Get}} {
		fmt.Fprintf(&b, "%s      %d of %d worked, with %.1f requests and %.1f round trips each, half of them within %.0f ms of simulated time, 99 %% within %.0f ms\n",
			o.name, o.OK, o.Count, o.Requests, o.Rounds, o.P50, o.P99)
	}
	for _, s := range r.Survival {
		fmt.Fprintf(&b, "survival  %v after the puts: %d of %s found, with %.0f %% of the nodes replaced\n",
			time.Duration(s.Seconds*float64(time.Second)).Round(time.Second), s.Found, count(s.Of, "value"), 100*s.Replaced)
	}
	fmt.Fprintf(&b, "traffic   %.0f bytes and %.2f packets sent by each node in a simulated second\n", r.Traffic.Bytes, r.Traffic.Packets)
	fmt.Fprintf(&b, "packets   %d sent in all, %d of them lost\nseed      %d\ndigest    %s\n", r.Packets, r.Lost, r.Seed, r.Digest)
	return b.String()
}

// share is a part of a whole, 0 to 1, on the command line.
type share float64

// UnmarshalText reads a number, or per cent.
func (s *share) UnmarshalText(b []byte) error {
	digits, percent := strings.CutSuffix(string(b), "%")
	f, err := strconv.ParseFloat(digits, 64)
	if percent {
		f /= 100
	}
	if err != nil || !(f >= 0 && f <= 1) {
		return fmt.Errorf("%q is not a share from 0%% to 100%%: write it like 5%%", b)
	}
	*s = share(f)
	return nil
}

// churn is a share per minute on the command line.
type churn float64

// UnmarshalText reads a share, with "/min" behind it or not.
func (c *churn) UnmarshalText(b []byte) error {
	var s share
	if s.UnmarshalText([]byte(strings.TrimSuffix(string(b), "/min"))) != nil {
		return fmt.Errorf("%q is not a share of the nodes that is replaced each minute: write it like 5%%/min", b)
	}
	*c = churn(s)
	return nil
}
