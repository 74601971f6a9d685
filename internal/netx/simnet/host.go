package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// Ephemeral ports, as on Linux.
const (
	firstPort = 32768
	lastPort  = 60999
)

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
)

// Host is a machine, and its netx.Network.
type Host struct {
	world *World
	id    int
	name  string
	lan   *LAN

	// All below is guarded by World.mu.
	addrs     []netip.Addr
	down      bool
	access    Link
	out, in   pacer
	firewall  *firewall
	sockets   map[uint16][]*socket
	listeners map[uint16][]*listener
	unix      map[string]*listener
	streams   map[*stream]struct{}
	tcpPorts  map[uint16]int // local ports of dialled connections
	lastPort  uint16
	flows     map[flowKey]uint64
	watchers  map[*watcher]struct{}
	stats     Stats
}

var _ netx.Network = (*Host)(nil)

// flowKey is who sends to whom.
type flowKey struct {
	proto    protocol
	src, dst netip.AddrPort
}

func newHost(w *World, id int, name string, l *LAN) *Host {
	return &Host{
		world: w, id: id, name: name, lan: l,
		sockets:   make(map[uint16][]*socket),
		listeners: make(map[uint16][]*listener),
		unix:      make(map[string]*listener),
		streams:   make(map[*stream]struct{}),
		tcpPorts:  make(map[uint16]int),
		flows:     make(map[flowKey]uint64),
		watchers:  make(map[*watcher]struct{}),
	}
}

// String gives the host's name.
func (h *Host) String() string { return h.name }

// Addrs gives the host's addresses, without those of loopback.
func (h *Host) Addrs() []netip.Addr {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return slices.Clone(h.addrs)
}

// SetAddrs gives the host other addresses in the same network. Sockets bound to
// the wildcard address go on with them; what is bound to an old one hears nothing.
func (h *Host) SetAddrs(addrs ...netip.Addr) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	h.setAddrs(addrs)
	h.changed()
}

// Move takes the host to another network, as a phone that leaves home.
func (h *Host) Move(to *LAN, addrs ...netip.Addr) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if to.world != h.world {
		panic("simnet: network of another world")
	}
	h.setAddrs(nil)
	h.lan.hosts = slices.DeleteFunc(h.lan.hosts, func(x *Host) bool { return x == h })
	h.lan = to
	to.hosts = append(to.hosts, h)
	h.setAddrs(addrs)
	h.changed()
}

// SetUp takes the host's interface up or down. Its sockets stay.
func (h *Host) SetUp(up bool) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if h.down == up {
		h.down = !up
		h.changed()
	}
}

// SetAccess sets the host's own line to its network, in both directions; it comes
// on top of the path to the other host. All traffic shares its Rate; what would
// wait for more than a second is dropped.
func (h *Host) SetAccess(l Link) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	h.access = l
}

// SetFirewall turns the host's firewall on or off. It lets in UDP packets only
// from where one was sent to, from the same port, within [Config.Timeout], and no
// TCP connection. Multicast does not pass.
func (h *Host) SetFirewall(on bool) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if !on {
		h.firewall = nil
	} else if h.firewall == nil {
		h.firewall = &firewall{timeout: h.world.cfg.Timeout, sent: make(map[flowKey]time.Duration)}
	}
}

// Stats counts the host's traffic.
func (h *Host) Stats() Stats {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	return h.stats
}

// firewall remembers where UDP packets were sent to. It is pure.
type firewall struct {
	timeout time.Duration
	sent    map[flowKey]time.Duration
	swept   time.Duration
}

func (f *firewall) out(now time.Duration, src, dst netip.AddrPort) {
	if f == nil {
		return
	}
	if now-f.swept > f.timeout {
		for k, last := range f.sent {
			if now-last > f.timeout {
				delete(f.sent, k)
			}
		}
		f.swept = now
	}
	f.sent[flowKey{udp, src, dst}] = now
}

func (f *firewall) in(now time.Duration, p protocol, src, dst netip.AddrPort) bool {
	if f == nil {
		return true
	}
	last, ok := f.sent[flowKey{udp, dst, src}]
	return p == udp && ok && now-last <= f.timeout
}

// owns tells whether packets to a reach this host from itself.
func (h *Host) owns(a netip.Addr) bool {
	return a.IsLoopback() || slices.Contains(h.addrs, a)
}

// source picks the address that packets to dst come from.
func (h *Host) source(dst netip.Addr) (netip.Addr, error) {
	switch {
	case dst.IsLoopback() && dst.Is4():
		return loopback4, nil
	case dst.IsLoopback():
		return loopback6, nil
	case slices.Contains(h.addrs, dst):
		return dst, nil
	}
	var best netip.Addr
	if !h.down {
		for _, a := range h.addrs {
			if a.Is4() != dst.Is4() {
				continue
			}
			if a.IsPrivate() == dst.IsPrivate() {
				return a, nil
			}
			if !best.IsValid() {
				best = a
			}
		}
	}
	if !best.IsValid() {
		return best, syscall.ENETUNREACH
	}
	return best, nil
}

