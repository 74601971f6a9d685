package proxy

import (
	"github.com/kith-im/kith/dht"
)

// trackLimit bounds the bytes of the values that one listener remembers. What
// goes beyond is told all the same, but maybe again after a reconnection.
const trackLimit = 64 << 20

// valueCost is what a remembered value costs beside its content, in bytes.
const valueCost = 512

// tracker remembers what a listener has been told, so that the listen can go on
// over another connection: nothing is told twice, and what ended meanwhile is
// told to have ended.
type tracker struct {
	known map[dht.ValueID]tracked
	bytes int
	round uint64
}

type tracked struct {
	value *dht.Value
	round uint64 // in which the value was last seen
}

// begin starts a round: a new connection.
func (t *tracker) begin() { t.round++ }

// filter tells whether an event is news.
func (t *tracker) filter(e dht.Event) bool {
	old, known := t.known[e.Value.ID]
	if e.Expired {
		if known {
			t.forget(e.Value.ID)
		}
		return known || t.full(e.Value)
	}
	if known && old.value.Seq == e.Value.Seq && old.value.SameContent(e.Value) {
		t.known[e.Value.ID] = tracked{old.value, t.round}
		return false
	}
	if known {
		t.forget(e.Value.ID)
	}
	if !t.full(e.Value) {
		if t.known == nil {
			t.known = make(map[dht.ValueID]tracked)
		}
		t.known[e.Value.ID] = tracked{e.Value, t.round}
		t.bytes += cost(e.Value)
	}
	return true
}

// missing forgets and returns the values that were not seen in this round.
func (t *tracker) missing() []*dht.Value {
	var gone []*dht.Value
	for id, k := range t.known {
		if k.round != t.round {
			gone = append(gone, k.value)
			t.forget(id)
		}
	}
	return gone
}

func (t *tracker) forget(id dht.ValueID) {
	t.bytes -= cost(t.known[id].value)
	delete(t.known, id)
}

// value gives what is known by an id, or nil.
func (t *tracker) value(id dht.ValueID) *dht.Value { return t.known[id].value }

func (t *tracker) full(v *dht.Value) bool { return t.bytes+cost(v) > trackLimit }

func cost(v *dht.Value) int { return v.Size() + len(v.Owner) + valueCost }
