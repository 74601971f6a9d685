package dht

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx"
)

const (
	maxPacket = 64 << 10 // bytes of a datagram
	// usualPacket is the room for a packet at first. What nodes send fits in it; one
	// that does not is lost, but there is room for its repetition.
	usualPacket = 2 << 10
	maxBatch    = 16 // datagrams that are read at once: more would keep other workers idle
	saveEvery   = 10 * time.Minute
	// readPatience is how long a socket may do nothing but fail.
	readPatience = time.Minute
	// idleLook is how often the core is looked at when it has nothing to do.
	idleLook = time.Hour
	// rejoinEvery is how often, on average, bootstrap nodes are asked while all is
	// well: the halves of a network that was parted for long know only themselves,
	// and each believes that it is the whole.
	rejoinEvery = time.Hour
)

// Run runs the node until ctx ends or [Node.Close] is called, and then closes it.
// It returns nil then; an error says why the node could not go on.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n.load()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-ctx.Done():
		case <-n.closed:
			cancel()
		}
		return n.Close()
	})
	for _, s := range []*socket{n.v4, n.v6} {
		if s != nil {
			n.serve(ctx, g, s)
		}
	}
	g.Go(func() error { return n.keepTime(ctx, g) })
	g.Go(func() error { return n.watchNetwork(ctx) })
	if n.cfg.Discovery {
		n.discover(ctx, g)
	}
	if n.cfg.StateFile != "" {
		g.Go(func() error { return n.keepState(ctx) })
	}
	n.cfg.Log.Info("DHT node runs", "id", n.cfg.ID, "addrs", n.Addrs(), "network", n.cfg.NetworkID)
	err := g.Wait()
	if n.cfg.StateFile != "" {
		err = errors.Join(err, n.SaveState(n.cfg.StateFile))
	}
	return err
}

// load takes over the nodes and values of an earlier run.
func (n *Node) load() {
	st := n.cfg.State
	if st == nil {
		return
	}
	n.do(func(now time.Time, out *kad.Outbox) {
		n.kept = st.Nodes
		n.core.Insert(now, st.Nodes, out)
		for _, e := range st.Values {
			n.core.Import(now, e, out)
		}
	})
	n.cfg.State = nil
}

// serve starts the first worker of a socket. Others help it, on handles of their
// own where the system has those, while packets come faster than it can take them.
func (n *Node) serve(ctx context.Context, g *errgroup.Group, s *socket) {
	s.workers.Store(1)
	g.Go(func() error {
		return n.work(&worker{n: n, socket: s, conn: s.conn, help: func() { n.help(ctx, g, s) }})
	})
}

