package simnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// maxPayload is the longest UDP payload in one IPv4 packet, in bytes.
const maxPayload = 65535 - packetOverhead

// messageOverhead is what a waiting packet takes of the receive buffer besides
// its payload, in bytes.
const messageOverhead = 512

// packet is one UDP packet, or one request for a TCP connection, under way.
type packet struct {
	proto    protocol
	from     *Host
	to       *Host // set for multicast; else the addresses decide
	src, dst netip.AddrPort
	realm    *realm
	payload  []byte // shared between copies, not changed
	syn      *dialing
	flow     uint64
	nth      uint64
}

// socket is a UDP socket.
type socket struct {
	host    *Host
	local   netip.AddrPort
	group   netip.Addr // that of ListenMulticast, else invalid
	cond    sync.Cond
	handles map[*packetConn]struct{}
	queue   []message // from head on
	head    int
	waiting int // bytes in queue
}

type message struct {
	payload []byte
	from    netip.AddrPort
}

// packetConn is a handle on a socket.
type packetConn struct {
	socket *socket
	closed bool
	read   deadline
}

// ListenPacket implements netx.Network.
func (h *Host) ListenPacket(_ context.Context, addr netip.AddrPort) (netx.PacketConn, error) {
	return h.listenUDP(addr, netip.Addr{})
}

// ListenMulticast implements netx.Network. Clones work.
func (h *Host) ListenMulticast(_ context.Context, group netip.AddrPort) (netx.PacketConn, error) {
	g := group.Addr().Unmap().WithZone("")
	if !g.IsMulticast() {
		return nil, opError("listen", "udp", group, &net.AddrError{Err: "not a multicast address", Addr: group.String()})
	}
	bind := netip.IPv4Unspecified()
	if g.Is6() {
		bind = netip.IPv6Unspecified()
	}
	return h.listenUDP(netip.AddrPortFrom(bind, group.Port()), g)
}

func (h *Host) listenUDP(addr netip.AddrPort, group netip.Addr) (netx.PacketConn, error) {
	w := h.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, opError("listen", "udp", addr, net.ErrClosed)
	}
	if !addr.IsValid() {
		return nil, opError("listen", "udp", addr, &net.AddrError{Err: "no address", Addr: addr.String()})
	}
	addr = netip.AddrPortFrom(addr.Addr().Unmap().WithZone(""), addr.Port())
	if err := h.bindable(addr.Addr()); err != nil {
		return nil, opError("listen", "udp", addr, err)
	}
	taken := func(port uint16) bool {
		return slices.ContainsFunc(h.sockets[port], func(s *socket) bool {
			shared := s.group.IsValid() && group.IsValid()
			return !shared && overlap(s.local.Addr(), addr.Addr())
		})
	}
	port := addr.Port()
	switch {
	case port == 0:
		var err error
		if port, err = h.freePort(taken); err != nil {
			return nil, opError("listen", "udp", addr, err)
		}
	case taken(port):
		return nil, opError("listen", "udp", addr, syscall.EADDRINUSE)
	}
	s := &socket{host: h, local: netip.AddrPortFrom(addr.Addr(), port), group: group, handles: make(map[*packetConn]struct{})}
	s.cond.L = &w.mu
	h.sockets[port] = append(h.sockets[port], s)
	return s.open(), nil
}

// overlap tells whether two bound addresses get packets for the same address.
func overlap(a, b netip.Addr) bool {
	return a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified())
}

func (s *socket) open() *packetConn {
	c := &packetConn{socket: s}
	s.handles[c] = struct{}{}
	return c
}

// ReadBatch implements netx.PacketConn.
func (c *packetConn) ReadBatch(d []netx.Datagram) (int, error) {
	if len(d) == 0 {
		return 0, nil
	}
	s := c.socket
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case c.closed:
			return 0, opError("read", "udp", s.local, net.ErrClosed)
		case c.read.passed():
			return 0, opError("read", "udp", s.local, os.ErrDeadlineExceeded)
		case s.head < len(s.queue):
			n := 0
			for n < len(d) && s.head < len(s.queue) {
				m := s.pop()
				d[n].N = copy(d[n].Buf, m.payload)
				d[n].Addr = m.from
				n++
			}
			return n, nil
		}
		s.cond.Wait()
	}
}

