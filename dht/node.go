package dht

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx"
)

// A Node is a full node of the network. Make one with [New], then call [Node.Run];
// requests can be made before that and are carried out once it runs.
//
// Packets are read, parsed and checked by several goroutines at once; the lock is
// held only while the core decides what follows from them (docs/adr/0001).
type Node struct {
	cfg   Config
	v4    *socket // nil without IPv4
	v6    *socket
	began time.Time

	mu   sync.Mutex // guards what follows
	core *kad.Core
	rand *rand.Rand
	wake time.Time // when the core is looked at next
	pubs map[pubKey]*publication

	links []netip.Prefix // networks that the host is in
	kept  []wire.Node    // that were good once: see Export

	clock  *time.Timer // fires at wake
	closed chan struct{}
	once   sync.Once
	bad    badPackets
	saving sync.Mutex // held while the state file is written
}

// pubKey names a published value.
type pubKey struct {
	key Key
	id  ValueID
}

// A socket is one bound UDP socket.
type socket struct {
	conn    netx.PacketConn
	addr    netip.AddrPort
	workers atomic.Int32
}

// New makes a node and binds its sockets. It is closed by [Node.Close], or when
// Run returns.
func New(cfg Config) (*Node, error) {
	if cfg.StateFile != "" && cfg.State == nil {
		state, err := LoadState(cfg.StateFile)
		if err != nil {
			return nil, err
		}
		cfg.State = state
	}
	if err := cfg.orDefault(); err != nil {
		return nil, fmt.Errorf("configure DHT node: %w", err)
	}
	n := &Node{
		cfg: cfg, rand: cfg.newRand(1), pubs: make(map[pubKey]*publication), began: time.Now(),
		clock: time.NewTimer(0), closed: make(chan struct{}),
	}
	if n.cfg.ID.IsZero() {
		for i := range n.cfg.ID {
			n.cfg.ID[i] = byte(n.rand.Uint32())
		}
	}
	if err := n.bind(); err != nil {
		return nil, err
	}
	families := wire.Families(0)
	if n.v4 != nil {
		families |= wire.IPv4
	}
	if n.v6 != nil {
		families |= wire.IPv6
	}
	now := time.Now()
	n.core = kad.New(kad.Config{
		Self: n.cfg.ID, Rand: cfg.newRand(2), Network: cfg.NetworkID, Families: families,
		ReadOnly: cfg.ReadOnly, Limits: cfg.Limits,
	}, now)
	if len(cfg.Bootstrap) > 0 || cfg.State != nil && len(cfg.State.Nodes) > 0 {
		n.core.Bootstrap(now, nil, &kad.Outbox{}) // requests made before Run wait for nodes
	}
	n.wake = now
	n.registerMetrics()
	return n, nil
}

// bind opens the sockets. A family that the host does not have is left out, unless
// it was asked for.
func (n *Node) bind() error {
	ctx := context.Background()
	for _, a := range n.cfg.Addrs {
		conn, err := n.cfg.Network.ListenPacket(ctx, a)
		if err != nil {
			n.closeSockets()
			return fmt.Errorf("bind DHT node to %v: %w", a, err)
		}
		n.adopt(conn)
	}
	if len(n.cfg.Addrs) > 0 {
		return nil
	}
	conn, err4 := n.cfg.Network.ListenPacket(ctx, netip.AddrPortFrom(netip.IPv4Unspecified(), n.cfg.Port))
	port := n.cfg.Port
	if err4 == nil {
		n.adopt(conn)
		port = n.v4.addr.Port()
	}
	conn, err6 := n.cfg.Network.ListenPacket(ctx, netip.AddrPortFrom(netip.IPv6Unspecified(), port))
	if err6 != nil && n.cfg.Port == 0 && port != 0 {
		conn, err6 = n.cfg.Network.ListenPacket(ctx, netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	}
	if err6 == nil {
		n.adopt(conn)
	}
	switch {
	case err4 != nil && err6 != nil:
		return fmt.Errorf("bind DHT node to port %d: %w", n.cfg.Port, err4)
	case err4 != nil && !noFamily(err4):
		n.closeSockets()
		return fmt.Errorf("bind DHT node to IPv4 port %d: %w", n.cfg.Port, err4)
	case err6 != nil && !noFamily(err6):
		n.closeSockets()
		return fmt.Errorf("bind DHT node to IPv6 port %d: %w", port, err6)
	}
	return nil
}

func (n *Node) adopt(conn netx.PacketConn) {
	s := &socket{conn: conn, addr: conn.LocalAddr()}
	if s.addr.Addr().Is4() {
		n.v4 = s
	} else {
		n.v6 = s
	}
}

func (n *Node) closeSockets() {
	for _, s := range []*socket{n.v4, n.v6} {
		if s != nil {
			s.conn.Close()
		}
	}
}

// Close ends the node: Run returns and requests fail with [ErrClosed].
func (n *Node) Close() error {
	n.once.Do(func() {
		close(n.closed)
		n.clock.Stop()
		n.closeSockets()
	})
	return nil
}

// ID returns the node's id.
func (n *Node) ID() NodeID { return n.cfg.ID }

// Addrs returns the addresses that the node is bound to.
func (n *Node) Addrs() []netip.AddrPort {
	var list []netip.AddrPort
	for _, s := range []*socket{n.v4, n.v6} {
		if s != nil {
			list = append(list, s.addr)
		}
	}
	return list
}

// do lets f call the core and sends what comes of it.
func (n *Node) do(f func(now time.Time, out *kad.Outbox)) {
	var out kad.Outbox
	n.mu.Lock()
	f(time.Now(), &out)
	n.arm()
	n.mu.Unlock()
	n.send(&out, n.v4, n.v6)
}

// arm sets the clock when the core has work earlier than it is set to. The caller
// holds the lock.
func (n *Node) arm() {
	if next := n.core.Next(); next.Before(n.wake) {
		n.wake = next
		n.clock.Reset(max(time.Until(next), 0))
	}
}

// NewValueID returns a random value id.
func (n *Node) NewValueID() ValueID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return ValueID(n.rand.Uint64()>>1 + 1)
}

