//go:build linux

package lab

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kith-im/kith/interop/raw"
)

// NodeConfig is what the lab asks of a DHT node.
type NodeConfig struct {
	Host      *Host          // nil: the program's own network
	Port      uint16         // UDP port; 0 picks a free one
	Bootstrap netip.AddrPort // a node to join; the zero value joins none
	Network   uint32         // network id
	Identity  bool           // generate keys and a certificate, for signed and encrypted values
	NoLimits  bool           // switch off the limits on requests per source address
	ProxyPort uint16         // serve the REST proxy on this TCP port; 0 does not
	Proxy     string         // "host:port" of a proxy: be its client instead of a DHT node
	CPUs      []int          // cores that the node may use; none means all
	Args      []string       // more arguments, passed on as they are
}

// NodeKind is a DHT node implementation: an executable and its arguments.
type NodeKind interface {
	// Name is short and fit for a file name: "dhtnode".
	Name() string
	// Command gives the executable and arguments for a node; c.Port is set.
	Command(c NodeConfig) (path string, args []string, err error)
}

// Dhtnode is the reference implementation, as Debian packages it.
type Dhtnode struct{}

// Name implements [NodeKind].
func (Dhtnode) Name() string { return "dhtnode" }

// Command implements [NodeKind].
func (Dhtnode) Command(c NodeConfig) (string, []string, error) {
	args := []string{"-p", fmt.Sprint(c.Port), "-n", fmt.Sprint(c.Network)}
	if c.Bootstrap.IsValid() {
		args = append(args, "-b", c.Bootstrap.String())
	}
	if c.Identity {
		args = append(args, "-i")
	}
	if c.NoLimits {
		args = append(args, "-U")
	}
	if c.ProxyPort != 0 {
		args = append(args, "--proxyserver", fmt.Sprint(c.ProxyPort))
	}
	if c.Proxy != "" {
		args = append(args, "--proxyclient", c.Proxy)
	}
	return "dhtnode", append(args, c.Args...), nil
}

// Kith is Kith's own node.
type Kith struct {
	Binary string // path of the kith executable
}

// Name implements [NodeKind].
func (Kith) Name() string { return "kith" }

// Command implements [NodeKind].
func (k Kith) Command(c NodeConfig) (string, []string, error) {
	if k.Binary == "" {
		return "", nil, errors.New("no path of the kith executable given")
	}
	if c.Proxy != "" {
		return "", nil, errors.New("kith serve dht is no client of a proxy")
	}
	if c.Identity && !slices.Contains(c.Args, "--home") {
		return "", nil, errors.New("an identity is kept in the node's folder: give each node another --home")
	}
	args := []string{"serve", "dht", "--port", fmt.Sprint(c.Port), "--network", fmt.Sprint(c.Network)}
	if c.Bootstrap.IsValid() {
		args = append(args, "--bootstrap", c.Bootstrap.String())
	}
	if c.Identity {
		args = append(args, "--identity")
	}
	if c.NoLimits {
		args = append(args, "--no-rate-limit")
	}
	if c.ProxyPort != 0 {
		args = append(args, "--proxyserver", fmt.Sprint(c.ProxyPort))
	}
	return k.Binary, append(args, c.Args...), nil
}

// Node is a running DHT node.
type Node struct {
	*Process
	Kind   NodeKind
	Config NodeConfig // with the port chosen
	ID     raw.ID     // as it answers to a ping

	lab *Lab
}

// readyTimeout is long for a loaded machine; nodes need a few milliseconds, with
// an identity (RSA keys) up to some seconds.
const readyTimeout = 30 * time.Second

// StartNode starts a node and waits until it answers pings. A proxy's client has
// no port that could answer and may still be starting.
func (l *Lab) StartNode(ctx context.Context, kind NodeKind, c NodeConfig) (*Node, error) {
	return l.startNode(ctx, kind, c, nil)
}

func (l *Lab) startNode(ctx context.Context, kind NodeKind, c NodeConfig, out *lineBuffer) (*Node, error) {
	if c.Port == 0 {
		port, err := c.Host.FreePort()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", kind.Name(), err)
		}
		c.Port = port
	}
	path, args, err := kind.Command(c)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", kind.Name(), err)
	}
	spec := Spec{Name: kind.Name(), Path: path, Args: args, Host: c.Host, CPUs: c.CPUs}
	if out != nil {
		spec.Stdout = out
	}
	// Nodes write their caches below HOME; it must not be the user's.
	spec.Env = []string{"HOME=" + l.dir}
	p, err := l.Start(spec)
	if err != nil {
		return nil, err
	}
	n := &Node{Process: p, Kind: kind, Config: c, lab: l}
	if c.Proxy != "" {
		return n, nil // it has no UDP port to be asked on
	}
	if err := n.waitReady(ctx); err != nil {
		p.Kill()
		return nil, fmt.Errorf("start %s on %s: %w; its log ends:\n%s", kind.Name(), n.Addr(), err, p.Tail())
	}
	return n, nil
}

