//go:build linux

package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Host is a network namespace: a machine of its own, as far as sockets can tell.
// It has no name and lasts until it is closed and the last process inside has
// ended; look into it from a shell with "nsenter -n -t PID". A nil *Host is the
// program's own network.
type Host struct {
	fd   int // the namespace
	tun  int // TUN device, -1 on an island
	addr netip.Addr
	name string
	up   atomic.Pointer[Impairment] // packets that leave
	down atomic.Pointer[Impairment] // packets that arrive

	upShaper, downShaper shaper // owned by the switch's goroutine
}

// NewIsland makes a host with nothing but a loopback interface, for a network
// whose traffic counters show that network alone. It needs root.
func NewIsland() (*Host, error) {
	h := &Host{tun: -1, addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		h.fd = fd
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := h.Do(func() error { return setUp("lo", netip.Prefix{}, 0) }); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// Addr is the host's address: 127.0.0.1 for islands and the program's own network.
func (h *Host) Addr() netip.Addr {
	if h == nil {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return h.addr
}

// Close gives up the namespace. Processes inside keep it alive.
func (h *Host) Close() error {
	if h == nil {
		return nil
	}
	var err error
	if h.tun >= 0 {
		err = unix.Close(h.tun)
	}
	return errors.Join(err, unix.Close(h.fd))
}

// Do calls f with the calling thread inside the host: sockets that f opens and
// processes that it starts belong to the host for good. Goroutines that f starts
// are not inside.
func (h *Host) Do(f func() error) error {
	if h == nil {
		return f()
	}
	return onOwnThread(func() error {
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// ListenUDP opens a UDP socket inside the host, on its address and a free port.
func (h *Host) ListenUDP() (*net.UDPConn, error) {
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr(), 0)))
		return err
	})
	return conn, err
}

// onOwnThread calls f on a locked thread and then puts the thread back into the
// network namespace that it came from.
func onOwnThread(f func() error) error {
	runtime.LockOSThread()
	old, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(old)
	ferr := f()
	if err := unix.Setns(old, unix.CLONE_NEWNET); err != nil {
		// The thread stays locked, so that nothing else runs in the wrong network.
		return errors.Join(ferr, fmt.Errorf("return to own network namespace: %w", err))
	}
	runtime.UnlockOSThread()
	return ferr
}

// tunQueue is the number of packets that the kernel keeps for the switch. The
// default of 500 is less than one burst of a busy DHT node.
const tunQueue = 10000

const tunName = "wan0"

// openTUN makes the host's TUN device, still without an address.
func (h *Host) openTUN() (int, error) {
	fd := -1
	err := h.Do(func() error {
		var err error
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		ifr, err := unix.NewIfreq(tunName)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return fmt.Errorf("make TUN device: %w", err)
		}
		return nil
	})
	if err != nil && fd >= 0 {
		unix.Close(fd)
		fd = -1
	}
	return fd, err
}

// setUp gives an interface of the current namespace its address and MTU (where
// given) and switches it on.
func setUp(name string, addr netip.Prefix, mtu int) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("configure %s: %w", name, err)
	}
	defer unix.Close(s)
	set := func(req uint, fill func(*unix.Ifreq) error) error {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := fill(ifr); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, req, ifr); err != nil {
			return fmt.Errorf("configure %s: %w", name, os.NewSyscallError("ioctl", err))
		}
		return nil
	}
	if mtu != 0 {
		err = errors.Join(
			set(unix.SIOCSIFMTU, func(i *unix.Ifreq) error { i.SetUint32(uint32(mtu)); return nil }),
			set(unix.SIOCSIFTXQLEN, func(i *unix.Ifreq) error { i.SetUint32(tunQueue); return nil }),
		)
	}
	if err == nil && addr.IsValid() {
		a4, mask := addr.Addr().As4(), net.CIDRMask(addr.Bits(), 32)
		err = errors.Join(
			set(unix.SIOCSIFADDR, func(i *unix.Ifreq) error { return i.SetInet4Addr(a4[:]) }),
			set(unix.SIOCSIFNETMASK, func(i *unix.Ifreq) error { return i.SetInet4Addr(mask) }),
		)
	}
	if err == nil {
		err = set(unix.SIOCSIFFLAGS, func(i *unix.Ifreq) error {
			i.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
			return nil
		})
	}
	return err
}
