package wire

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/msgpack"
)

// ValueID names a value among those of one key. Zero is not valid.
type ValueID uint64

// TypeID is the kind of a value, which decides how long it lives and who may
// store and edit it.
type TypeID uint16

// The types that OpenDHT and Jami know.
const (
	TypeUserData     TypeID = 0
	TypeMessage      TypeID = 1
	TypeService      TypeID = 2
	TypeIM           TypeID = 3
	TypeTrustRequest TypeID = 4
	TypeICE          TypeID = 5
	TypeCertificate  TypeID = 8
)

// MaxValueSize is the most bytes that [Value.Size] may count.
const MaxValueSize = 64 << 10

// MaxPackedSize is the most bytes of a packed value that peers accept in parts.
const MaxPackedSize = MaxValueSize + 32

// ErrValue is wrapped by every error about a value that can't be read.
var ErrValue = errors.New("invalid DHT value")

// Value is one value of the DHT. A value with Cypher set is encrypted and has
// nothing else but its ID, Priority and PushType; one with Owner and Signature
// set is signed. Once it was handed to a node a value must not be changed.
type Value struct {
	ID       ValueID
	Type     TypeID
	Data     []byte
	UserType string // a MIME-like tag, at most 65,535 bytes of UTF-8

	Owner     []byte         // DER SubjectPublicKeyInfo of the signer, or nil
	Seq       uint16         // version, only meaningful with Owner
	To        identity.KeyID // recipient of a value that was encrypted, else zero
	Signature []byte

	Cypher []byte // the encrypted dat map

	Priority uint32 // push priority, 0 is highest; outside the signature
	PushType string // push tag of newer peers; outside the signature
}

// Encrypted tells whether the value can only be read by its recipient.
func (v *Value) Encrypted() bool { return len(v.Cypher) > 0 }

// Signed tells whether the value claims an owner. It does not check the claim:
// see [Value.VerifySignature].
func (v *Value) Signed() bool { return len(v.Owner) > 0 }

// Size is what counts against limits, in bytes.
func (v *Value) Size() int {
	return len(v.Cypher) + len(v.Data) + len(v.Signature) + len(v.UserType) + len(v.PushType)
}

// OwnerID is the short id of the owner's key, zero without owner.
func (v *Value) OwnerID() identity.KeyID {
	if !v.Signed() {
		return identity.KeyID{}
	}
	return sha1.Sum(v.Owner)
}

// SameContent tells whether other may replace v without being an edit: the
// comparison that OpenDHT makes, which leaves out seq and priority.
func (v *Value) SameContent(other *Value) bool {
	if v.Encrypted() || other.Encrypted() {
		return bytes.Equal(v.Cypher, other.Cypher)
	}
	return v.Type == other.Type && v.UserType == other.UserType &&
		bytes.Equal(v.Owner, other.Owner) && bytes.Equal(v.Data, other.Data) &&
		bytes.Equal(v.Signature, other.Signature)
}

// Clone returns a deep copy that aliases nothing of v.
func (v *Value) Clone() *Value {
	c := *v
	c.Data = bytes.Clone(v.Data)
	c.Owner = bytes.Clone(v.Owner)
	c.Signature = bytes.Clone(v.Signature)
	c.Cypher = bytes.Clone(v.Cypher)
	return &c
}

// VerifySignature checks that the owner signed the value. Keys that make that slow
// are refused: of more than 4096 bits, or with an RSA exponent above 65,537.
func (v *Value) VerifySignature() error {
	if !v.Signed() || len(v.Signature) == 0 {
		return fmt.Errorf("%w: not signed", ErrValue)
	}
	key, err := identity.ParsePublicKey(v.Owner)
	if err != nil {
		return fmt.Errorf("%w: owner key: %w", ErrValue, err)
	}
	if key.Bits() > maxOwnerBits {
		return fmt.Errorf("%w: owner key of %d bits", ErrValue, key.Bits())
	}
	if e := exponent(v.Owner); e > maxOwnerExponent {
		return fmt.Errorf("%w: owner key with exponent %d", ErrValue, e)
	}
	if err := key.Verify(v.SignedBytes(), v.Signature); err != nil {
		return fmt.Errorf("%w: signature: %w", ErrValue, err)
	}
	return nil
}

// Bounds of what the check of one signature may cost: about a tenth of a
// millisecond. Peers use 4096 bits and the usual exponent.
const (
	maxOwnerBits     = 4096
	maxOwnerExponent = 1<<16 + 1
)

