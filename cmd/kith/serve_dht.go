package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
)

// serveCmds are the servers.
type serveCmds struct {
	Dht serveDhtCmd `cmd:"" help:"Run a DHT node, as OpenDHT's dhtnode does."`
}

type serveDhtCmd struct {
	Port      uint16   `short:"p" default:"4222" placeholder:"PORT" help:"UDP port; 0 picks a free one (default: 4222)."`
	Bind      []string `placeholder:"ADDR" help:"Address to bind, one IPv4 and one IPv6 at most (default: all)."`
	Bootstrap []string `short:"b" placeholder:"HOST:PORT" help:"Nodes to join by, each HOST or HOST:PORT; none waits to be found (default: none)."`
	Network   uint32   `short:"n" default:"0" placeholder:"ID" help:"Network id; 0 is the public network."`
	Discovery bool     `short:"D" help:"Find nodes in the local network by multicast."`
	Client    bool     `help:"Ask others to leave this node out of their tables: it takes no part in storing."`

	Identity            bool   `short:"i" help:"Sign and decrypt with the identity in the node's folder; it is made if there is none."`
	SaveIdentity        string `placeholder:"PREFIX" help:"Sign and decrypt with PREFIX.crt and PREFIX.pem; they are made if neither exists."`
	Certificate         string `placeholder:"FILE" help:"Certificate chain of the identity; goes with --privkey."`
	Privkey             string `placeholder:"FILE" help:"Private key of the identity."`
	PrivkeyPasswordFile string `placeholder:"FILE" help:"File with the password of the private key."`

	Persist      string   `short:"f" placeholder:"FILE" help:"Keep the node's id, its neighbours and its values in this file over restarts: it is saved every 10 minutes and at the end."`
	MaxStoreSize byteSize `default:"64MiB" placeholder:"SIZE" help:"Most bytes stored for others (default: 64MiB)."`
	NoRateLimit  bool     `short:"U" help:"Answer any number of requests: for tests and closed networks."`
	Workers      int      `default:"0" placeholder:"N" help:"Goroutines that serve each socket (default: one for each processor, four at most)."`

	Proxyserver    string `placeholder:"[HOST:]PORT" help:"Answer for the DHT over HTTP on this TCP port: without HOST, where --bind says, which is on all interfaces by default."`
	Proxyserverssl string `placeholder:"[HOST:]PORT" help:"The same over TLS, with the identity's certificate, and at all interfaces likewise."`
	Pushserver     string `placeholder:"HOST:PORT" help:"Gorush server by which the proxy wakes phones."`
	HTTP           string `name:"http" placeholder:"[HOST:]PORT" help:"Serve /healthz and /metrics there; without HOST, on loopback only."`

	Interactive  bool `help:"Take commands from standard input: help lists them. Its end ends the node."`
	PublicStable bool `short:"P" help:"Taken for dhtnode's sake and without effect: listens are always renewed as rarely as a stable address allows."`
	Service      bool `short:"s" help:"Taken for dhtnode's sake and without effect: the node always stays in the foreground."`
}

// Help implements kong.HelpProvider.
func (*serveDhtCmd) Help() string {
	return "It joins no network unless --bootstrap or --discovery say where one is: without them it is the first node of its own. " +
		"Nodes that run at the same time with --identity need a folder each (see --home).\n\n" +
		"When the node is ready, it prints one line, with --json {\"ready\":true,\"node\",\"network\",\"addrs\":[…]}, and where they " +
		"are used key_id, http, and proxy and proxy_tls, which are lists. SIGINT (Ctrl-C) and SIGTERM end it with exit code 0; " +
		"with --persist, the state is saved then, and every 10 minutes.\n\n" +
		"/healthz answers 200 when the node is connected, or was told of no other by --bootstrap; 503 while it should be connected " +
		"and is not.\n\n" +
		"Examples:\n\n" +
		"  kith serve dht --port 4222\n" +
		"  kith serve dht --bootstrap 192.0.2.7:4222 --persist dht.state --identity --http 9100\n" +
		"  kith serve dht --proxyserver 8080 --interactive"
}

// Run executes the command.
func (c *serveDhtCmd) Run(ctx context.Context, app *App) error {
	locks, err := c.lock(app)
	defer func() {
		for _, l := range locks {
			l.Close()
		}
	}()
	if err != nil {
		return err
	}
	cfg, err := c.config(app)
	if err != nil {
		return err
	}
	s := &dhtServer{app: app, cmd: c, id: cfg.Identity, metrics: cfg.Metrics, bootstrap: cfg.Bootstrap}
	if s.node, err = dht.New(cfg); err != nil {
		return cannotStart(err)
	}
	defer s.node.Close()
	s.secure = dht.NewSecure(s.node, s.id)
	if err := s.listen(ctx); err != nil {
		return err
	}
	return s.run(ctx)
}

