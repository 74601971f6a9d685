package wire

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/msgpack"
)

// Field is a property of a value that queries select or filter by.
type Field uint8

// The fields, with their numbers on the wire.
const (
	FieldID       Field = 1
	FieldType     Field = 2
	FieldOwner    Field = 3
	FieldSeq      Field = 4
	FieldUserType Field = 5
)

// fieldNames has the names that OpenDHT's tools use.
var fieldNames = [...]string{FieldID: "id", FieldType: "value_type", FieldOwner: "owner_pk", FieldSeq: "seq", FieldUserType: "user_type"}

// String returns the name in query text.
func (f Field) String() string {
	if int(f) < len(fieldNames) && f > 0 {
		return fieldNames[f]
	}
	return "field " + strconv.Itoa(int(f))
}

// maxFilters bounds the filters and the fields of a query.
const maxFilters = 16

// maxFilterText bounds the user type in a filter, in bytes.
const maxFilterText = 256

// Filter is one condition of a query: the field must equal the value that belongs
// to it.
type Filter struct {
	Field    Field
	Num      uint64         // FieldID, FieldType, FieldSeq
	Owner    identity.KeyID // FieldOwner
	UserType string         // FieldUserType
}

// matches tells whether v, whose owner's id is known to be owner, passes.
func (f Filter) matches(v *Value, owner identity.KeyID) bool {
	switch f.Field {
	case FieldID:
		return uint64(v.ID) == f.Num
	case FieldType:
		return uint64(v.Type) == f.Num
	case FieldOwner:
		return owner == f.Owner
	case FieldSeq:
		return uint64(v.Seq) == f.Num
	case FieldUserType:
		return v.UserType == f.UserType
	}
	return false
}

// Query selects fields of the values that pass all filters. The zero value asks
// for all values whole.
type Query struct {
	Select []Field // none: whole values
	Where  []Filter
}

// WhereID asks for the value with that id.
func WhereID(id ValueID) Query { return Query{Where: []Filter{{Field: FieldID, Num: uint64(id)}}} }

// WhereType asks for the values of that type.
func WhereType(t TypeID) Query { return Query{Where: []Filter{{Field: FieldType, Num: uint64(t)}}} }

// WhereUserType asks for the values with that user type.
func WhereUserType(t string) Query {
	return Query{Where: []Filter{{Field: FieldUserType, UserType: t}}}
}

// IsZero tells whether the query asks for everything.
func (q Query) IsZero() bool { return len(q.Select) == 0 && len(q.Where) == 0 }

// Matches tells whether v passes all filters.
func (q Query) Matches(v *Value) bool {
	var owner identity.KeyID
	if q.filters(FieldOwner) {
		owner = v.OwnerID()
	}
	return q.MatchesOwned(v, owner)
}

// MatchesOwned is [Query.Matches] for who keeps the id of v's owner, and so need not
// hash the key each time.
func (q Query) MatchesOwned(v *Value, owner identity.KeyID) bool {
	for _, f := range q.Where {
		if !f.matches(v, owner) {
			return false
		}
	}
	return true
}

// filters tells whether there is a filter by that field already.
func (q Query) filters(f Field) bool {
	return slices.ContainsFunc(q.Where, func(have Filter) bool { return have.Field == f })
}

// OnWire returns what a peer is asked: filters by seq are left out, since OpenDHT
// drops packets that have one. The requester filters again.
func (q Query) OnWire() Query {
	q.Where = slices.DeleteFunc(slices.Clone(q.Where), func(f Filter) bool { return f.Field == FieldSeq })
	return q
}

func (q Query) append(b []byte) []byte {
	b = msgpack.AppendArray(msgpack.AppendString(msgpack.AppendMap(b, 2), "s"), len(q.Select))
	for _, f := range q.Select {
		b = msgpack.AppendUint(b, uint64(f))
	}
	b = msgpack.AppendArray(msgpack.AppendString(b, "w"), len(q.Where))
	for _, f := range q.Where {
		b = msgpack.AppendUint(msgpack.AppendString(msgpack.AppendMap(b, 2), "f"), uint64(f.Field))
		b = msgpack.AppendString(b, "v")
		switch f.Field {
		case FieldOwner:
			b = msgpack.AppendBin(b, f.Owner[:])
		case FieldUserType:
			b = msgpack.AppendBin(b, []byte(f.UserType))
		default:
			b = msgpack.AppendUint(b, f.Num)
		}
	}
	return b
}

