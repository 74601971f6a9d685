package msgpack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// MaxDepth is how deeply arrays and maps may nest in what a [Reader] skips.
const MaxDepth = 16

// Errors that a [Reader] returns, wrapped with the offset where it stopped.
var (
	ErrTruncated = errors.New("msgpack: input ends early")
	ErrType      = errors.New("msgpack: unexpected type")
	ErrRange     = errors.New("msgpack: number out of range")
	ErrDepth     = errors.New("msgpack: nested too deeply")
)

// Kind is the type of an object as its first byte tells it.
type Kind uint8

// The kinds of object; Invalid also stands for the end of input.
const (
	Invalid Kind = iota
	Nil
	Bool
	Int // signed or unsigned
	Float
	Str
	Bin
	Array
	Map
	Ext
)

// Reader is a cursor over packed bytes. Slices that it returns alias the input.
// The zero value reads the empty input. It is a value: a copy is a bookmark.
// It is not safe for concurrent use.
type Reader struct {
	buf []byte
	off int
}

// NewReader returns a cursor at the start of b, which it does not copy.
func NewReader(b []byte) Reader { return Reader{buf: b} }

// Len is the number of bytes not read yet.
func (r *Reader) Len() int { return len(r.buf) - r.off }

// Offset is the number of bytes read.
func (r *Reader) Offset() int { return r.off }

func (r *Reader) fail(err error) error {
	return fmt.Errorf("%w at byte %d", err, r.off)
}

// Kind tells what comes next without reading it.
func (r *Reader) Kind() Kind {
	if r.off >= len(r.buf) {
		return Invalid
	}
	switch c := r.buf[r.off]; {
	case c <= 0x7f || c >= 0xe0:
		return Int
	case c <= 0x8f:
		return Map
	case c <= 0x9f:
		return Array
	case c <= 0xbf:
		return Str
	case c == 0xc0:
		return Nil
	case c == 0xc1:
		return Invalid
	case c <= 0xc3:
		return Bool
	case c <= 0xc6:
		return Bin
	case c <= 0xc9:
		return Ext
	case c <= 0xcb:
		return Float
	case c <= 0xd3:
		return Int
	case c <= 0xd8:
		return Ext
	case c <= 0xdb:
		return Str
	case c <= 0xdd:
		return Array
	default:
		return Map
	}
}

// head reads the first byte and its n-byte big-endian operand; it moves only on success.
func (r *Reader) head(n int) (uint64, error) {
	if r.Len() < 1+n {
		return 0, r.fail(ErrTruncated)
	}
	p := r.buf[r.off+1:]
	var v uint64
	switch n {
	case 1:
		v = uint64(p[0])
	case 2:
		v = uint64(binary.BigEndian.Uint16(p))
	case 4:
		v = uint64(binary.BigEndian.Uint32(p))
	case 8:
		v = binary.BigEndian.Uint64(p)
	}
	r.off += 1 + n
	return v, nil
}

// peek returns the first byte of the next object, 0xc1 (never used) at the end.
func (r *Reader) peek() byte {
	if r.off >= len(r.buf) {
		return 0xc1
	}
	return r.buf[r.off]
}

func (r *Reader) wrong() error {
	if r.Len() == 0 {
		return r.fail(ErrTruncated)
	}
	return r.fail(ErrType)
}

// Nil reads nil.
func (r *Reader) Nil() error {
	if r.peek() != 0xc0 {
		return r.wrong()
	}
	r.off++
	return nil
}

// Bool reads a boolean.
func (r *Reader) Bool() (bool, error) {
	c := r.peek()
	if c != 0xc2 && c != 0xc3 {
		return false, r.wrong()
	}
	r.off++
	return c == 0xc3, nil
}

// Uint reads an integer in any form that is not negative.
func (r *Reader) Uint() (uint64, error) {
	start := r.off
	v, neg, err := r.integer()
	if err == nil && neg {
		r.off = start
		err = r.fail(ErrRange)
	}
	return v, err
}

// Int reads an integer in any form that fits.
func (r *Reader) Int() (int64, error) {
	start := r.off
	v, neg, err := r.integer()
	if err == nil && !neg && v > math.MaxInt64 {
		r.off = start
		err = r.fail(ErrRange)
	}
	return int64(v), err
}

// integer returns the two's complement bits and whether the number is negative.
func (r *Reader) integer() (v uint64, neg bool, err error) {
	c := r.peek()
	switch {
	case c <= 0x7f:
		r.off++
		return uint64(c), false, nil
	case c >= 0xe0:
		r.off++
		return uint64(int64(int8(c))), true, nil
	case c >= 0xcc && c <= 0xcf:
		v, err = r.head(1 << (c - 0xcc))
		return v, false, err
	case c >= 0xd0 && c <= 0xd3:
		n := 1 << (c - 0xd0)
		v, err = r.head(n)
		shift := 64 - 8*n
		s := int64(v<<shift) >> shift
		return uint64(s), s < 0, err
	default:
		return 0, false, r.wrong()
	}
}

// Float reads a 32- or 64-bit float.
func (r *Reader) Float() (float64, error) {
	switch r.peek() {
	case 0xca:
		v, err := r.head(4)
		return float64(math.Float32frombits(uint32(v))), err
	case 0xcb:
		v, err := r.head(8)
		return math.Float64frombits(v), err
	default:
		return 0, r.wrong()
	}
}