// Get implements [Table].
func (n *Node) Get(ctx context.Context, key Key, q Query) iter.Seq2[*Value, error] {
	return func(yield func(*Value, error) bool) {
		if key.IsZero() {
			yield(nil, fmt.Errorf("get: %w: the key is zero", ErrRefused))
			return
		}
		values := newQueue[*Value]()
		var g *kad.Get
		n.do(func(now time.Time, out *kad.Outbox) {
			g = n.core.Get(now, key, q, values.add, values.end, out)
		})
		defer n.do(func(now time.Time, out *kad.Outbox) { n.core.CancelGet(now, g, out) })
		forward(ctx, n.closed, values, yield)
	}
}

// forward yields what a queue gets, and its error last.
func forward[T any](ctx context.Context, closed <-chan struct{}, q *queue[T], yield func(T, error) bool) {
	for {
		items, ended, err := q.take(ctx, closed)
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
		if ended {
			if err != nil {
				var none T
				yield(none, publicError(err))
			}
			return
		}
	}
}

// publicError turns an error of the core into the one that this package documents.
func publicError(err error) error {
	for _, e := range [...]struct{ from, to error }{
		{kad.ErrNoNodes, ErrNoNodes}, {kad.ErrNotStored, ErrNotStored}, {kad.ErrRefused, ErrRefused},
	} {
		if errors.Is(err, e.from) {
			return e.to
		}
	}
	return err
}

// Put implements [Table].
func (n *Node) Put(ctx context.Context, key Key, v *Value) error {
	_, err := n.put(ctx, key, v, false)
	return err
}

func (n *Node) put(ctx context.Context, key Key, v *Value, permanent bool) (*kad.Put, error) {
	if key.IsZero() {
		return nil, fmt.Errorf("put: %w: the key is zero", ErrRefused)
	}
	if v.Size() > wire.MaxValueSize {
		return nil, fmt.Errorf("put: %w: %d bytes, more than %d", ErrRefused, v.Size(), wire.MaxValueSize)
	}
	if v.ID == 0 {
		v.ID = n.NewValueID()
	}
	done := make(chan error, 1)
	var p *kad.Put
	n.do(func(now time.Time, out *kad.Outbox) {
		p = n.core.Put(now, key, v, time.Time{}, permanent, func(err error) { done <- err }, out)
	})
	var err error
	select {
	case err = <-done:
		if err == nil {
			return p, nil
		}
		err = publicError(err)
	case <-ctx.Done():
		err = ctx.Err()
	case <-n.closed:
		err = ErrClosed
	}
	n.do(func(now time.Time, out *kad.Outbox) { n.core.CancelPut(now, p, out) })
	return nil, fmt.Errorf("put %v: %w", key, err)
}

// Publish implements [Table]. Publishing another value with the same id replaces
// the earlier publication.
func (n *Node) Publish(ctx context.Context, key Key, v *Value) (Publication, error) {
	p, err := n.put(ctx, key, v, true)
	if err != nil {
		return nil, err
	}
	pub := &publication{n: n, key: key, value: v, p: p}
	n.mu.Lock()
	old := n.pubs[pubKey{key, v.ID}]
	n.pubs[pubKey{key, v.ID}] = pub
	n.mu.Unlock()
	if old != nil {
		old.Cancel()
	}
	return pub, nil
}