// Append appends the packed query.
func (q Query) Append(b []byte) []byte { return q.append(b) }

func readQuery(r *msgpack.Reader) (Query, error) {
	var q Query
	err := eachKey(r, func(key []byte) error {
		switch string(key) {
		case "s":
			n, err := r.Array()
			if err != nil {
				return err
			}
			if n+len(q.Select) > maxFilters {
				return errors.New("too many fields in a query")
			}
			for range n {
				f, err := readField(r)
				if err != nil {
					return err
				}
				q.Select = append(q.Select, f)
			}
			return nil
		case "w":
			n, err := r.Array()
			if err != nil {
				return err
			}
			if n+len(q.Where) > maxFilters {
				return errors.New("too many filters in a query")
			}
			for range n {
				f, err := readFilter(r)
				if err != nil {
					return err
				}
				if q.filters(f.Field) {
					return fmt.Errorf("two filters by %s in a query", f.Field)
				}
				q.Where = append(q.Where, f)
			}
			return nil
		}
		return r.Skip()
	})
	return q, err
}

func readField(r *msgpack.Reader) (Field, error) {
	n, err := r.Uint()
	if err == nil && (n < uint64(FieldID) || n > uint64(FieldUserType)) {
		err = fmt.Errorf("unknown field %d", n)
	}
	return Field(n), err
}

func readFilter(r *msgpack.Reader) (Filter, error) {
	var f Filter
	var raw []byte
	err := eachKey(r, func(key []byte) (err error) {
		switch string(key) {
		case "f":
			f.Field, err = readField(r)
		case "v":
			raw, err = r.Raw()
		default:
			err = r.Skip()
		}
		return err
	})
	if err != nil {
		return f, err
	}
	v := msgpack.NewReader(raw)
	switch f.Field {
	case 0:
		return f, errors.New("filter without a field")
	case FieldOwner:
		b, err := v.Bin()
		if err == nil && len(b) != len(f.Owner) {
			err = fmt.Errorf("owner of %d bytes in a filter", len(b))
		}
		copy(f.Owner[:], b)
		return f, err
	case FieldUserType:
		b, err := v.Bytes()
		if err == nil && len(b) > maxFilterText {
			err = fmt.Errorf("user type of %d bytes in a filter", len(b))
		}
		f.UserType = string(b)
		return f, err
	default:
		f.Num, err = v.Uint()
		return f, err
	}
}

// ParseQuery reads the text form of OpenDHT's tools:
//
//	[SELECT field,…] [WHERE field=value,…]
//
// with the fields id, value_type, owner_pk, seq and user_type. Commas mean "and".
func ParseQuery(text string) (Query, error) {
	var q Query
	words := strings.Fields(text)
	for len(words) > 0 {
		verb := strings.ToUpper(words[0])
		end := 1
		for end < len(words) && !strings.EqualFold(words[end], "SELECT") && !strings.EqualFold(words[end], "WHERE") {
			end++
		}
		list := strings.FieldsFunc(strings.Join(words[1:end], ","), func(r rune) bool { return r == ',' })
		words = words[end:]
		if verb != "SELECT" && verb != "WHERE" {
			return Query{}, fmt.Errorf("query: want SELECT or WHERE, have %.50q", verb)
		}
		have := len(q.Select)
		if verb == "WHERE" {
			have = len(q.Where)
		}
		if have+len(list) > maxFilters {
			return Query{}, fmt.Errorf("query: more than %d items after %s", maxFilters, verb)
		}
		for _, item := range list {
			if verb == "SELECT" {
				f, err := fieldByName(item)
				if err != nil {
					return Query{}, err
				}
				q.Select = append(q.Select, f)
				continue
			}
			f, err := parseFilter(item)
			if err != nil {
				return Query{}, err
			}
			if q.filters(f.Field) {
				return Query{}, fmt.Errorf("query: two filters by %s", f.Field)
			}
			q.Where = append(q.Where, f)
		}
	}
	return q, nil
}

func fieldByName(name string) (Field, error) {
	if i := slices.Index(fieldNames[1:], name); i >= 0 {
		return Field(i + 1), nil
	}
	return 0, fmt.Errorf("query: no field %q; there are %s", name, strings.Join(fieldNames[1:], ", "))
}