// exponent returns the public exponent of an RSA key, or 0 for other keys.
func exponent(der []byte) int {
	key, _ := x509.ParsePKIXPublicKey(der)
	if k, ok := key.(*rsa.PublicKey); ok {
		return k.E
	}
	return 0
}

// SignedBytes returns the packed body, which a signature covers.
func (v *Value) SignedBytes() []byte { return v.appendBody(nil) }

func (v *Value) appendBody(b []byte) []byte {
	n := 2
	if v.Signed() {
		n += 2
		if v.To != (identity.KeyID{}) {
			n++
		}
	}
	if v.UserType != "" {
		n++
	}
	b = msgpack.AppendMap(b, n)
	if v.Signed() {
		b = msgpack.AppendUint(msgpack.AppendString(b, "seq"), uint64(v.Seq))
		b = msgpack.AppendBin(msgpack.AppendString(b, "owner"), v.Owner)
		if v.To != (identity.KeyID{}) {
			b = msgpack.AppendBin(msgpack.AppendString(b, "to"), v.To[:])
		}
	}
	b = msgpack.AppendUint(msgpack.AppendString(b, "type"), uint64(v.Type))
	b = msgpack.AppendBin(msgpack.AppendString(b, "data"), v.Data)
	if v.UserType != "" {
		b = msgpack.AppendString(msgpack.AppendString(b, "utype"), v.UserType)
	}
	return b
}

// AppendContent appends the dat map of body and signature: what is encrypted.
func (v *Value) AppendContent(b []byte) []byte {
	if len(v.Signature) == 0 {
		return v.appendBody(msgpack.AppendString(msgpack.AppendMap(b, 1), "body"))
	}
	b = v.appendBody(msgpack.AppendString(msgpack.AppendMap(b, 2), "body"))
	return msgpack.AppendBin(msgpack.AppendString(b, "sig"), v.Signature)
}

// Append appends the packed value.
func (v *Value) Append(b []byte) []byte {
	n := 2
	if v.Priority != 0 {
		n++
	}
	if v.PushType != "" {
		n++
	}
	b = msgpack.AppendMap(b, n)
	b = msgpack.AppendUint(msgpack.AppendString(b, "id"), uint64(v.ID))
	b = msgpack.AppendString(b, "dat")
	if v.Encrypted() {
		b = msgpack.AppendBin(b, v.Cypher)
	} else {
		b = v.AppendContent(b)
	}
	if v.Priority != 0 {
		b = msgpack.AppendUint(msgpack.AppendString(b, "p"), uint64(v.Priority))
	}
	if v.PushType != "" {
		b = msgpack.AppendString(msgpack.AppendString(b, "pt"), v.PushType)
	}
	return b
}

// ParseValue reads a packed value that fills b. Its slices alias b.
func ParseValue(b []byte) (*Value, error) {
	v := new(Value)
	r := msgpack.NewReader(b)
	if err := v.read(&r); err != nil {
		return nil, err
	}
	if r.Len() != 0 {
		return nil, fmt.Errorf("%w: %d bytes follow it", ErrValue, r.Len())
	}
	return v, nil
}

// read reads one packed value into the zero *v.
func (v *Value) read(r *msgpack.Reader) error {
	if err := v.readFields(r); err != nil {
		return fmt.Errorf("%w: %w", ErrValue, err)
	}
	return nil
}

func (v *Value) readFields(r *msgpack.Reader) error {
	var hasID, hasDat bool
	err := eachKey(r, func(key []byte) error {
		switch string(key) {
		case "id":
			id, err := r.Uint()
			v.ID, hasID = ValueID(id), true
			return err
		case "dat":
			if hasDat {
				return errors.New("content given twice")
			}
			hasDat = true
			if r.Kind() == msgpack.Map {
				return v.readContent(r)
			}
			b, err := r.Bytes()
			if err == nil && len(b) == 0 {
				return errors.New("empty cypher text")
			}
			v.Cypher = b
			return err
		case "p":
			p, err := r.Uint()
			v.Priority = uint32(min(p, 1<<32-1))
			return err
		case "pt":
			s, err := r.Str()
			v.PushType = string(s)
			return err
		}
		return r.Skip()
	})
	switch {
	case err != nil:
		return err
	case !hasID || !hasDat:
		return errors.New("id or content missing")
	case v.Size() > MaxValueSize:
		return fmt.Errorf("%d bytes, more than %d", v.Size(), MaxValueSize)
	}
	return nil
}

