package msgpack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// every has one object of every form of the format.
var every = []struct {
	hex  string
	kind Kind
}{
	{"c0", Nil},
	{"c2", Bool},
	{"c3", Bool},
	{"00", Int},
	{"7f", Int},
	{"e0", Int},
	{"ff", Int},
	{"cc 80", Int},
	{"cd 0100", Int},
	{"ce 00010000", Int},
	{"cf 0000000100000000", Int},
	{"d0 80", Int},
	{"d1 8000", Int},
	{"d2 80000000", Int},
	{"d3 8000000000000000", Int},
	{"ca 3fc00000", Float},
	{"cb 3ff8000000000000", Float},
	{"a0", Str},
	{"a3 616263", Str},
	{"d9 03 616263", Str},
	{"da 0003 616263", Str},
	{"db 00000003 616263", Str},
	{"c4 03 616263", Bin},
	{"c5 0003 616263", Bin},
	{"c6 00000003 616263", Bin},
	{"90", Array},
	{"92 01 c0", Array},
	{"dc 0002 01 c0", Array},
	{"dd 00000002 01 c0", Array},
	{"80", Map},
	{"81 a161 02", Map},
	{"de 0001 a161 02", Map},
	{"df 00000001 a161 92 01 02", Map},
	{"d4 05 aa", Ext},
	{"d5 05 aabb", Ext},
	{"d6 05 aabbccdd", Ext},
	{"d7 05 0011223344556677", Ext},
	{"d8 05 00112233445566778899aabbccddeeff", Ext},
	{"c7 00 05", Ext},
	{"c7 03 05 aabbcc", Ext},
	{"c8 0003 05 aabbcc", Ext},
	{"c9 00000003 05 aabbcc", Ext},
	{"d6 ff 00000001", Ext},
	{"d7 ff 0000000400000000", Ext},
	{"c7 0c ff 00000000 0000000400000000", Ext},
}

func TestSkipAndRaw(t *testing.T) {
	for _, c := range every {
		b := append(unhex(t, c.hex), 0x2a) // one more object follows
		r := NewReader(b)
		if got := r.Kind(); got != c.kind {
			t.Errorf("%s: kind %d, want %d", c.hex, got, c.kind)
		}
		bookmark := r
		if err := r.Skip(); err != nil || r.Len() != 1 || r.Offset() != len(b)-1 {
			t.Errorf("%s: skip: %v, %d bytes left", c.hex, err, r.Len())
		}
		raw, err := bookmark.Raw()
		if err != nil || !bytes.Equal(raw, b[:len(b)-1]) || cap(raw) != len(raw) {
			t.Errorf("%s: raw: %x, %v", c.hex, raw, err)
		}
	}
}

func TestTruncated(t *testing.T) {
	readers := map[string]func(*Reader) error{
		"skip":  (*Reader).Skip,
		"raw":   func(r *Reader) error { _, err := r.Raw(); return err },
		"nil":   (*Reader).Nil,
		"bool":  func(r *Reader) error { _, err := r.Bool(); return err },
		"uint":  func(r *Reader) error { _, err := r.Uint(); return err },
		"int":   func(r *Reader) error { _, err := r.Int(); return err },
		"float": func(r *Reader) error { _, err := r.Float(); return err },
		"bytes": func(r *Reader) error { _, err := r.Bytes(); return err },
		"array": func(r *Reader) error { _, err := r.Array(); return err },
		"map":   func(r *Reader) error { _, err := r.Map(); return err },
		"time":  func(r *Reader) error { _, err := r.Time(); return err },
	}
	own := map[Kind][]string{
		Nil: {"nil"}, Bool: {"bool"}, Int: {"int"}, Float: {"float"}, Str: {"bytes"}, Bin: {"bytes"},
	}
	for _, c := range every {
		whole := unhex(t, c.hex)
		for n := range whole {
			for name, read := range readers {
				r := NewReader(whole[:n])
				err := read(&r)
				if r.Offset() > n || err != nil && r.Offset() != 0 {
					t.Errorf("%s cut to %d: %s left the cursor at %d", c.hex, n, name, r.Offset())
				}
				must := n == 0 || name == "skip" || name == "raw"
				for _, o := range own[c.kind] {
					must = must || name == o
				}
				if must && !errors.Is(err, ErrTruncated) {
					t.Errorf("%s cut to %d: %s: %v", c.hex, n, name, err)
				}
			}
		}
	}
	for _, s := range []string{"d6ff00000001", "d7ff0000000400000000", "c70cff000000000000000400000000"} {
		whole := unhex(t, s)
		for n := range whole {
			r := NewReader(whole[:n])
			if _, err := r.Time(); !errors.Is(err, ErrTruncated) || r.Offset() != 0 {
				t.Errorf("time %s cut to %d: %v", s, n, err)
			}
		}
	}
}

