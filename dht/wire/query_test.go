package wire

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kith-im/kith/internal/msgpack"
)

// parsePacked reads a packed query that fills b.
func parsePacked(b []byte) (Query, error) {
	r := msgpack.NewReader(b)
	q, err := readQuery(&r)
	if err == nil && r.Len() != 0 {
		err = msgpack.ErrType
	}
	return q, err
}

func TestQueryText(t *testing.T) {
	foo := "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33"
	for _, c := range []struct{ text, packed string }{
		{"", "82a17390a17790"},
		{"SELECT id,user_type WHERE user_type=abc,value_type=3", "82a173920105a1779282a16605a176c40361626382a16602a17603"},
		{"select id , user_type where user_type=\"abc\" value_type=0x3", "82a173920105a1779282a16605a176c40361626382a16602a17603"},
		{"WHERE owner_pk=" + foo, "82a17390a1779182a16603a176c4140beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33"},
		{"SELECT id", "82a1739101a17790"},
		{"SELECT id,seq", "82a173920104a17790"},
		{"SELECT id,value_type,owner_pk,seq,user_type", "82a173950102030405a17790"},
		{"WHERE id=18446744073709551615", "82a17390a1779182a16601a176cfffffffffffffffff"},
	} {
		q, err := ParseQuery(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if b := q.Append(nil); !bytes.Equal(b, unhex(t, c.packed)) {
			t.Errorf("%q: %x, want %s", c.text, b, c.packed)
		}
		back, err := parsePacked(unhex(t, c.packed))
		if d := diff(q, back); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", c.text, err, d)
		}
		if q.IsZero() != (c.text == "") {
			t.Errorf("%q: zero %v", c.text, q.IsZero())
		}
	}
	many := strings.Repeat("id,", maxFilters)
	if _, err := ParseQuery("SELECT " + many + " WHERE id=1"); err != nil {
		t.Errorf("%d fields: %v", maxFilters, err)
	}
	for _, text := range []string{
		"FROM x", "hello", "id", "SELECT nothing", "SELECT field", "WHERE id", "WHERE id=", "WHERE id=x", "WHERE id=-1",
		"WHERE id=1,id=2", "WHERE seq=1 WHERE seq=2", "WHERE user_type=" + strings.Repeat("x", maxFilterText+1),
		"WHERE value_type=65536", "WHERE seq=65536", "WHERE owner_pk=12", "WHERE id=18446744073709551616", "WHERE =1",
		"SELECT id,id" + strings.Repeat(",id", maxFilters), "SELECT " + many + " SELECT id", "WHERE " + strings.Repeat("id=1 ", maxFilters) + " WHERE id=1",
	} {
		if q, err := ParseQuery(text); err == nil {
			t.Errorf("%q is read as %+v", text, q)
		}
	}
}

func TestFieldNames(t *testing.T) {
	for f := FieldID; f <= FieldUserType; f++ {
		if got, err := fieldByName(f.String()); got != f || err != nil {
			t.Errorf("%s: %v, %v", f, got, err)
		}
	}
	if Field(0).String() != "field 0" || Field(200).String() != "field 200" {
		t.Error("unknown fields")
	}
}

