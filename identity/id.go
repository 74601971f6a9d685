package identity

import (
	"crypto/sha1"
	"encoding/hex"
	"fmt"
)

// KeyID is the short id of a public key: SHA-1 over its DER SubjectPublicKeyInfo.
// The zero KeyID names no key.
//
// SHA-1 does not resist collisions, so a KeyID finds a key but does not prove
// it: compare whole keys, or a [LongKeyID], where an attacker could have made both.
type KeyID [20]byte

// LongKeyID is the long id of a public key: SHA-256 over its DER
// SubjectPublicKeyInfo. The zero LongKeyID names no key.
type LongKeyID [32]byte

// ParseKeyID reads a KeyID from exactly 40 hexadecimal digits of either case.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	if err := parseHex(id[:], s); err != nil {
		return KeyID{}, fmt.Errorf("parsing key id: %w", err)
	}
	return id, nil
}

// ParseLongKeyID reads a LongKeyID from exactly 64 hexadecimal digits of either case.
func ParseLongKeyID(s string) (LongKeyID, error) {
	var id LongKeyID
	if err := parseHex(id[:], s); err != nil {
		return LongKeyID{}, fmt.Errorf("parsing long key id: %w", err)
	}
	return id, nil
}

func parseHex(dst []byte, s string) error {
	// The length comes first: it bounds the work and keeps Decode inside dst.
	if len(s) != hex.EncodedLen(len(dst)) {
		return fmt.Errorf("%d characters instead of %d", len(s), hex.EncodedLen(len(dst)))
	}
	_, err := hex.Decode(dst, []byte(s))
	return err
}

// String returns the id as 40 lower-case hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is all zero, and so names no key.
func (id KeyID) IsZero() bool { return id == KeyID{} }

// MarshalText returns the same text as String.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseKeyID] reads.
func (id *KeyID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseKeyID(string(b))
	return err
}

// String returns the id as 64 lower-case hexadecimal digits.
func (id LongKeyID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is all zero, and so names no key.
func (id LongKeyID) IsZero() bool { return id == LongKeyID{} }

// MarshalText returns the same text as String.
func (id LongKeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [ParseLongKeyID] reads.
func (id *LongKeyID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseLongKeyID(string(b))
	return err
}

// CertificateKeys returns the two DHT keys under which the certificate of k is
// published: its short id, where OpenDHT before 3.5 looks, and SHA-1 over the
// bytes of its long id, where later versions do. A node stores both forms.
func CertificateKeys(k *PublicKey) (short, long [20]byte) {
	id := k.LongID()
	return k.ID(), sha1.Sum(id[:])
}