// A publication is a value that a node keeps alive.
type publication struct {
	n     *Node
	key   Key
	value *Value
	p     *kad.Put
}

func (p *publication) Key() Key      { return p.key }
func (p *publication) Value() *Value { return p.value }

func (p *publication) Cancel() {
	p.n.do(func(now time.Time, out *kad.Outbox) {
		if at := (pubKey{p.key, p.value.ID}); p.n.pubs[at] == p {
			delete(p.n.pubs, at)
		}
		p.n.core.CancelPut(now, p.p, out)
	})
}

// Listen implements [Table].
func (n *Node) Listen(ctx context.Context, key Key, q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if key.IsZero() {
			yield(Event{}, fmt.Errorf("listen: %w: the key is zero", ErrRefused))
			return
		}
		events := newQueue[Event]()
		var l *kad.Listen
		n.do(func(now time.Time, out *kad.Outbox) {
			l = n.core.Listen(now, key, q, func(v *Value, expired bool) { events.add(Event{v, expired}) }, out)
		})
		defer n.do(func(now time.Time, out *kad.Outbox) { n.core.CancelListen(now, l, out) })
		forward(ctx, n.closed, events, yield)
	}
}

// Ping asks whether a node answers at an address and returns its id and the
// round-trip time. It asks up to three times.
func (n *Node) Ping(ctx context.Context, addr netip.AddrPort) (NodeID, time.Duration, error) {
	type answer struct {
		id  NodeID
		rtt time.Duration
		err error
	}
	done := make(chan answer, 1)
	n.do(func(now time.Time, out *kad.Outbox) {
		n.core.Ping(now, addr, func(id NodeID, rtt time.Duration, err error) { done <- answer{id, rtt, err} }, out)
	})
	select {
	case a := <-done:
		if a.err != nil {
			return NodeID{}, 0, fmt.Errorf("ping %v: %w", addr, publicError(a.err))
		}
		return a.id, a.rtt, nil
	case <-ctx.Done():
		return NodeID{}, 0, fmt.Errorf("ping %v: %w", addr, ctx.Err())
	case <-n.closed:
		return NodeID{}, 0, ErrClosed
	}
}

// Bootstrap looks for nodes at more addresses, each "host" or "host:port".
func (n *Node) Bootstrap(ctx context.Context, hosts ...string) error {
	addrs, err := n.resolve(ctx, hosts)
	n.do(func(now time.Time, out *kad.Outbox) { n.core.Bootstrap(now, addrs, out) })
	return err
}

// WaitConnected waits until the node is connected to the network.
func (n *Node) WaitConnected(ctx context.Context) error {
	wait := 5 * time.Millisecond
	for {
		info, err := n.Info(ctx)
		if err != nil || info.Status == Connected {
			return err
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 250*time.Millisecond)
		case <-ctx.Done():
			return fmt.Errorf("wait for the DHT: %w (%s)", ctx.Err(), info.Status)
		case <-n.closed:
			return ErrClosed
		}
	}
}

// ConnectivityChanged tells the node that the host's network is another one. The
// node finds out by itself where the system tells.
func (n *Node) ConnectivityChanged() {
	n.do(func(now time.Time, out *kad.Outbox) { n.core.ConnectivityChanged(now, out) })
}

// Info implements [Table].
func (n *Node) Info(context.Context) (Info, error) {
	select {
	case <-n.closed:
		return Info{}, ErrClosed
	default:
	}
	n.mu.Lock()
	i := n.core.Info(time.Now())
	n.mu.Unlock()
	info := Info{
		NodeID: n.cfg.ID, Network: n.cfg.NetworkID,
		IPv4: familyInfo(i.V4, n.v4), IPv6: familyInfo(i.V6, n.v6),
		Storage:  StorageInfo{Keys: i.Keys, Values: i.Values, Bytes: i.Bytes, Limit: i.Limit},
		Searches: i.Searches, Listens: i.Sockets, Publishing: i.Publishing, Listening: i.Listeners, Requests: i.Requests,
	}
	info.Status = max(info.IPv4.Status, info.IPv6.Status)
	for _, a := range []netip.Addr{i.V4.Public, i.V6.Public} {
		if a.IsValid() {
			info.PublicAddrs = append(info.PublicAddrs, a)
		}
	}
	return info, nil
}

func familyInfo(i kad.FamilyInfo, s *socket) FamilyInfo {
	if s == nil {
		return FamilyInfo{}
	}
	return FamilyInfo{
		Status: Status(i.Status), Good: i.Good, Dubious: i.Dubious, Known: i.Known,
		Depth: i.Depth, Estimate: i.Estimate, Addr: s.addr,
	}
}

// Stats returns the counters since the node was made.
func (n *Node) Stats() kad.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.Stats()
}
