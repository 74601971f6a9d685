package wire

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/tinylib/msgp/msgp"
)

type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}

// packet is one recorded packet.
type packet struct {
	Name string
	Peer string         // version of the node
	Sent bool           // made by hand, not by a node
	Hex  hexBytes       // the datagram
	Msg  map[string]any // its decoded form, where it was recorded

	Agent string
}

type valueVector struct {
	Key       string
	ID        string
	Kind      string
	Value     hexBytes
	Signed    hexBytes
	Signature hexBytes
}

func load[T any](t testing.TB, file string) []T {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.UseNumber() // ids have 64 bits
	var all []T
	if err := d.Decode(&all); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(all) == 0 {
		t.Fatalf("%s is empty", file)
	}
	return all
}

// exchanges returns the recorded requests and answers.
func exchanges(t testing.TB) []packet { return load[packet](t, "exchanges.json") }

// captures returns what nodes sent each other.
func captures(t testing.TB) []packet {
	all := load[packet](t, "captures.json")
	for i := range all {
		all[i].Name = fmt.Sprintf("capture %d", i)
	}
	return all
}

// allPackets returns every recorded packet.
func allPackets(t testing.TB) []packet { return append(exchanges(t), captures(t)...) }

// packetNamed returns the first packet of an exchange, sent by hand or by the node.
func packetNamed(t testing.TB, name string, sent bool) []byte {
	t.Helper()
	for _, p := range exchanges(t) {
		if p.Name == name && p.Sent == sent {
			return p.Hex
		}
	}
	t.Fatalf("no packet %q", name)
	return nil
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tree decodes a packet with another implementation of the format. It is false for
// packets with numbers as keys, which only parts have.
func tree(b []byte) (map[string]any, bool) {
	v, rest, err := msgp.ReadIntfBytes(b)
	m, ok := v.(map[string]any)
	return m, ok && err == nil && len(rest) == 0
}

// plain turns a tree into the form of the vectors.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := map[string]any{}
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i, e := range v {
			s[i] = plain(e)
		}
		return s
	case []byte:
		return "h'" + hex.EncodeToString(v) + "'"
	case int64, uint64:
		return json.Number(fmt.Sprint(v))
	}
	return v
}

func number(v any) uint64 {
	switch v := v.(type) {
	case int64:
		return uint64(v)
	case uint64:
		return v
	}
	panic(fmt.Sprintf("%T is no number", v))
}

// expected builds the message that a decoded packet stands for, knowing only the
// protocol's description. It is false for what must be rejected.
func expected(p map[string]any) (*Message, bool) {
	m := &Message{}
	body, isMap := map[string]any(nil), false
	switch {
	case p["e"] != nil:
		m.Kind = Error
		e := p["e"].([]any)
		m.Code, m.Text = int(number(e[0])), e[1].(string)
		body, isMap = p["r"].(map[string]any)
	case p["r"] != nil:
		m.Kind = Reply
		body, isMap = p["r"].(map[string]any)
	case p["u"] != nil:
		m.Kind = Notice
		body, isMap = p["u"].(map[string]any)
	case p["a"] != nil:
		m.Kind = Ask
		body, isMap = p["a"].(map[string]any)
		names := map[any]Method{"ping": Ping, "find": Find, "get": Get, "put": Put, "listen": Listen, "refresh": Refresh, "update": Update}
		m.Method = names[p["q"]]
		if m.Method == 0 {
			return nil, false
		}
	}
	if !isMap || p["t"] == nil {
		return nil, false
	}
	switch t := p["t"].(type) {
	case []byte:
		m.TID = binary.BigEndian.Uint32(t)
	case string:
		m.TID = binary.BigEndian.Uint32([]byte(t))
	default:
		m.TID = uint32(number(t))
	}
	if n, ok := p["n"]; ok {
		m.Network = uint32(number(n))
	}
	m.ReadOnly = p["s"] == true
	m.Kith = p["v"] == "KT1"
	for key, v := range body {
		if !expectField(m, key, v) {
			return nil, false
		}
	}
	return m, !m.From.IsZero()
}

