package kad

import (
	"net/netip"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// Bounds of the values that are sent in parts.
const (
	trainLength = 32 // parts to one address in one tick
	trainPause  = 4 * time.Millisecond
	trainBytes  = 128 << 10 // to all addresses in one tick: about 32 MB/s
)

// A train is parts that wait to be sent, so that a large answer does not overrun
// the receiver's buffer.
type train struct {
	to     netip.AddrPort
	tid    uint32
	values []wire.Packed
	index  int
	off    int
}

// maxTrains bounds the answers being sent in parts, and those to one source to a
// quarter of it; past it they are cut short, and the receiver asks again.
const maxTrains = 256

// sendParts sends values in parts, in order: the first ones at once, unless others
// are on their way to that address or enough was sent in this tick.
func (c *Core) sendParts(to netip.AddrPort, tid uint32, values []wire.Packed) {
	waits, same := false, 0
	for _, t := range c.trains {
		waits = waits || t.to == to
		if source(t.to.Addr()) == source(to.Addr()) {
			same++
		}
	}
	if len(c.trains) >= maxTrains || same >= maxTrains/4 {
		return
	}
	c.trains = append(c.trains, train{to: to, tid: tid, values: values})
	if c.trainTm.pos == 0 {
		c.trainRoom = trainBytes
		c.after(&c.trainTm, trainPause, c.moveTrains)
	}
	if last := len(c.trains) - 1; !waits && c.moveTrain(&c.trains[last]) {
		c.trains[last] = train{}
		c.trains = c.trains[:last]
	}
}

// moveTrains begins a tick: the first train to each address moves, and those that
// there is no room for come first in the next one.
func (c *Core) moveTrains() {
	if len(c.trains) == 0 {
		return
	}
	c.trainRoom = trainBytes
	busy := make(map[netip.AddrPort]bool, len(c.trains))
	var first, moved, behind []train
	for _, t := range c.trains {
		switch {
		case busy[t.to]:
			behind = append(behind, t)
		case c.trainRoom <= 0:
			first = append(first, t)
		case !c.moveTrain(&t):
			moved = append(moved, t)
		}
		busy[t.to] = true
	}
	c.trains = append(append(first, moved...), behind...)
	c.after(&c.trainTm, trainPause, c.moveTrains)
}

// moveTrain sends the next parts and tells whether they were the last.
func (c *Core) moveTrain(t *train) bool {
	for sent := 0; sent < trainLength && c.trainRoom > 0; sent++ {
		b := t.values[t.index].Bytes
		c.trainRoom -= min(wire.PieceSize, len(b)-t.off)
		c.send(t.to, c.env.AppendPiece(c.out.buf, t.tid, t.index, t.off, b))
		if t.off += wire.PieceSize; t.off >= len(b) {
			t.index, t.off = t.index+1, 0
		}
		if t.index == len(t.values) {
			return true
		}
	}
	return false
}