// Str reads text. The bytes alias the input and need not be UTF-8.
func (r *Reader) Str() ([]byte, error) {
	if r.Kind() != Str {
		return nil, r.wrong()
	}
	return r.Bytes()
}

// Bin reads bytes, which alias the input.
func (r *Reader) Bin() ([]byte, error) {
	if r.Kind() != Bin {
		return nil, r.wrong()
	}
	return r.Bytes()
}

// Bytes reads text or bytes, which alias the input.
func (r *Reader) Bytes() ([]byte, error) {
	start := r.off
	c := r.peek()
	var n uint64
	var err error
	switch {
	case c >= 0xa0 && c <= 0xbf:
		n = uint64(c & 0x1f)
		r.off++
	case c >= 0xc4 && c <= 0xc6:
		n, err = r.head(1 << (c - 0xc4))
	case c >= 0xd9 && c <= 0xdb:
		n, err = r.head(1 << (c - 0xd9))
	default:
		return nil, r.wrong()
	}
	if err != nil {
		return nil, err
	}
	if n > uint64(r.Len()) {
		r.off = start
		return nil, r.fail(ErrTruncated)
	}
	s := r.buf[r.off : r.off+int(n) : r.off+int(n)]
	r.off += int(n)
	return s, nil
}

// Array reads an array's header. The count is at most the bytes that are left.
func (r *Reader) Array() (int, error) { return r.container(0x90, 0xdc, 1) }

// Map reads a map's header. The count of pairs is at most half the bytes left.
func (r *Reader) Map() (int, error) { return r.container(0x80, 0xde, 2) }

func (r *Reader) container(fix, wide byte, per uint64) (int, error) {
	start := r.off
	c := r.peek()
	var n uint64
	var err error
	switch {
	case c&0xf0 == fix:
		n = uint64(c & 0x0f)
		r.off++
	case c == wide:
		n, err = r.head(2)
	case c == wide+1:
		n, err = r.head(4)
	default:
		return 0, r.wrong()
	}
	if err != nil {
		return 0, err
	}
	if n*per > uint64(r.Len()) {
		r.off = start
		return 0, r.fail(ErrTruncated)
	}
	return int(n), nil
}

// Time reads a timestamp extension of any of its three sizes.
func (r *Reader) Time() (time.Time, error) {
	var head string // with the type, -1
	var size int
	switch r.peek() {
	case 0xd6:
		head, size = "\xd6\xff", 4
	case 0xd7:
		head, size = "\xd7\xff", 8
	case 0xc7:
		head, size = "\xc7\x0c\xff", 12
	default:
		return time.Time{}, r.wrong()
	}
	p := r.buf[r.off:]
	n := min(len(head), len(p))
	if string(p[:n]) != head[:n] {
		return time.Time{}, r.fail(ErrType)
	}
	if len(p) < len(head)+size {
		return time.Time{}, r.fail(ErrTruncated)
	}
	p = p[len(head):]
	var sec int64
	var nsec uint64
	switch size {
	case 4:
		sec = int64(binary.BigEndian.Uint32(p))
	case 8:
		v := binary.BigEndian.Uint64(p)
		sec, nsec = int64(v&(1<<34-1)), v>>34
	case 12:
		sec, nsec = int64(binary.BigEndian.Uint64(p[4:])), uint64(binary.BigEndian.Uint32(p))
	}
	if nsec >= 1e9 {
		return time.Time{}, r.fail(ErrRange)
	}
	r.off += len(head) + size
	return time.Unix(sec, int64(nsec)), nil
}

// Skip reads past one object of any type, nested at most [MaxDepth] deep.
func (r *Reader) Skip() error {
	start := r.off
	if err := r.skip(0); err != nil {
		r.off = start
		return err
	}
	return nil
}

func (r *Reader) skip(depth int) error {
	var err error
	n := 0
	kind := r.Kind()
	if depth == MaxDepth && (kind == Array || kind == Map) {
		return r.fail(ErrDepth)
	}
	switch kind {
	case Nil, Bool:
		r.off++
	case Int:
		_, _, err = r.integer()
	case Float:
		_, err = r.Float()
	case Str, Bin:
		_, err = r.Bytes()
	case Ext:
		err = r.skipExt()
	case Array:
		n, err = r.Array()
	case Map:
		n, err = r.Map()
		n *= 2
	default:
		err = r.wrong()
	}
	for ; err == nil && n > 0; n-- {
		err = r.skip(depth + 1)
	}
	return err
}

func (r *Reader) skipExt() error {
	c := r.peek()
	var n uint64
	var err error
	if c >= 0xd4 {
		n = 1 << (c - 0xd4)
		r.off++
	} else {
		n, err = r.head(1 << (c - 0xc7))
	}
	if err != nil {
		return err
	}
	if n+1 > uint64(r.Len()) {
		return r.fail(ErrTruncated)
	}
	r.off += int(n) + 1
	return nil
}

// Raw reads one object of any type and returns its bytes, which alias the input.
func (r *Reader) Raw() ([]byte, error) {
	start := r.off
	if err := r.Skip(); err != nil {
		return nil, err
	}
	return r.buf[start:r.off:r.off], nil
}
