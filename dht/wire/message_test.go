package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/kith-im/kith/internal/msgpack"
)

// Every recorded packet is read as the protocol's description says; the message is
// used again and again as a node does.
func TestParseVectors(t *testing.T) {
	var m Message
	kinds := map[Kind]int{}
	methods := map[Method]int{}
	for _, p := range allPackets(t) {
		err := m.Parse(p.Hex)
		form, ok := tree(p.Hex)
		if !ok { // a part, or text beside the map
			if err == nil && m.Kind != Parts {
				t.Errorf("%s: kind %d of a packet with numbers as keys", p.Name, m.Kind)
			}
			if err == nil {
				kinds[Parts]++
			}
			continue
		}
		if p.Msg != nil {
			if d := diff(any(p.Msg), plain(form)); d != "" {
				t.Fatalf("%s: the vector's own decoded form differs:\n%s", p.Name, d)
			}
		}
		want, ok := expected(form)
		if !ok {
			if !errors.Is(err, ErrPacket) {
				t.Errorf("%s (%s): %x should be rejected: %v", p.Name, p.Peer, p.Hex, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s (%s): %v", p.Name, p.Peer, err)
			continue
		}
		if d := diff(want, &m); d != "" {
			t.Errorf("%s (%s):\n%s", p.Name, p.Peer, d)
		}
		kinds[m.Kind]++
		methods[m.Method]++
	}
	for _, k := range []Kind{Ask, Reply, Error, Parts, Notice} {
		if kinds[k] == 0 {
			t.Errorf("no vector of kind %d", k)
		}
	}
	for m := Ping; m <= Update; m++ {
		if methods[m] == 0 {
			t.Errorf("no vector of %s", m)
		}
	}
	t.Log("kinds", kinds, "methods", methods)
}

// A packet that is cut anywhere, or followed by anything, is rejected.
func TestParseCut(t *testing.T) {
	var m Message
	for _, p := range allPackets(t) {
		step := 1 + len(p.Hex)/400
		for n := 0; n < len(p.Hex); n += step {
			if err := m.Parse(p.Hex[:n:n]); !errors.Is(err, ErrPacket) {
				t.Errorf("%s cut to %d bytes: %v", p.Name, n, err)
			}
		}
		if err := m.Parse(append(bytes.Clone(p.Hex), 0xc0)); !errors.Is(err, ErrPacket) {
			t.Errorf("%s with a byte behind it: %v", p.Name, err)
		}
	}
}

// object packs maps, arrays and scalars in the given order.
type pair struct {
	key string
	val any
}

func object(v any) []byte { return appendObject(nil, v) }

func appendObject(b []byte, v any) []byte {
	switch v := v.(type) {
	case []pair:
		b = msgpack.AppendMap(b, len(v))
		for _, p := range v {
			b = appendObject(msgpack.AppendString(b, p.key), p.val)
		}
		return b
	case []any:
		b = msgpack.AppendArray(b, len(v))
		for _, e := range v {
			b = appendObject(b, e)
		}
		return b
	case msgpackRaw:
		return append(b, v...)
	case []byte:
		return msgpack.AppendBin(b, v)
	case string:
		return msgpack.AppendString(b, v)
	case int:
		return msgpack.AppendInt(b, int64(v))
	case uint64:
		return msgpack.AppendUint(b, v)
	case bool:
		return msgpack.AppendBool(b, v)
	case nil:
		return msgpack.AppendNil(b)
	}
	panic("unknown type")
}

type msgpackRaw []byte

var (
	testNode = NodeID{1, 2, 3, 19: 20}
	testKey  = Key{9, 8, 7, 19: 1}
)

// with returns a request whose body has an id and the given pairs.
func with(q string, body ...pair) []pair {
	return []pair{{"a", append([]pair{{"id", testNode[:]}}, body...)}, {"q", q}, {"t", 7}, {"y", "q"}}
}

func TestParseRejects(t *testing.T) {
	id := testNode[:]
	big := make([]any, maxValues+1)
	for i := range big {
		big[i] = 1
	}
	half := big[:maxValues/2+1]
	filters := make([]any, 10)
	for i := range filters {
		filters[i] = []pair{{"f", 1}, {"v", i}}
	}
	query := func(w ...pair) []byte { return object(with("get", pair{"h", testKey[:]}, pair{"q", w})) }
	pieces := func(n int) msgpackRaw {
		b := msgpack.AppendMap(nil, n)
		for i := range n {
			b = appendObject(msgpack.AppendUint(b, uint64(i)), []pair{{"o", 0}, {"d", ""}})
		}
		return b
	}
	bomb := msgpackRaw(append(bytes.Repeat([]byte{0x91}, 40000), 0xc0))
	for name, b := range map[string][]byte{
		"nothing":                  {},
		"text":                     []byte("GET / HTTP/1.1"),
		"no map":                   object([]any{1, 2}),
		"empty map":                object([]pair{}),
		"discovery query":          unhex(t, "a171"),
		"no sender":                object([]pair{{"a", []pair{}}, {"q", "ping"}, {"t", 1}, {"y", "q"}}),
		"sender of 19 bytes":       object([]pair{{"a", []pair{{"id", id[:19]}}}, {"q", "ping"}, {"t", 1}}),
		"sender in hex":            object([]pair{{"a", []pair{{"id", testNode.String()}}}, {"q", "ping"}, {"t", 1}}),
		"sender as text":           object([]pair{{"a", []pair{{"id", string(id)}}}, {"q", "ping"}, {"t", 1}}),
		"zero sender":              object([]pair{{"a", []pair{{"id", make([]byte, 20)}}}, {"q", "ping"}, {"t", 1}}),
		"unknown request":          object([]pair{{"a", []pair{{"id", id}}}, {"q", "bogus"}, {"t", 1}, {"y", "q"}}),
		"request without name":     object([]pair{{"a", []pair{{"id", id}}}, {"t", 1}, {"y", "q"}}),
		"request said to be reply": object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", 1}, {"y", "r"}}),
		"long kind":                object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", 1}, {"y", "qq"}}),
		"no transaction":           object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"y", "q"}}),
		"transaction of 5 bytes":   object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", []byte("12345")}}),
		"transaction of 33 bits":   object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", 1 << 32}}),
		"negative transaction":     object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", -1}}),
		"body is an array":         object([]pair{{"a", []any{id}}, {"q", "ping"}, {"t", 1}}),
		"network of 33 bits":       object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", 1}, {"n", 1 << 32}}),
		"error without code":       object([]pair{{"e", []any{}}, {"r", []pair{{"id", id}}}, {"t", 1}}),
		"error is no array":        object([]pair{{"e", 404}, {"r", []pair{{"id", id}}}, {"t", 1}}),
		"error without sender":     object([]pair{{"e", []any{404, "x"}}, {"t", 1}}),
		"node list of 25 bytes":    object([]pair{{"r", []pair{{"id", id}, {"n4", make([]byte, 25)}}}, {"t", 1}}),
		"node list of 39 bytes":    object([]pair{{"r", []pair{{"id", id}, {"n6", make([]byte, 39)}}}, {"t", 1}}),
		"key of 32 bytes":          object(with("get", pair{"h", make([]byte, 32)})),
		"too many values":          object(with("put", pair{"h", testKey[:]}, pair{"values", big})),
		"too many values in all":   object(with("put", pair{"values", half}, pair{"values", half})),
		"too many ids":             object(with("update", pair{"exp", big})),
		"too many ids in all":      object(with("update", pair{"re", half}, pair{"re", half})),
		"values is a map":          object(with("put", pair{"values", []pair{}})),
		"values is a bomb":         object(with("put", pair{"values", bomb})),
		"bomb under unknown key":   object(with("ping", pair{"zz", bomb})),
		"wide want":                object(with("find", pair{"w", big[:maxFilters+1]})),
		"too many filters":         query(pair{"s", []any{}}, pair{"w", append(filters, filters...)}),
		"too many filters in all":  query(pair{"w", filters}, pair{"w", filters}),
		"too many fields in all":   query(pair{"s", big[:10]}, pair{"s", big[:10]}),
		"unknown field":            query(pair{"s", []any{6}}, pair{"w", []any{}}),
		"field 0":                  query(pair{"s", []any{0}}, pair{"w", []any{}}),
		"filter without field":     query(pair{"s", []any{}}, pair{"w", []any{[]pair{{"v", 1}}}}),
		"filter without value":     query(pair{"s", []any{}}, pair{"w", []any{[]pair{{"f", 1}}}}),
		"owner of 19 bytes":        query(pair{"s", []any{}}, pair{"w", []any{[]pair{{"f", 3}, {"v", id[:19]}}}}),
		"parts is an array":        object([]pair{{"y", "p"}, {"t", 1}, {"p", []any{}}}),
		"part key is text":         object([]pair{{"y", "p"}, {"t", 1}, {"p", []pair{{"0", []pair{{"o", 0}, {"d", id}}}}}}),
		"too many parts":           object([]pair{{"y", "p"}, {"t", 1}, {"p", pieces(maxValues + 1)}}),
		"too many parts in all":    object([]pair{{"y", "p"}, {"t", 1}, {"p", pieces(maxValues)}, {"p", pieces(1)}}),
		"part is a number":         append(append([]byte{0x83}, object([]pair{{"y", "p"}, {"t", 1}})[1:]...), 0xa1, 'p', 0x81, 0, 5),
		"socket of 33 bits":        object(with("listen", pair{"sid", 1 << 32})),
	} {
		var m Message
		if err := m.Parse(b); !errors.Is(err, ErrPacket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseTolerates(t *testing.T) {
	id := testNode[:]
	for name, c := range map[string]struct {
		packet []byte
		check  func(*Message) bool
	}{
		"no y, no v": {object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", 1}}), func(m *Message) bool { return m.Method == Ping }},
		"any order of keys": {
			object([]pair{{"y", "q"}, {"t", 5}, {"q", "ping"}, {"a", []pair{{"id", id}}}}),
			func(m *Message) bool { return m.Method == Ping && m.TID == 5 },
		},
		"transaction as bytes": {
			object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", []byte{1, 2, 3, 4}}}),
			func(m *Message) bool { return m.TID == 0x01020304 },
		},
		"transaction as text": {
			object([]pair{{"a", []pair{{"id", id}}}, {"q", "ping"}, {"t", "abcd"}}),
			func(m *Message) bool { return m.TID == 0x61626364 },
		},
		"unknown keys": {
			object(append(with("get", pair{"h", testKey[:]}, pair{"future", []any{[]pair{{"x", nil}}, true}}, pair{"longer than any key", 1}), pair{"z", []byte("zz")})),
			func(m *Message) bool { return m.Method == Get && m.Key == testKey },
		},
		"keys that are no text": {
			append([]byte{0x86, 0x05, 0x06, 0xc0, 0x91, 0xc0}, object(with("ping"))[1:]...),
			func(m *Message) bool { return m.Method == Ping && m.TID == 7 },
		},
		"long token is dropped": {
			object(with("put", pair{"token", make([]byte, MaxToken+1)})),
			func(m *Message) bool { return m.Token == nil },
		},
		"token of the most bytes": {
			object(with("put", pair{"token", make([]byte, MaxToken)})),
			func(m *Message) bool { return len(m.Token) == MaxToken },
		},
		"unknown family": {
			object(with("find", pair{"w", []any{2, 30, 10}})),
			func(m *Message) bool { return m.Want == IPv4|IPv6 },
		},
		"odd own address": {
			object([]pair{{"r", []pair{{"id", id}, {"sa", []byte{1, 2, 3}}}}, {"t", 1}}),
			func(m *Message) bool { return !m.Addr.IsValid() },
		},
		"mapped own address": {
			object([]pair{{"r", []pair{{"id", id}, {"sa", netip.MustParseAddr("::ffff:192.0.2.1").AsSlice()}}}, {"t", 1}}),
			func(m *Message) bool { return m.Addr == netip.MustParseAddr("192.0.2.1") },
		},
		"a bad value among good ones": {
			object(with("put", pair{"values", []any{
				[]pair{{"id", 1}, {"dat", []pair{{"body", []pair{{"type", 0}, {"data", id}}}}}},
				[]pair{{"id", 2}},
				"no value",
				[]pair{{"id", 3}, {"dat", []byte("cypher")}},
				5000,
			}})),
			func(m *Message) bool {
				return len(m.Values) == 2 && m.BadVals == 2 && len(m.Sizes) == 1 && m.Sizes[0] == 5000
			},
		},
		"giant size": {
			object(with("put", pair{"values", []any{uint64(1 << 63)}})),
			func(m *Message) bool { return m.Sizes[0] == 1<<31-1 },
		},
		"long error text": {
			object([]pair{{"e", []any{203, strings.Repeat("x", 5000), "more"}}, {"r", []pair{{"id", id}}}, {"t", 1}}),
			func(m *Message) bool { return m.Code == 203 && len(m.Text) == 200 },
		},
		"error without text": {
			object([]pair{{"e", []any{401}}, {"r", []pair{{"id", id}}}, {"t", 1}}),
			func(m *Message) bool { return m.Code == 401 && m.Text == "" },
		},
		"client, network": {
			object(append(with("ping"), pair{"n", 7}, pair{"s", true})),
			func(m *Message) bool { return m.ReadOnly && m.Network == 7 },
		},
	} {
		var m Message
		if err := m.Parse(c.packet); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !c.check(&m) {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

// Packets from the protocol's description that the recordings lack.
func TestParseIPv6(t *testing.T) {
	var m Message
	pong := unhex(t, "84a17282a26964c41432c116dce15641080f6804469b85d3d8c4e0149da27361c41000000000000000000000000000000001a17401a179a172a176a4524e4731")
	if err := m.Parse(pong); err != nil || m.Addr != netip.IPv6Loopback() {
		t.Errorf("IPv6 pong: %v, %v", m.Addr, err)
	}
	entry := unhex(t, "641c0e85f736f22119e1e451af2967f4959c1431 00000000000000000000000000000001 390a")
	four := unhex(t, "f44098fe887e0ed8e2e81f88d830d53b409a0565 7f000001 38b0 6d630c633b162bb39ba84d22035ba15842abb981 7f000001 38b1")
	reply := object([]pair{{"r", []pair{{"id", testNode[:]}, {"n4", four}, {"n6", entry}}}, {"t", 1}, {"y", "r"}})
	if err := m.Parse(reply); err != nil {
		t.Fatal(err)
	}
	var got []string
	var b4, b6 []byte
	m.EachNode(func(n Node) {
		got = append(got, n.ID.String()[:4]+" "+n.Addr.String())
		if n.Addr.Addr().Is4() {
			b4 = AppendNode(b4, n.ID, n.Addr)
		} else {
			b6 = AppendNode(b6, n.ID, n.Addr)
		}
	})
	want := []string{"f440 127.0.0.1:14512", "6d63 127.0.0.1:14513", "641c [::1]:14602"}
	if d := diff(want, got); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(b4, four) || !bytes.Equal(b6, entry) {
		t.Errorf("written again: %x, %x", b4, b6)
	}
	mapped := AppendNode(nil, testNode, netip.MustParseAddrPort("[::ffff:192.0.2.1]:4222"))
	if len(mapped) != node4Size {
		t.Errorf("a mapped address makes an entry of %d bytes", len(mapped))
	}
}

func TestMessageReuseForgets(t *testing.T) {
	var m Message
	for _, name := range []string{"listen v1", "get select all", "put big in-order"} {
		for _, sent := range []bool{true, false} {
			if err := m.Parse(packetNamed(t, name, sent)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := m.Parse(packetNamed(t, "ping", true)); err != nil {
		t.Fatal(err)
	}
	var fresh Message
	if err := fresh.Parse(packetNamed(t, "ping", true)); err != nil {
		t.Fatal(err)
	}
	if d := diff(&fresh, &m); d != "" {
		t.Error(d)
	}
}

func TestParseAllocations(t *testing.T) {
	for _, c := range []struct {
		name string
		sent bool
		most float64
	}{
		{"ping", true, 0},
		{"ping", false, 0},
		{"find want 2,10", true, 0},
		{"find want 2,10", false, 0},
		{"get empty", true, 0},
		{"get empty", false, 0},
		{"refresh ok", true, 0},
		{"listen v1", true, 0},
		{"update pushed on expiry", false, 0},
		{"put", true, 4},
		{"get where id=9", true, 4},
	} {
		b := packetNamed(t, c.name, c.sent)
		var m Message
		if err := m.Parse(b); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if n := testing.AllocsPerRun(100, func() { m.Parse(b) }); n > c.most {
			t.Errorf("parsing %q (sent %v) allocates %v times, want at most %v", c.name, c.sent, n, c.most)
		}
	}
}

func TestNames(t *testing.T) {
	if Method(0).String() != "unknown" || Method(200).String() != "unknown" || Update.String() != "update" {
		t.Error("method names")
	}
	if FamilyOf(netip.MustParseAddr("::ffff:1.2.3.4")) != IPv4 || FamilyOf(netip.MustParseAddr("::1")) != IPv6 {
		t.Error("family of an address")
	}
}

func benchmarkParse(b *testing.B, name string, sent bool) {
	p := packetNamed(b, name, sent)
	var m Message
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePing(b *testing.B)   { benchmarkParse(b, "ping", true) }
func BenchmarkParseFind(b *testing.B)   { benchmarkParse(b, "find want 2,10", true) }
func BenchmarkParseGet(b *testing.B)    { benchmarkParse(b, "get where id=9", true) }
func BenchmarkParsePut(b *testing.B)    { benchmarkParse(b, "put", true) }
func BenchmarkParseValues(b *testing.B) { benchmarkParse(b, "get", false) }
func BenchmarkParseError(b *testing.B) {
	p := []byte(strings.Repeat("\xff", 50) + hex.EncodeToString(testKey[:]))
	var m Message
	b.ReportAllocs()
	for b.Loop() {
		if m.Parse(p) == nil {
			b.Fatal("garbage was read")
		}
	}
}