// Addr is where the node is reached.
func (n *Node) Addr() netip.AddrPort {
	return netip.AddrPortFrom(n.Config.Host.Addr(), n.Config.Port)
}

// Restart kills the node if it still runs and starts it again with the same
// configuration and port.
func (n *Node) Restart(ctx context.Context) error {
	n.Kill()
	again, err := n.lab.StartNode(ctx, n.Kind, n.Config)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	*n = *again
	return nil
}

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	probe, err := NewProbe(n.Config.Host, n.Config.Network)
	if err != nil {
		return err
	}
	defer probe.Close()
	for {
		m, err := probe.Ping(n.Addr(), 50*time.Millisecond)
		if err == nil {
			n.ID = m.ID
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer to pings: %w", ctx.Err())
		case <-n.Done():
			return fmt.Errorf("the process has ended: %v", n.Err())
		default: // the ping's own wait is the pause
		}
	}
}

// FreePort finds a UDP port of the host that nobody uses now.
func (h *Host) FreePort() (uint16, error) {
	var port uint16
	err := h.Do(func() error {
		// Unspecified: nodes bind that, on both families.
		c, err := net.ListenUDP("udp", &net.UDPAddr{})
		if err != nil {
			return err
		}
		port = uint16(c.LocalAddr().(*net.UDPAddr).Port)
		return c.Close()
	})
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return port, nil
}

// Network is a set of nodes that know one another.
type Network struct {
	Nodes []*Node
}

// StartNetwork starts one node of every kind in the list, each with c (whose
// port and bootstrap are chosen here), and waits until every node knows another.
// The first node is everybody's bootstrap, and its own is the second: a dhtnode
// that finds nobody at its start does not look again for minutes, but it does
// repeat its first ping after a second. A failure ends the nodes again.
func (l *Lab) StartNetwork(ctx context.Context, kinds []NodeKind, c NodeConfig) (*Network, error) {
	n := &Network{}
	second, err := c.Host.FreePort()
	if err != nil {
		return nil, fmt.Errorf("start network: %w", err)
	}
	for i, kind := range kinds {
		c.Port, c.Bootstrap = 0, netip.AddrPort{}
		switch {
		case i > 0:
			c.Bootstrap = n.Nodes[0].Addr()
			if i == 1 {
				c.Port = second
			}
		case len(kinds) > 1:
			c.Bootstrap = netip.AddrPortFrom(c.Host.Addr(), second)
		}
		node, err := l.StartNode(ctx, kind, c)
		if err != nil {
			n.Kill()
			return nil, fmt.Errorf("start network, node %d of %d: %w", i+1, len(kinds), err)
		}
		n.Nodes = append(n.Nodes, node)
	}
	if err := n.WaitKnown(ctx, 1); err != nil {
		n.Kill()
		return nil, fmt.Errorf("start network: %w", err)
	}
	return n, nil
}

// Kinds gives a list of n times the same kind.
func Kinds(kind NodeKind, n int) []NodeKind {
	list := make([]NodeKind, n)
	for i := range list {
		list[i] = kind
	}
	return list
}

// Bootstrap is the address of a node to join by.
func (n *Network) Bootstrap() netip.AddrPort { return n.Nodes[0].Addr() }

// Kill ends all nodes.
func (n *Network) Kill() {
	for _, node := range n.Nodes {
		node.signal(unix.SIGKILL)
	}
	for _, node := range n.Nodes {
		node.Kill()
	}
}

// CPU is the time that all running nodes have used.
func (n *Network) CPU() time.Duration {
	var sum time.Duration
	for _, node := range n.Nodes {
		if u, err := node.Usage(); err == nil {
			sum += u.CPU
		}
	}
	return sum
}

// Searcher is a NodeKind whose running nodes can be told to look something up.
type Searcher interface {
	// Search makes the node get a key, without waiting for the outcome.
	Search(n *Node, key raw.ID) error
}

// Search implements [Searcher], by a command on the standard input.
func (Dhtnode) Search(n *Node, key raw.ID) error {
	_, err := fmt.Fprintf(n.Stdin, "g %x\n", key[:])
	return err
}

const (
	knownTimeout = 60 * time.Second // for a network to form
	searchPause  = 500 * time.Millisecond
)

