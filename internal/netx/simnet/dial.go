package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// backlog is how many connections wait for Accept at a listener.
const backlog = 128

// A request for a connection that is not answered is sent again after synRetry,
// then after twice that, and so on, synTries times in all: for two minutes.
const (
	synRetry = time.Second
	synTries = 7
)

// listener is a net.Listener of a host.
type listener struct {
	host   *Host
	addr   net.Addr
	port   uint16       // TCP
	bound  []netip.Addr // TCP; two for both families
	cond   sync.Cond
	queue  []*stream
	closed bool
}

// Listen implements netx.Network. Unix sockets live in a space of names per host.
func (h *Host) Listen(ctx context.Context, network, addr string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	if !isStream(network) {
		return fail(net.UnknownNetworkError(network))
	}
	var bound []netip.Addr
	var port uint16
	if network != "unix" {
		var err error
		if bound, port, err = h.resolve(ctx, network, addr, true); err != nil {
			return fail(err)
		}
	}
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return fail(net.ErrClosed)
	}
	l := &listener{host: h, bound: bound, port: port}
	l.cond.L = &w.mu
	if network == "unix" {
		if h.unix[addr] != nil {
			return fail(syscall.EADDRINUSE)
		}
		l.addr = &net.UnixAddr{Name: addr, Net: "unix"}
		h.unix[addr] = l
		return l, nil
	}
	for _, a := range bound {
		if err := h.bindable(a); err != nil {
			return fail(err)
		}
	}
	if port == 0 {
		var err error
		if l.port, err = h.freePort(func(p uint16) bool { return h.tcpTaken(p, bound) || h.tcpPorts[p] > 0 }); err != nil {
			return fail(err)
		}
	} else if h.tcpTaken(port, bound) {
		return fail(syscall.EADDRINUSE)
	}
	l.addr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(bound[0], l.port))
	h.listeners[l.port] = append(h.listeners[l.port], l)
	return l, nil
}

func isStream(network string) bool {
	return slices.Contains([]string{"tcp", "tcp4", "tcp6", "unix"}, network)
}

func (h *Host) tcpTaken(port uint16, bound []netip.Addr) bool {
	return slices.ContainsFunc(h.listeners[port], func(l *listener) bool {
		return slices.ContainsFunc(l.bound, func(a netip.Addr) bool {
			return slices.ContainsFunc(bound, func(b netip.Addr) bool { return overlap(a, b) })
		})
	})
}

// resolve parses "host:port". To listen it gives one address, or the wildcards of
// both families with that of IPv6 first; to dial it gives all of the family.
func (h *Host) resolve(ctx context.Context, network, addr string, toListen bool) ([]netip.Addr, uint16, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, 0, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, 0, &net.AddrError{Err: "invalid port", Addr: addr}
	}
	var addrs []netip.Addr
	switch {
	case host == "" && toListen:
		addrs = []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()}
	case host == "":
		addrs = []netip.Addr{loopback4, loopback6}
	default:
		if addrs, err = h.Lookup(ctx, host); err != nil {
			return nil, 0, err
		}
	}
	both := toListen && network == "tcp" && addrs[0] == netip.IPv6Unspecified()
	if both {
		return []netip.Addr{netip.IPv6Unspecified(), netip.IPv4Unspecified()}, uint16(port), nil
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		return network == "tcp4" && !a.Is4() || network == "tcp6" && !a.Is6()
	})
	if len(addrs) == 0 {
		return nil, 0, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	for i, a := range addrs {
		addrs[i] = a.WithZone("")
	}
	if toListen {
		addrs = addrs[:1]
	}
	return addrs, uint16(port), nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	w := l.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if l.closed {
			return nil, &net.OpError{Op: "accept", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
		}
		if len(l.queue) > 0 {
			s := l.queue[0]
			l.queue = slices.Delete(l.queue, 0, 1)
			return s, nil
		}
		l.cond.Wait()
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.addr }

// Close implements net.Listener. Connections that wait for Accept are reset.
func (l *listener) Close() error {
	w := l.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	if l.closed {
		return &net.OpError{Op: "close", Net: l.addr.Network(), Addr: l.addr, Err: net.ErrClosed}
	}
	l.shut()
	return nil
}

func (l *listener) shut() {
	l.closed = true
	if l.addr.Network() == "unix" {
		delete(l.host.unix, l.addr.String())
	} else {
		h := l.host
		h.listeners[l.port] = slices.DeleteFunc(slices.Clone(h.listeners[l.port]), func(x *listener) bool { return x == l })
		if len(h.listeners[l.port]) == 0 {
			delete(h.listeners, l.port)
		}
	}
	for _, s := range l.queue {
		s.peer.reset(syscall.ECONNRESET)
		s.shut()
	}
	l.queue = nil
	l.cond.Broadcast()
}

// dialing is a request for a connection.
type dialing struct {
	host   *Host
	local  netip.AddrPort
	remote netip.AddrPort // as dialled
	server *stream        // once accepted
	client *stream
	over   bool       // nobody waits any more
	done   chan error // gets the answer, capacity 1
}

// Dial implements netx.Network. It tries the addresses of a name one after the
// other; each has two minutes, as on Linux, unless ctx ends before.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		if errno, ok := err.(syscall.Errno); ok {
			err = os.NewSyscallError("connect", errno)
		}
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	switch {
	case !isStream(network):
		return fail(net.UnknownNetworkError(network))
	case ctx.Err() != nil:
		return fail(ctx.Err())
	case network == "unix":
		s, err := h.dialUnix(addr)
		if err != nil {
			return fail(err)
		}
		return s, nil
	}
	addrs, port, err := h.resolve(ctx, network, addr, false)
	if err != nil {
		return fail(err)
	}
	var first error
	for _, a := range addrs {
		if a.IsUnspecified() { // as on Linux, this machine
			a = loopback4
			if addrs[0].Is6() {
				a = loopback6
			}
		}
		s, err := h.dialTCP(ctx, netip.AddrPortFrom(a, port))
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	return fail(first)
}

