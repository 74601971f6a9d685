package dht

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx/simnet"
)

// maxIdleDay is what an idle node may send and receive in a day, in bytes with the
// headers of IP and UDP.
const maxIdleDay = 20 << 20

// maxListenerDay is the same for a phone behind a NAT with ten listens, which are
// forty paths to be kept open.
const maxListenerDay = 64 << 20

// A network in which nobody wants anything is quiet, and stays whole.
func TestIdleTraffic(t *testing.T) {
	count, hours := uint64(32), uint64(6)
	if raceDetector || testing.Short() {
		count, hours = 24, 1
	}
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, int(count), simnet.Link{Latency: 30 * time.Millisecond, Jitter: 20 * time.Millisecond})
		defer l.stop()
		time.Sleep(10 * time.Minute) // joining is another matter
		before := l.world.Stats().UDP
		time.Sleep(time.Duration(hours) * time.Hour)
		after := l.world.Stats().UDP
		packets := after.Sent.Packets - before.Sent.Packets
		bytes := after.Sent.Bytes - before.Sent.Bytes + 28*packets
		perDay := 2 * bytes * 24 / hours / count // each is sent by one and received by another
		t.Logf("%d idle nodes: %.2f MB and %d packets per node and day, sent and received; %d packets an hour sent",
			count, float64(perDay)/(1<<20), 2*packets*24/hours/count, packets/hours/count)
		if perDay > maxIdleDay {
			t.Errorf("an idle node moves %d bytes a day, more than %d", perDay, maxIdleDay)
		}
		for i, n := range l.nodes {
			if info, err := n.Info(t.Context()); err != nil || info.IPv4.Good < 8 {
				t.Errorf("node %d knows %d good nodes in the end, error %v", i, info.IPv4.Good, err)
			}
		}
		l.put(l.nodes[3], KeyOf("after"), "a day")
		l.want(l.nodes[20], KeyOf("after"), "a day")
	})
}

// A phone that only listens costs little more: its renewals, and what keeps a NAT
// open.
func TestIdleListener(t *testing.T) {
	const keys, hours = 10, 1
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 16, simnet.Link{})
		defer l.stop()
		h := l.world.NewNAT(simnet.PortRestricted, addr("50.0.0.1")).NewHost("phone", addr("192.168.0.2"))
		phone := l.start(h, Config{Bootstrap: []string{boot}, ReadOnly: true})
		l.connect(phone)
		for i := range keys {
			l.listen(phone, KeyOf(string(rune('a'+i))))
		}
		time.Sleep(10 * time.Minute)
		traffic := func() (packets, bytes uint64) {
			s := h.Stats().UDP
			packets = s.Sent.Packets + s.Delivered.Packets
			return packets, s.Sent.Bytes + s.Delivered.Bytes + 28*packets
		}
		packets, bytes := traffic()
		time.Sleep(hours * time.Hour)
		packets2, bytes2 := traffic()
		perDay := (bytes2 - bytes) * 24 / hours
		t.Logf("a phone with %d listens behind a NAT: %.2f MB and %d packets a day, sent and received",
			keys, float64(perDay)/(1<<20), (packets2-packets)*24/hours)
		if perDay > maxListenerDay {
			t.Errorf("it moves %d bytes a day, more than %d", perDay, maxListenerDay)
		}
	})
}