func expectField(m *Message, key string, v any) bool {
	switch key {
	case "id", "h", "target":
		b, ok := v.([]byte)
		if !ok || len(b) != 20 {
			return false
		}
		if key == "id" {
			m.From = NodeID(b)
		} else {
			m.Key = Key(b)
		}
	case "token":
		m.Token = v.([]byte)
	case "w":
		for _, f := range v.([]any) {
			m.Want |= map[uint64]Families{2: IPv4, 10: IPv6}[number(f)]
		}
	case "q":
		q := v.(map[string]any)
		for _, f := range q["s"].([]any) {
			m.Query.Select = append(m.Query.Select, Field(number(f)))
		}
		for _, w := range q["w"].([]any) {
			f := Filter{Field: Field(number(w.(map[string]any)["f"]))}
			switch v := w.(map[string]any)["v"].(type) {
			case []byte:
				if f.Field == FieldOwner {
					copy(f.Owner[:], v)
				} else {
					f.UserType = string(v)
				}
			default:
				f.Num = number(v)
			}
			m.Query.Where = append(m.Query.Where, f)
		}
	case "values":
		for _, e := range v.([]any) {
			if value, ok := e.(map[string]any); ok {
				m.Values = append(m.Values, expectValue(value))
			} else {
				m.Sizes = append(m.Sizes, int(number(e)))
			}
		}
	case "fileds":
		m.HasRows = true
		m.Rows = expectRows(v.(map[string]any))
	case "vid":
		m.ValueID = ValueID(number(v))
	case "c":
		m.Created = int64(number(v))
	case "sid":
		m.Socket = uint32(number(v))
	case "ve":
		m.Version = int(number(v))
	case "exp", "re":
		ids := &m.Expired
		if key == "re" {
			ids = &m.Renewed
		}
		for _, id := range v.([]any) {
			*ids = append(*ids, ValueID(number(id)))
		}
	case "sa":
		m.Addr, _ = netip.AddrFromSlice(v.([]byte))
	case "n4":
		m.Nodes4 = v.([]byte)
		return len(m.Nodes4)%26 == 0
	case "n6":
		m.Nodes6 = v.([]byte)
		return len(m.Nodes6)%38 == 0
	}
	return true
}

func expectValue(p map[string]any) *Value {
	v := &Value{ID: ValueID(number(p["id"]))}
	if n, ok := p["p"]; ok {
		v.Priority = uint32(number(n))
	}
	v.PushType, _ = p["pt"].(string)
	dat, ok := p["dat"].(map[string]any)
	if !ok {
		v.Cypher = p["dat"].([]byte)
		return v
	}
	v.Signature, _ = dat["sig"].([]byte)
	body := dat["body"].(map[string]any)
	v.Type = TypeID(number(body["type"]))
	v.Data = body["data"].([]byte)
	v.UserType, _ = body["utype"].(string)
	if owner, ok := body["owner"].([]byte); ok {
		v.Owner = owner
		v.Seq = uint16(number(body["seq"]))
		if to, ok := body["to"].([]byte); ok {
			copy(v.To[:], to)
		}
	}
	return v
}

func expectRows(p map[string]any) []Row {
	fields, cells := p["f"].([]any), p["v"].([]any)
	var rows []Row
	for len(cells) >= len(fields) {
		var row Row
		for i, f := range fields {
			switch c := cells[i]; Field(number(f)) {
			case FieldID:
				row.ID = ValueID(number(c))
			case FieldType:
				row.Type = TypeID(number(c))
			case FieldSeq:
				row.Seq = uint16(number(c))
			case FieldUserType:
				row.UserType = c.(string)
			case FieldOwner:
				if b := c.([]byte); len(b) != 20 {
					row.OwnerDER = b
				}
			}
		}
		rows = append(rows, row)
		cells = cells[len(fields):]
	}
	return rows
}

// diff compares messages, values and queries; empty and nil slices are the same.
func diff(want, got any) string {
	if reflect.DeepEqual(want, got) {
		return "" // much faster
	}
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Message{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}