func (h *Host) dialTCP(ctx context.Context, dst netip.AddrPort) (*stream, error) {
	d, err := h.newDialing(dst)
	if err != nil {
		return nil, err
	}
	err = d.await(ctx)
	d.end(err == nil)
	return d.client, err
}

// await sends the request until it is answered.
func (d *dialing) await(ctx context.Context) error {
	wait := synRetry
	for range synTries {
		if err := d.knock(); err != nil {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case err := <-d.done:
			timer.Stop()
			return err
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-d.host.world.done:
			timer.Stop()
			return net.ErrClosed
		case <-timer.C:
		}
		wait *= 2
	}
	return syscall.ETIMEDOUT
}

func (h *Host) newDialing(dst netip.AddrPort) (*dialing, error) {
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, net.ErrClosed
	}
	src, err := h.source(dst.Addr())
	if err != nil {
		return nil, err
	}
	port, err := h.freePort(func(p uint16) bool { return h.tcpPorts[p] > 0 || len(h.listeners[p]) > 0 })
	if err != nil {
		return nil, err
	}
	h.tcpPorts[port]++
	return &dialing{host: h, local: netip.AddrPortFrom(src, port), remote: dst, done: make(chan error, 1)}, nil
}

// knock sends the request once.
func (d *dialing) knock() error {
	h := d.host
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	if w.closed {
		return net.ErrClosed
	}
	if _, err := h.source(d.remote.Addr()); err != nil {
		return err
	}
	w.countSent(h, tcp, 0)
	w.send(packet{
		proto: tcp, from: h, src: d.local, dst: d.remote, realm: h.lan.realm, syn: d,
		nth:  h.nth(tcp, d.local, d.remote),
		flow: uint64(hash(w.cfg.Seed).word(uint64(h.id)).addr(d.local).addr(d.remote)),
	})
	return nil
}

// end is called when nobody waits for the answer any more. A connection that the
// dialler does not take is reset.
func (d *dialing) end(taken bool) {
	w := d.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	d.over = true
	switch {
	case d.client == nil:
		d.host.freeTCP(d.local.Port())
	case !taken:
		d.server.reset(syscall.ECONNRESET)
		d.client.shut()
	}
}

func (h *Host) freeTCP(port uint16) {
	if h.tcpPorts[port]--; h.tcpPorts[port] <= 0 {
		delete(h.tcpPorts, port)
	}
}

// acceptStream is the arrival of a request at a host.
func (h *Host) acceptStream(w *World, p *packet) (Cause, bool) {
	d := p.syn
	if d.over {
		return DropNoSocket, false
	}
	if d.server == nil {
		i := slices.IndexFunc(h.listeners[p.dst.Port()], func(l *listener) bool {
			return slices.ContainsFunc(l.bound, func(a netip.Addr) bool { return overlap(a, p.dst.Addr()) })
		})
		if i < 0 {
			d.answer(w, h, p.nth, syscall.ECONNREFUSED)
			return DropNoSocket, false
		}
		l := h.listeners[p.dst.Port()][i]
		if len(l.queue) >= backlog {
			return DropOverflow, false
		}
		d.client, d.server = connect(d.host, h,
			net.TCPAddrFromAddrPort(d.local), net.TCPAddrFromAddrPort(d.remote),
			net.TCPAddrFromAddrPort(p.dst), net.TCPAddrFromAddrPort(p.src), p.flow)
		d.client.port = d.local.Port()
		l.queue = append(l.queue, d.server)
		l.cond.Broadcast()
	}
	d.answer(w, h, p.nth, nil)
	return 0, true
}

// answer sends the dialling host what became of its request. The answer to a
// request can be lost like any packet.
func (d *dialing) answer(w *World, from *Host, nth uint64, err error) {
	flow := uint64(hash(w.cfg.Seed).word(uint64(from.id)).addr(d.remote).addr(d.local))
	fate := w.path(from, d.host).Fate(flow, d.remote, d.local, nth, nil)
	if len(fate) == 0 {
		return
	}
	w.schedule(event{at: w.now() + fate[0], flow: flow, nth: nth, do: actionFunc(func(w *World) {
		if d.over || from != d.host && (w.partitioned(from, d.host) || d.host.down || from.down) {
			return
		}
		select {
		case d.done <- err:
		default: // answered before
		}
	})})
}

// dialUnix connects to a listener of the same host.
func (h *Host) dialUnix(name string) (*stream, error) {
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, net.ErrClosed
	}
	l := h.unix[name]
	switch {
	case l == nil:
		return nil, errors.Join(syscall.ENOENT, syscall.ECONNREFUSED)
	case len(l.queue) >= backlog:
		return nil, syscall.EAGAIN
	}
	nobody := &net.UnixAddr{Net: "unix"}
	client, server := connect(h, h, nobody, l.addr, l.addr, nobody, uint64(hash(0).bytes([]byte(name))))
	l.queue = append(l.queue, server)
	l.cond.Broadcast()
	return client, nil
}
