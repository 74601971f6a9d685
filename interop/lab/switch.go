//go:build linux

package lab

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mtu       = 1500
	maxQueued = 200_000 // packets under way; more are dropped
	readBurst = 64      // packets taken from one host before the next is served
)

// Switch connects hosts over TUN devices and treats every packet as the hosts'
// links demand: a packet passes the sender's up link, then the receiver's down
// link. All of it runs in user space, in the goroutine of Run.
type Switch struct {
	wake int // eventfd: hosts have changed, or Run shall end

	mu     sync.Mutex
	hosts  []*Host
	change int
	closed bool

	forwarded, dropped atomic.Int64
}

// NewSwitch makes a switch without hosts.
func NewSwitch() (*Switch, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("make switch: %w", err)
	}
	return &Switch{wake: fd}, nil
}

// AddHost makes a host with the next free address of 10.98.0.0/16, connected by
// the two links. The switch closes it at its own end. It needs root.
func (s *Switch) AddHost(name string, up, down Impairment) (*Host, error) {
	h, err := NewIsland()
	if err != nil {
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	h.name = name
	h.SetLink(up, down)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		h.Close()
		return nil, fmt.Errorf("add host %s: the switch has ended", name)
	}
	n := len(s.hosts) + 1
	h.addr = netip.AddrFrom4([4]byte{10, 98, byte(n >> 8), byte(n)})
	if h.tun, err = h.openTUN(); err == nil {
		err = h.Do(func() error { return setUp(tunName, netip.PrefixFrom(h.addr, 16), mtu) })
	}
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("add host %s: %w", name, err)
	}
	s.hosts = append(s.hosts, h)
	s.change++
	s.poke()
	return h, nil
}

// SetLink changes the host's links at any time; packets under way keep their
// due time.
func (h *Host) SetLink(up, down Impairment) {
	h.up.Store(&up)
	h.down.Store(&down)
}

// Forwarded is the number of packets delivered so far, and Dropped of those that
// a link, a full queue or a missing receiver has swallowed.
func (s *Switch) Forwarded() int64 { return s.forwarded.Load() }

// Dropped counts the packets that were not delivered; see Forwarded.
func (s *Switch) Dropped() int64 { return s.dropped.Load() }

// poke wakes Run. The caller holds the mutex and has seen that closed is false.
func (s *Switch) poke() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	unix.Write(s.wake, one[:]) // fails only when already poked
}

// packet is a datagram under way. It is due at a link's end: that of the up link
// first (down is false), then that of the down link.
type packet struct {
	due  time.Duration
	seq  uint64
	to   *Host
	down bool
	buf  []byte
}

type queue []*packet

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].due, q[j].due), cmp.Compare(q[i].seq, q[j].seq)) < 0
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(*packet)) }
func (q *queue) Pop() any {
	old := *q
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return p
}

// loop is the state of Run, touched by its goroutine only.
type loop struct {
	s     *Switch
	start time.Time
	seq   uint64
	queue queue
	spare []*packet
	byIP  map[[4]byte]*Host
}

// Run moves packets until ctx ends, then closes the switch and its hosts. It
// returns nil when it ended because of ctx.
func (s *Switch) Run(ctx context.Context) error {
	// Bound to a thread for its timer slack: the default lets every wait be
	// 50 microseconds late, which adds up over a round trip.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) == nil {
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
	}
	stop := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.poke()
		}
	})
	defer func() {
		stop()
		s.close()
	}()

	l := &loop{s: s, start: time.Now(), byIP: map[[4]byte]*Host{}}
	var (
		hosts  []*Host
		fds    []unix.PollFd
		change = -1
	)
	for ctx.Err() == nil {
		s.mu.Lock()
		if change != s.change {
			change = s.change
			hosts = append([]*Host(nil), s.hosts...)
			fds = []unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}}
			for _, h := range hosts {
				l.byIP[h.addr.As4()] = h
				fds = append(fds, unix.PollFd{Fd: int32(h.tun), Events: unix.POLLIN})
			}
		}
		s.mu.Unlock()

		var timeout *unix.Timespec
		if len(l.queue) > 0 {
			ts := unix.NsecToTimespec(int64(max(0, l.queue[0].due-l.now())))
			timeout = &ts
		}
		if _, err := unix.Ppoll(fds, timeout, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("switch: poll: %w", err)
		}
		if fds[0].Revents != 0 {
			var b [8]byte
			unix.Read(s.wake, b[:])
		}
		for i, h := range hosts {
			if fds[i+1].Revents&unix.POLLIN != 0 {
				l.read(h)
			}
		}
		l.deliver()
	}
	return nil
}

func (s *Switch) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, h := range s.hosts {
		h.Close()
	}
	unix.Close(s.wake)
}

func (l *loop) now() time.Duration { return time.Since(l.start) }

// read takes packets from a host and puts them on its up link.
func (l *loop) read(h *Host) {
	up := h.up.Load()
	for range readBurst {
		p := l.take()
		n, err := unix.Read(h.tun, p.buf[:cap(p.buf)])
		if err != nil || n < 20 {
			l.spare = append(l.spare, p)
			if err == nil {
				continue
			}
			return // EAGAIN: nothing left
		}
		p.buf = p.buf[:n]
		if p.buf[0]>>4 != 4 { // the kernel's own IPv6 chatter: no host has such an address
			l.spare = append(l.spare, p)
			continue
		}
		to := l.byIP[[4]byte(p.buf[16:20])]
		if to == nil {
			l.drop(p)
			continue
		}
		p.to, p.down = to, false
		l.enter(p, &h.upShaper, up, l.now())
	}
}

// enter puts a packet on a link.
func (l *loop) enter(p *packet, link *shaper, imp *Impairment, now time.Duration) {
	due, n := link.plan(imp, now, len(p.buf))
	if n == 0 || len(l.queue) >= maxQueued {
		l.drop(p)
		return
	}
	if n == 2 {
		twin := l.take()
		twin.buf = append(twin.buf[:0], p.buf...)
		twin.to, twin.down = p.to, p.down
		l.push(twin, due[1])
	}
	l.push(p, due[0])
}

func (l *loop) push(p *packet, due time.Duration) {
	l.seq++
	p.due, p.seq = due, l.seq
	heap.Push(&l.queue, p)
}

// deliver moves on every packet that is due.
func (l *loop) deliver() {
	now := l.now()
	for len(l.queue) > 0 && l.queue[0].due <= now {
		p := heap.Pop(&l.queue).(*packet)
		if !p.down {
			p.down = true
			// By its due time, not by the clock: lateness must not add up.
			l.enter(p, &p.to.downShaper, p.to.down.Load(), p.due)
			continue
		}
		if _, err := unix.Write(p.to.tun, p.buf); err != nil {
			l.drop(p)
			continue
		}
		l.s.forwarded.Add(1)
		l.spare = append(l.spare, p)
	}
}

func (l *loop) drop(p *packet) {
	l.s.dropped.Add(1)
	l.spare = append(l.spare, p)
}

func (l *loop) take() *packet {
	if n := len(l.spare); n > 0 {
		p := l.spare[n-1]
		l.spare = l.spare[:n-1]
		return p
	}
	return &packet{buf: make([]byte, mtu)}
}
