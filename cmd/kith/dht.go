package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
)

// dhtCmds are the commands that use a DHT without serving it.
type dhtCmds struct {
	Get    dhtGetCmd    `cmd:"" help:"Print the values under a key."`
	Put    dhtPutCmd    `cmd:"" help:"Store a value under a key."`
	Listen dhtListenCmd `cmd:"" help:"Print the values under a key, and those to come."`
	Ping   dhtPingCmd   `cmd:"" help:"Ask whether a DHT node answers at an address."`
	Info   dhtInfoCmd   `cmd:"" help:"Show the state of a DHT as a client sees it."`
}

// networkFlags say in which network a client is, and how patient.
type networkFlags struct {
	Network uint32        `short:"n" default:"0" placeholder:"ID" help:"Network id; 0 is the public network."`
	Timeout time.Duration `default:"30s" help:"How long to wait for the network."`
}

// clientFlags say by which nodes a client joins.
type clientFlags struct {
	Bootstrap []string `short:"b" placeholder:"HOST:PORT" help:"Nodes to join by, each HOST or HOST:PORT. Required."`
	networkFlags
}

// identityFlag names the identity that signs and decrypts.
type identityFlag struct {
	Identity            string `placeholder:"PREFIX" help:"Sign and decrypt with PREFIX.crt and PREFIX.pem."`
	PrivkeyPasswordFile string `placeholder:"FILE" help:"File with the password of the private key."`
}

// load returns nil when no identity is named.
func (f *identityFlag) load() (*identity.Identity, error) {
	if f.Identity == "" {
		return nil, nil
	}
	return loadIdentity(f.Identity+".crt", f.Identity+".pem", f.PrivkeyPasswordFile)
}

// join runs a read-only node, waits until it is connected, and calls use. Both
// waiting and use get a context that ends with the node; only waiting is bounded
// by the timeout.
func (f *clientFlags) join(ctx context.Context, app *App, use func(context.Context, *dht.Node) error) error {
	if len(f.Bootstrap) == 0 {
		return Fail(KindUsage, errors.New("no DHT node to ask"), "name one with --bootstrap HOST:PORT")
	}
	return f.run(ctx, app, f.Bootstrap, func(ctx context.Context, node *dht.Node) error {
		wait, cancel := f.deadline(ctx)
		defer cancel()
		if err := node.WaitConnected(wait); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return Fail(KindUnavailable, fmt.Errorf("no DHT node of network %d answers at %s", f.Network, strings.Join(f.Bootstrap, ", ")),
				"check the address, and --network")
		}
		return use(ctx, node)
	})
}

// run runs a read-only node while use does, and gives use a context that ends with
// the node.
func (f *networkFlags) run(ctx context.Context, app *App, bootstrap []string, use func(context.Context, *dht.Node) error) error {
	node, err := dht.New(dht.Config{
		Network: app.Net, NetworkID: f.Network, Bootstrap: bootstrap,
		ReadOnly: true, Workers: 1, Log: app.Levels.Logger("dht"),
	})
	if err != nil {
		return cannotStart(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- node.Run(ctx)
		cancel()
	}()
	err = use(ctx, node)
	cancel()
	if nodeErr := <-ended; nodeErr != nil {
		return nodeErr
	}
	return err
}

// deadline bounds ctx by the timeout.
func (f *networkFlags) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, f.Timeout)
}

// cannotStart says what to do about a node that could not be made.
func cannotStart(err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		kind := kindOf(err)
		if kind == KindInternal {
			kind = KindUnavailable
		}
		return Fail(kind, err, "see which program has the port, or choose another address with --port or --bind")
	}
	return Fail(KindUsage, err, "correct the flags")
}

// addrs looks up the addresses of a node, given as HOST or HOST:PORT.
func addrs(ctx context.Context, app *App, text string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a.Unmap(), dht.DefaultPort)}, nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = text, strconv.Itoa(dht.DefaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" {
		return nil, Fail(KindUsage, fmt.Errorf("%q is not HOST:PORT", text), "write it like 192.0.2.7:4222")
	}
	ips, err := app.Net.Lookup(ctx, host)
	if err != nil {
		return nil, Fail(KindUnavailable, fmt.Errorf("look up %s: %w", host, err), "check the name")
	}
	var list []netip.AddrPort
	for _, ip := range ips {
		list = append(list, netip.AddrPortFrom(ip.Unmap(), uint16(n)))
	}
	return list, nil
}