func TestWrongType(t *testing.T) {
	reads := []struct {
		name  string
		read  func(*Reader) error
		kinds []Kind
	}{
		{"Nil", (*Reader).Nil, []Kind{Nil}},
		{"Bool", func(r *Reader) error { _, err := r.Bool(); return err }, []Kind{Bool}},
		{"Int", func(r *Reader) error { _, err := r.Int(); return err }, []Kind{Int}},
		{"Uint", func(r *Reader) error { _, err := r.Uint(); return err }, []Kind{Int}},
		{"Float", func(r *Reader) error { _, err := r.Float(); return err }, []Kind{Float}},
		{"Str", func(r *Reader) error { _, err := r.Str(); return err }, []Kind{Str}},
		{"Bin", func(r *Reader) error { _, err := r.Bin(); return err }, []Kind{Bin}},
		{"Bytes", func(r *Reader) error { _, err := r.Bytes(); return err }, []Kind{Str, Bin}},
		{"Array", func(r *Reader) error { _, err := r.Array(); return err }, []Kind{Array}},
		{"Map", func(r *Reader) error { _, err := r.Map(); return err }, []Kind{Map}},
		{"Time", func(r *Reader) error { _, err := r.Time(); return err }, []Kind{Ext}},
	}
	for _, c := range every {
		for _, read := range reads {
			r := NewReader(unhex(t, c.hex))
			err := read.read(&r)
			fits := bytes.IndexByte(kindBytes(read.kinds), byte(c.kind)) >= 0
			switch {
			case !fits && (!errors.Is(err, ErrType) || r.Offset() != 0):
				t.Errorf("%s on %s: %v, cursor at %d", read.name, c.hex, err, r.Offset())
			case fits && c.kind != Ext && err != nil && !errors.Is(err, ErrRange):
				t.Errorf("%s on %s: %v", read.name, c.hex, err)
			}
		}
	}
	r := NewReader([]byte{0xc1})
	if r.Kind() != Invalid || !errors.Is(r.Skip(), ErrType) {
		t.Error("the byte c1 is not an object")
	}
}

func kindBytes(ks []Kind) []byte {
	b := make([]byte, len(ks))
	for i, k := range ks {
		b[i] = byte(k)
	}
	return b
}

func TestIntegerRange(t *testing.T) {
	for _, s := range []string{"ff", "e0", "d0ff", "d1ffff", "d2ffffffff", "d3ffffffffffffffff"} {
		r := NewReader(unhex(t, s))
		if _, err := r.Uint(); !errors.Is(err, ErrRange) || r.Offset() != 0 {
			t.Errorf("Uint of %s: %v at %d", s, err, r.Offset())
		}
	}
	// Signed forms of non-negative numbers are read although never written.
	for s, want := range map[string]uint64{"d001": 1, "d17fff": 1<<15 - 1, "d200000000": 0, "d37fffffffffffffff": math.MaxInt64, "cc01": 1, "cf0000000000000001": 1} {
		r := NewReader(unhex(t, s))
		if got, err := r.Uint(); got != want || err != nil {
			t.Errorf("Uint of %s: %d, %v", s, got, err)
		}
	}
	r := NewReader(unhex(t, "cf8000000000000000"))
	if _, err := r.Int(); !errors.Is(err, ErrRange) || r.Offset() != 0 {
		t.Errorf("Int of 2^63: %v", err)
	}
	r = NewReader(unhex(t, "ca3fc00000"))
	if f, err := r.Float(); f != 1.5 || err != nil {
		t.Errorf("32-bit float: %v, %v", f, err)
	}
}

