package wire

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/msgpack"
)

func TestValueVectors(t *testing.T) {
	kinds := map[string]int{}
	for _, c := range load[valueVector](t, "values.json") {
		name := c.Kind + " " + c.ID
		v, err := ParseValue(c.Value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		form, _ := tree(c.Value)
		if d := diff(expectValue(form), v); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
		if fmt.Sprintf("%x", uint64(v.ID)) != c.ID {
			t.Errorf("%s: id %x", name, v.ID)
		}
		packed := Pack(v)
		if !bytes.Equal(packed.Bytes, c.Value) || packed.Value != v {
			t.Errorf("%s: packed again as %x", name, packed.Bytes)
		}
		kinds[c.Kind]++
		switch c.Kind {
		case "signed":
			checkSigned(t, name, c, v)
		case "encrypted":
			if !v.Encrypted() || v.Signed() || v.VerifySignature() == nil {
				t.Errorf("%s: %+v", name, v)
			}
		case "certificate":
			r := msgpack.NewReader(v.Data)
			chain, err := r.Bin()
			if v.Type != TypeCertificate || v.ID != 1 || err != nil || !bytes.HasPrefix(chain, []byte("-----BEGIN CERTIFICATE")) {
				t.Errorf("%s: type %d, %.30q, %v", name, v.Type, chain, err)
			}
		}
	}
	if kinds["signed"] == 0 || kinds["encrypted"] == 0 || kinds["certificate"] == 0 {
		t.Errorf("kinds %v", kinds)
	}
}

func checkSigned(t *testing.T, name string, c valueVector, v *Value) {
	t.Helper()
	if !v.Signed() || !bytes.Equal(v.SignedBytes(), c.Signed) || !bytes.Equal(v.Signature, c.Signature) {
		t.Errorf("%s: signed bytes %x, want %x", name, v.SignedBytes(), c.Signed)
	}
	if err := v.VerifySignature(); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for what, change := range map[string]func(*Value){
		"data":      func(v *Value) { v.Data = append(v.Data, 'x') },
		"seq":       func(v *Value) { v.Seq++ },
		"type":      func(v *Value) { v.Type++ },
		"user type": func(v *Value) { v.UserType += "x" },
		"recipient": func(v *Value) { v.To[0] ^= 1 },
		"signature": func(v *Value) { v.Signature[3] ^= 1 },
		"no owner":  func(v *Value) { v.Owner = nil },
		"owner":     func(v *Value) { v.Owner[len(v.Owner)/2] ^= 1 },
		"unsigned":  func(v *Value) { v.Signature = nil },
	} {
		forged := v.Clone()
		change(forged)
		if err := forged.VerifySignature(); !errors.Is(err, ErrValue) {
			t.Errorf("%s: changed %s still verifies: %v", name, what, err)
		}
	}
	free := v.Clone() // what signatures do not cover
	free.ID, free.Priority, free.PushType = 1, 2, "p"
	if err := free.VerifySignature(); err != nil {
		t.Errorf("%s: id, priority and push type: %v", name, err)
	}
	if !bytes.Equal(Pack(v).Bytes, c.Value) {
		t.Errorf("%s: a change of a clone reached the original", name)
	}

	var m Message
	other := v.Clone()
	other.Data = []byte("forged")
	plain := &Value{ID: 3, Data: []byte("plain")}
	e := Envelope{Self: testNode}
	m.Values = append(m.Values, v, other, plain)
	if m.SignatureOK(0) {
		t.Errorf("%s: a signature counts before it was checked", name)
	}
	m.CheckSignatures()
	if d := diff([]bool{true, false, false}, []bool{m.SignatureOK(0), m.SignatureOK(1), m.SignatureOK(2)}); d != "" {
		t.Error(d)
	}
	// What was found about one packet's values must not stick to the next one's.
	b := e.AppendRequest(nil, 1, &Request{Method: Put, Key: testKey, Values: []Packed{Pack(plain)}})
	if err := m.Parse(b); err != nil || m.SignatureOK(0) {
		t.Errorf("%s: signature of a value without one: %v", name, err)
	}
}

func TestValueEncoding(t *testing.T) {
	v := &Value{ID: 0x1234, Data: []byte("hi"), UserType: "ut"}
	check := func(want string) {
		t.Helper()
		b := v.Append(nil)
		if !bytes.Equal(b, unhex(t, want)) {
			t.Errorf("%x, want %s", b, want)
		}
		back, err := ParseValue(b)
		if d := diff(v, back); d != "" || err != nil {
			t.Errorf("%v\n%s", err, d)
		}
	}
	check("82a26964cd1234a364617481a4626f647983a47479706500a464617461c4026869a57574797065a27574")
	v.Priority, v.PushType = 2, "pt1"
	check("84a26964cd1234a364617481a4626f647983a47479706500a464617461c4026869a57574797065a27574a17002a27074a3707431")
	if want := unhex(t, "83a47479706500a464617461c4026869a57574797065a27574"); !bytes.Equal(v.SignedBytes(), want) {
		t.Errorf("body %x", v.SignedBytes())
	}
	v = &Value{ID: 1, Type: TypeIM, Data: []byte{}, Owner: []byte{0x30, 0}, Seq: 300, To: identity.KeyID{5}, Signature: []byte{1}}
	check("82 a26964 01 a3646174 82 a4626f6479 85 a3736571 cd012c a56f776e6572 c4023000" +
		"a2746f c414 0500000000000000000000000000000000000000 a474797065 03 a464617461 c400 a3736967 c40101")
	v = &Value{ID: 1<<64 - 1, Cypher: []byte{1, 2}}
	check("82 a26964 cfffffffffffffffff a3646174 c4020102")
}

func TestParseValueOldForms(t *testing.T) {
	der := append([]byte{0x30}, bytes.Repeat([]byte{7}, 40)...)
	owner := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	bytesOf := func(s string) []any {
		var a []any
		for _, c := range []byte(s) {
			a = append(a, int(c))
		}
		return a
	}
	want := &Value{ID: 5, Type: 3, Data: []byte("data\xff"), Owner: der, Seq: 2, Signature: []byte("sig")}
	for name, form := range map[string][]pair{
		"bin":   {{"id", 5}, {"dat", []pair{{"body", []pair{{"seq", 2}, {"owner", der}, {"type", 3}, {"data", []byte("data\xff")}}}, {"sig", []byte("sig")}}}},
		"str":   {{"id", 5}, {"dat", []pair{{"sig", "sig"}, {"body", []pair{{"data", "data\xff"}, {"type", 3}, {"owner", string(der)}, {"seq", 2}}}}}},
		"array": {{"dat", []pair{{"body", []pair{{"seq", 2}, {"owner", bytesOf(string(der))}, {"type", 3}, {"data", bytesOf("data\xff")}}}, {"sig", bytesOf("sig")}}}, {"id", 5}},
		"PEM":   {{"id", 5}, {"dat", []pair{{"body", []pair{{"seq", 2}, {"owner", owner}, {"type", 3}, {"data", "data\xff"}, {"new", 1}}}, {"sig", "sig"}, {"new", nil}}}, {"new", []any{}}},
	} {
		v, err := ParseValue(object(form))
		if d := diff(want, v); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, d)
		}
	}
}

