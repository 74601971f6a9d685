package kad

import "net/netip"

// Outbox collects the packets that a call of a [Core] wants sent, and the puts that
// it wants checked. The caller owns it, sees to what is in it and resets it; it may
// be used again and again.
type Outbox struct {
	buf    []byte
	list   []outPacket
	checks []Check
}

type outPacket struct {
	end int
	to  netip.AddrPort
}

// Len is the number of packets.
func (o *Outbox) Len() int { return len(o.list) }

// Packet returns the i-th packet, which is valid until Reset.
func (o *Outbox) Packet(i int) (to netip.AddrPort, b []byte) {
	start := 0
	if i > 0 {
		start = o.list[i-1].end
	}
	p := o.list[i]
	return p.to, o.buf[start:p.end:p.end]
}

// Checks returns the puts whose signatures [Core.Receive] wants checked.
func (o *Outbox) Checks() []Check { return o.checks }

// Reset empties the outbox and keeps its room, unless that has grown large.
func (o *Outbox) Reset() {
	if cap(o.buf) > 1<<18 {
		o.buf = nil
	}
	clear(o.checks)
	o.buf, o.list, o.checks = o.buf[:0], o.list[:0], o.checks[:0]
}

// add takes over buf, which is the outbox's own with one packet appended.
func (o *Outbox) add(to netip.AddrPort, buf []byte) int {
	n := len(buf) - len(o.buf)
	o.buf = buf
	o.list = append(o.list, outPacket{len(buf), to})
	return n
}
