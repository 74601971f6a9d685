// Package wire turns OpenDHT packets and values into bytes and back.
//
// It is pure: no clock, no network, no goroutine. What it reads is hostile, so
// every decoder is bounded in size, depth and count and never panics; what it
// writes is byte for byte what OpenDHT writes, since signatures depend on it.
// Slices in decoded messages alias the input: [Value.Clone] detaches a value.
//
// The package does not know what a message means to a node (that is package
// kad's) nor how values are signed and encrypted (package dht's).
// The protocol is described in docs/protocol/opendht.md.
package wire

import (
	"bytes"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/bits"
)

// IDSize is the length of node ids and keys in bytes.
const IDSize = 20

// NodeID names a node of the network. The zero value is not a valid id.
type NodeID [IDSize]byte

// Key is a place of the key space where values are stored. The zero value is not
// a valid key.
type Key [IDSize]byte

// KeyOf returns the key of a name: the SHA-1 of its bytes.
func KeyOf(name []byte) Key { return sha1.Sum(name) }

// ParseKey reads a key as OpenDHT's tools do: 40 hex digits are taken as they
// are; any other text, also 40 zeros, is hashed. The empty text is an error.
func ParseKey(text string) (Key, error) {
	if text == "" {
		return Key{}, fmt.Errorf("empty key: give 40 hex digits or a text to hash")
	}
	if len(text) == 2*IDSize {
		var k Key
		if _, err := hex.Decode(k[:], []byte(text)); err == nil && !k.IsZero() {
			return k, nil
		}
	}
	return KeyOf([]byte(text)), nil
}

// ParseNodeID reads 40 hex digits.
func ParseNodeID(text string) (NodeID, error) {
	var id NodeID
	if n, err := hex.Decode(id[:], []byte(text[:min(len(text), 2*IDSize)])); err != nil || n != IDSize || len(text) != 2*IDSize {
		return NodeID{}, fmt.Errorf("node id %.50q: want 40 hex digits", text)
	}
	if id.IsZero() {
		return NodeID{}, fmt.Errorf("node id is zero")
	}
	return id, nil
}

// String returns 40 lower-case hex digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// String returns 40 lower-case hex digits.
func (id NodeID) String() string { return hex.EncodeToString(id[:]) }

// IsZero tells whether k is the invalid key.
func (k Key) IsZero() bool { return k == Key{} }

// IsZero tells whether id is the invalid id.
func (id NodeID) IsZero() bool { return id == NodeID{} }

// MarshalText returns 40 lower-case hex digits.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// MarshalText returns 40 lower-case hex digits.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// Closer tells whether a is nearer to k than b in the XOR metric.
func (k Key) Closer(a, b NodeID) bool {
	for i := range k {
		if a[i] != b[i] {
			return a[i]^k[i] < b[i]^k[i]
		}
	}
	return false
}

// CommonBits counts the leading bits that a and b share, 0 to 160.
func CommonBits(a, b [IDSize]byte) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return 8 * IDSize
}

// Compare orders ids as big-endian numbers.
func (id NodeID) Compare(other NodeID) int { return bytes.Compare(id[:], other[:]) }
