package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/kith-im/kith/internal/msgpack"
)

// envelopeOf returns the envelope that a packet was sent with.
func envelopeOf(m *Message) Envelope {
	return Envelope{Self: m.From, Network: m.Network, ReadOnly: m.ReadOnly}
}

// packedOf packs what a message carries: values, or rooms of the announced sizes.
func packedOf(m *Message) []Packed {
	var ps []Packed
	for _, v := range m.Values {
		ps = append(ps, Pack(v))
	}
	for _, n := range m.Sizes {
		ps = append(ps, Packed{Bytes: make([]byte, n)})
	}
	return ps
}

// requestOf returns the request that a message is.
func requestOf(m *Message) *Request {
	return &Request{
		Method: m.Method, Key: m.Key, Token: m.Token, Want: m.Want, Query: m.Query, Values: packedOf(m),
		Created: m.Created, Socket: m.Socket, ValueID: m.ValueID, Expired: m.Expired, Renewed: m.Renewed,
	}
}

// answerOf returns the answer that a message is; fields are those of its rows.
func answerOf(m *Message, fields []Field) *Answer {
	a := &Answer{
		ValueID: m.ValueID, To: m.Addr, Nodes4: m.Nodes4, Nodes6: m.Nodes6, Token: m.Token,
		Values: packedOf(m), Refused: m.Refused,
	}
	if m.HasRows {
		a.Rows = fields
		for _, row := range m.Rows {
			v := &Value{ID: row.ID, Type: row.Type, Seq: row.Seq, UserType: row.UserType, Owner: row.OwnerDER}
			a.Values = append(a.Values, Packed{Value: v})
		}
	}
	return a
}

// encodeAgain writes a message anew.
func encodeAgain(m *Message, form map[string]any) ([]byte, error) {
	e := envelopeOf(m)
	switch m.Kind {
	case Ask:
		return e.AppendRequest(nil, m.TID, requestOf(m)), nil
	case Reply:
		var fields []Field
		if m.HasRows {
			for _, f := range form["r"].(map[string]any)["fileds"].(map[string]any)["f"].([]any) {
				fields = append(fields, Field(number(f)))
			}
		}
		return e.AppendReply(nil, m.TID, answerOf(m, fields)), nil
	case Error:
		return e.AppendError(nil, m.TID, m.Code, m.Text), nil
	case Notice:
		return e.AppendNotice(nil, m.TID, m.Token, m.Renewed, m.Expired), nil
	}
	return nil, fmt.Errorf("kind %d", m.Kind)
}

// withAgent replaces our agent by another.
func withAgent(b []byte, agent string) []byte {
	ours := msgpack.AppendString([]byte{0xa1, 'v'}, Agent)
	return bytes.Replace(b, ours, msgpack.AppendString([]byte{0xa1, 'v'}, agent), 1)
}

// bodyOf returns the bytes under a key of a packet.
func bodyOf(t *testing.T, b []byte, key string) []byte {
	t.Helper()
	r := msgpack.NewReader(b)
	n, err := r.Map()
	for ; err == nil && n > 0; n-- {
		k, err := r.Str()
		if err != nil {
			break
		}
		raw, err := r.Raw()
		if err != nil {
			break
		}
		if string(k) == key {
			return raw
		}
	}
	t.Fatalf("no %q in %x: %v", key, b, err)
	return nil
}

