//go:build linux

package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used so far.
type Usage struct {
	CPU     time.Duration // of the threads that are alive, by the scheduler's count
	RSS     int64         // resident memory in bytes
	Threads int
}

// Usage reads the counters of the running process. A thread that ends takes its
// CPU time out of the sum, so figures are differences over a short time.
func (p *Process) Usage() (Usage, error) {
	u, err := usageOf(p.PID())
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of %s: %w", p.spec.Name, err)
	}
	return u, nil
}

func usageOf(pid int) (Usage, error) {
	var u Usage
	proc := "/proc/" + strconv.Itoa(pid)
	stats, err := filepath.Glob(proc + "/task/*/schedstat")
	if err != nil {
		return u, err
	}
	if len(stats) == 0 {
		return u, fmt.Errorf("process %d: %w", pid, os.ErrProcessDone)
	}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has just ended
		}
		if err != nil {
			return u, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return u, fmt.Errorf("parse %s: %w", name, err)
		}
		u.CPU += time.Duration(ns)
		u.Threads++
	}
	b, err := os.ReadFile(proc + "/statm")
	if err != nil {
		return u, err
	}
	if f := bytes.Fields(b); len(f) > 1 {
		pages, err := strconv.ParseInt(string(f[1]), 10, 64)
		if err != nil {
			return u, fmt.Errorf("parse statm: %w", err)
		}
		u.RSS = pages * int64(os.Getpagesize())
	}
	return u, nil
}

// Traffic counts what the UDP sockets and the interfaces of a [Host] have moved.
type Traffic struct {
	Datagrams int64 // sent by UDP sockets of the host, over loopback too
	Lost      int64 // not read in time: receive buffer full
	Packets   int64 // put on all interfaces, loopback included
	Bytes     int64 // of those, with IP headers
}

// Sub gives the traffic since an earlier reading.
func (t Traffic) Sub(old Traffic) Traffic {
	return Traffic{t.Datagrams - old.Datagrams, t.Lost - old.Lost, t.Packets - old.Packets, t.Bytes - old.Bytes}
}

// Traffic reads the counters of the host's network namespace.
func (h *Host) Traffic() (Traffic, error) {
	var snmp, dev []byte
	// "thread-self" and not "self": namespaces are the thread's.
	err := h.Do(func() (err error) {
		if snmp, err = os.ReadFile("/proc/thread-self/net/snmp"); err == nil {
			dev, err = os.ReadFile("/proc/thread-self/net/dev")
		}
		return err
	})
	if err != nil {
		return Traffic{}, fmt.Errorf("read network counters: %w", err)
	}
	var t Traffic
	var names []string
	for line := range strings.Lines(string(snmp)) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := 1; i < len(f) && i < len(names); i++ {
			n, _ := strconv.ParseInt(f[i], 10, 64)
			switch names[i] {
			case "OutDatagrams":
				t.Datagrams = n
			case "RcvbufErrors":
				t.Lost = n
			}
		}
	}
	for line := range strings.Lines(string(dev)) {
		_, counters, ok := strings.Cut(line, ":")
		f := strings.Fields(counters)
		if !ok || len(f) < 10 {
			continue
		}
		bytes, _ := strconv.ParseInt(f[8], 10, 64)
		packets, _ := strconv.ParseInt(f[9], 10, 64)
		t.Bytes += bytes
		t.Packets += packets
	}
	return t, nil
}
