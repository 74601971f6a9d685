package raw

import "encoding/binary"

// maxDepth bounds nesting; real packets have at most seven levels.
const maxDepth = 16

// reader is a cursor over one msgpack document. The first error stays, after
// which every method gives zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.err = errPacket
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

// size reads a big-endian number of n bytes.
func (r *reader) size(n int) uint64 {
	var buf [8]byte
	copy(buf[8-n:], r.take(n))
	return binary.BigEndian.Uint64(buf[:])
}

func (r *reader) byte() byte {
	if b := r.take(1); len(b) == 1 {
		return b[0]
	}
	return 0xc1 // never used by msgpack
}

func (r *reader) mapLen() int {
	switch c := r.byte(); {
	case c&0xf0 == 0x80:
		return int(c & 0x0f)
	case c == 0xde:
		return int(r.size(2))
	}
	r.fail()
	return 0
}

func (r *reader) arrayLen() int {
	switch c := r.byte(); {
	case c&0xf0 == 0x90:
		return int(c & 0x0f)
	case c == 0xdc:
		return int(r.size(2))
	}
	r.fail()
	return 0
}

func (r *reader) uint() uint64 {
	switch c := r.byte(); {
	case c < 0x80:
		return uint64(c)
	case c >= 0xcc && c <= 0xcf:
		return r.size(1 << (c - 0xcc))
	}
	r.fail()
	return 0
}

// bytes reads a string or binary.
func (r *reader) bytes() []byte {
	switch c := r.byte(); {
	case c&0xe0 == 0xa0:
		return r.take(int(c & 0x1f))
	case c >= 0xc4 && c <= 0xc6:
		return r.take(int(r.size(1 << (c - 0xc4))))
	case c >= 0xd9 && c <= 0xdb:
		return r.take(int(r.size(1 << (c - 0xd9))))
	}
	r.fail()
	return nil
}

func (r *reader) str() string { return string(r.bytes()) }

// skip passes over one value of any type.
func (r *reader) skip(depth int) {
	if depth > maxDepth || len(r.b) == 0 {
		r.fail()
		return
	}
	switch c := r.b[0]; {
	case c < 0x80 || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3:
		r.take(1)
	case c&0xf0 == 0x80 || c == 0xde:
		for n := 2 * r.mapLen(); n > 0 && r.err == nil; n-- {
			r.skip(depth + 1)
		}
	case c&0xf0 == 0x90 || c == 0xdc:
		for n := r.arrayLen(); n > 0 && r.err == nil; n-- {
			r.skip(depth + 1)
		}
	case c >= 0xcc && c <= 0xcf:
		r.take(1 + 1<<(c-0xcc))
	case c >= 0xd0 && c <= 0xd3:
		r.take(1 + 1<<(c-0xd0))
	case c == 0xca:
		r.take(5)
	case c == 0xcb:
		r.take(9)
	default:
		r.bytes()
	}
}
