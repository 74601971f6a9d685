package kad

import (
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// A keeper that says it stores what it does not, or gives no token, is handed
// values a few times, once in each comparison.
func TestHandOnToLiar(t *testing.T) {
	for _, token := range [][]byte{testToken, nil} {
		r := newRig(t, Config{Families: wire.IPv4})
		key := r.key()
		owner, liar := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
		r.join(owner)
		var rows []wire.Packed
		for i := range 6 {
			v := largeValue(wire.ValueID(i+1), 60000)
			r.put(owner, key, v)
			rows = append(rows, text(v.Value.ID, ""))
		}
		if n := len(r.c.store.shelves[key].values); n != 6 {
			t.Fatalf("%d values are stored", n)
		}
		r.join(liar)
		gets := 0
		var last time.Time
		seen := map[uint32]bool{}
		for _, q := range r.play(nil, 8*time.Minute, func(q packet) *response {
			if q.to == liar.addr {
				return &response{p: liar, a: wire.Answer{Token: token, ValueID: 1}}
			}
			return &response{p: owner, a: wire.Answer{Token: testToken, ValueID: 1, Values: rows}}
		}) {
			if q.to != liar.addr || q.m.Method != wire.Get || seen[q.m.TID] {
				continue // or a retry
			}
			seen[q.m.TID] = true
			if gets++; gets > 1 && q.when.Sub(last) < replicateEvery/2 {
				t.Errorf("asked again after %v", q.when.Sub(last))
			}
			last = q.when
		}
		if gets == 0 || gets > maxTries+1 {
			t.Errorf("token %q: asked %d times, want 1 to %d", token, gets, maxTries+1)
		}
	}
}

// A value that is put here after a keeper came, and before the next comparison,
// does not make that a holder of the values before.
func TestPutAfterJoin(t *testing.T) {
	r := newRig(t, Config{Families: wire.IPv4})
	key := r.key()
	owner, comer := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(owner)
	r.put(owner, key, text(1, "a"))
	r.join(comer)
	r.put(owner, key, text(2, "b"))
	puts := map[wire.ValueID]bool{}
	r.play(nil, 3*time.Minute, func(q packet) *response {
		if q.to == comer.addr {
			for _, v := range q.m.Values {
				puts[v.ID] = true
			}
			return &response{p: comer, a: wire.Answer{Token: testToken, ValueID: 1}}
		}
		return &response{p: owner, a: wire.Answer{Token: testToken, Values: []wire.Packed{text(1, "a"), text(2, "b")}}}
	})
	if !puts[1] || !puts[2] {
		t.Errorf("handed on: %v", puts)
	}
}
