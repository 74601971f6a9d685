package netx

import (
	"context"
	"hash/maphash"
	"net"
	"time"
)

// pollInterval is how often the interfaces are looked at where the system tells
// nothing by itself.
const pollInterval = 10 * time.Second

// Changes implements [Network]. On Linux the kernel's notices are read; elsewhere,
// and where those are forbidden, the interfaces are looked at every ten seconds.
// A notice that leaves everything as it was gives nothing. The goroutine behind
// the channel ends soon after ctx.
func (s *System) Changes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	seed := maphash.MakeSeed()
	wait, stop := newNotices(ctx)
	last := fingerprint(seed) // after the notices have begun, so that nothing falls between
	go func() {
		defer close(out)
		defer stop()
		for wait(ctx) {
			now := fingerprint(seed)
			if now == last {
				continue
			}
			last = now
			select {
			case out <- struct{}{}:
			default: // one is waiting, and stands for this one too
			}
		}
	}()
	return out
}

// poll waits for the next look at the interfaces. It returns false once ctx has ended.
func poll(ctx context.Context) bool {
	t := time.NewTimer(pollInterval)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// fingerprint is a hash of all interfaces, their state and addresses.
func fingerprint(seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	ifs, err := net.Interfaces()
	if err != nil {
		h.WriteString(err.Error())
	}
	for i := range ifs {
		maphash.WriteComparable(&h, ifs[i].Index)
		maphash.WriteComparable(&h, ifs[i].Flags)
		maphash.WriteComparable(&h, ifs[i].MTU)
		h.WriteString(ifs[i].Name)
		addrs, err := ifs[i].Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			h.WriteByte(0)
			h.WriteString(a.String())
		}
	}
	return h.Sum64()
}
