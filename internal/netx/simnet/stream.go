package simnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxSegment is the most that goes as one event, in bytes.
const maxSegment = 16 << 10

// Retransmission. A lost segment comes retransmit later, twice that when it is
// lost again, and so on up to retransmitMax. Who gets nothing through for giveUp
// loses the connection, as on Linux.
const (
	retransmit    = 200 * time.Millisecond
	retransmitMax = 30 * time.Second
	giveUp        = 15 * time.Minute
)

// stream is one end of a connection: a net.Conn.
type stream struct {
	host          *Host
	local, remote net.Addr
	port          uint16 // that the connection holds on the host, 0 for none
	peer          *stream
	in, out       *pipe
	read, write   deadline
	cond          sync.Cond // for anything that a call on this end waits for
	writing       bool      // a Write is under way
	closed        bool
	err           error // why the connection ended, if not by Close
}

// pipe is one direction of a connection.
type pipe struct {
	from, to *stream
	segments []segment // under way, in order
	flying   int       // bytes in segments
	buf      []byte    // arrived, not read
	closed   bool      // the writer has sent its end
	ended    bool      // the end has arrived
	booked   bool      // an event for the first segment is queued
	stalled  time.Duration
	backoff  time.Duration
	last     time.Duration // arrival of the last segment
	flow     uint64
	nth      uint64
}

type segment struct {
	at   time.Duration
	data []byte
	end  bool
}

// connect makes both ends of a connection.
func connect(a, b *Host, aLocal, aRemote, bLocal, bRemote net.Addr, flow uint64) (*stream, *stream) {
	s := &stream{host: a, local: aLocal, remote: aRemote}
	t := &stream{host: b, local: bLocal, remote: bRemote}
	s.peer, t.peer = t, s
	s.cond.L, t.cond.L = &a.world.mu, &a.world.mu
	s.out = &pipe{from: s, to: t, flow: uint64(hash(flow).word(1))}
	t.out = &pipe{from: t, to: s, flow: uint64(hash(flow).word(2))}
	s.in, t.in = t.out, s.out
	a.streams[s] = struct{}{}
	b.streams[t] = struct{}{}
	return s, t
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, s.fail("read", net.ErrClosed)
		case s.read.passed():
			return 0, s.fail("read", os.ErrDeadlineExceeded)
		case len(p) == 0:
			return 0, nil
		case len(s.in.buf) > 0:
			n := copy(p, s.in.buf)
			s.in.buf = s.in.buf[n:]
			s.peer.cond.Broadcast() // there is room
			return n, nil
		case s.in.ended:
			return 0, io.EOF
		case s.err != nil:
			return 0, s.fail("read", s.err)
		}
		s.cond.Wait()
	}
}

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) {
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	// One Write at a time. A mutex would not do: who waits for it is not durably
	// blocked.
	for s.writing && !s.closed && !s.write.passed() {
		s.cond.Wait()
	}
	if !s.writing {
		s.writing = true
		defer func() {
			s.writing = false
			s.cond.Broadcast()
		}()
	}
	sent := 0
	for {
		switch {
		case s.closed:
			return sent, s.fail("write", net.ErrClosed)
		case s.write.passed():
			return sent, s.fail("write", os.ErrDeadlineExceeded)
		case s.err != nil:
			return sent, s.fail("write", s.err)
		case s.out.closed:
			return sent, s.fail("write", syscall.EPIPE)
		case sent == len(p):
			return sent, nil
		}
		room := w.cfg.Window - s.out.flying - len(s.out.buf)
		if room <= 0 {
			w.settle()
			s.cond.Wait()
			continue
		}
		n := min(room, len(p)-sent, maxSegment)
		s.out.send(w, append([]byte(nil), p[sent:sent+n]...), false)
		sent += n
	}
}

// send puts a segment on the way.
func (p *pipe) send(w *World, data []byte, end bool) {
	from, to := p.from.host, p.to.host
	w.countSent(from, tcp, len(data))
	link := w.path(from, to)
	at := w.now()
	rto := retransmit + 2*link.Latency
	for range 8 {
		p.nth++
		w.fates = link.AppendFate(w.fates[:0], p.flow, netip.AddrPort{}, netip.AddrPort{}, p.nth, data)
		if len(w.fates) > 0 {
			at += w.fates[0]
			break
		}
		w.countDropped(from, tcp, DropLoss, len(data))
		w.countSent(from, tcp, len(data))
		at += rto
		rto = min(2*rto, retransmitMax)
	}
	if queued, ok := w.pace(from, to, len(data), at-w.now()); ok {
		at += queued
	} else {
		at += pacerMax
	}
	p.last = max(p.last, at)
	p.segments = append(p.segments, segment{at: p.last, data: data, end: end})
	p.flying += len(data)
	p.book(w, p.segments[0].at)
}