func TestQueryMatches(t *testing.T) {
	owner := []byte{0x30, 1}
	v := &Value{ID: 7, Type: 3, UserType: "u", Owner: owner, Seq: 2, Signature: []byte("s")}
	for text, want := range map[string]bool{
		"":                                       true,
		"SELECT seq":                             true,
		"WHERE id=7":                             true,
		"WHERE id=8":                             false,
		"WHERE value_type=3":                     true,
		"WHERE value_type=0":                     false,
		"WHERE seq=2":                            true,
		"WHERE seq=3":                            false,
		"WHERE user_type=u":                      true,
		"WHERE user_type=v":                      false,
		"WHERE id=7,user_type=u,seq=2":           true,
		"WHERE id=7,user_type=u,seq=1":           false,
		"WHERE owner_pk=" + v.OwnerID().String(): true,
		"WHERE owner_pk=0000000000000000000000000000000000000001": false,
	} {
		q, err := ParseQuery(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if q.Matches(v) != want {
			t.Errorf("%q: matches %v", text, !want)
		}
	}
	if !WhereID(7).Matches(v) || WhereID(1).Matches(v) || !WhereType(3).Matches(v) || !WhereUserType("u").Matches(v) {
		t.Error("short forms")
	}
	if (Query{Where: []Filter{{}}}).Matches(v) {
		t.Error("a filter without field matches")
	}
}

func TestOnWire(t *testing.T) {
	q, err := ParseQuery("SELECT id,seq WHERE seq=1,id=2")
	if err != nil {
		t.Fatal(err)
	}
	before := q.Append(nil)
	want := Query{Select: []Field{FieldID, FieldSeq}, Where: []Filter{{Field: FieldID, Num: 2}}}
	if d := diff(want, q.OnWire()); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(before, q.Append(nil)) {
		t.Error("the query itself changed")
	}
}

func TestRows(t *testing.T) {
	owner := append([]byte{0x30}, bytes.Repeat([]byte{1}, 300)...)
	values := []Packed{
		{Value: &Value{ID: 1 << 50, Type: 3, UserType: "u", Seq: 9, Owner: owner}},
		{Value: &Value{ID: 2}},
	}
	e := Envelope{Self: testNode}
	fields := []Field{FieldID, FieldType, FieldOwner, FieldSeq, FieldUserType}
	var m Message
	if err := m.Parse(e.AppendReply(nil, 1, &Answer{Values: values, Rows: fields})); err != nil {
		t.Fatal(err)
	}
	want := []Row{{ID: 1 << 50, Type: 3, Seq: 9, UserType: "u", OwnerDER: owner}, {ID: 2}}
	if d := diff(want, m.Rows); d != "" || !m.HasRows {
		t.Error(d)
	}
	// No value passed the filters: neither values nor rows.
	if err := m.Parse(e.AppendReply(nil, 1, &Answer{Rows: fields})); err != nil || m.HasRows || len(m.Rows) != 0 {
		t.Errorf("%+v, %v", m.Rows, err)
	}
	reply := func(f, v any) []byte {
		return object([]pair{{"r", []pair{{"id", testNode[:]}, {"fileds", []pair{{"f", f}, {"v", v}}}}}, {"t", 1}})
	}
	many := make([]any, 3*maxRows)
	for i := range many {
		many[i] = 1
	}
	if err := m.Parse(reply([]any{1, 2}, many)); err != nil || len(m.Rows) != maxRows {
		t.Errorf("%d rows, %v", len(m.Rows), err)
	}
	if err := m.Parse(reply([]any{1}, many)); err != nil || len(m.Rows) != maxRows {
		t.Errorf("%d rows, %v", len(m.Rows), err)
	}
	if err := m.Parse(reply([]any{1, 2}, many[:3])); err != nil || len(m.Rows) != 1 {
		t.Errorf("an incomplete row: %d rows, %v", len(m.Rows), err)
	}
	for name, b := range map[string][]byte{
		"unknown field":   reply([]any{9}, many[:1]),
		"too many fields": reply(many[:maxFilters+1], many[:maxFilters+1]),
		"text for id":     reply([]any{1}, []any{"x"}),
		"type of 17 bits": reply([]any{2}, []any{1 << 16}),
		"number as owner": reply([]any{3}, []any{1}),
		"cells no array":  reply([]any{1}, 5),
	} {
		if err := m.Parse(b); err == nil {
			t.Errorf("%s is read as %+v", name, m.Rows)
		}
	}
}

// FuzzParseQuery reads its input as query text and as a packed query; what was read
// must come back the same when written and read again, and satisfy itself.
func FuzzParseQuery(f *testing.F) {
	for _, s := range []string{
		"SELECT id,value_type,owner_pk,seq,user_type", "WHERE id=1,value_type=2,seq=3,user_type=abc",
		"WHERE owner_pk=0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33", "select id select seq where id=0x10 where id=0b1",
	} {
		f.Add([]byte(s))
	}
	var m Message
	for _, p := range allPackets(f) {
		if m.Parse(p.Hex) == nil {
			f.Add(m.Query.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if q, err := ParseQuery(string(b)); err == nil {
			checkQuery(t, q)
		}
		if q, err := parsePacked(b); err == nil {
			checkQuery(t, q)
		}
	})
}

func checkQuery(t *testing.T, q Query) {
	t.Helper()
	if len(q.Select) > maxFilters || len(q.Where) > maxFilters {
		t.Fatalf("out of bounds: %+v", q)
	}
	b := q.Append(nil)
	back, err := parsePacked(b)
	if err != nil {
		t.Fatalf("%x can't be read: %v", b, err)
	}
	if d := diff(q, back); d != "" {
		t.Fatal(d)
	}
	q.Matches(&Value{ID: 1})
}

// Filters of strangers are small, and one for each field.
func TestFilterBounds(t *testing.T) {
	for _, test := range []struct {
		q    Query
		good bool
	}{
		{WhereUserType(strings.Repeat("x", maxFilterText)), true},
		{WhereUserType(strings.Repeat("x", maxFilterText+1)), false},
		{Query{Where: []Filter{{Field: FieldOwner}, {Field: FieldOwner}}}, false},
		{Query{Where: []Filter{{Field: FieldID}, {Field: FieldType}}}, true},
	} {
		r := msgpack.NewReader(test.q.Append(nil))
		if _, err := readQuery(&r); (err == nil) != test.good {
			t.Errorf("%d filters: %v", len(test.q.Where), err)
		}
	}
}
