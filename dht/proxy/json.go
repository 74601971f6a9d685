package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
)

// MaxLine bounds one value in its JSON form, in bytes: the largest value with
// all of its text escaped is shorter.
const MaxLine = 512 << 10

// maxOwner bounds the PEM form of an owner key, in bytes.
const maxOwner = 16 << 10

// ErrJSON is wrapped by errors about text that is not the JSON form of a value.
var ErrJSON = errors.New("invalid JSON value")

// errSyntax marks what is not JSON at all, which servers answer differently.
var errSyntax = fmt.Errorf("%w: syntax", ErrJSON)

// AppendJSON appends the JSON form of v as OpenDHT writes it: compact, with
// sorted keys, without the line feed that ends it in a stream.
func AppendJSON(b []byte, v *dht.Value) []byte { return appendLine(b, v, false) }

// appendLine is AppendJSON with the mark of a value that is gone.
func appendLine(b []byte, v *dht.Value, expired bool) []byte {
	o := object{b: append(b, '{')}
	if v.Encrypted() {
		o.base64("cypher", v.Cypher)
	} else {
		o.base64("data", v.Data)
	}
	if expired {
		o.raw("expired", "true")
	}
	o.text("id", strconv.FormatUint(uint64(v.ID), 10))
	if v.Signed() && !v.Encrypted() {
		o.text("owner", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: v.Owner})))
	}
	if v.Priority != 0 {
		o.num("prio", uint64(v.Priority))
	}
	if v.PushType != "" {
		o.text("pt", v.PushType)
	}
	if !v.Encrypted() {
		if v.Signed() {
			o.num("seq", uint64(v.Seq))
		}
		if len(v.Signature) > 0 {
			o.base64("sig", v.Signature)
		}
		if v.Signed() && v.To != (identity.KeyID{}) {
			o.text("to", hex.EncodeToString(v.To[:]))
		}
		o.num("type", uint64(v.Type))
		if v.UserType != "" {
			o.text("utype", v.UserType)
		}
	}
	return append(o.b, '}')
}

// object writes a JSON object the way OpenDHT's library does. Its caller gives
// the keys in order.
type object struct {
	b []byte
}

func (o *object) key(k string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), k...), '"', ':')
}

func (o *object) raw(k, v string) { o.key(k); o.b = append(o.b, v...) }

func (o *object) num(k string, v uint64) { o.key(k); o.b = strconv.AppendUint(o.b, v, 10) }

func (o *object) base64(k string, v []byte) {
	o.key(k)
	o.b = append(base64.StdEncoding.AppendEncode(append(o.b, '"'), v), '"')
}

func (o *object) text(k, v string) { o.key(k); o.b = appendString(o.b, v) }

const hexDigits = "0123456789abcdef"

// appendString quotes s: everything beyond ASCII and all controls but DEL are
// escaped, and nothing else that need not be.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r >= ' ' && r < utf8.RuneSelf:
			b = append(b, byte(r))
		case r == '\b':
			b = append(b, '\\', 'b')
		case r == '\f':
			b = append(b, '\\', 'f')
		case r == '\n':
			b = append(b, '\\', 'n')
		case r == '\r':
			b = append(b, '\\', 'r')
		case r == '\t':
			b = append(b, '\\', 't')
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			b = appendUnit(appendUnit(b, hi), lo)
		default:
			b = appendUnit(b, r)
		}
	}
	return append(b, '"')
}