// book queues the arrival of the first segment.
func (p *pipe) book(w *World, at time.Duration) {
	if !p.booked {
		p.booked = true
		w.schedule(event{at: at, flow: p.flow, nth: p.nth, do: p})
	}
}

// run is the arrival of segments.
func (p *pipe) run(w *World) {
	p.booked = false
	now := w.now()
	for len(p.segments) > 0 && p.segments[0].at <= now {
		if !p.open(w) {
			p.stall(w)
			return
		}
		p.backoff, p.stalled = 0, 0
		s := p.segments[0]
		p.segments[0] = segment{}
		p.segments = p.segments[1:]
		p.flying -= len(s.data)
		p.arrive(w, s)
	}
	if len(p.segments) > 0 {
		p.book(w, p.segments[0].at)
	}
}

func (p *pipe) arrive(w *World, s segment) {
	if p.to.closed {
		w.countDropped(p.from.host, tcp, DropNoSocket, len(s.data))
		if len(s.data) > 0 { // nobody will read this, and the writer should know
			from := p.from
			w.schedule(event{
				at: w.now() + w.path(p.to.host, from.host).Latency, flow: p.flow, nth: p.nth,
				do: actionFunc(func(*World) { from.reset(syscall.ECONNRESET) }),
			})
		}
		return
	}
	w.countDelivered(p.to.host, tcp, len(s.data))
	p.buf = append(p.buf, s.data...)
	p.ended = p.ended || s.end
	p.to.cond.Broadcast()
}

// open tells whether segments pass now.
func (p *pipe) open(w *World) bool {
	from, to := p.from.host, p.to.host
	if from == to {
		return true
	}
	return !from.down && !to.down && !w.partitioned(from, to) && p.from.reachable() && p.to.reachable()
}

// reachable tells whether the host still has the address of its end.
func (s *stream) reachable() bool {
	a, ok := s.local.(*net.TCPAddr)
	return !ok || s.host.owns(a.AddrPort().Addr().Unmap())
}

// stall tries again later, or gives up.
func (p *pipe) stall(w *World) {
	p.backoff = min(max(2*p.backoff, retransmit), retransmitMax)
	p.stalled += p.backoff
	if p.stalled > giveUp {
		p.segments, p.flying = nil, 0
		p.from.reset(syscall.ETIMEDOUT)
		p.to.reset(syscall.ETIMEDOUT)
		return
	}
	p.book(w, w.now()+p.backoff)
}

// reset ends the connection on this end: what has arrived can still be read.
func (s *stream) reset(err error) {
	if s.err == nil {
		s.err = err
	}
	s.out.segments, s.out.flying = nil, 0
	s.cond.Broadcast()
}

// CloseWrite ends the outgoing direction; the other end reads io.EOF once it has
// read everything. It is what net.TCPConn has too.
func (s *stream) CloseWrite() error {
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	if s.closed {
		return s.fail("close", net.ErrClosed)
	}
	s.finish(w)
	return nil
}

func (s *stream) finish(w *World) {
	if !s.out.closed {
		s.out.closed = true
		s.out.send(w, nil, true)
		s.cond.Broadcast()
	}
}

// Close implements net.Conn. What was written is still delivered.
func (s *stream) Close() error {
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.settle()
	if s.closed {
		return s.fail("close", net.ErrClosed)
	}
	if s.err == nil {
		s.finish(w)
	}
	s.shut()
	return nil
}

// shut frees the end without a word to the other.
func (s *stream) shut() {
	if s.closed {
		return
	}
	s.closed = true
	s.read.clear()
	s.write.clear()
	s.in.buf = nil
	delete(s.host.streams, s)
	if s.port != 0 {
		s.host.freeTCP(s.port)
	}
	s.cond.Broadcast()
	s.peer.cond.Broadcast() // there is room, for what will be answered with a reset
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.local }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.remote }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, &s.read, &s.write) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, &s.read) }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, &s.write) }

func (s *stream) setDeadlines(t time.Time, ds ...*deadline) error {
	w := s.host.world
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.closed {
		return s.fail("set", net.ErrClosed)
	}
	for _, d := range ds {
		d.set(t, w, &s.cond)
	}
	return nil
}

// fail gives an error the form of package net's.
func (s *stream) fail(op string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: s.local.Network(), Source: s.local, Addr: s.remote, Err: err}
}
