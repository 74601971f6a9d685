package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// valueDoc is the JSON form of a value. Signatures were verified and encrypted
// values were opened before it is made.
type valueDoc struct {
	Event    string  `json:"event,omitempty"` // of kith dht listen: added or expired
	ID       valueID `json:"id"`
	Type     uint16  `json:"type"`
	Data     *string `json:"data"` // null when it is not UTF-8
	Base64   []byte  `json:"data_base64"`
	UserType string  `json:"user_type,omitempty"`
	Owner    string  `json:"owner,omitempty"` // key id of who signed it
	Seq      *uint16 `json:"seq,omitempty"`   // version of a signed value
	To       string  `json:"to,omitempty"`    // key id of whom it was encrypted to
}

func newValueDoc(event string, v *dht.Value) valueDoc {
	d := valueDoc{Event: event, ID: valueID(v.ID), Type: uint16(v.Type), Base64: append([]byte{}, v.Data...), UserType: v.UserType}
	if utf8.Valid(v.Data) {
		text := string(v.Data)
		d.Data = &text
	}
	if v.Signed() {
		d.Owner, d.Seq = v.OwnerID().String(), &v.Seq
	}
	if !v.To.IsZero() {
		d.To = v.To.String()
	}
	return d
}

// String returns one line for people. What others wrote is quoted, so that it
// cannot command a terminal.
func (d valueDoc) String() string {
	var b strings.Builder
	if d.Event != "" {
		fmt.Fprintf(&b, "%-8s", d.Event)
	}
	fmt.Fprintf(&b, "%v  type %d", d.ID, d.Type)
	if d.UserType != "" {
		fmt.Fprintf(&b, ", user type %q", d.UserType)
	}
	if d.Seq != nil {
		fmt.Fprintf(&b, ", signed by %s, version %d", d.Owner, *d.Seq)
	}
	if d.To != "" {
		fmt.Fprintf(&b, ", encrypted to %s", d.To)
	}
	if d.Data != nil {
		fmt.Fprintf(&b, "  %q\n", *d.Data)
	} else {
		fmt.Fprintf(&b, "  %d bytes %x\n", len(d.Base64), d.Base64)
	}
	return b.String()
}

// valueID is the id of a value on the command line and in results: hex.
type valueID dht.ValueID

// UnmarshalText reads 1 to 16 hex digits.
func (id *valueID) UnmarshalText(b []byte) error {
	n, err := strconv.ParseUint(string(b), 16, 64)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is not 1 to 16 hex digits other than zero", b)
	}
	*id = valueID(n)
	return nil
}

// MarshalText returns what String returns.
func (id valueID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// String returns 16 lower-case hex digits.
func (id valueID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// keyArg is the key of a value on the command line.
type keyArg struct {
	dht.Key
	text string
}

// UnmarshalText reads 40 hex digits, or hashes any other text.
func (k *keyArg) UnmarshalText(b []byte) error {
	key, err := dht.ParseKey(string(b))
	*k = keyArg{key, string(b)}
	return err
}

// note warns of a text that was hashed but looks like a key with digits too few or
// too many.
func (k keyArg) note(app *App) {
	n := len(k.text)
	if n != keyDigits && n >= keyDigits-4 && n <= keyDigits+4 && strings.Trim(k.text, "0123456789abcdefABCDEF") == "" {
		app.Note("The key has %d hex digits, not %d, so it is hashed like any other text.", n, keyDigits)
	}
}

// keyDigits is how many hex digits a key has.
const keyDigits = 2 * len(dht.Key{})

// filterFlags pick values by what they are.
type filterFlags struct {
	ID       valueID `name:"id" placeholder:"HEX" help:"Only the value with this id."`
	Type     *uint16 `placeholder:"N" help:"Only values of this type."`
	UserType string  `placeholder:"T" help:"Only values with this user type."`
	Where    string  `placeholder:"FILTER" help:"Only values that pass a filter: FIELD=VALUE,… with id, value_type, owner_pk, seq, user_type."`
}

func (f *filterFlags) query() (dht.Query, error) {
	text := strings.TrimSpace(f.Where)
	if first, _, _ := strings.Cut(text, " "); text != "" && !strings.EqualFold(first, "WHERE") {
		text = "WHERE " + text
	}
	q, err := wire.ParseQuery(text)
	if err == nil && len(q.Select) > 0 {
		err = errors.New("values come whole: SELECT has no place here")
	}
	if err != nil {
		return q, Fail(KindUsage, err, "write --where like id=0x2a,user_type=text/plain")
	}
	if f.ID != 0 {
		q.Where = append(q.Where, wire.Filter{Field: wire.FieldID, Num: uint64(f.ID)})
	}
	if f.Type != nil {
		q.Where = append(q.Where, wire.Filter{Field: wire.FieldType, Num: uint64(*f.Type)})
	}
	if f.UserType != "" {
		q.Where = append(q.Where, wire.Filter{Field: wire.FieldUserType, UserType: f.UserType})
	}
	return q, nil
}
