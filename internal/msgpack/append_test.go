package msgpack

import (
	"bytes"
	"encoding/hex"
	"math"
	"strings"
	"testing"
	"time"
)

// wantHex compares with hex digits; spaces are for the reader.
func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if h := hex.EncodeToString(got); h != strings.ReplaceAll(want, " ", "") {
		t.Errorf("%s: %.80s, want %.80s", what, h, want)
	}
}

func TestAppendUint(t *testing.T) {
	for _, c := range []struct {
		v    uint64
		want string
	}{
		{0, "00"},
		{3, "03"},
		{127, "7f"},
		{128, "cc 80"},
		{200, "cc c8"},
		{255, "cc ff"},
		{256, "cd 0100"},
		{65535, "cd ffff"},
		{65536, "ce 00010000"},
		{70000, "ce 00011170"},
		{math.MaxUint32, "ce ffffffff"},
		{math.MaxUint32 + 1, "cf 0000000100000000"},
		{math.MaxInt64, "cf 7fffffffffffffff"},
		{math.MaxUint64, "cf ffffffffffffffff"},
	} {
		wantHex(t, "uint", AppendUint(nil, c.v), c.want)
		if c.v <= math.MaxInt64 {
			wantHex(t, "non-negative int", AppendInt(nil, int64(c.v)), c.want)
		}
		r := NewReader(AppendUint(nil, c.v))
		if got, err := r.Uint(); got != c.v || err != nil || r.Len() != 0 {
			t.Errorf("read back %d: %d, %v", c.v, got, err)
		}
	}
}

func TestAppendNegative(t *testing.T) {
	for _, c := range []struct {
		v    int64
		want string
	}{
		{-1, "ff"},
		{-32, "e0"},
		{-33, "d0 df"},
		{-128, "d0 80"},
		{-129, "d1 ff7f"},
		{-32768, "d1 8000"},
		{-32769, "d2 ffff7fff"},
		{math.MinInt32, "d2 80000000"},
		{math.MinInt32 - 1, "d3 ffffffff7fffffff"},
		{math.MinInt64, "d3 8000000000000000"},
	} {
		wantHex(t, "int", AppendInt(nil, c.v), c.want)
		r := NewReader(AppendInt(nil, c.v))
		if got, err := r.Int(); got != c.v || err != nil || r.Len() != 0 {
			t.Errorf("read back %d: %d, %v", c.v, got, err)
		}
	}
}

func TestAppendSimple(t *testing.T) {
	wantHex(t, "nil", AppendNil(nil), "c0")
	wantHex(t, "false", AppendBool(nil, false), "c2")
	wantHex(t, "true", AppendBool(nil, true), "c3")
	wantHex(t, "float", AppendFloat(nil, 1.5), "cb 3ff8000000000000")
	wantHex(t, "float", AppendFloat(nil, math.Inf(-1)), "cb fff0000000000000")
	wantHex(t, "appends", AppendNil([]byte{1, 2}), "0102c0")
}

func TestAppendLengths(t *testing.T) {
	for _, c := range []struct {
		n                     int
		str, bin, array, map_ string
	}{
		{0, "a0", "c400", "90", "80"},
		{1, "a1", "c401", "91", "81"},
		{15, "af", "c40f", "9f", "8f"},
		{16, "b0", "c410", "dc0010", "de0010"},
		{31, "bf", "c41f", "dc001f", "de001f"},
		{32, "d920", "c420", "dc0020", "de0020"},
		{255, "d9ff", "c4ff", "dc00ff", "de00ff"},
		{256, "da0100", "c50100", "dc0100", "de0100"},
		{65535, "daffff", "c5ffff", "dcffff", "deffff"},
		{65536, "db00010000", "c600010000", "dd00010000", "df00010000"},
	} {
		body := bytes.Repeat([]byte{'x'}, c.n)
		tail := hex.EncodeToString(body)
		wantHex(t, "str", AppendString(nil, string(body)), c.str+tail)
		wantHex(t, "bin", AppendBin(nil, body), c.bin+tail)
		wantHex(t, "bin header", AppendBinHeader(nil, c.n), c.bin)
		wantHex(t, "array", AppendArray(nil, c.n), c.array)
		wantHex(t, "map", AppendMap(nil, c.n), c.map_)

		r := NewReader(AppendString(nil, string(body)))
		if got, err := r.Str(); !bytes.Equal(got, body) || err != nil || r.Len() != 0 {
			t.Errorf("read back text of %d bytes: %d bytes, %v", c.n, len(got), err)
		}
		r = NewReader(AppendBin(nil, body))
		if got, err := r.Bin(); !bytes.Equal(got, body) || err != nil || r.Len() != 0 {
			t.Errorf("read back %d bytes: %d bytes, %v", c.n, len(got), err)
		}
		nils := bytes.Repeat([]byte{0xc0}, 2*c.n)
		r = NewReader(append(AppendArray(nil, c.n), nils...))
		if got, err := r.Array(); got != c.n || err != nil || r.Len() != 2*c.n {
			t.Errorf("read back array of %d: %d, %v", c.n, got, err)
		}
		r = NewReader(append(AppendMap(nil, c.n), nils...))
		if got, err := r.Map(); got != c.n || err != nil || r.Len() != 2*c.n {
			t.Errorf("read back map of %d: %d, %v", c.n, got, err)
		}
	}
}