// Acquaint makes every node that knows few others search for its own
// neighbourhood until it knows eight, or all there are: a small network is then
// complete within seconds. Left alone it takes minutes, as dhtnodes that search
// for nothing hardly look around. Networks that shall be as fresh ones are in the
// field are better left alone.
func (n *Network) Acquaint(ctx context.Context) error { return n.waitKnown(ctx, 8, true) }

// WaitKnown waits until every node lists at least want others (at most 8, the
// size of a full answer), or all there are. Nodes list only those that have
// answered them.
func (n *Network) WaitKnown(ctx context.Context, want int) error {
	return n.waitKnown(ctx, want, false)
}

func (n *Network) waitKnown(ctx context.Context, want int, search bool) error {
	ctx, cancel := context.WithTimeout(ctx, knownTimeout)
	defer cancel()
	want = min(want, len(n.Nodes)-1)
	c := n.Nodes[0].Config
	probe, err := NewProbe(c.Host, c.Network)
	if err != nil {
		return err
	}
	defer probe.Close()
	waiting := n.Nodes
	for {
		var poor []*Node
		for _, node := range waiting {
			m, err := probe.Find(node.Addr(), node.ID, 200*time.Millisecond)
			if err == nil && len(m.Nodes()) >= want {
				continue
			}
			poor = append(poor, node)
			if s, ok := node.Kind.(Searcher); ok && search {
				key := node.ID
				key[len(key)-1] ^= byte(1 + rand.IntN(255)) // a search just made is not made again
				if err := s.Search(node, key); err != nil {
					return fmt.Errorf("make a node search: %w", err)
				}
			}
		}
		if len(poor) == 0 {
			return nil
		}
		waiting = poor
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d nodes know fewer than %d others: %w", len(poor), len(n.Nodes), want, ctx.Err())
		case <-time.After(searchPause):
		}
	}
}

// Probe asks nodes single questions from one socket, and answers their pings
// meanwhile. It is for one goroutine.
type Probe struct {
	conn *net.UDPConn
	req  raw.Request
}

// NewProbe opens a probe inside the host.
func NewProbe(h *Host, network uint32) (*Probe, error) {
	conn, err := h.ListenUDP()
	if err != nil {
		return nil, fmt.Errorf("open probe: %w", err)
	}
	p := &Probe{conn: conn, req: raw.Request{TID: rand.Uint32(), Network: network}}
	for i := range p.req.Self {
		p.req.Self[i] = byte(rand.Uint32())
	}
	return p, nil
}

// Close closes the socket.
func (p *Probe) Close() error { return p.conn.Close() }

// Ping sends one ping and waits for the answer.
func (p *Probe) Ping(to netip.AddrPort, timeout time.Duration) (raw.Message, error) {
	p.req.TID++
	return p.ask(to, p.req.Ping(nil), timeout)
}

// Find asks for the nodes closest to target.
func (p *Probe) Find(to netip.AddrPort, target raw.ID, timeout time.Duration) (raw.Message, error) {
	p.req.TID++
	return p.ask(to, p.req.Find(nil, target), timeout)
}

// Get asks for the values under key.
func (p *Probe) Get(to netip.AddrPort, key raw.ID, timeout time.Duration) (raw.Message, error) {
	p.req.TID++
	return p.ask(to, p.req.Get(nil, key), timeout)
}

// Put stores a plain value under a token that the node has given to this probe.
func (p *Probe) Put(to netip.AddrPort, key raw.ID, token []byte, vid uint64, data []byte, timeout time.Duration) (raw.Message, error) {
	p.req.TID++
	return p.ask(to, p.req.Put(nil, key, token, vid, data), timeout)
}

func (p *Probe) ask(to netip.AddrPort, packet []byte, timeout time.Duration) (raw.Message, error) {
	if _, err := p.conn.WriteToUDPAddrPort(packet, to); err != nil {
		return raw.Message{}, fmt.Errorf("ask %s: %w", to, err)
	}
	if err := p.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return raw.Message{}, fmt.Errorf("ask %s: %w", to, err)
	}
	buf := make([]byte, 1<<16)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return raw.Message{}, fmt.Errorf("ask %s: %w", to, err)
		}
		m, err := raw.Parse(buf[:n])
		answer := m.Kind == raw.Reply || m.Kind == raw.Error
		if err == nil && answer && m.TID == p.req.TID && from.Port() == to.Port() {
			return m, nil
		}
		if err == nil && m.Kind == raw.Query && m.Query == "ping" && from.Port() == to.Port() {
			if _, err := p.conn.WriteToUDPAddrPort(p.req.Pong(nil, m.TID), from); err != nil {
				return raw.Message{}, fmt.Errorf("answer ping of %s: %w", to, err)
			}
		}
	}
}
