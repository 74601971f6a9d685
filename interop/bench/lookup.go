//go:build linux

package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/kith-im/kith/interop/lab"
)

// network is the network id of all benchmarks: their nodes must not mix with
// others that run on the machine.
const network = 7700

// Subject is a kind of node and the kind of client that works against it.
type Subject struct {
	Nodes  lab.NodeKind
	Client ClientKind // not used by raw and idle
}

// Lookup measures puts and gets against networks of separate node processes.
type Lookup struct {
	Subjects []Subject
	Nodes    int            // processes in each network
	Rounds   int            // fresh networks for each subject, in turn
	Count    int            // operations in a phase
	Size     int            // bytes of a value
	Windows  []int          // operations under way at once; 1 is one after the other
	Settle   time.Duration  // between the start of a network and its use
	Link     lab.Impairment // between the clients and the nodes, each way
	Progress io.Writer      // lines on what happens; nil for none
}

// Run does the measurement. With a Link, or as root, it counts datagrams and is
// undisturbed by other traffic of the machine, as it uses its own namespaces.
func (b Lookup) Run(ctx context.Context) (*Report, error) {
	r := &Report{
		Bench: "lookup",
		Settings: map[string]any{
			"nodes": b.Nodes, "count": b.Count, "size": b.Size, "settle": b.Settle.String(),
			"delay": b.Link.Delay.String(), "loss": b.Link.Loss,
		},
		Columns: []string{
			"ops/s", "p50 ms", "p99 ms", "first p50 ms", "first p99 ms", "ok", "of",
			"requests/op", "datagrams/op", "client CPU ms/op", "nodes CPU ms/op",
		},
	}
	if b.Link.Delay > 0 {
		r.Columns = append(r.Columns, "p50 RTT", "first p50 RTT")
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, s := range b.Subjects {
			say(b.Progress, "round %d: %d %s nodes, %s clients", round, b.Nodes, s.Nodes.Name(), s.Client.Name())
			rows, err := b.network(ctx, s)
			for _, row := range rows {
				row.Round = round
				r.Rows = append(r.Rows, row)
			}
			if err != nil {
				return r, fmt.Errorf("lookup on %s with %s: %w", s.Nodes.Name(), s.Client.Name(), err)
			}
		}
	}
	return r, nil
}

func (b Lookup) network(ctx context.Context, s Subject) ([]Row, error) {
	site, err := newSite(b.Link)
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
	var rows []Row
	phases := func(client Client, ops ...string) error {
		for _, window := range b.Windows {
			for _, op := range ops {
				work := lab.Bulk{
					Op: op, Prefix: fmt.Sprintf("w%d-", window), Count: b.Count, Size: b.Size, Window: window, Timeout: opTimeout,
				}
				if op == "miss" {
					work.Prefix = "none-" + work.Prefix
				}
				v, err := b.phase(ctx, site, net, client, work)
				if err != nil {
					return err
				}
				name := fmt.Sprintf("%s x%d", op, window)
				rows = append(rows, Row{Nodes: s.Nodes.Name(), Client: s.Client.Name(), Op: name, Values: v})
			}
		}
		return nil
	}
	if err := phases(writer, "put"); err != nil {
		return rows, err
	}
	// A reader that was there at the time of the puts would store many of the
	// values itself and answer from its own memory.
	reader, err := site.client(ctx, s.Client, net)
	if err != nil {
		return rows, err
	}
	return rows, phases(reader, "get", "miss")
}

func (b Lookup) phase(ctx context.Context, site *site, net *lab.Network, client Client, work lab.Bulk) (map[string]float64, error) {
	if _, err := client.Stats(ctx); err != nil {
		return nil, err
	}
	cpu, sent := net.CPU(), site.datagrams()
	samples, took, err := client.Bulk(ctx, work)
	if err != nil {
		return nil, err
	}
	cpu, sent = net.CPU()-cpu, site.datagrams()-sent
	stats, err := client.Stats(ctx)
	if err != nil {
		return nil, err
	}
	v, n := summary(samples, took), float64(len(samples))
	v["nodes CPU ms/op"] = ms(cpu) / n
	v["client CPU ms/op"] = ms(stats.CPU) / n
	if stats.Requests >= 0 {
		v["requests/op"] = stats.Requests / n
	}
	if site.counts() {
		v["datagrams/op"] = float64(sent) / n
	}
	if rtt := ms(2 * b.Link.Delay); rtt > 0 {
		v["p50 RTT"] = v["p50 ms"] / rtt
		if first, ok := v["first p50 ms"]; ok {
			v["first p50 RTT"] = first / rtt
		}
	}
	return v, nil
}

// site is where one network runs: namespaces of its own if the user may make
// them, else the loopback interface that all share.
type site struct {
	lab     *lab.Lab
	nodes   *lab.Host
	clients *lab.Host
	serial  int
	end     func()
}

func newSite(link lab.Impairment) (*site, error) {
	l, err := lab.Open("")
	if err != nil {
		return nil, err
	}
	s := &site{lab: l, end: func() {}}
	if link == (lab.Impairment{}) {
		if h, err := lab.NewIsland(); err == nil {
			s.nodes, s.clients = h, h
			s.end = func() { h.Close() }
		}
		return s, nil
	}
	sw, err := lab.NewSwitch()
	if err != nil {
		l.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		sw.Run(ctx)
	}()
	s.end = func() { cancel(); <-done }
	down := link
	down.Seed++ // the two directions must not lose the same packets
	if s.clients, err = sw.AddHost("clients", link, down); err == nil {
		s.nodes, err = sw.AddHost("nodes", lab.Impairment{}, lab.Impairment{})
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *site) close() {
	s.lab.Close()
	s.end()
}

func (s *site) start(ctx context.Context, kinds []lab.NodeKind, settle time.Duration) (*lab.Network, error) {
	net, err := s.lab.StartNetwork(ctx, kinds, lab.NodeConfig{Host: s.nodes, Network: network, NoLimits: true})
	if err != nil {
		return nil, err
	}
	return net, pause(ctx, settle)
}

// client starts a client that has reached the network.
func (s *site) client(ctx context.Context, kind ClientKind, net *lab.Network) (Client, error) {
	c, err := kind.Start(ctx, s.lab, ClientConfig{Host: s.clients, Bootstrap: net.Bootstrap(), Network: network})
	if err != nil {
		return nil, err
	}
	s.serial++
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return c, warmUp(ctx, c, fmt.Sprintf("warm-up-%d-", s.serial))
}

// counts says whether datagrams can be told from other traffic of the machine.
func (s *site) counts() bool { return s.nodes != nil }

// datagrams is how many have been sent by all nodes and clients.
func (s *site) datagrams() int64 {
	if !s.counts() {
		return 0
	}
	t, _ := s.nodes.Traffic()
	if s.clients != s.nodes {
		c, _ := s.clients.Traffic()
		t.Datagrams += c.Datagrams
	}
	return t.Datagrams
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

func say(w io.Writer, format string, args ...any) {
	if w != nil {
		fmt.Fprintf(w, format+"\n", args...)
	}
}