// What nodes wrote we write byte for byte, but for the agent's name. In notices of
// "update" OpenDHT writes the envelope's keys in another order, which has no
// meaning; the body is the same there too. Packets made by hand are in their
// maker's order: they must have the same content.
func TestEncodersMatchOpenDHT(t *testing.T) {
	same, byHand, reordered := 0, 0, 0
	var m Message
	for _, p := range allPackets(t) {
		form, ok := tree(p.Hex)
		if !ok {
			continue
		}
		if _, ok := expected(form); !ok {
			continue
		}
		if err := m.Parse(p.Hex); err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		agent, hasAgent := form["v"].(string)
		got, err := encodeAgain(&m, form)
		if err != nil {
			t.Errorf("%s: %v", p.Name, err)
			continue
		}
		if hasAgent {
			got = withAgent(got, agent)
		}
		switch {
		case bytes.Equal(got, p.Hex):
			same++
			continue
		case p.Sent:
			if form["v"] == nil || plain(form["t"]) != json.Number(fmt.Sprint(m.TID)) || // forms that we do not write
				m.Key.IsZero() && m.Method != Ping || m.Method == Listen && m.Version == 0 {
				continue
			}
			again, _ := tree(got)
			if d := diff(plain(form), plain(again)); d != "" {
				t.Errorf("%s, made by hand, differs in content:\n%s", p.Name, d)
			}
			byHand++
			continue
		}
		again, _ := tree(got)
		if d := diff(plain(form), plain(again)); d != "" {
			t.Errorf("%s (%s) differs in content:\n%s", p.Name, agent, d)
			continue
		}
		key := map[Kind]string{Ask: "a", Reply: "r", Error: "e", Notice: "u"}[m.Kind]
		if ours, theirs := bodyOf(t, got, key), bodyOf(t, p.Hex, key); !bytes.Equal(ours, theirs) {
			t.Errorf("%s (%s): body\n%x, want\n%x", p.Name, agent, ours, theirs)
			continue
		}
		if m.Method == Update && len(m.Renewed)+len(m.Expired) > 0 {
			reordered++
			continue
		}
		t.Errorf("%s (%s): %x, want %x", p.Name, agent, got, p.Hex)
	}
	t.Logf("%d packets are the same, %d notices and %d packets made by hand have other key order", same, reordered, byHand)
	if same < 100 || reordered == 0 || byHand == 0 {
		t.Error("too few packets were compared")
	}
}

// The parts of a value are what nodes send, and put together they are the value.
func TestPieces(t *testing.T) {
	var m Message
	whole := map[string][]byte{}
	parts := map[string][][]byte{}
	tids := map[string]uint32{}
	for _, p := range exchanges(t) {
		if m.Parse(p.Hex) != nil || m.Kind != Parts {
			continue
		}
		id := fmt.Sprint(p.Name, " ", p.Peer, " ", p.Sent)
		if len(m.Pieces) != 1 || m.Pieces[0].Index != 0 || m.Pieces[0].Offset != len(whole[id]) {
			t.Fatalf("%s: pieces %+v", id, m.Pieces)
		}
		whole[id] = append(whole[id], m.Pieces[0].Data...)
		parts[id] = append(parts[id], p.Hex)
		tids[id] = m.TID
	}
	if len(whole) != 2 { // one per version
		t.Fatalf("only %d values in parts", len(whole))
	}
	var e Envelope
	for id, b := range whole {
		v, err := ParseValue(b)
		if err != nil || len(v.Data) != 3072 || !bytes.Equal(Pack(v).Bytes, b) {
			t.Errorf("%s: %v", id, err)
		}
		for i, want := range parts[id] {
			if got := e.AppendPiece(nil, tids[id], 0, i*PieceSize, b); !bytes.Equal(got, want) {
				t.Errorf("%s: part %d is %.60x…, want %.60x…", id, i, got, want)
			}
		}
	}
	// Network and client mode come first in parts.
	e = Envelope{Network: 7, ReadOnly: true}
	b := e.AppendPiece(nil, 300, 2, 1280, make([]byte, 1290))
	if want := unhex(t, "85 a16e07 a173c3 a179a170 a174cd012c a170 8102 82 a16fcd0500 a164c40a 00000000000000000000"); !bytes.Equal(b, want) {
		t.Errorf("part in network 7: %x, want %x", b, want)
	}
	if err := m.Parse(b); err != nil || m.Network != 7 || !m.ReadOnly || m.TID != 300 ||
		diff([]Piece{{2, 1280, make([]byte, 10)}}, m.Pieces) != "" {
		t.Errorf("%+v, %v", m, err)
	}
}

