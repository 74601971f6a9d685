package msgpack

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/tinylib/msgp/msgp"
)

func addSeeds(f *testing.F) {
	for _, c := range every {
		f.Add(unhex(f, c.hex))
	}
	f.Add(appendSample(nil, []byte("data"), time.Unix(1700000000, 5)))
	for _, packet := range []string{ // of real DHT nodes: a put, an error, a query
		"85a16184a26964c414b30d84bede1fb9153c71db80ac00d52e4c6e8411a168c4140beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33a676616c7565739182a26964cf1122334455667788a364617481a4626f647983a47479706500a464617461c40568656c6c6fa57574797065aa746578742f706c61696ea5746f6b656ec420a284979fbd0e1e048b244dbee6a08a15ce9d0ec991441f26790b092c28cf5834a171a3707574a17407a179a171a176a4524e4731",
		"85a16592cd0191b450757420776974682077726f6e6720746f6b656ea17281a26964c414ec7045128e53ceecce84ea192d8e0f472f947358a17409a179a165a176a4524e4731",
		"82a173920105a1779282a16605a176c40361626382a16602a17603",
	} {
		f.Add(unhex(f, packet))
	}
	f.Add(bytes.Repeat([]byte{0x91}, 40))
	f.Add(unhex(f, "dfffffffff"))
}

// walk reads one object with the typed readers and writes it again.
func walk(t *testing.T, r *Reader, out []byte, depth int) ([]byte, error) {
	if depth > MaxDepth {
		return out, ErrDepth
	}
	var err error
	var n int
	switch r.Kind() {
	case Nil:
		return AppendNil(out), r.Nil()
	case Bool:
		v, err := r.Bool()
		return AppendBool(out, v), err
	case Int:
		bookmark := *r
		if u, err := r.Uint(); err == nil {
			return AppendUint(out, u), nil
		}
		*r = bookmark
		v, err := r.Int()
		return AppendInt(out, v), err
	case Float:
		v, err := r.Float()
		return AppendFloat(out, v), err
	case Str:
		s, err := r.Str()
		return AppendString(out, string(s)), err
	case Bin:
		s, err := r.Bin()
		return AppendBin(out, s), err
	case Ext:
		if tm, err := r.Time(); err == nil {
			return AppendTime(out, tm), nil
		}
		raw, err := r.Raw()
		return append(out, raw...), err
	case Array:
		n, err = r.Array()
		out = AppendArray(out, n)
	case Map:
		n, err = r.Map()
		out = AppendMap(out, n)
		n *= 2
	default:
		return out, r.Skip()
	}
	if n > r.Len() {
		t.Fatalf("a count of %d with %d bytes left", n, r.Len())
	}
	for ; err == nil && n > 0; n-- {
		out, err = walk(t, r, out, depth+1)
	}
	return out, err
}

// FuzzReader checks that no input makes the cursor panic or leave its bounds, that
// skipping and reading agree on where an object ends, and that what is written
// again is stable and never longer than what was read.
func FuzzReader(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		skip, read := NewReader(b), NewReader(b)
		errSkip := skip.Skip()
		if errSkip != nil && skip.Offset() != 0 || skip.Offset() > len(b) {
			t.Fatalf("skip left the cursor at %d: %v", skip.Offset(), errSkip)
		}
		once, err := walk(t, &read, nil, 0)
		if errSkip != nil {
			return
		}
		if err != nil {
			t.Fatalf("skipped but not read: %v", err)
		}
		if skip.Offset() != read.Offset() {
			t.Fatalf("skipped %d bytes, read %d", skip.Offset(), read.Offset())
		}
		again := NewReader(once)
		twice, err := walk(t, &again, nil, 0)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x: %v", once, twice, err)
		}
	})
}