// help starts one more worker, unless there are as many as may be.
func (n *Node) help(ctx context.Context, g *errgroup.Group, s *socket) {
	if int(s.workers.Add(1)) > n.cfg.Workers {
		s.workers.Add(-1)
		return
	}
	conn, err := s.conn.Clone()
	if err != nil {
		return // no more handles to be had: it stays counted, so that nobody tries again
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	g.Go(func() error {
		err := n.work(&worker{n: n, socket: s, conn: conn, helper: true, help: func() {}})
		if stop() {
			conn.Close()
		}
		s.workers.Add(-1)
		return err
	})
}

// A worker is what one goroutine needs to serve packets.
type worker struct {
	n      *Node
	socket *socket
	conn   netx.PacketConn
	helper bool
	help   func() // called when there is more than this worker can do
	in     []netx.Datagram
	room   int // for each packet, in bytes
	msgs   []wire.Message
	ok     []bool
	out    kad.Outbox
}

const (
	busyBatch = 8    // packets waiting, when another worker is to help
	idleReads = 1024 // single packets in a row, after which a helper goes
	calmReads = 16   // small batches in a row, after which there is room for half as many
)

// work reads packets until the node is closed.
func (n *Node) work(w *worker) error {
	w.room = usualPacket
	w.grow(1)
	v4, v6 := n.v4, n.v6
	if w.socket == n.v4 {
		v4 = &socket{conn: w.conn}
	} else {
		v6 = &socket{conn: w.conn}
	}
	failures, singles, small := 0, 0, 0
	var failing time.Time // since when reading did nothing but fail
	for {
		got, err := w.conn.ReadBatch(w.in)
		if err != nil {
			if n.isClosed() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if failures++; failures == 1 {
				failing = time.Now()
			}
			if time.Since(failing) > readPatience {
				return fmt.Errorf("read DHT packets at %v: %w", w.socket.addr, err)
			}
			n.pause(failures)
			continue
		}
		failures = 0
		w.handle(w.in[:got])
		n.send(&w.out, v4, v6)
		if got >= busyBatch {
			w.help()
		}
		if w.room < maxPacket && slices.ContainsFunc(w.in[:got], func(p netx.Datagram) bool { return p.N == w.room }) {
			w.in, w.room = nil, maxPacket
			w.grow(got)
		}
		if got == len(w.in) && got < maxBatch {
			w.grow(2 * got) // there may be more waiting
		}
		if small++; got > len(w.in)/4 {
			small = 0
		}
		if small >= calmReads && len(w.in) > 1 {
			small = 0
			w.in = slices.Clone(w.in[:len(w.in)/2]) // the rest is free again
		}
		if singles++; got > 1 {
			singles = 0
		}
		if w.helper && singles >= idleReads {
			return nil
		}
	}
}

// pause waits after so many failures in a row, a second at most, or until the node
// is closed.
func (n *Node) pause(failures int) {
	select {
	case <-time.After(min(time.Duration(failures)*10*time.Millisecond, time.Second)):
	case <-n.closed:
	}
}

// grow makes room for batches of size packets.
func (w *worker) grow(size int) {
	for len(w.in) < size {
		w.in = append(w.in, netx.Datagram{Buf: make([]byte, w.room)})
	}
	w.msgs = make([]wire.Message, size)
	w.ok = make([]bool, size)
}

// handle parses packets without the lock and gives them to the core. The signatures
// that the core wants checked are checked without the lock as well.
func (w *worker) handle(packets []netx.Datagram) {
	n := w.n
	good := 0
	for i, p := range packets {
		w.ok[i] = w.msgs[i].Parse(p.Buf[:p.N]) == nil
		if !w.ok[i] {
			n.bad.count.Add(1)
			continue
		}
		good++
	}
	w.out.Reset()
	if good == 0 {
		return
	}
	now := time.Now()
	n.mu.Lock()
	for i, p := range packets {
		if w.ok[i] {
			n.core.Receive(now, p.Addr, &w.msgs[i], p.N, &w.out)
		}
	}
	n.arm()
	n.mu.Unlock()
	puts := w.out.Checks()
	if len(puts) == 0 {
		return
	}
	for _, put := range puts {
		put.Message.CheckSignatures()
	}
	now = time.Now()
	n.mu.Lock()
	for _, put := range puts {
		n.core.Deliver(now, put, &w.out)
	}
	n.arm()
	n.mu.Unlock()
}

// badPackets counts packets that could not be read.
type badPackets struct{ count atomic.Uint64 }

func (n *Node) isClosed() bool {
	select {
	case <-n.closed:
		return true
	default:
		return false
	}
}

// send sends what is in out and resets it. An address that cannot be reached at all
// fails its requests at once.
func (n *Node) send(out *kad.Outbox, v4, v6 *socket) {
	if out.Len() == 0 {
		return
	}
	var room [maxBatch]netx.Datagram
	var lost []netip.AddrPort
	batch := room[:0]
	var conn netx.PacketConn
	flush := func() {
		for len(batch) > 0 {
			sent, err := conn.WriteBatch(batch)
			if err == nil || n.isClosed() || sent >= len(batch) {
				break
			}
			if unreachable(err) {
				lost = append(lost, batch[sent].Addr)
			}
			batch = batch[sent+1:]
		}
		batch = room[:0]
	}
	for i := range out.Len() {
		to, b := out.Packet(i)
		s := v6
		if to.Addr().Is4() {
			s = v4
		}
		if s == nil {
			continue
		}
		if s.conn != conn || len(batch) == len(room) {
			flush()
			conn = s.conn
		}
		batch = append(batch, netx.Datagram{Buf: b, N: len(b), Addr: to})
	}
	flush()
	out.Reset()
	if len(lost) > 0 {
		n.failed(lost)
	}
}

// failed tells the core of addresses that could not be sent to. What it wants to
// send instead is sent, but failures of that are found by its time-outs.
func (n *Node) failed(lost []netip.AddrPort) {
	var out kad.Outbox
	n.mu.Lock()
	for _, a := range lost {
		n.core.Failed(time.Now(), a, &out)
	}
	n.arm()
	n.mu.Unlock()
	for i := range out.Len() {
		to, b := out.Packet(i)
		s := n.v6
		if to.Addr().Is4() {
			s = n.v4
		}
		if s != nil {
			s.conn.WriteBatch([]netx.Datagram{{Buf: b, N: len(b), Addr: to}})
		}
	}
}

// keepTime lets the core do what is due, and joins the network when it is time.
func (n *Node) keepTime(ctx context.Context, g *errgroup.Group) error {
	defer n.clock.Stop()
	var out kad.Outbox
	var rejoin time.Time
	for {
		select {
		case <-n.clock.C:
		case <-ctx.Done():
			return nil
		}
		now := time.Now()
		out.Reset()
		n.mu.Lock()
		n.wake = n.core.Tick(now, &out)
		n.clock.Reset(max(min(n.wake.Sub(now), idleLook), 0))
		join := n.core.WantsBootstrap(now)
		if join = join || now.After(rejoin); join {
			// Give or take a half, so that nodes do not act together.
			rejoin = now.Add(rejoinEvery/2 + time.Duration(n.rand.Int64N(int64(rejoinEvery))))
		}
		n.mu.Unlock()
		n.send(&out, n.v4, n.v6)
		if join && len(n.cfg.Bootstrap) > 0 {
			g.Go(func() error {
				if err := n.Bootstrap(ctx, n.cfg.Bootstrap...); err != nil && ctx.Err() == nil {
					n.cfg.Log.Warn("bootstrap nodes cannot be found", "error", err)
				}
				return nil
			})
		}
	}
}

// resolve looks up bootstrap names. It returns what was found beside the error
// about what was not.
func (n *Node) resolve(ctx context.Context, hosts []string) ([]netip.AddrPort, error) {
	// Say that nodes may come, so that requests wait for them.
	n.do(func(now time.Time, out *kad.Outbox) { n.core.Bootstrap(now, nil, out) })
	var addrs []netip.AddrPort
	var errs []error
	for _, h := range hosts {
		host, port, err := splitHostPort(h)
		if err != nil {
			errs = append(errs, fmt.Errorf("bootstrap address %q: %w", h, err))
			continue
		}
		ips, err := n.cfg.Network.Lookup(ctx, host)
		if err != nil {
			errs = append(errs, fmt.Errorf("look up bootstrap node %s: %w", host, err))
			continue
		}
		for _, ip := range ips[:min(len(ips), 16)] {
			addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), port))
		}
	}
	return addrs, errors.Join(errs...)
}

// watchNetwork tells the core when the host's network changes.
func (n *Node) watchNetwork(ctx context.Context) error {
	n.localAddrs()
	for range n.cfg.Network.Changes(ctx) {
		if n.localAddrs() {
			n.cfg.Log.Info("network changed")
			n.ConnectivityChanged()
		}
	}
	return nil
}

// localAddrs tells the core the addresses of the host, and tells whether they are
// others than before.
func (n *Node) localAddrs() bool {
	ifaces, err := n.cfg.Network.Interfaces()
	if err != nil {
		n.cfg.Log.Warn("network interfaces cannot be listed", "error", err)
		return false
	}
	var addrs []netip.Addr
	var links []netip.Prefix
	for _, i := range ifaces {
		for _, p := range i.Addrs {
			addrs = append(addrs, p.Addr().WithZone(""))
			links = append(links, netip.PrefixFrom(p.Addr().WithZone(""), p.Bits()))
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = links
	return n.core.SetLocalAddrs(addrs)
}

// keepState saves the state now and then.
func (n *Node) keepState(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := n.SaveState(n.cfg.StateFile); err != nil {
				n.cfg.Log.Error("DHT state cannot be saved", "file", n.cfg.StateFile, "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