// bindable checks an address to bind.
func (h *Host) bindable(a netip.Addr) error {
	if a.IsUnspecified() || h.owns(a) {
		return nil
	}
	return syscall.EADDRNOTAVAIL
}

// freePort is the next port for which taken is false.
func (h *Host) freePort(taken func(port uint16) bool) (uint16, error) {
	for range lastPort - firstPort + 1 {
		if h.lastPort < firstPort || h.lastPort >= lastPort {
			h.lastPort = firstPort - 1
		}
		h.lastPort++
		if !taken(h.lastPort) {
			return h.lastPort, nil
		}
	}
	return 0, syscall.EADDRINUSE
}

// nth counts the packets of a flow.
func (h *Host) nth(p protocol, src, dst netip.AddrPort) uint64 {
	k := flowKey{p, src, dst}
	n := h.flows[k]
	h.flows[k] = n + 1
	return n
}

// Interfaces implements netx.Network: loopback, and "eth0" unless the host is down.
func (h *Host) Interfaces() ([]netx.Interface, error) {
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	out := []netx.Interface{{
		Name: "lo", Index: 1, MTU: 65536, Loopback: true,
		Addrs: []netip.Prefix{netip.PrefixFrom(loopback4, 8), netip.PrefixFrom(loopback6, 128)},
	}}
	if h.down {
		return out, nil
	}
	eth := netx.Interface{Name: "eth0", Index: 2, MTU: 1500, Multicast: h.lan.multicast}
	for _, a := range h.addrs {
		bits := 64
		if a.Is4() {
			bits = 24
		}
		eth.Addrs = append(eth.Addrs, netip.PrefixFrom(a, bits))
	}
	return append(out, eth), nil
}

// watcher is one channel of Changes.
type watcher struct {
	c      chan struct{}
	unhook func() bool // from the end of the context
}

// Changes implements netx.Network.
func (h *Host) Changes(ctx context.Context) <-chan struct{} {
	w := &watcher{c: make(chan struct{}, 1)}
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	h.watchers[w] = struct{}{}
	w.unhook = context.AfterFunc(ctx, func() {
		h.world.mu.Lock()
		defer h.world.mu.Unlock()
		h.unwatch(w)
	})
	if h.world.closed {
		h.unwatch(w)
	}
	return w.c
}

func (h *Host) unwatch(w *watcher) {
	if _, ok := h.watchers[w]; ok {
		delete(h.watchers, w)
		w.unhook()
		close(w.c)
	}
}

func (h *Host) changed() {
	for w := range h.watchers {
		select {
		case w.c <- struct{}{}:
		default:
		}
	}
}

// Lookup implements netx.Network with the names of [World.SetName]. It takes twice
// the latency of the world's link.
func (h *Host) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	if canonical(host) == "localhost" {
		return []netip.Addr{loopback4, loopback6}, nil
	}
	fail := func(err error, temporary bool) error {
		return &net.DNSError{
			UnwrapErr: err, Err: err.Error(), Name: host,
			IsTemporary: temporary, IsNotFound: err == errNoHost, IsTimeout: err == context.DeadlineExceeded,
		}
	}
	if d := 2 * h.world.cfg.Link.Latency; d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-h.world.done:
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fail(err, true)
	}
	h.world.mu.Lock()
	defer h.world.mu.Unlock()
	if h.world.closed {
		return nil, fail(net.ErrClosed, false)
	}
	if h.down || len(h.addrs) == 0 {
		return nil, fail(syscall.ENETUNREACH, true)
	}
	addrs, ok := h.world.names[canonical(host)]
	if !ok {
		return nil, fail(errNoHost, false)
	}
	return slices.Clone(addrs), nil
}

var errNoHost = errors.New("no such host")

// closeAll closes all that is open on the host.
func (h *Host) closeAll() {
	for _, list := range h.sockets {
		for _, s := range list {
			for c := range s.handles {
				c.shut()
			}
		}
	}
	for _, list := range h.listeners {
		for _, l := range list {
			l.shut()
		}
	}
	for _, l := range h.unix {
		l.shut()
	}
	for s := range h.streams {
		s.shut()
	}
	for w := range h.watchers {
		h.unwatch(w)
	}
}

// deadline is a time at which a call that waits gives up.
type deadline struct {
	at    time.Time
	timer *time.Timer
	fired bool
}

// set is called with the world locked; cond uses the world's lock and is woken
// when t has come, and now.
func (d *deadline) set(t time.Time, w *World, cond *sync.Cond) {
	d.clear()
	d.at = t
	cond.Broadcast()
	wait := time.Until(t)
	if t.IsZero() || wait <= 0 {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if d.timer == timer {
			d.fired = true
			cond.Broadcast()
		}
	})
	d.timer = timer
}

func (d *deadline) clear() {
	if d.timer != nil {
		d.timer.Stop()
	}
	*d = deadline{}
}

func (d *deadline) passed() bool {
	return d.fired || !d.at.IsZero() && !time.Now().Before(d.at)
}