// FuzzAgainstMsgp compares with another implementation: what both accept must end
// at the same byte and give the same scalar.
func FuzzAgainstMsgp(f *testing.F) {
	addSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		err := r.Skip()
		rest, errOther := msgp.Skip(b)
		if (err == nil) != (errOther == nil) && !nestedDeeply(b) {
			t.Fatalf("skip %x: %v, other %v", b, err, errOther)
		}
		if err == nil && errOther == nil && len(rest) != r.Len() {
			t.Fatalf("skip %x: %d left, other %d", b, r.Len(), len(rest))
		}
		if err != nil || errOther != nil {
			return
		}
		r = NewReader(b)
		switch r.Kind() {
		case Bool:
			got, _ := r.Bool()
			if want, _, err := msgp.ReadBoolBytes(b); got != want || err != nil {
				t.Errorf("bool %x: %v, other %v, %v", b, got, want, err)
			}
		case Int:
			bookmark := r
			got, err := r.Uint()
			want, _, errOther := msgp.ReadUint64Bytes(b)
			if (err == nil) != (errOther == nil) || err == nil && got != want {
				t.Errorf("uint %x: %v, %v, other %v, %v", b, got, err, want, errOther)
			}
			r = bookmark
			signed, err := r.Int()
			wantSigned, _, errOther := msgp.ReadInt64Bytes(b)
			if (err == nil) != (errOther == nil) || err == nil && signed != wantSigned {
				t.Errorf("int %x: %v, %v, other %v, %v", b, signed, err, wantSigned, errOther)
			}
		case Float:
			got, _ := r.Float()
			if want, _, err := msgp.ReadFloat64Bytes(b); math.Float64bits(got) != math.Float64bits(want) && !math.IsNaN(got) || err != nil {
				t.Errorf("float %x: %v, other %v, %v", b, got, want, err)
			}
		case Str:
			got, _ := r.Str()
			if want, _, err := msgp.ReadStringZC(b); !bytes.Equal(got, want) || err != nil {
				t.Errorf("str %x: %q, other %q, %v", b, got, want, err)
			}
		case Bin:
			got, _ := r.Bin()
			if want, _, err := msgp.ReadBytesZC(b); !bytes.Equal(got, want) || err != nil {
				t.Errorf("bin %x: %x, other %x, %v", b, got, want, err)
			}
		case Array:
			got, _ := r.Array()
			if want, _, err := msgp.ReadArrayHeaderBytes(b); got != int(want) || err != nil {
				t.Errorf("array %x: %d, other %d, %v", b, got, want, err)
			}
		case Map:
			got, _ := r.Map()
			if want, _, err := msgp.ReadMapHeaderBytes(b); got != int(want) || err != nil {
				t.Errorf("map %x: %d, other %d, %v", b, got, want, err)
			}
		}
	})
}

// nestedDeeply tells whether the input may nest beyond [MaxDepth], where we stop
// and others go on.
func nestedDeeply(b []byte) bool {
	r := NewReader(b)
	err := r.Skip()
	n := 0
	for _, c := range b {
		if c >= 0x80 && c <= 0x9f || c >= 0xdc && c <= 0xdf {
			n++
		}
	}
	return err != nil && n > MaxDepth
}

// FuzzAppend writes numbers, text and bytes, and expects the same bytes from the
// other implementation, and the same values when read.
func FuzzAppend(f *testing.F) {
	f.Add(uint64(0), int64(-1), 1.5, "text", []byte("bytes"))
	f.Add(uint64(200), int64(-33), math.Inf(1), "", []byte(nil))
	f.Add(uint64(70000), int64(math.MinInt64), math.Copysign(0, -1), string(make([]byte, 300)), make([]byte, 70000))
	f.Fuzz(func(t *testing.T, u uint64, i int64, fl float64, s string, data []byte) {
		b := AppendFloat(AppendInt(AppendUint(nil, u), i), fl)
		b = AppendBin(AppendString(b, s), data)
		// The other implementation writes non-negative signed numbers in signed
		// forms, which msgpack-c does not.
		want := msgp.AppendUint64(nil, u)
		if i < 0 {
			want = msgp.AppendInt64(want, i)
		} else {
			want = msgp.AppendUint64(want, uint64(i))
		}
		want = msgp.AppendBytes(msgp.AppendString(msgp.AppendFloat64(want, fl), s), data)
		if !bytes.Equal(b, want) {
			t.Fatalf("%x, other %x", b, want)
		}
		r := NewReader(b)
		if got, err := r.Uint(); got != u || err != nil {
			t.Errorf("uint %d: %d, %v", u, got, err)
		}
		if got, err := r.Int(); got != i || err != nil {
			t.Errorf("int %d: %d, %v", i, got, err)
		}
		if got, err := r.Float(); math.Float64bits(got) != math.Float64bits(fl) || err != nil {
			t.Errorf("float %v: %v, %v", fl, got, err)
		}
		if got, err := r.Str(); string(got) != s || err != nil {
			t.Errorf("str %q: %q, %v", s, got, err)
		}
		if got, err := r.Bin(); !bytes.Equal(got, data) || err != nil || r.Len() != 0 {
			t.Errorf("bin: %v, %d left", err, r.Len())
		}
	})
}

// FuzzTime checks the round trip of timestamps against the other implementation.
func FuzzTime(f *testing.F) {
	f.Add(int64(0), uint32(0))
	f.Add(int64(1<<34), uint32(1))
	f.Add(int64(-5), uint32(999999999))
	f.Fuzz(func(t *testing.T, sec int64, nsec uint32) {
		sec %= 1 << 50 // beyond, package time wraps around
		at := time.Unix(sec, int64(nsec%1e9))
		b := AppendTime(nil, at)
		r := NewReader(b)
		if got, err := r.Time(); !got.Equal(at) || err != nil || r.Len() != 0 {
			t.Errorf("%v: %v, %v", at, got, err)
		}
		if got, rest, err := msgp.ReadTimeBytes(b); !got.Equal(at) || err != nil || len(rest) != 0 {
			t.Errorf("%v: other %v, %v", at, got, err)
		}
	})
}