// What the recordings lack: a get with filters and families.
func TestAppendGetWithEverything(t *testing.T) {
	e := Envelope{Self: testNode}
	got := e.AppendRequest(nil, 5, &Request{Method: Get, Key: testKey, Query: WhereID(9), Want: IPv4 | IPv6})
	want := object([]pair{
		{"a", []pair{
			{"id", testNode[:]},
			{"h", testKey[:]},
			{"q", []pair{{"s", []any{}}, {"w", []any{[]pair{{"f", 1}, {"v", 9}}}}}},
			{"w", []any{2, 10}},
		}},
		{"q", "get"},
		{"t", 5},
		{"y", "q"},
		{"v", Agent},
	})
	if !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	var m Message
	if err := m.Parse(got); err != nil || m.Want != IPv4|IPv6 || diff(WhereID(9), m.Query) != "" {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestInlineLimits(t *testing.T) {
	sized := func(n, size int) []Packed {
		ps := make([]Packed, n)
		for i := range ps {
			ps[i].Bytes = make([]byte, size)
		}
		return ps
	}
	for _, c := range []struct {
		n, size int
		want    bool
	}{{0, 0, true}, {1, 599, true}, {1, 600, false}, {2, 299, true}, {2, 300, false}, {49, 12, true}, {50, 1, false}} {
		if got := Inline(sized(c.n, c.size)); got != c.want {
			t.Errorf("%d values of %d bytes: inline %v", c.n, c.size, got)
		}
	}
	e := Envelope{Self: testNode}
	var m Message
	if err := m.Parse(e.AppendRequest(nil, 1, &Request{Method: Put, Key: testKey, Values: sized(3, 250)})); err != nil ||
		diff([]int{250, 250, 250}, m.Sizes) != "" || len(m.Values) != 0 {
		t.Errorf("values for parts: %v, %v", m.Sizes, err)
	}
}

func TestRefusalRoundTrip(t *testing.T) {
	e := Envelope{Self: testNode}
	var m Message
	for _, refused := range []Refusal{Stored, BadValue, Conflict, OverQuota} {
		b := e.AppendReply(nil, 9, &Answer{ValueID: 5, To: netip.MustParseAddr("192.0.2.1"), Refused: refused})
		if err := m.Parse(b); err != nil || m.Refused != refused || m.ValueID != 5 || !m.Kith || m.TID != 9 {
			t.Errorf("refusal %d: %+v, %v", refused, m, err)
		}
		form, _ := tree(b)
		if _, there := form["r"].(map[string]any)["no"]; there != (refused != Stored) {
			t.Errorf("refusal %d: %x", refused, b)
		}
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	for _, e := range []Envelope{
		{Self: testNode},
		{Self: testNode, Network: 1},
		{Self: testNode, ReadOnly: true},
		{Self: testNode, Network: 1<<32 - 1, ReadOnly: true},
	} {
		to := netip.MustParseAddr("2001:db8::1")
		for name, b := range map[string][]byte{
			"request":     e.AppendRequest(nil, 1<<31, &Request{Method: Ping}),
			"reply":       e.AppendReply(nil, 1<<31, &Answer{To: to}),
			"plain reply": e.AppendReply(nil, 1<<31, &Answer{To: to, Plain: true}),
			"error":       e.AppendError(nil, 1<<31, CodeNotFound, "gone"),
			"notice":      e.AppendNotice(nil, 1<<31, []byte("token"), []ValueID{1}, []ValueID{2}),
		} {
			var m Message
			if err := m.Parse(b); err != nil || m.TID != 1<<31 || envelopeOf(&m) != e || m.Kith == (name == "plain reply") {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
			if _, ok := tree(b); !ok {
				t.Errorf("%s: the other implementation can't read %x", name, b)
			}
		}
	}
	var m Message
	b := (&Envelope{Self: testNode}).AppendReply([]byte("before"), 1, &Answer{})
	if !bytes.HasPrefix(b, []byte("before")) || m.Parse(b[6:]) != nil {
		t.Error("a reply does not append")
	}
	// A request with every field still has a one-byte pair count.
	all := &Request{
		Method: Listen, Key: testKey, Token: []byte("t"), Want: IPv4 | IPv6, Query: WhereID(1), Created: 5, Socket: 1, ValueID: 2,
		Values: []Packed{Pack(&Value{ID: 1})}, Expired: []ValueID{1}, Renewed: []ValueID{2},
	}
	for method := Ping; method <= Update; method++ {
		all.Method = method
		if err := m.Parse((&Envelope{Self: testNode}).AppendRequest(nil, 1, all)); err != nil || m.Method != method {
			t.Errorf("%s with every field: %v", method, err)
		}
	}
}

// An answer without the asker's address saves its bytes too.
func TestAnswerWithoutAddress(t *testing.T) {
	e := Envelope{Self: testNode}
	b := e.AppendReply(nil, 1, &Answer{Token: make([]byte, 8), Plain: true})
	var m Message
	if err := m.Parse(b); err != nil || m.Kind != Reply || m.Addr.IsValid() || len(m.Token) != 8 || len(b) != 48 {
		t.Errorf("%d bytes: %+v, %v", len(b), m, err)
	}
	// The least that a peer can ask: neither kind nor agent.
	least := object([]pair{{"a", []pair{{"id", testNode[:]}, {"h", testKey[:]}}}, {"q", "get"}, {"t", 1}})
	if err := m.Parse(least); err != nil || len(b) > len(least) {
		t.Errorf("%d bytes are answered by %d: %v", len(least), len(b), err)
	}
}

// An answer that may be sent before the asker's address is proven must not be
// larger than the question, or nodes could be used to amplify floods.
func TestPlainAnswerIsNoLargerThanRequest(t *testing.T) {
	self := Envelope{Self: testNode}
	token := make([]byte, 8)
	for _, tid := range []uint32{1, 200, 1 << 31} {
		for _, to := range []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")} {
			answer := self.AppendReply(nil, tid, &Answer{To: to, Token: token, Plain: true})
			for _, method := range []Method{Find, Get} {
				// The shortest agent of any peer is that of 4.x, "o2".
				ask := withAgent(self.AppendRequest(nil, tid, &Request{Method: method, Key: testKey}), "o2")
				t.Logf("%s from %s: %d bytes, answer %d", method, to, len(ask), len(answer))
				if len(answer) > len(ask) {
					t.Errorf("%s from %s: %d bytes are answered by %d", method, to, len(ask), len(answer))
				}
			}
		}
	}
	if n := len(self.AppendReply(nil, 1, &Answer{To: netip.IPv6Loopback()})) - len(self.AppendReply(nil, 1, &Answer{To: netip.IPv6Loopback(), Plain: true})); n != 10 {
		t.Errorf("a plain reply is %d bytes shorter", n)
	}
}

func TestAppendAllocatesNothing(t *testing.T) {
	e := Envelope{Self: testNode}
	values := []Packed{Pack(&Value{ID: 7, Data: []byte("hello"), UserType: "text/plain"})}
	put := &Request{Method: Put, Key: testKey, Token: make([]byte, 32), Values: values}
	get := &Request{Method: Get, Key: testKey, Query: WhereID(7), Want: IPv4 | IPv6}
	reply := &Answer{To: netip.MustParseAddr("192.0.2.1"), Token: make([]byte, 32), Nodes4: make([]byte, 8*26), Values: values}
	buf := make([]byte, 0, 2048)
	for name, f := range map[string]func(){
		"put":   func() { buf = e.AppendRequest(buf[:0], 1, put) },
		"get":   func() { buf = e.AppendRequest(buf[:0], 1, get) },
		"reply": func() { buf = e.AppendReply(buf[:0], 1, reply) },
		"error": func() { buf = e.AppendError(buf[:0], 1, 401, "Put with wrong token") },
		"part":  func() { buf = e.AppendPiece(buf[:0], 1, 0, 0, make([]byte, 0, 2048)) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("appending a %s allocates %v times", name, n)
		}
	}
}

func BenchmarkAppendPing(b *testing.B) {
	benchmarkRequest(b, &Request{Method: Ping})
}

func BenchmarkAppendGet(b *testing.B) {
	benchmarkRequest(b, &Request{Method: Get, Key: testKey, Query: WhereID(7), Want: IPv4 | IPv6})
}

func BenchmarkAppendPut(b *testing.B) {
	values := []Packed{Pack(&Value{ID: 7, Data: []byte("hello"), UserType: "text/plain"})}
	benchmarkRequest(b, &Request{Method: Put, Key: testKey, Token: make([]byte, 32), Values: values})
}

func benchmarkRequest(b *testing.B, q *Request) {
	e := Envelope{Self: testNode}
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendRequest(buf[:0], 1<<31, q)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkAppendReply(b *testing.B) {
	e := Envelope{Self: testNode}
	a := &Answer{To: netip.MustParseAddr("192.0.2.1"), Token: make([]byte, 32), Nodes4: make([]byte, 8*26)}
	buf := make([]byte, 0, 2048)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.AppendReply(buf[:0], 1<<31, a)
	}
	b.SetBytes(int64(len(buf)))
}

// FuzzParseMessage checks that nothing makes the parser panic or exceed its bounds,
// that a used message is as good as a fresh one, and that requests survive being
// written and read again.
func FuzzParseMessage(f *testing.F) {
	full := packetNamed(f, "get select all", false)
	for _, p := range allPackets(f) {
		f.Add([]byte(p.Hex))
	}
	var used Message
	f.Fuzz(func(t *testing.T, b []byte) {
		var m Message
		err := m.Parse(b)
		if used.Parse(full) != nil {
			t.Fatal("a vector can't be read")
		}
		if errUsed := used.Parse(b); (err == nil) != (errUsed == nil) {
			t.Fatalf("fresh: %v, used: %v", err, errUsed)
		}
		if err != nil {
			if !errors.Is(err, ErrPacket) {
				t.Fatalf("%v is no ErrPacket", err)
			}
			return
		}
		if d := diff(&m, &used); d != "" {
			t.Fatal(d)
		}
		checkBounds(t, &m)
		if m.Kind != Ask {
			return
		}
		m.Sizes = nil // of values that are not there
		e := envelopeOf(&m)
		once := e.AppendRequest(nil, m.TID, requestOf(&m))
		var back Message
		if err := back.Parse(once); err != nil {
			t.Fatalf("written again as %x: %v", once, err)
		}
		if back.Method != m.Method || back.TID != m.TID || envelopeOf(&back) != e || !bytes.Equal(back.Token, m.Token) ||
			diff(m.Expired, back.Expired)+diff(m.Renewed, back.Renewed) != "" {
			t.Fatalf("%+v became %+v", m, back)
		}
		if m.Method == Get || m.Method == Listen {
			if d := diff(m.Query, back.Query); d != "" {
				t.Fatal(d)
			}
		}
		if len(back.Sizes) > 0 {
			return // too large to be sent whole
		}
		if d := diff(m.Values, back.Values); d != "" {
			t.Fatal(d)
		}
		if twice := e.AppendRequest(nil, back.TID, requestOf(&back)); !bytes.Equal(once, twice) {
			t.Fatalf("%x became %x", once, twice)
		}
	})
}

func checkBounds(t *testing.T, m *Message) {
	t.Helper()
	switch {
	case m.Kind < Ask || m.Kind > Notice,
		m.Kind != Parts && m.From.IsZero(),
		m.Kind == Ask && (m.Method < Ping || m.Method > Update),
		len(m.Token) > MaxToken,
		len(m.Values)+len(m.Sizes)+m.BadVals > maxValues,
		len(m.Pieces) > maxValues, len(m.Rows) > maxRows,
		len(m.Expired) > maxValues, len(m.Renewed) > maxValues,
		len(m.Query.Select) > maxFilters, len(m.Query.Where) > maxFilters,
		len(m.Text) > 200,
		len(m.Nodes4)%node4Size+len(m.Nodes6)%node6Size != 0,
		m.Version < 0 || m.Version > 255,
		m.Want&^(IPv4|IPv6) != 0:
		t.Fatalf("out of bounds: %+v", m)
	}
	for _, n := range m.Sizes {
		if n < 0 {
			t.Fatalf("size %d", n)
		}
	}
	for _, p := range m.Pieces {
		if p.Index < 0 || p.Offset < 0 {
			t.Fatalf("piece %+v", p)
		}
	}
	for _, v := range m.Values {
		checkValue(t, v)
	}
	nodes := 0
	m.EachNode(func(Node) { nodes++ })
	if nodes != len(m.Nodes4)/node4Size+len(m.Nodes6)/node6Size {
		t.Fatalf("%d nodes", nodes)
	}
}

// checkValue checks what holds for every value that was read.
func checkValue(t *testing.T, v *Value) {
	t.Helper()
	switch {
	case v.Size() > MaxValueSize, len(v.Owner) > maxOwner,
		v.Signed() && len(v.Signature) == 0,
		!v.Signed() && (v.Seq != 0 || v.OwnerID() != [20]byte{} || v.To != [20]byte{}),
		v.Encrypted() && (v.Signed() || len(v.Data)+len(v.Signature)+len(v.UserType) != 0 || v.Type != 0):
		t.Fatalf("out of bounds: %+v", v)
	}
}