func (s *socket) pop() message {
	m := s.queue[s.head]
	s.queue[s.head] = message{}
	s.head++
	s.waiting -= len(m.payload) + messageOverhead
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	return m
}

// push queues a packet, or drops it when the buffer is full.
func (s *socket) push(m message) bool {
	size := len(m.payload) + messageOverhead
	if s.waiting+size > s.host.world.cfg.ReceiveBuffer {
		return false
	}
	if s.head > len(s.queue)/2 && len(s.queue) == cap(s.queue) { // room at the front
		n := copy(s.queue, s.queue[s.head:])
		clear(s.queue[n:])
		s.queue, s.head = s.queue[:n], 0
	}
	s.queue = append(s.queue, m)
	s.waiting += size
	s.cond.Broadcast()
	return true
}

// WriteBatch implements netx.PacketConn. It does not wait: what a queue on the
// way has no room for is dropped there.
func (c *packetConn) WriteBatch(d []netx.Datagram) (int, error) {
	w := c.socket.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	for i := range d {
		if err := c.write(&d[i]); err != nil {
			return i, opError("write", "udp", c.socket.local, err)
		}
	}
	return len(d), nil
}

func (c *packetConn) write(d *netx.Datagram) error {
	s := c.socket
	h := s.host
	dst := netip.AddrPortFrom(d.Addr.Addr().Unmap().WithZone(""), d.Addr.Port())
	switch {
	case c.closed:
		return net.ErrClosed
	case d.N < 0 || d.N > len(d.Buf) || dst.Port() == 0:
		return syscall.EINVAL
	case !dst.IsValid() || dst.Addr().Is4() != s.local.Addr().Is4():
		return syscall.EAFNOSUPPORT
	case d.N > maxPayload:
		return syscall.EMSGSIZE
	}
	src := s.local
	if src.Addr().IsUnspecified() {
		from, err := h.source(dst.Addr())
		if err != nil {
			return err
		}
		src = netip.AddrPortFrom(from, src.Port())
	} else if err := h.bindable(src.Addr()); err != nil {
		return err
	}
	w := h.world
	w.countSent(h, udp, d.N)
	p := packet{
		proto: udp, from: h, src: src, dst: dst, realm: h.lan.realm,
		payload: slices.Clone(d.Buf[:d.N]),
		nth:     h.nth(udp, src, dst),
		flow:    uint64(hash(w.cfg.Seed).word(uint64(h.id)).addr(src).addr(dst)),
	}
	if dst.Addr().IsMulticast() {
		w.multicast(p)
		return nil
	}
	w.send(p)
	return nil
}

// multicast sends a packet to every host of the network that has joined.
func (w *World) multicast(p packet) {
	hosts := []*Host{p.from}
	if p.from.lan.multicast && !p.from.down && !p.src.Addr().IsLoopback() {
		hosts = p.from.lan.hosts
	}
	flow := p.flow
	for _, h := range hosts {
		if slices.ContainsFunc(h.sockets[p.dst.Port()], func(s *socket) bool { return s.group == p.dst.Addr() }) {
			p.to = h
			p.flow = uint64(hash(flow).word(uint64(h.id)))
			w.launch(p, h)
		}
	}
}

// send sends a packet to one host, which may turn out not to exist.
func (w *World) send(p packet) {
	h := p.from
	if h.owns(p.dst.Addr()) {
		p.to = h
		w.launch(p, h)
		return
	}
	if p.src.Addr().IsLoopback() {
		w.countDropped(h, p.proto, DropNoRoute, len(p.payload))
		return
	}
	if p.proto == udp {
		h.firewall.out(w.now(), p.src, p.dst)
	}
	if cause, ok := w.leave(&p); !ok {
		w.countDropped(h, p.proto, cause, len(p.payload))
		return
	}
	w.launch(p, w.target(&p))
}

// launch puts a packet on the path to the host that will probably get it.
func (w *World) launch(p packet, to *Host) {
	size := len(p.payload)
	if to != nil && w.partitioned(p.from, to) {
		w.countDropped(p.from, p.proto, DropPartition, size)
		return
	}
	link := w.path(p.from, to)
	w.fates = link.AppendFate(w.fates[:0], p.flow, p.src, p.dst, p.nth, p.payload)
	if len(w.fates) == 0 {
		w.countDropped(p.from, p.proto, DropLoss, size)
		return
	}
	now := w.now()
	for i, delay := range w.fates {
		if i > 0 {
			w.countDuplicated(p.from, p.proto, size)
		}
		queued, ok := w.pace(p.from, to, size, delay)
		if !ok {
			w.countDropped(p.from, p.proto, DropRate, size)
			continue
		}
		w.schedule(event{at: now + delay + queued, flow: p.flow, nth: p.nth, do: &p})
	}
}