// lock keeps other nodes from the files that only one may use. The locks that it got
// are there with an error, too.
func (c *serveDhtCmd) lock(app *App) (locks []*os.File, err error) {
	names := map[string]string{"--persist": c.Persist, "--save-identity": c.SaveIdentity}
	if c.Identity {
		if names["--home"], err = app.homePrefix(); err != nil {
			return nil, err
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(names)) {
		if names[flag] == "" {
			continue
		}
		l, err := lock(names[flag], flag)
		if err != nil {
			return locks, err
		}
		locks = append(locks, l)
	}
	return locks, nil
}

// config turns the flags into the node's configuration, and checks what would
// otherwise fail only later.
func (c *serveDhtCmd) config(app *App) (dht.Config, error) {
	cfg := dht.Config{
		Network: app.Net, Port: c.Port, NetworkID: c.Network, Discovery: c.Discovery, ReadOnly: c.Client,
		Workers: c.Workers, Log: app.Levels.Logger("dht"), Metrics: newRegistry(),
		Limits: dht.Limits{Storage: int64(c.MaxStoreSize)},
	}
	if c.NoRateLimit {
		cfg.Limits.Requests = -1
	}
	if c.Workers < 0 {
		return cfg, Fail(KindUsage, fmt.Errorf("--workers %d is negative", c.Workers), "leave it out for the default")
	}
	for _, text := range c.Bind {
		ip, err := netip.ParseAddr(strings.Trim(text, "[]"))
		if err != nil {
			return cfg, Fail(KindUsage, fmt.Errorf("--bind %q is not an IP address", text), "write it like 192.0.2.7; the port goes to --port")
		}
		cfg.Addrs = append(cfg.Addrs, netip.AddrPortFrom(ip.Unmap(), c.Port))
	}
	cfg.Bootstrap = slices.DeleteFunc(slices.Clone(c.Bootstrap), func(b string) bool { return b == "none" })
	if len(cfg.Bootstrap) != 0 && len(cfg.Bootstrap) != len(c.Bootstrap) {
		return cfg, Fail(KindUsage, errors.New("--bootstrap none goes with no other node"), "leave none out")
	}
	if c.Persist != "" {
		state, err := loadState(c.Persist)
		if err != nil {
			return cfg, err
		}
		cfg.State, cfg.StateFile = state, c.Persist
	}
	var err error
	cfg.Identity, err = c.identity(app)
	return cfg, err
}

// loadState reads a state file, and makes sure that it can be written again:
// otherwise days of work would be lost at the end.
func loadState(file string) (*dht.State, error) {
	state, err := dht.LoadState(file)
	if err != nil {
		kind, next := kindOf(err), "name a file that can be read with --persist"
		if kind == KindInternal { // the file is damaged; err says what to do
			kind, next = KindUsage, ""
		}
		return nil, Fail(kind, err, next)
	}
	probe, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return nil, Fail(kindOf(err), fmt.Errorf("the DHT state could not be saved: %w", err), "name a folder that exists and can be written to with --persist")
	}
	return state, errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// identity returns nil when none was asked for.
func (c *serveDhtCmd) identity(app *App) (*identity.Identity, error) {
	fromFiles := c.Certificate != "" || c.Privkey != ""
	switch {
	case fromFiles && (c.Certificate == "" || c.Privkey == ""):
		return nil, Fail(KindUsage, errors.New("half an identity"), "give both --certificate and --privkey")
	case fromFiles && c.SaveIdentity != "":
		return nil, Fail(KindUsage, errors.New("--save-identity and --certificate name two identities"), "leave one of them out")
	case fromFiles:
		return loadIdentity(c.Certificate, c.Privkey, c.PrivkeyPasswordFile)
	case c.SaveIdentity != "":
		return app.keptIdentity(c.SaveIdentity, c.PrivkeyPasswordFile, identity.Options{})
	case c.Identity:
		return app.homeIdentity(c.PrivkeyPasswordFile, identity.Options{})
	}
	return nil, nil
}

// byteSize is a number of bytes on the command line.
type byteSize int64

// UnmarshalText reads digits and a unit: none, KiB, MiB or GiB.
func (s *byteSize) UnmarshalText(b []byte) error {
	digits, shift := string(b), 0
	for i, unit := range [...]string{"KiB", "MiB", "GiB"} {
		if d, ok := strings.CutSuffix(digits, unit); ok {
			digits, shift = d, 10*(i+1)
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size: write it like 67108864 or 64MiB", b)
	}
	*s = byteSize(n << shift)
	return nil
}
