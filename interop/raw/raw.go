// Package raw builds and reads single OpenDHT datagrams by hand, for the lab and
// the benchmarks, which look at nodes from outside.
//
// It shares no code with Kith's own DHT packages: a fault in those must not hide
// itself from a test that judges them. Requests carry the client mark (`s`), so
// that the nodes under test do not take the harness into their routing tables.
// The package does no I/O and owns no goroutine.
package raw

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// ID is a node id or a storage key: 20 bytes.
type ID [20]byte

// Request holds what every request has in common.
type Request struct {
	Self    ID     // id of the sender; nodes ignore the zero id
	TID     uint32 // transaction id, chosen by the caller
	Network uint32 // network id; 0 leaves the key out of the packet
}

// Ping appends a ping to dst.
func (r Request) Ping(dst []byte) []byte {
	dst = r.head(dst, 1)
	return r.tail(dst, "ping")
}

// Find appends a find for the nodes closest to target.
func (r Request) Find(dst []byte, target ID) []byte {
	dst = r.head(dst, 2)
	dst = appendStr(dst, "target")
	dst = appendBin(dst, target[:])
	return r.tail(dst, "find")
}

// Get appends a get of every value under key.
func (r Request) Get(dst []byte, key ID) []byte {
	dst = r.head(dst, 2)
	dst = appendStr(dst, "h")
	dst = appendBin(dst, key[:])
	return r.tail(dst, "get")
}

// Put appends a put of one plain value (type 0) with the value id vid, which
// nodes refuse when zero. The token is one that the node has given to this very
// socket. Data goes inline whatever its size, so it must fit in a datagram.
func (r Request) Put(dst []byte, key ID, token []byte, vid uint64, data []byte) []byte {
	packed := make([]byte, 0, 64)
	packed = append(packed, 0x82) // {id, dat}
	packed = appendStr(packed, "id")
	packed = appendUint(packed, vid)
	packed = appendStr(packed, "dat")
	packed = append(packed, 0x81) // {body}
	packed = appendStr(packed, "body")
	packed = append(packed, 0x82) // {type, data}
	packed = appendStr(packed, "type")
	packed = appendUint(packed, 0)
	packed = appendStr(packed, "data")
	packed = appendBin(packed, data)
	return r.PutPacked(dst, key, token, packed)
}

// PutPacked is Put for a value of any kind that is packed already.
func (r Request) PutPacked(dst []byte, key ID, token, packed []byte) []byte {
	dst = r.head(dst, 4)
	dst = appendStr(dst, "h")
	dst = appendBin(dst, key[:])
	dst = appendStr(dst, "values")
	dst = append(dst, 0x91) // array of one
	dst = append(dst, packed...)
	dst = appendStr(dst, "token")
	dst = appendBin(dst, token)
	return r.tail(dst, "put")
}

// Pong appends the reply to a ping with the transaction id tid, by which a node
// that was asked something makes sure that it was not by a forged address.
func (r Request) Pong(dst []byte, tid uint32) []byte {
	keys := 4 // r t y s
	if r.Network != 0 {
		keys++
	}
	dst = append(dst, 0x80|byte(keys))
	dst = appendStr(dst, "r")
	dst = append(dst, 0x81) // {id}
	dst = appendStr(dst, "id")
	dst = appendBin(dst, r.Self[:])
	dst = appendStr(dst, "t")
	dst = appendUint(dst, uint64(tid))
	dst = appendStr(dst, "y")
	dst = appendStr(dst, "r")
	if r.Network != 0 {
		dst = appendStr(dst, "n")
		dst = appendUint(dst, uint64(r.Network))
	}
	dst = appendStr(dst, "s")
	return append(dst, 0xc3) // true
}

// head writes the packet's map header and the argument map up to its id; the
// caller adds the other args-1 arguments.
func (r Request) head(dst []byte, args int) []byte {
	keys := 6 // a q t y v s
	if r.Network != 0 {
		keys++
	}
	dst = append(dst, 0x80|byte(keys))
	dst = appendStr(dst, "a")
	dst = append(dst, 0x80|byte(args))
	dst = appendStr(dst, "id")
	return appendBin(dst, r.Self[:])
}

