package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
)

type dhtPingCmd struct {
	Address string `arg:"" help:"HOST or HOST:PORT of the node."`
	networkFlags
}

// Help implements kong.HelpProvider.
func (*dhtPingCmd) Help() string {
	return "With --json it prints {\"node\",\"addr\",\"rtt_ms\"}. No answer is exit code 5.\n\n" +
		"Examples:\n\n" +
		"  kith dht ping 127.0.0.1:4222\n" +
		"  kith dht ping 127.0.0.1:4222 --timeout 2s --json"
}

// pingDoc is the result of kith dht ping.
type pingDoc struct {
	Node dht.NodeID     `json:"node"`
	Addr netip.AddrPort `json:"addr"`
	RTT  float64        `json:"rtt_ms"` // milliseconds, to the microsecond
}

// Run executes the command.
func (c *dhtPingCmd) Run(ctx context.Context, app *App) error {
	return c.run(ctx, app, nil, func(ctx context.Context, node *dht.Node) error {
		ctx, cancel := c.deadline(ctx)
		defer cancel()
		doc, err := ping(ctx, app, node, c.Network, c.Address)
		if err != nil {
			return err
		}
		return app.Print(doc, doc.String()+"\n")
	})
}

// String returns a text for people.
func (d pingDoc) String() string {
	return fmt.Sprintf("node %v answers at %v in %.3f ms", d.Node, d.Addr, d.RTT)
}

// ping asks the addresses of a node until one answers.
func ping(ctx context.Context, app *App, node *dht.Node, network uint32, text string) (pingDoc, error) {
	text = strings.TrimSpace(text)
	list, err := addrs(ctx, app, text)
	if err != nil {
		return pingDoc{}, err
	}
	for _, addr := range list {
		id, rtt, err := node.Ping(ctx, addr)
		if err == nil {
			return pingDoc{Node: id, Addr: addr, RTT: milliseconds(rtt)}, nil
		}
		if !errors.Is(err, dht.ErrNoNodes) && !errors.Is(err, context.DeadlineExceeded) {
			return pingDoc{}, err
		}
	}
	return pingDoc{}, Fail(KindTimeout, noAnswer(network, []string{text}), checkAddress([]string{text}))
}

// milliseconds keeps three digits behind the point.
func milliseconds(d time.Duration) float64 {
	return math.Round(float64(d)/float64(time.Microsecond)) / 1000
}