func parseFilter(item string) (Filter, error) {
	name, val, ok := strings.Cut(item, "=")
	if !ok {
		return Filter{}, fmt.Errorf("query: filter %q has no =", item)
	}
	field, err := fieldByName(name)
	if err != nil {
		return Filter{}, err
	}
	f := Filter{Field: field}
	switch field {
	case FieldOwner:
		f.Owner, err = identity.ParseKeyID(val)
	case FieldUserType:
		f.UserType = strings.Trim(val, `"`)
		if len(f.UserType) > maxFilterText {
			err = fmt.Errorf("more than %d bytes", maxFilterText)
		}
	default:
		bits := 64
		if field != FieldID {
			bits = 16
		}
		f.Num, err = strconv.ParseUint(val, 0, bits)
	}
	if err != nil {
		return Filter{}, fmt.Errorf("query: filter %q: %w", item, err)
	}
	return f, nil
}

// Row has the selected fields of one value, as an answer to a query with Select.
type Row struct {
	ID       ValueID
	Type     TypeID
	Seq      uint16
	UserType string
	OwnerDER []byte // nil when the value has no owner
}

// maxRows bounds the rows that are read from one answer.
const maxRows = 1 << 12

// RowSize returns the most bytes that the fields of v take in an answer.
func RowSize(fields []Field, v *Value) int {
	n := 0
	for _, f := range fields {
		switch f {
		case FieldUserType:
			n += 5 + len(v.UserType)
		case FieldOwner:
			n += 5 + max(len(v.Owner), 20)
		default:
			n += 9
		}
	}
	return n
}

func appendRows(b []byte, fields []Field, values []*Value) []byte {
	b = msgpack.AppendArray(msgpack.AppendString(msgpack.AppendMap(b, 2), "f"), len(fields))
	for _, f := range fields {
		b = msgpack.AppendUint(b, uint64(f))
	}
	b = msgpack.AppendArray(msgpack.AppendString(b, "v"), len(fields)*len(values))
	var none [20]byte
	for _, v := range values {
		for _, f := range fields {
			switch f {
			case FieldID:
				b = msgpack.AppendUint(b, uint64(v.ID))
			case FieldType:
				b = msgpack.AppendUint(b, uint64(v.Type))
			case FieldSeq:
				b = msgpack.AppendUint(b, uint64(v.Seq))
			case FieldUserType:
				b = msgpack.AppendString(b, v.UserType)
			case FieldOwner:
				if v.Signed() {
					b = msgpack.AppendBin(b, v.Owner)
				} else {
					b = msgpack.AppendBin(b, none[:])
				}
			}
		}
	}
	return b
}

func readRows(r *msgpack.Reader) ([]Row, error) {
	var fields []Field
	var cells []byte
	err := eachKey(r, func(key []byte) (err error) {
		switch string(key) {
		case "f":
			n, err := r.Array()
			if err != nil {
				return err
			}
			if n+len(fields) > maxFilters {
				return errors.New("too many fields in an answer")
			}
			for range n {
				f, err := readField(r)
				if err != nil {
					return err
				}
				fields = append(fields, f)
			}
			return nil
		case "v":
			cells, err = r.Raw()
			return err
		}
		return r.Skip()
	})
	if err != nil || len(fields) == 0 || cells == nil {
		return nil, err
	}
	v := msgpack.NewReader(cells)
	n, err := v.Array()
	if err != nil {
		return nil, err
	}
	rows := make([]Row, min(n/len(fields), maxRows))
	for i := range rows {
		for _, f := range fields {
			if err := rows[i].readCell(&v, f); err != nil {
				return nil, err
			}
		}
	}
	return rows, nil
}

func (row *Row) readCell(r *msgpack.Reader, f Field) error {
	switch f {
	case FieldID:
		n, err := r.Uint()
		row.ID = ValueID(n)
		return err
	case FieldType:
		n, err := readUint16(r)
		row.Type = TypeID(n)
		return err
	case FieldSeq:
		n, err := readUint16(r)
		row.Seq = n
		return err
	case FieldUserType:
		b, err := r.Bytes()
		row.UserType = string(b)
		return err
	default:
		b, err := r.Bytes()
		if len(b) > 20 {
			row.OwnerDER = b
		}
		return err
	}
}