func (r Request) tail(dst []byte, query string) []byte {
	dst = appendStr(dst, "q")
	dst = appendStr(dst, query)
	dst = appendStr(dst, "t")
	dst = appendUint(dst, uint64(r.TID))
	dst = appendStr(dst, "y")
	dst = appendStr(dst, "q")
	dst = appendStr(dst, "v")
	dst = appendStr(dst, "lab")
	if r.Network != 0 {
		dst = appendStr(dst, "n")
		dst = appendUint(dst, uint64(r.Network))
	}
	dst = appendStr(dst, "s")
	return append(dst, 0xc3) // true
}

// appendStr writes a short string (fewer than 32 bytes, which all keys are).
func appendStr(dst []byte, s string) []byte {
	dst = append(dst, 0xa0|byte(len(s)))
	return append(dst, s...)
}

func appendBin(dst, b []byte) []byte {
	if len(b) < 256 {
		dst = append(dst, 0xc4, byte(len(b)))
	} else {
		dst = append(dst, 0xc5, byte(len(b)>>8), byte(len(b)))
	}
	return append(dst, b...)
}

func appendUint(dst []byte, v uint64) []byte {
	switch {
	case v < 128:
		return append(dst, byte(v))
	case v < 1<<8:
		return append(dst, 0xcc, byte(v))
	case v < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(v))
	case v < 1<<32:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(v))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 0xcf), v)
	}
}

// Kind says what a datagram is.
type Kind byte

// The kinds of datagram that [Parse] tells apart.
const (
	Query Kind = iota + 1
	Reply
	Error
	Part
)

// Message is what the harness wants to know of a datagram. Token, Values and the
// node list point into the datagram.
type Message struct {
	Kind   Kind
	TID    uint32
	ID     ID     // sender
	Code   uint64 // of an Error
	Query  string // of a Query
	Token  []byte // nil when there is none
	Values int    // number of elements in `values`
	Nodes4 []byte // 26 bytes each: id, IPv4, port
}

// Nodes gives the addresses in the IPv4 node list.
func (m *Message) Nodes() []netip.AddrPort {
	var out []netip.AddrPort
	for b := m.Nodes4; len(b) >= 26; b = b[26:] {
		ip := netip.AddrFrom4([4]byte(b[20:24]))
		out = append(out, netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[24:26])))
	}
	return out
}

var errPacket = errors.New("not a DHT packet")

// Parse reads a datagram. It checks only what the harness relies on.
func Parse(b []byte) (Message, error) {
	var m Message
	r := reader{b: b}
	for n := r.mapLen(); n > 0 && r.err == nil; n-- {
		switch key := r.str(); key {
		case "t":
			m.TID = uint32(r.uint())
		case "q":
			m.Query = r.str()
			m.Kind = max(m.Kind, Query)
		case "e":
			m.Kind = Error
			if n := r.arrayLen(); n > 0 {
				m.Code = r.uint()
				for ; n > 1 && r.err == nil; n-- {
					r.skip(0)
				}
			}
		case "r", "a":
			if key == "r" && m.Kind != Error {
				m.Kind = Reply
			}
			r.body(&m)
		case "p":
			m.Kind = Part
			r.skip(0)
		default:
			r.skip(0)
		}
	}
	if r.err != nil {
		return Message{}, fmt.Errorf("parse datagram: %w", r.err)
	}
	if m.Kind == 0 {
		return Message{}, errPacket
	}
	return m, nil
}

func (r *reader) body(m *Message) {
	for n := r.mapLen(); n > 0 && r.err == nil; n-- {
		switch r.str() {
		case "id":
			if id := r.bytes(); len(id) == len(m.ID) {
				m.ID = ID(id)
			}
		case "token":
			m.Token = r.bytes()
		case "n4":
			m.Nodes4 = r.bytes()
		case "values":
			m.Values = r.arrayLen()
			for i := m.Values; i > 0 && r.err == nil; i-- {
				r.skip(0)
			}
		default:
			r.skip(0)
		}
	}
}