func TestTimeRange(t *testing.T) {
	for _, s := range []string{
		"d7ff ffffffff00000000",            // 1,073,741,823 ns
		"c70cff 3b9aca00 0000000000000000", // 10^9 ns
		"c70cff ffffffff 7fffffffffffffff", // both at their ends
	} {
		r := NewReader(unhex(t, s))
		if got, err := r.Time(); !errors.Is(err, ErrRange) || r.Offset() != 0 || got != (time.Time{}) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"d60500000000", "c70d ff 00000000000000000000000000", "d6 fe 00000000"} {
		r := NewReader(unhex(t, s))
		if _, err := r.Time(); !errors.Is(err, ErrType) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestDepth(t *testing.T) {
	for _, open := range []string{"\x91", "\x81\xa1k", "\xdc\x00\x01", "\xdf\x00\x00\x00\x01\x01"} {
		nest := func(n int) []byte { return append(bytes.Repeat([]byte(open), n), 0xc0) }
		r := NewReader(nest(MaxDepth))
		if err := r.Skip(); err != nil || r.Len() != 0 {
			t.Errorf("%x nested %d deep: %v", open, MaxDepth, err)
		}
		for _, n := range []int{MaxDepth + 1, 50000} {
			r = NewReader(nest(n))
			if err := r.Skip(); !errors.Is(err, ErrDepth) || r.Offset() != 0 {
				t.Errorf("%x nested %d deep: %v", open, n, err)
			}
		}
	}
	r := NewReader(append(bytes.Repeat([]byte{0x91}, MaxDepth), 0x90))
	if err := r.Skip(); !errors.Is(err, ErrDepth) {
		t.Errorf("an empty array is nested too: %v", err)
	}
}

// Counts far above what follows must be refused before anyone makes room for them.
func TestGiantCounts(t *testing.T) {
	for _, s := range []string{
		"dd ffffffff 00", "df ffffffff 0000", "dc ffff 00", "de ffff 0000", "9f 00", "82 000000",
		"c6 ffffffff 00", "db ffffffff 00", "c9 ffffffff 05 00", "c5 ffff 00", "c8 ffff 05", "bf 00",
		"dd 00000001 dd ffffffff",
	} {
		b := unhex(t, s)
		if n := testing.AllocsPerRun(5, func() {
			r := NewReader(b)
			if r.Kind() == Array && b[len(b)-1] == 0 {
				if n, err := r.Array(); err == nil {
					t.Errorf("%s: array of %d", s, n)
				}
			}
			if r.Kind() == Map {
				if n, err := r.Map(); err == nil {
					t.Errorf("%s: map of %d", s, n)
				}
			}
			if err := r.Skip(); !errors.Is(err, ErrTruncated) || r.Offset() != 0 {
				t.Errorf("%s: %v at %d", s, err, r.Offset())
			}
		}); n > 16 {
			t.Errorf("%s: %v allocations", s, n)
		}
	}
}

func TestZeroReader(t *testing.T) {
	var r Reader
	if r.Len() != 0 || r.Kind() != Invalid || !errors.Is(r.Skip(), ErrTruncated) {
		t.Error("the zero reader does not read the empty input")
	}
	if _, err := r.Time(); !errors.Is(err, ErrTruncated) {
		t.Errorf("time: %v", err)
	}
}

func TestErrorsTellTheOffset(t *testing.T) {
	r := NewReader([]byte{0xc0, 0xc0, 0xc2})
	if err := errors.Join(r.Nil(), r.Nil()); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Uint(); err == nil || !strings.Contains(err.Error(), "at byte 2") {
		t.Errorf("%v", err)
	}
}