// run is the arrival of a packet.
func (p *packet) run(w *World) {
	q := *p // a copy of it may come later
	size := len(q.payload)
	h := q.to
	if h == nil {
		var cause Cause
		if h, cause = w.enter(&q); h == nil {
			w.countDropped(q.from, q.proto, cause, size)
			return
		}
	}
	if cause, ok := h.accept(w, &q); !ok {
		w.countDropped(q.from, q.proto, cause, size)
		return
	}
	w.countDelivered(h, q.proto, size)
	if q.proto == udp {
		w.digest += uint64(hash(w.cfg.Seed).word(uint64(w.now())).word(uint64(h.id)).addr(q.src).addr(q.dst).bytes(q.payload))
	}
}

// accept takes in a packet that has reached the host.
func (h *Host) accept(w *World, p *packet) (Cause, bool) {
	if h != p.from {
		switch {
		case w.partitioned(p.from, h):
			return DropPartition, false
		case h.down:
			return DropDown, false
		case !h.firewall.in(w.now(), p.proto, p.src, p.dst):
			return DropFirewall, false
		}
	}
	if p.syn != nil {
		return h.acceptStream(w, p)
	}
	m := message{payload: p.payload, from: p.src}
	if !p.dst.Addr().IsMulticast() {
		s := h.socketAt(p.dst)
		if s == nil {
			return DropNoSocket, false
		}
		return DropOverflow, s.push(m)
	}
	cause := DropNoSocket
	got := false
	for _, s := range h.sockets[p.dst.Port()] {
		if s.group == p.dst.Addr() {
			cause = DropOverflow
			got = s.push(m) || got
		}
	}
	return cause, got
}

// socketAt finds the socket for a unicast packet: one bound to the very address,
// else one bound to the wildcard; of several the last.
func (h *Host) socketAt(dst netip.AddrPort) *socket {
	var found *socket
	for _, s := range h.sockets[dst.Port()] {
		if s.local.Addr() == dst.Addr() {
			return s
		}
		if overlap(s.local.Addr(), dst.Addr()) {
			found = s
		}
	}
	return found
}

// Clone implements netx.PacketConn.
func (c *packetConn) Clone() (netx.PacketConn, error) {
	w := c.socket.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return nil, opError("clone", "udp", c.socket.local, net.ErrClosed)
	}
	return c.socket.open(), nil
}

// LocalAddr implements netx.PacketConn.
func (c *packetConn) LocalAddr() netip.AddrPort { return c.socket.local }

// SetReadDeadline implements netx.PacketConn.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	w := c.socket.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return opError("set", "udp", c.socket.local, net.ErrClosed)
	}
	c.read.set(t, w, &c.socket.cond)
	return nil
}

// Close implements netx.PacketConn.
func (c *packetConn) Close() error {
	w := c.socket.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.closed {
		return opError("close", "udp", c.socket.local, net.ErrClosed)
	}
	c.shut()
	return nil
}

// shut closes the handle, and the socket with its last one.
func (c *packetConn) shut() {
	s := c.socket
	c.closed = true
	c.read.clear()
	delete(s.handles, c)
	if len(s.handles) == 0 {
		port := s.local.Port()
		left := slices.DeleteFunc(slices.Clone(s.host.sockets[port]), func(x *socket) bool { return x == s })
		if len(left) == 0 {
			delete(s.host.sockets, port)
		} else {
			s.host.sockets[port] = left
		}
		s.queue = nil
	}
	s.cond.Broadcast()
}

// opError gives an error the form of package net's.
func opError(op, network string, local netip.AddrPort, err error) error {
	if _, ok := errors.AsType[*net.OpError](err); ok {
		return err
	}
	e := &net.OpError{Op: op, Net: network, Err: err}
	if errno, ok := err.(syscall.Errno); ok {
		e.Err = os.NewSyscallError(op, errno)
	}
	if local.IsValid() {
		e.Source = net.UDPAddrFromAddrPort(local)
	}
	return e
}