func TestParseValueRejects(t *testing.T) {
	value := func(body ...pair) []byte { return object([]pair{{"id", 5}, {"dat", []pair{{"body", body}}}}) }
	signed := func(body ...pair) []byte {
		return object([]pair{{"id", 5}, {"dat", []pair{{"body", body}, {"sig", []byte("sig")}}}})
	}
	typ, data := pair{"type", 0}, pair{"data", []byte("x")}
	der := []byte{0x30, 1, 2}
	good := value(typ, data)
	if _, err := ParseValue(good); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"number":                  {5},
		"empty map":               object([]pair{}),
		"no id":                   object([]pair{{"dat", []pair{{"body", []pair{typ, data}}}}}),
		"no content":              object([]pair{{"id", 5}}),
		"negative id":             object([]pair{{"id", -5}, {"dat", []byte("c")}}),
		"content is a number":     object([]pair{{"id", 5}, {"dat", 5}}),
		"empty cypher text":       object([]pair{{"id", 5}, {"dat", []byte{}}}),
		"plain, then encrypted":   object([]pair{{"id", 5}, {"dat", []pair{{"body", []pair{{"type", 3}, {"data", ""}}}}}, {"dat", []byte("c")}}),
		"encrypted, then plain":   object([]pair{{"id", 5}, {"dat", []byte("c")}, {"dat", []pair{{"body", []pair{{"type", 3}, {"data", ""}}}}}}),
		"two bodies":              object([]pair{{"id", 5}, {"dat", []pair{{"body", []pair{typ, data}}, {"body", []pair{typ, data}}}}}),
		"no body":                 object([]pair{{"id", 5}, {"dat", []pair{{"sig", []byte("s")}}}}),
		"no type":                 value(data),
		"no data":                 value(typ),
		"type of 17 bits":         value(pair{"type", 1 << 16}, data),
		"data is a number":        value(typ, pair{"data", 5}),
		"data array of 256":       value(typ, pair{"data", []any{256}}),
		"data array of text":      value(typ, pair{"data", []any{"x"}}),
		"user type not UTF-8":     value(typ, data, pair{"utype", "\xff"}),
		"user type as bytes":      value(typ, data, pair{"utype", []byte("x")}),
		"user type of 65536":      value(typ, data, pair{"utype", string(make([]byte, 1<<16))}),
		"owner without signature": value(pair{"seq", 1}, pair{"owner", der}, typ, data),
		"owner without seq":       signed(pair{"owner", der}, typ, data),
		"seq of 17 bits":          signed(pair{"seq", 1 << 16}, pair{"owner", der}, typ, data),
		"giant owner":             signed(pair{"seq", 1}, pair{"owner", make([]byte, maxOwner+1)}, typ, data),
		"owner no PEM":            signed(pair{"seq", 1}, pair{"owner", "-----BEGIN"}, typ, data),
		"recipient of 19 bytes":   signed(pair{"seq", 1}, pair{"owner", der}, pair{"to", make([]byte, 19)}, typ, data),
		"too large":               value(typ, pair{"data", make([]byte, MaxValueSize+1)}),
		"too large in all":        value(typ, pair{"data", make([]byte, MaxValueSize-4)}, pair{"utype", "12345"}),
		"too large an array":      value(typ, pair{"data", make([]any, MaxValueSize+1)}),
		"too large a cypher text": object([]pair{{"id", 5}, {"dat", make([]byte, MaxValueSize+1)}}),
		"too large a push type":   object([]pair{{"id", 5}, {"dat", []byte("c")}, {"pt", string(make([]byte, MaxValueSize))}}),
		"followed by a byte":      append(bytes.Clone(good), 0),
	} {
		if v, err := ParseValue(b); !errors.Is(err, ErrValue) || v != nil {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	for n := range good {
		if _, err := ParseValue(good[:n]); !errors.Is(err, ErrValue) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	for name, v := range map[string]*Value{
		"plain":     {ID: 1, Data: make([]byte, MaxValueSize)},
		"encrypted": {ID: 1, Cypher: make([]byte, MaxValueSize)},
		"user type": {ID: 1, UserType: string(bytes.Repeat([]byte{'u'}, 1<<16-1))},
	} {
		b := Pack(v).Bytes
		if back, err := ParseValue(b); err != nil || back.Size() != v.Size() {
			t.Errorf("the largest %s value: %v", name, err)
		}
		if len(b) > MaxPackedSize+32 {
			t.Errorf("the largest %s value has %d bytes", name, len(b))
		}
	}
}

func TestUnsignedValueHasNoSignersFields(t *testing.T) {
	v, err := ParseValue(object([]pair{{"id", 5}, {"dat", []pair{{"body", []pair{
		{"seq", 9}, {"to", testNode[:]}, {"type", 0}, {"data", ""},
	}}}}}))
	if err != nil || v.Seq != 0 || v.To != (identity.KeyID{}) || v.OwnerID() != (identity.KeyID{}) {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestSameContent(t *testing.T) {
	base := Value{ID: 1, Type: 3, Data: []byte("d"), UserType: "u", Owner: []byte{0x30}, Seq: 1, Signature: []byte("s")}
	for name, c := range map[string]struct {
		change func(*Value)
		same   bool
	}{
		"nothing":   {func(*Value) {}, true},
		"priority":  {func(v *Value) { v.Priority = 9 }, true},
		"seq":       {func(v *Value) { v.Seq = 9 }, true},
		"data":      {func(v *Value) { v.Data = []byte("e") }, false},
		"type":      {func(v *Value) { v.Type = 9 }, false},
		"user type": {func(v *Value) { v.UserType = "" }, false},
		"owner":     {func(v *Value) { v.Owner = nil }, false},
		"signature": {func(v *Value) { v.Signature = []byte("t") }, false},
		"encrypted": {func(v *Value) { v.Cypher = []byte("c") }, false},
	} {
		other := base.Clone()
		c.change(other)
		if base.SameContent(other) != c.same || other.SameContent(&base) != c.same {
			t.Errorf("%s: same %v", name, !c.same)
		}
	}
	a, b := &Value{Cypher: []byte("c")}, &Value{Cypher: []byte("c"), ID: 5}
	if !a.SameContent(b) {
		t.Error("equal cypher texts are not the same content")
	}
}

func addValueSeeds(f *testing.F, add func(packed []byte)) {
	for _, c := range load[valueVector](f, "values.json") {
		add(c.Value)
	}
	var m Message
	for _, p := range allPackets(f) {
		if m.Parse(p.Hex) != nil {
			continue
		}
		for _, v := range m.Values {
			add(v.Append(nil))
		}
	}
}

// FuzzParseValue checks that a value that was read is within its bounds and comes
// back as the same value, in the same bytes, when written and read again.
func FuzzParseValue(f *testing.F) {
	addValueSeeds(f, func(packed []byte) { f.Add(packed) })
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseValue(b)
		if err != nil {
			if !errors.Is(err, ErrValue) || v != nil {
				t.Fatalf("%v, %v", v, err)
			}
			return
		}
		checkValue(t, v)
		if err := v.VerifySignature(); err != nil && !errors.Is(err, ErrValue) {
			t.Fatal(err)
		}
		once := v.Append(nil)
		back, err := ParseValue(once)
		if err != nil {
			t.Fatalf("%x can't be read: %v", once, err)
		}
		if d := diff(v, back); d != "" {
			t.Fatal(d)
		}
		if !bytes.Equal(once, back.Append(nil)) || !v.SameContent(back) {
			t.Fatalf("%x became %x", once, back.Append(nil))
		}
	})
}

// FuzzParseContent does the same for what is inside encrypted values.
func FuzzParseContent(f *testing.F) {
	addValueSeeds(f, func(packed []byte) {
		if v, err := ParseValue(packed); err == nil && !v.Encrypted() {
			f.Add(v.AppendContent(nil))
		}
	})
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseContent(b)
		if err != nil {
			if !errors.Is(err, ErrValue) || v != nil {
				t.Fatalf("%v, %v", v, err)
			}
			return
		}
		once := v.AppendContent(nil)
		back, err := ParseContent(once)
		if err != nil {
			t.Fatalf("%x can't be read: %v", once, err)
		}
		if d := diff(v, back); d != "" {
			t.Fatal(d)
		}
		if !bytes.Equal(once, back.AppendContent(nil)) {
			t.Fatalf("%x became %x", once, back.AppendContent(nil))
		}
	})
}

