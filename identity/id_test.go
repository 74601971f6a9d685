package identity

import (
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// The ids that OpenDHT itself gives to the identity n0.
const (
	n0KeyID     = "e3df1239e000bad435fa7f2ec90e18f8369b1b99"
	n0LongKeyID = "1aa57cb245776e6fac008bebcdaf0ae4b4e12a0e94e4691a4f6a4ffb444e555b"
	n0CertKey   = "f954f745e9f9e3d153816e1630ea25cc9efa5776"
	n0NodeID    = "c18506081a136c095a586623981094b179bf808d"
)

func TestIDsOfVector(t *testing.T) {
	id := testIdentity(t, "n0")
	k := id.Key.Public()
	short, long := CertificateKeys(k)
	node := id.NodeID()
	for _, c := range []struct{ what, got, want string }{
		{"key id", k.ID().String(), n0KeyID},
		{"long key id", k.LongID().String(), n0LongKeyID},
		{"short certificate key", hex.EncodeToString(short[:]), n0KeyID},
		{"long certificate key", hex.EncodeToString(long[:]), n0CertKey},
		{"node id", hex.EncodeToString(node[:]), n0NodeID},
	} {
		if c.got != c.want {
			t.Errorf("%s is %s, want %s", c.what, c.got, c.want)
		}
	}
}

func TestParseKeyID(t *testing.T) {
	for _, s := range []string{n0KeyID, strings.ToUpper(n0KeyID)} {
		id, err := ParseKeyID(s)
		if err != nil || id.String() != n0KeyID || id.IsZero() {
			t.Errorf("ParseKeyID(%q) = %v, %v", s, id, err)
		}
	}
	if id, err := ParseKeyID(strings.Repeat("0", 40)); err != nil || !id.IsZero() {
		t.Errorf("zero id: %v, %v", id, err)
	}
	for _, s := range []string{"", "e3", n0KeyID[:39], n0KeyID + "0", n0KeyID + "00", n0KeyID[:39] + "g", n0LongKeyID} {
		if id, err := ParseKeyID(s); err == nil {
			t.Errorf("ParseKeyID(%q) = %v, want an error", s, id)
		}
	}
}

func TestParseLongKeyID(t *testing.T) {
	id, err := ParseLongKeyID(n0LongKeyID)
	if err != nil || id.String() != n0LongKeyID || id.IsZero() {
		t.Errorf("got %v, %v", id, err)
	}
	if _, err := ParseLongKeyID(n0KeyID); err == nil {
		t.Error("a short id was taken for a long one")
	}
	if (LongKeyID{}).IsZero() == false {
		t.Error("zero id is not zero")
	}
}

func TestIDsInJSON(t *testing.T) {
	type doc struct {
		Short KeyID
		Long  LongKeyID
	}
	k := testIdentity(t, "n0").Key.Public()
	in := doc{k.ID(), k.LongID()}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"Short":"` + n0KeyID + `","Long":"` + n0LongKeyID + `"}`; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	var out doc
	if err := json.Unmarshal(b, &out); err != nil || out != in {
		t.Errorf("got %v, %v, want %v", out, err, in)
	}
	if err := json.Unmarshal([]byte(`{"Short":"abc"}`), &out); err == nil {
		t.Error("a bad id was accepted")
	}
}

func FuzzParseKeyID(f *testing.F) {
	f.Add(n0KeyID)
	f.Add(n0LongKeyID)
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ParseKeyID(s); err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("%q became %v", s, id)
		}
		if id, err := ParseLongKeyID(s); err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("%q became %v", s, id)
		}
	})
}
