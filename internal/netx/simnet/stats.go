package simnet

import "fmt"

// Cause is why a packet was dropped.
type Cause uint8

// The causes, in the order in which a packet meets them.
const (
	DropNoRoute   Cause = iota // nobody has the address
	DropNAT                    // a NAT has no mapping, does not let the source in, or has no ports left
	DropPartition              // the hosts are partitioned
	DropLoss                   // the link lost it; for TCP: it is sent again
	DropRate                   // the queue in front of a slow link is full
	DropDown                   // the receiving host is down
	DropFirewall               // the receiving host's firewall
	DropNoSocket               // nobody listens on the port
	DropOverflow               // the socket's receive buffer or the listener's backlog is full
	numCauses
)

// String gives the name of a cause.
func (c Cause) String() string {
	names := [numCauses]string{"no route", "NAT", "partition", "loss", "rate", "down", "firewall", "no socket", "overflow"}
	if c < numCauses {
		return names[c]
	}
	return fmt.Sprintf("Cause(%d)", c)
}

// Count is an amount of traffic. Bytes are payload.
type Count struct{ Packets, Bytes uint64 }

func (c *Count) add(size int) {
	c.Packets++
	c.Bytes += uint64(size)
}

// Traffic counts packets, or segments for TCP. For UDP without multicast,
// Sent + Duplicated = Delivered + the sum of Dropped + what is under way.
type Traffic struct {
	Sent       Count
	Duplicated Count // copies that a link made
	Delivered  Count // for a host: to it
	Dropped    [numCauses]Count
}

// Drops is the sum over all causes.
func (t Traffic) Drops() Count {
	var sum Count
	for _, c := range t.Dropped {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum
}

// Stats is what a host or the world has sent and got. Packets that were dropped
// count at the sender. Traffic inside a host counts too.
type Stats struct{ UDP, TCP Traffic }

// protocol tells which of the two a packet is.
type protocol uint8

const (
	udp protocol = iota
	tcp
)

func (s *Stats) of(p protocol) *Traffic {
	if p == udp {
		return &s.UDP
	}
	return &s.TCP
}

func (w *World) countSent(h *Host, p protocol, size int) {
	w.stats.of(p).Sent.add(size)
	h.stats.of(p).Sent.add(size)
}

func (w *World) countDuplicated(h *Host, p protocol, size int) {
	w.stats.of(p).Duplicated.add(size)
	h.stats.of(p).Duplicated.add(size)
}

func (w *World) countDelivered(h *Host, p protocol, size int) {
	w.stats.of(p).Delivered.add(size)
	h.stats.of(p).Delivered.add(size)
}

func (w *World) countDropped(h *Host, p protocol, c Cause, size int) {
	w.stats.of(p).Dropped[c].add(size)
	h.stats.of(p).Dropped[c].add(size)
}
