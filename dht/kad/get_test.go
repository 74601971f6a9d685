package kad

import (
	"testing"

	"github.com/kith-im/kith/dht/wire"
)

// What strangers store under a key cannot fill the memory of who asks for it, nor
// keep the machine busy comparing versions of one value.
func TestFoundIsBounded(t *testing.T) {
	bytes, versions := 0, 0
	g := &Get{seen: make(map[wire.ValueID][]*wire.Value), found: func(v *wire.Value) {
		bytes += v.Size()
		if v.ID == 7 {
			versions++
		}
	}}
	for i := range 2 * maxVersions {
		g.deliver(&wire.Value{ID: 7, Data: []byte{byte(i), byte(i >> 8)}})
	}
	if versions != maxVersions {
		t.Errorf("%d versions of one value are delivered", versions)
	}
	big := make([]byte, wire.MaxValueSize)
	for i := range 2 * maxFoundBytes / len(big) {
		g.deliver(&wire.Value{ID: wire.ValueID(100 + i), Data: big})
	}
	if bytes > maxFoundBytes || bytes < maxFoundBytes/2 {
		t.Errorf("%d bytes are delivered, at most %d should be", bytes, maxFoundBytes)
	}

	r := newRig(t, Config{})
	l := &Listen{c: r.c, values: make(map[wire.ValueID][]*heard), event: func(*wire.Value, bool) {}}
	for i := range 2 * maxFoundBytes / len(big) {
		l.hear(nil, &wire.Value{ID: wire.ValueID(1 + i), Data: big})
	}
	if l.bytes > maxFoundBytes || l.bytes < maxFoundBytes/2 {
		t.Errorf("a listen keeps %d bytes, at most %d should be", l.bytes, maxFoundBytes)
	}
	for id := range l.values {
		l.lose(nil, id)
	}
	if l.bytes != 0 || l.count != 0 {
		t.Errorf("%d bytes of %d values are left of nothing", l.bytes, l.count)
	}
}
