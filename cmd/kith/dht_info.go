package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/kith-im/kith/dht"
)

type dhtInfoCmd struct {
	clientFlags
}

// Help implements kong.HelpProvider.
func (*dhtInfoCmd) Help() string {
	return "With --json it prints {\"node\",\"addr\",\"rtt_ms\",\"client\"}: the first node given by --bootstrap, and the state of the client " +
		"that joined it, with the nodes it knows and its own address as others see it.\n\n" +
		"Example:\n\n" +
		"  kith dht info --bootstrap 127.0.0.1:4222"
}

// infoDoc is the result of kith dht info.
type infoDoc struct {
	pingDoc
	Client dht.Info `json:"client"`
}

// Run executes the command.
func (c *dhtInfoCmd) Run(ctx context.Context, app *App) error {
	return c.join(ctx, app, func(ctx context.Context, node *dht.Node) error {
		ctx, cancel := c.deadline(ctx)
		defer cancel()
		answer, err := ping(ctx, app, node, c.Network, c.Bootstrap[0])
		if err != nil {
			return err
		}
		info, err := node.Info(ctx)
		if err != nil {
			return fmt.Errorf("ask for the state: %w", err)
		}
		return app.Print(infoDoc{answer, info}, answer.String()+"\n"+infoText(info))
	})
}

// infoText says in lines what a person wants to know of a node's state.
func infoText(i dht.Info) string {
	var b strings.Builder
	fmt.Fprintf(&b, "node id    %v\nnetwork    %d\nstatus     %v\n", i.NodeID, i.Network, i.Status)
	for _, f := range []struct {
		name string
		dht.FamilyInfo
	}{{"IPv4", i.IPv4}, {"IPv6", i.IPv6}} {
		if !f.Addr.IsValid() {
			fmt.Fprintf(&b, "%s       none\n", f.name)
			continue
		}
		fmt.Fprintf(&b, "%s       %v at %v, %s, %d dubious, %d known, network of about %d\n",
			f.name, f.Status, f.Addr, count(f.Good, "good node"), f.Dubious, f.Known, f.Estimate)
	}
	if len(i.PublicAddrs) > 0 {
		fmt.Fprintf(&b, "seen as    %s\n", joined(i.PublicAddrs))
	}
	fmt.Fprintf(&b, "stored     %s under %s, %d of %d bytes\n", count(i.Storage.Values, "value"), count(i.Storage.Keys, "key"), i.Storage.Bytes, i.Storage.Limit)
	fmt.Fprintf(&b, "listeners  %d of others here, %d of ours elsewhere\n", i.Listening, i.Listens)
	return b.String()
}
