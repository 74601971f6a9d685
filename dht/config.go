package dht

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strconv"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/obs"
)

// DefaultPort is the UDP port that OpenDHT nodes use by custom.
const DefaultPort = 4222

// Limits bound what a node does for others; the zero value is the default.
type Limits = kad.Limits

// Config is how a node behaves. The zero value is a full node of the public
// network at a random port that waits to be found.
type Config struct {
	// Network is the way out; nil means the operating system's.
	Network netx.Network
	// Addrs are the addresses to bind, one of a family at most. None means all
	// interfaces, IPv4 and IPv6 (as far as the host has them), at Port.
	Addrs []netip.AddrPort
	// Port is used when Addrs is empty; 0 picks a free one, the same for both
	// families where that is possible.
	Port uint16

	// ID names the node; zero means the id in State, else the one that belongs to
	// Identity, else a random one.
	ID       NodeID
	Identity *identity.Identity

	// NetworkID separates networks; 0 is the public one.
	NetworkID uint32
	// Bootstrap is where nodes are hoped for, each "host" or "host:port".
	Bootstrap []string
	// Discovery finds nodes in the local network by multicast.
	Discovery bool
	// ReadOnly asks others to leave us out of their tables: for phones.
	ReadOnly bool
	Limits   Limits

	// State is what an earlier run exported, or nil.
	State *State
	// StateFile is loaded at the start, if it is there, and saved now and then and
	// at the end.
	StateFile string

	// Workers is how many goroutines serve each socket; 0 means one for each
	// processor, at most four.
	Workers int

	// Log gets what an operator needs to know; nil means silence.
	Log *slog.Logger
	// Metrics gets the node's metrics; nil means none.
	Metrics *obs.Registry
	// Seed makes the node's random choices reproducible in simulations; zero means
	// random.
	Seed uint64
}

func (cfg *Config) orDefault() error {
	if cfg.Network == nil {
		cfg.Network = &netx.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Workers == 0 {
		cfg.Workers = min(runtime.GOMAXPROCS(0), 4)
	}
	if cfg.ID.IsZero() && cfg.State != nil {
		cfg.ID = cfg.State.ID
	}
	if cfg.ID.IsZero() && cfg.Identity != nil {
		cfg.ID = cfg.Identity.NodeID()
	}
	for _, b := range cfg.Bootstrap {
		if _, _, err := splitHostPort(b); err != nil {
			return fmt.Errorf("bootstrap address %q: %w", b, err)
		}
	}
	families := wire.Families(0)
	for _, a := range cfg.Addrs {
		f := wire.FamilyOf(a.Addr())
		if families&f != 0 {
			return fmt.Errorf("two addresses of one family to bind: give one IPv4 and one IPv6 address at most")
		}
		families |= f
	}
	return nil
}

// newRand returns a generator for one purpose. When the seed is not given, nobody
// can guess it: transaction ids and tokens depend on that.
func (cfg *Config) newRand(purpose uint64) *randv2.Rand {
	if cfg.Seed == 0 {
		var seed [32]byte
		rand.Read(seed[:])
		return randv2.New(randv2.NewChaCha8(seed))
	}
	return randv2.New(randv2.NewPCG(cfg.Seed, purpose))
}

// splitHostPort reads "host", "host:port", "[v6]", "[v6]:port" or a bare IPv6
// address.
func splitHostPort(text string) (host string, port uint16, err error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.String(), DefaultPort, nil
	}
	if len(text) > 2 && text[0] == '[' && text[len(text)-1] == ']' {
		return text[1 : len(text)-1], DefaultPort, nil
	}
	host, p, err := net.SplitHostPort(text)
	if err != nil {
		host, p = text, strconv.Itoa(DefaultPort)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	switch {
	case err != nil || n == 0:
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", p)
	case host == "" || len(host) > 253:
		return "", 0, fmt.Errorf("host name missing or too long")
	}
	return host, uint16(n), nil
}