// ParseContent reads the dat map that an encrypted value holds into a new value.
// Its slices alias b.
func ParseContent(b []byte) (*Value, error) {
	v := new(Value)
	r := msgpack.NewReader(b)
	if err := v.readContent(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrValue, err)
	}
	return v, nil
}

func (v *Value) readContent(r *msgpack.Reader) error {
	hasBody := false
	err := eachKey(r, func(key []byte) error {
		switch string(key) {
		case "body":
			if hasBody {
				return errors.New("body given twice")
			}
			hasBody = true
			return v.readBody(r)
		case "sig":
			b, err := readBlob(r)
			v.Signature = b
			return err
		}
		return r.Skip()
	})
	switch {
	case err != nil:
		return err
	case !hasBody:
		return errors.New("body missing")
	case v.Signed() && len(v.Signature) == 0:
		return errors.New("owner without signature")
	}
	return nil
}

func (v *Value) readBody(r *msgpack.Reader) error {
	var hasSeq, hasType, hasData bool
	err := eachKey(r, func(key []byte) error {
		switch string(key) {
		case "seq":
			n, err := readUint16(r)
			v.Seq, hasSeq = n, true
			return err
		case "owner":
			b, err := readBlob(r)
			if err != nil {
				return err
			}
			v.Owner, err = ownerDER(b)
			return err
		case "to":
			b, err := r.Bin()
			if err == nil && len(b) != len(v.To) {
				return fmt.Errorf("recipient of %d bytes", len(b))
			}
			copy(v.To[:], b)
			return err
		case "type":
			n, err := readUint16(r)
			v.Type, hasType = TypeID(n), true
			return err
		case "data":
			b, err := readBlob(r)
			v.Data, hasData = b, true
			return err
		case "utype":
			s, err := r.Str()
			if err == nil && (len(s) > 1<<16-1 || !utf8.Valid(s)) {
				return errors.New("user type is not UTF-8")
			}
			v.UserType = string(s)
			return err
		}
		return r.Skip()
	})
	switch {
	case err != nil:
		return err
	case !hasType || !hasData:
		return errors.New("type or data missing")
	case v.Signed() && !hasSeq:
		return errors.New("owner without seq")
	}
	if !v.Signed() {
		v.Seq, v.To = 0, identity.KeyID{}
	}
	return nil
}

// maxOwner bounds an owner key in bytes: RSA-16384 has about 2,100.
const maxOwner = 8 << 10

func ownerDER(b []byte) ([]byte, error) {
	if len(b) > maxOwner {
		return nil, fmt.Errorf("owner key of %d bytes", len(b))
	}
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != '-' {
		return b, nil
	}
	block, _ := pem.Decode(b)
	if block == nil || len(block.Bytes) == 0 || block.Bytes[0] == '-' {
		return nil, errors.New("owner key is not PEM of a key")
	}
	return block.Bytes, nil
}

// readBlob reads bytes in any form that peers have sent: bin, str, or an array
// of bytes (very old peers).
func readBlob(r *msgpack.Reader) ([]byte, error) {
	if r.Kind() != msgpack.Array {
		return r.Bytes()
	}
	n, err := r.Array()
	if err != nil {
		return nil, err
	}
	if n > MaxValueSize {
		return nil, fmt.Errorf("%d bytes in an array", n)
	}
	b := make([]byte, n)
	for i := range b {
		u, err := r.Uint()
		if err != nil {
			return nil, err
		}
		if u > 255 {
			return nil, msgpack.ErrRange
		}
		b[i] = byte(u)
	}
	return b, nil
}

func readUint16(r *msgpack.Reader) (uint16, error) {
	n, err := r.Uint()
	if err == nil && n > 1<<16-1 {
		err = msgpack.ErrRange
	}
	return uint16(n), err
}

// eachKey reads a map and calls f, which must read the pair's value, for each key
// that is text. Other keys are skipped with their values.
func eachKey(r *msgpack.Reader, f func(key []byte) error) error {
	n, err := r.Map()
	if err != nil {
		return err
	}
	for range n {
		if r.Kind() != msgpack.Str {
			if err := r.Skip(); err != nil {
				return err
			}
			if err := r.Skip(); err != nil {
				return err
			}
			continue
		}
		k, err := r.Str()
		if err != nil {
			return err
		}
		if err := f(k); err != nil {
			return err
		}
	}
	return nil
}
