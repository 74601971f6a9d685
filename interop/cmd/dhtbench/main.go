//go:build linux

// Dhtbench measures DHT nodes from outside, side by side with the reference
// implementation. It starts the nodes itself, on loopback or in network
// namespaces of its own (as root). See package bench for what is measured.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kith-im/kith/interop/bench"
	"github.com/kith-im/kith/interop/lab"
)

const usage = `usage: dhtbench raw|lookup|delay|loss|durability|mixed|idle [flags]

  raw         single requests to one node: requests/s, CPU per request
  lookup      puts and gets in a network of separate processes
  delay       the same with a delay between clients and nodes
  loss        the same with delay and loss
  durability  acknowledged values that a fresh client can't read
  mixed       a network of two kinds, half of either killed
  idle        memory, CPU and traffic of nodes that nobody uses

`

type options struct {
	kinds, clients, kith string

	nodes, rounds, count, size, window, cores, sockets int

	settle, rtt, watch time.Duration
	loss               float64
	json, quiet        bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-") {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	o, err := parse(os.Args[1], os.Args[2:])
	if err != nil {
		os.Exit(2) // the flag package has said why
	}
	report, err := run(ctx, os.Args[1], o)
	if report != nil && len(report.Rows) > 0 {
		write := report.Table
		if o.json {
			write = report.JSON
		}
		if werr := write(os.Stdout); err == nil {
			err = werr
		}
	}
	if err != nil {
		fail(o.json, err)
		stop()
		os.Exit(1)
	}
}

func fail(asJSON bool, err error) {
	if !asJSON {
		fmt.Fprintln(os.Stderr, "dhtbench:", err)
		return
	}
	json.NewEncoder(os.Stderr).Encode(map[string]any{
		"error": map[string]string{"kind": "bench", "message": err.Error()},
	})
}

func parse(command string, args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("dhtbench "+command, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.kinds, "kind", "dhtnode", "kinds of node, in turn, comma-separated: dhtnode, kith")
	f.StringVar(&o.clients, "client", "python", "kinds of client, comma-separated: "+strings.Join(clientNames(), ", "))
	f.StringVar(&o.kith, "kith", "bin/kith", "the kith executable, as make build makes it")
	f.IntVar(&o.nodes, "nodes", 16, "nodes in a network (mixed: of each kind)")
	f.IntVar(&o.rounds, "rounds", 1, "repetitions with fresh nodes")
	f.IntVar(&o.count, "count", 0, "operations in a phase (0: fitting the benchmark)")
	f.IntVar(&o.size, "size", 64, "bytes of a value")
	f.IntVar(&o.window, "window", 64, "operations under way at once")
	f.IntVar(&o.cores, "cores", 1, "raw: cores of the node")
	f.IntVar(&o.sockets, "sockets", 4, "raw: client sockets")
	f.DurationVar(&o.settle, "settle", 20*time.Second, "age of a network before its use")
	f.DurationVar(&o.rtt, "rtt", 20*time.Millisecond, "delay, loss: round trip between clients and nodes")
	f.Float64Var(&o.loss, "loss", 0.01, "loss: fraction of packets lost, each way")
	f.DurationVar(&o.watch, "for", time.Minute, "idle: how long to watch")
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	f.BoolVar(&o.quiet, "quiet", false, "no progress on stderr")
	return o, f.Parse(args)
}

func clientNames() []string {
	var names []string
	for _, c := range clientKinds() {
		names = append(names, c.Name())
	}
	return names
}

// clientKinds are the clients known; each is one file in package bench.
func clientKinds() []bench.ClientKind { return []bench.ClientKind{bench.Python{}, bench.Kith{}} }

func (o options) nodeKinds() ([]lab.NodeKind, error) {
	var kinds []lab.NodeKind
	for name := range strings.SplitSeq(o.kinds, ",") {
		switch name {
		case "dhtnode":
			if err := lab.Check("dhtnode"); err != nil {
				return nil, err
			}
			kinds = append(kinds, lab.Dhtnode{})
		case "kith":
			path, err := filepath.Abs(o.kith) // nodes run in folders of their own
			if err != nil {
				return nil, fmt.Errorf("find the kith executable: %w", err)
			}
			if _, err := os.Stat(path); err != nil {
				return nil, fmt.Errorf("find the kith executable: %w; make build makes it", err)
			}
			kinds = append(kinds, lab.Kith{Binary: path})
		default:
			return nil, fmt.Errorf("unknown kind of node %q", name)
		}
	}
	return kinds, nil
}

func (o options) clientList() ([]bench.ClientKind, error) {
	var list []bench.ClientKind
	for name := range strings.SplitSeq(o.clients, ",") {
		found := false
		for _, c := range clientKinds() {
			if c.Name() == name {
				list, found = append(list, c), true
			}
		}
		if !found {
			return nil, fmt.Errorf("unknown kind of client %q", name)
		}
	}
	return list, nil
}

func or(count, fitting int) int {
	if count > 0 {
		return count
	}
	return fitting
}

func run(ctx context.Context, command string, o options) (*bench.Report, error) {
	kinds, err := o.nodeKinds()
	if err != nil {
		return nil, err
	}
	clients, err := o.clientList()
	if err != nil {
		return nil, err
	}
	var subjects []bench.Subject
	for _, k := range kinds {
		for _, c := range clients {
			subjects = append(subjects, bench.Subject{Nodes: k, Client: c})
		}
	}
	var progress io.Writer = os.Stderr
	if o.quiet {
		progress = nil
	}
	lookup := bench.Lookup{
		Subjects: subjects, Nodes: o.nodes, Rounds: o.rounds, Count: or(o.count, 500), Size: o.size,
		Windows: []int{1, o.window}, Settle: o.settle, Progress: progress,
	}
	switch command {
	case "raw":
		return bench.Raw{
			Kinds: kinds, Cores: o.cores, Rounds: o.rounds, Requests: or(o.count, 20_000),
			Sockets: o.sockets, Window: o.window, Size: o.size, Progress: progress,
		}.Run(ctx)
	case "lookup":
		return lookup.Run(ctx)
	case "delay":
		lookup.Link = lab.Impairment{Delay: o.rtt / 2}
		lookup.Count = or(o.count, 100)
		lookup.Windows = []int{1}
		return lookup.Run(ctx)
	case "loss":
		lookup.Link = lab.Impairment{Delay: o.rtt / 2, Loss: o.loss, Seed: 1}
		lookup.Count = or(o.count, 200)
		return lookup.Run(ctx)
	case "durability":
		return bench.Durability{
			Subjects: subjects, Nodes: o.nodes, Rounds: o.rounds, Count: or(o.count, 1000), Size: o.size,
			Window: o.window, Settle: o.settle, Progress: progress,
		}.Run(ctx)
	case "mixed":
		if len(kinds) == 1 {
			kinds = append(kinds, kinds[0])
		}
		return bench.Mixed{
			Kinds: [2]lab.NodeKind(kinds), Client: clients[0], Nodes: o.nodes, Rounds: o.rounds,
			Count: or(o.count, 500), Size: o.size, Window: o.window, Settle: o.settle, Progress: progress,
		}.Run(ctx)
	case "idle":
		return bench.Idle{
			Kinds: kinds, Nodes: o.nodes, Rounds: o.rounds, Settle: o.settle, For: o.watch, Progress: progress,
		}.Run(ctx)
	}
	return nil, fmt.Errorf("unknown benchmark %q", command)
}