func BenchmarkParseValue(b *testing.B) {
	for _, c := range load[valueVector](b, "values.json") {
		if c.Kind != "signed" {
			continue
		}
		b.SetBytes(int64(len(c.Value)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseValue(c.Value); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
}

func BenchmarkAppendValue(b *testing.B) {
	v := &Value{ID: 1 << 60, Data: make([]byte, 200), UserType: "text/plain"}
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = v.Append(buf[:0])
	}
	b.SetBytes(int64(len(buf)))
}

// Keys whose signatures take long to check are refused before that.
func TestCostlyOwner(t *testing.T) {
	owner := func(bits, e int) []byte {
		n := new(big.Int).Lsh(big.NewInt(1), uint(bits)-1)
		der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: n.SetBit(n, 0, 1), E: e})
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	tests := []struct {
		name    string
		bits, e int
		want    string // in the error
	}{
		{"usual", 4096, 1<<16 + 1, "signature"},
		{"small exponent", 4096, 3, "signature"},
		{"too long", 4097, 1<<16 + 1, "owner key of 4097 bits"},
		{"exponent", 2048, 1<<16 + 3, "owner key with exponent 65539"},
		{"large exponent", 2048, 1<<31 - 1, "owner key with exponent"},
	}
	for _, test := range tests {
		v := &Value{ID: 1, Data: []byte("x"), Owner: owner(test.bits, test.e), Signature: make([]byte, test.bits/8)}
		if err := v.VerifySignature(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q in it", test.name, err, test.want)
		}
	}
}
