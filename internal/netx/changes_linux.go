package netx

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A change comes as a burst of notices (link down, addresses gone, link up, …).
// The burst is over after settle without a notice, or after settleMax.
const (
	settle    = 250 * time.Millisecond
	settleMax = 2 * time.Second
)

// newNotices subscribes to the kernel's notices about links and addresses
// (rtnetlink(7)). What they say is not parsed: the interfaces are read afresh.
// Android and some sandboxes forbid the socket; there it polls.
func newNotices(ctx context.Context) (wait func(context.Context) bool, stop func()) {
	f, err := openNetlink()
	if err != nil {
		return poll, func() {}
	}
	// The deadline wakes the reader; the file is closed by its goroutine.
	unhook := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	n := &notices{file: f, buf: make([]byte, 512)} // a notice that is cut is one all the same
	return n.wait, func() {
		unhook()
		f.Close()
	}
}

func openNetlink() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	err = unix.Bind(fd, &unix.SockaddrNetlink{
		Family: unix.AF_NETLINK,
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err == nil {
		err = f.SetReadDeadline(time.Time{}) // fails where the poller does not take the socket
	}
	if err != nil {
		f.Close()
		return nil, os.NewSyscallError("bind", err)
	}
	return f, nil
}

// notices reads the netlink socket.
type notices struct {
	file   *os.File
	buf    []byte
	broken bool
}

// wait returns true after a burst of notices, and false once ctx has ended. When
// the socket fails it goes on by polling.
func (n *notices) wait(ctx context.Context) bool {
	if n.broken {
		return poll(ctx)
	}
	if !n.read() {
		if ctx.Err() != nil {
			return false
		}
		n.broken = true
		return true
	}
	end := time.Now().Add(settleMax)
	for {
		now := time.Now()
		if now.After(end) {
			break
		}
		n.file.SetReadDeadline(now.Add(settle))
		if ctx.Err() != nil { // the line above may have undone the deadline of ctx's end
			return false
		}
		if !n.read() {
			break
		}
	}
	n.file.SetReadDeadline(time.Time{})
	return ctx.Err() == nil
}

// read takes one notice. An overflow of the socket's buffer is one as well.
func (n *notices) read() bool {
	_, err := n.file.Read(n.buf)
	return err == nil || errors.Is(err, unix.ENOBUFS)
}
