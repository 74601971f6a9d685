package raw

import (
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A pong and a 401 as real nodes sent them.
const (
	pong     = "84a17282a26964c414ade652bbb0b3fc17855fdb5e300077548a60b42aa27361c4047f000001a17401a179a172a176a26f32"
	badToken = "86a16592cd0191b8507574207769746820696e636f727265637420746f6b656ea17281a26964c414ade652bbb0b3fc17855fdb5e300077548a60b42aa17405a179a165a176a26f32a16e07"
	sizes    = "84a17284a26964c414531aed394f2aa18adb335a508d6ce00e9e0143f6a27361c4047f000001a5746f6b656ec420c0be740138f41ffc65534af65672e9774d11db854e00b5ef402de3faa3f7007ba676616c75657391cd0c20a1740aa179a172a176a4524e4731"
)

func TestParseCaptured(t *testing.T) {
	m, err := Parse(unhex(t, pong))
	if err != nil || m.Kind != Reply || m.TID != 1 || hex.EncodeToString(m.ID[:4]) != "ade652bb" {
		t.Errorf("pong: %+v, %v", m, err)
	}
	m, err = Parse(unhex(t, badToken))
	if err != nil || m.Kind != Error || m.Code != 401 || m.TID != 5 {
		t.Errorf("error: %+v, %v", m, err)
	}
	m, err = Parse(unhex(t, sizes))
	if err != nil || m.Values != 1 || len(m.Token) != 32 || m.TID != 10 {
		t.Errorf("get reply: %+v, %v", m, err)
	}
}

func TestRequestsParse(t *testing.T) {
	r := Request{Self: ID{1}, TID: 1 << 20, Network: 77}
	for name, b := range map[string][]byte{
		"ping": r.Ping(nil),
		"find": r.Find(nil, ID{2}),
		"get":  r.Get(nil, ID{3}),
		"put":  r.Put(nil, ID{3}, make([]byte, 32), 1<<40, make([]byte, 700)),
	} {
		m, err := Parse(b)
		if err != nil || m.Kind != Query || m.Query != name || m.TID != r.TID || m.ID != r.Self {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
		for i := range b {
			if _, err := Parse(b[:i]); err == nil {
				t.Errorf("%s cut to %d bytes parses", name, i)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(unhex(f, pong))
	f.Add(unhex(f, badToken))
	f.Add(unhex(f, sizes))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Parse(b); err == nil {
			m.Nodes()
		}
	})
}