func TestAppendTime(t *testing.T) {
	for _, c := range []struct {
		sec, nsec int64
		want      string
	}{
		{0, 0, "d6ff 00000000"},
		{1, 0, "d6ff 00000001"},
		{1<<32 - 1, 0, "d6ff ffffffff"},
		{1 << 32, 0, "d7ff 0000000100000000"},
		{0, 1, "d7ff 0000000400000000"},
		{1<<34 - 1, 999999999, "d7ff ee6b27ffffffffff"},
		{1 << 34, 0, "c70cff 00000000 0000000400000000"},
		{-1, 5, "c70cff 00000005 ffffffffffffffff"},
	} {
		at := time.Unix(c.sec, c.nsec)
		b := AppendTime(nil, at)
		wantHex(t, at.UTC().String(), b, c.want)
		r := NewReader(b)
		if r.Kind() != Ext {
			t.Errorf("%v: kind %d", at, r.Kind())
		}
		if got, err := r.Time(); !got.Equal(at) || err != nil || r.Len() != 0 {
			t.Errorf("read back %v: %v, %v", at, got, err)
		}
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 256)
	data := bytes.Repeat([]byte{7}, 40)
	at := time.Unix(1700000000, 5)
	if n := testing.AllocsPerRun(100, func() { b = appendSample(b[:0], data, at) }); n != 0 {
		t.Errorf("appending allocated %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if err := readSample(b); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("reading allocated %v times", n)
	}
}

// appendSample writes one object of each kind; readSample reads it.
func appendSample(b, data []byte, at time.Time) []byte {
	b = AppendMap(b, 4)
	b = AppendUint(AppendString(b, "id"), 1<<40)
	b = AppendBin(AppendString(b, "data"), data)
	b = AppendArray(AppendString(b, "list"), 5)
	b = AppendFloat(AppendBool(AppendNil(AppendInt(b, -500)), true), 2.5)
	b = AppendString(b, "text")
	return AppendTime(AppendString(b, "time"), at)
}

func readSample(b []byte) error {
	r := NewReader(b)
	n, err := r.Map()
	for ; err == nil && n > 0; n-- {
		var key []byte
		if key, err = r.Str(); err != nil {
			return err
		}
		switch string(key) {
		case "id":
			_, err = r.Uint()
		case "data":
			_, err = r.Bin()
		case "time":
			_, err = r.Time()
		default:
			err = r.Skip()
		}
	}
	if err == nil && r.Len() != 0 {
		err = ErrType
	}
	return err
}

func BenchmarkAppend(b *testing.B) {
	data := bytes.Repeat([]byte{7}, 40)
	at := time.Unix(1700000000, 5)
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = appendSample(buf[:0], data, at)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkRead(b *testing.B) {
	buf := appendSample(nil, bytes.Repeat([]byte{7}, 40), time.Unix(1700000000, 5))
	b.SetBytes(int64(len(buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := readSample(buf); err != nil {
			b.Fatal(err)
		}
	}
}