func appendUnit(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// ParseJSON reads the JSON form of a value; an id that is missing, zero or not a
// number gives a value whose id is zero. Errors wrap [ErrJSON]. The value does
// not alias b and its signature is not checked.
func ParseJSON(b []byte) (*dht.Value, error) {
	f, err := parseFields(b)
	if err != nil {
		return nil, err
	}
	return f.value()
}

// fields is a JSON object, read only as far as its keys.
type fields map[string]json.RawMessage

// parseFields reads an object of at most MaxLine bytes.
func parseFields(b []byte) (fields, error) {
	if len(b) > MaxLine {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", ErrJSON, len(b), MaxLine)
	}
	b = bytes.TrimSpace(b)
	if !json.Valid(b) {
		return nil, errSyntax
	}
	var f fields
	if err := json.Unmarshal(b, &f); err != nil || f == nil {
		return nil, fmt.Errorf("%w: not an object", ErrJSON)
	}
	return f, nil
}

// value reads the value among the fields.
func (f fields) value() (*dht.Value, error) {
	v := &dht.Value{ID: f.id()}
	var err error
	get := func(read error) {
		if err == nil {
			err = read
		}
	}
	get(f.uint("prio", 32, func(n uint64) { v.Priority = uint32(n) }))
	get(f.string("pt", &v.PushType))
	if f.has("cypher") {
		get(f.base64("cypher", &v.Cypher))
		if err == nil && len(v.Cypher) == 0 {
			err = fmt.Errorf("%w: cypher is empty", ErrJSON)
		}
	} else {
		get(f.base64("data", &v.Data))
		get(f.string("utype", &v.UserType))
		get(f.uint("type", 16, func(n uint64) { v.Type = dht.TypeID(n) }))
		get(f.base64("sig", &v.Signature))
		get(f.owner(v))
	}
	switch {
	case err != nil:
		return nil, err
	case v.Size() > wire.MaxValueSize:
		return nil, fmt.Errorf("%w: value of %d bytes, more than %d", ErrJSON, v.Size(), wire.MaxValueSize)
	case len(v.UserType) > 1<<16-1:
		return nil, fmt.Errorf("%w: utype of %d bytes", ErrJSON, len(v.UserType))
	}
	return v, nil
}

// owner reads what only a signed value has.
func (f fields) owner(v *dht.Value) error {
	var text, to string
	if err := f.string("owner", &text); err != nil || text == "" {
		return err
	}
	if len(text) > maxOwner {
		return fmt.Errorf("%w: owner of %d bytes", ErrJSON, len(text))
	}
	block, _ := pem.Decode([]byte(text)) // OpenDHT 2.4 ends it with a NUL
	if block == nil || len(block.Bytes) == 0 || block.Type != "PUBLIC KEY" {
		return fmt.Errorf("%w: owner is not a PEM public key", ErrJSON)
	}
	if len(v.Signature) == 0 {
		return fmt.Errorf("%w: owner without sig", ErrJSON)
	}
	v.Owner = block.Bytes
	if err := f.uint("seq", 16, func(n uint64) { v.Seq = uint16(n) }); err != nil {
		return err
	}
	if err := f.string("to", &to); err != nil || to == "" {
		return err
	}
	if len(to) != 2*len(v.To) {
		return fmt.Errorf("%w: to is not a key id", ErrJSON)
	}
	if _, err := hex.Decode(v.To[:], []byte(to)); err != nil {
		return fmt.Errorf("%w: to is not a key id", ErrJSON)
	}
	return nil
}

func (f fields) has(key string) bool {
	raw, ok := f[key]
	return ok && string(raw) != "null"
}

// id reads the id, a decimal string or a number; zero stands for all else, as it
// does to OpenDHT.
func (f fields) id() dht.ValueID {
	raw := string(f["id"])
	if len(raw) > 2 && raw[0] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	n, err := strconv.ParseUint(raw, 10, 64)
	if err != nil {
		return 0
	}
	return dht.ValueID(n)
}

func (f fields) uint(key string, bits int, set func(uint64)) error {
	if !f.has(key) {
		return nil
	}
	n, err := strconv.ParseUint(string(f[key]), 10, bits)
	if err != nil {
		return fmt.Errorf("%w: %s is not a number of %d bits", ErrJSON, key, bits)
	}
	set(n)
	return nil
}

func (f fields) string(key string, s *string) error {
	if f.has(key) && json.Unmarshal(f[key], s) != nil {
		return fmt.Errorf("%w: %s is not text", ErrJSON, key)
	}
	return nil
}

// bool tells whether the field is there and true.
func (f fields) bool(key string) bool { return string(f[key]) == "true" }

func (f fields) base64(key string, b *[]byte) error {
	var s string
	if err := f.string(key, &s); err != nil {
		return err
	}
	if s == "" {
		return nil
	}
	var err error
	if *b, err = base64.StdEncoding.DecodeString(s); err != nil {
		return fmt.Errorf("%w: %s is not base64", ErrJSON, key)
	}
	return nil
}
