package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	list, err := f.lookup(ctx, app)
	if err != nil {
		return err
	}
	return f.run(ctx, app, f.Bootstrap, func(ctx context.Context, node *dht.Node) error {
		if f.connect(ctx, node, list) {
			return use(ctx, node)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return Fail(KindUnavailable, noAnswer(f.Network, f.Bootstrap), checkAddress(f.Bootstrap))
	})
}

// lookup returns the addresses of the bootstrap nodes. Names that cannot be found are
// an error only when nothing is left.
func (f *clientFlags) lookup(ctx context.Context, app *App) ([]netip.AddrPort, error) {
	ctx, cancel := f.deadline(ctx)
	defer cancel()
	var list []netip.AddrPort
	var failed error
	for _, text := range f.Bootstrap {
		found, err := addrs(ctx, app, text)
		if kindOf(err) == KindUsage {
			return nil, err
		}
		if err != nil && failed == nil {
			failed = err
		}
		list = append(list, found...)
	}
	if len(list) > 0 {
		return list, nil
	}
	return nil, failed
}

// connect tells whether the node gets connected in time. It gives up early when none
// of the bootstrap nodes answers a ping, which takes three tries.
func (f *clientFlags) connect(ctx context.Context, node *dht.Node, list []netip.AddrPort) bool {
	ctx, cancel := f.deadline(ctx)
	var pings sync.WaitGroup
	defer pings.Wait()
	defer cancel()
	var silent atomic.Int32
	for _, addr := range list {
		pings.Go(func() {
			if _, _, err := node.Ping(ctx, addr); err != nil && int(silent.Add(1)) == len(list) {
				cancel()
			}
		})
	}
	return node.WaitConnected(ctx) == nil
}

// noAnswer is the error that nobody answers at the addresses that the user gave.
func noAnswer(network uint32, given []string) error {
	return fmt.Errorf("no DHT node of network %d answers at %s", network, strings.Join(given, ", "))
}

// checkAddress says what to do about addresses where nobody answers. A bare IPv6
// address may have been meant to end in a port.
func checkAddress(given []string) string {
	for _, text := range given {
		a, err := netip.ParseAddr(strings.TrimSpace(text))
		if err != nil || !a.Is6() {
			continue
		}
		i := strings.LastIndexByte(text, ':')
		if _, err := netip.ParseAddrPort("[" + text[:i] + "]" + text[i:]); err == nil {
			return fmt.Sprintf("check the address, and --network; if %s is the port, write [%s]%s", text[i+1:], text[:i], text[i:])
		}
	}
	return "check the address, and --network"
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
		return cannotBind(err, "--port", "--bind")
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
		return nil, Fail(KindUsage, fmt.Errorf("%q is not HOST:PORT", text), "write it like 192.0.2.7:4222, with a port from 1 to 65535")
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
