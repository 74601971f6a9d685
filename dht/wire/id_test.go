package wire

import (
	"strings"
	"testing"
)

func TestParseKey(t *testing.T) {
	foo := "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33" // SHA-1 of "foo"
	zeros := strings.Repeat("0", 40)
	for text, want := range map[string]string{
		"foo":                   foo,
		foo:                     foo,
		strings.ToUpper(foo):    foo,
		zeros:                   KeyOf([]byte(zeros)).String(),
		foo[:39]:                KeyOf([]byte(foo[:39])).String(),
		foo + "00":              KeyOf([]byte(foo + "00")).String(),
		foo[:39] + "g":          KeyOf([]byte(foo[:39] + "g")).String(),
		strings.Repeat("é", 20): KeyOf([]byte(strings.Repeat("é", 20))).String(),
	} {
		if k, err := ParseKey(text); err != nil || k.String() != want {
			t.Errorf("%q: %s, %v", text, k, err)
		}
	}
	if _, err := ParseKey(""); err == nil {
		t.Error("the empty key is taken")
	}
	if KeyOf(nil).IsZero() || !(Key{}).IsZero() {
		t.Error("zero key")
	}
}

func TestParseNodeID(t *testing.T) {
	hex := "c18506081a136c095a586623981094b179bf808d"
	id, err := ParseNodeID(hex)
	if err != nil || id.String() != hex {
		t.Errorf("%s, %v", id, err)
	}
	if text, err := id.MarshalText(); string(text) != hex || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := Key(id).MarshalText(); string(text) != hex || err != nil {
		t.Errorf("%s, %v", text, err)
	}
	for _, bad := range []string{"", "foo", hex[:39], hex + "0", hex[:39] + "g", strings.Repeat("0", 40), strings.Repeat("é", 20), strings.Repeat("é", 1000)} {
		if id, err := ParseNodeID(bad); err == nil {
			t.Errorf("%q is read as %s", bad, id)
		}
	}
}

func TestMetric(t *testing.T) {
	k := Key{0x80}
	near, far := NodeID{0x81}, NodeID{0x01}
	if !k.Closer(near, far) || k.Closer(far, near) || k.Closer(near, near) {
		t.Error("distance by the first byte")
	}
	if a, b := (NodeID{0x80, 19: 3}), (NodeID{0x80, 19: 4}); !k.Closer(a, b) || k.Closer(b, a) || a.Compare(b) >= 0 || b.Compare(a) <= 0 || a.Compare(a) != 0 {
		t.Error("distance and order by the last byte")
	}
	for _, c := range []struct {
		a, b [IDSize]byte
		want int
	}{
		{[IDSize]byte{}, [IDSize]byte{}, 160},
		{[IDSize]byte{0x80}, [IDSize]byte{}, 0},
		{[IDSize]byte{1}, [IDSize]byte{}, 7},
		{[IDSize]byte{5, 0x40}, [IDSize]byte{5}, 9},
		{[IDSize]byte{19: 1}, [IDSize]byte{}, 159},
	} {
		if got := CommonBits(c.a, c.b); got != c.want || CommonBits(c.b, c.a) != c.want {
			t.Errorf("%x, %x: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}
