package proxy

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// signedLine is a signed value as OpenDHT 2.4.12 sent it.
func signedLine(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/signed.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignedVector(t *testing.T) {
	line := signedLine(t)
	v, err := ParseJSON(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.VerifySignature(); err != nil {
		t.Fatal(err)
	}
	if string(v.Data) != "hello" || v.UserType != "text/plain" || v.ID != 13862524975066289268 {
		t.Errorf("value is %+v", v)
	}
	// All but the NUL that 2.4 has after the PEM text.
	want := bytes.TrimSpace(bytes.ReplaceAll(line, []byte(`\u0000`), nil))
	if diff := cmp.Diff(string(want), string(AppendJSON(nil, v))); diff != "" {
		t.Errorf("JSON differs (-OpenDHT +ours):\n%s", diff)
	}
}

func TestJSONForms(t *testing.T) {
	recipient := "00112233445566778899aabbccddeeff00112233"
	for name, test := range map[string]struct{ in, out string }{
		"least":         {`{}`, `{"data":"","id":"0","type":0}`},
		"order":         {`{"type":3,"utype":"a","prio":5,"pt":"m","id":"7","data":"aGk="}`, `{"data":"aGk=","id":"7","prio":5,"pt":"m","type":3,"utype":"a"}`},
		"number id":     {`{"id":18446744073709551615}`, `{"data":"","id":"18446744073709551615","type":0}`},
		"bad id":        {`{"id":"xyz"}`, `{"data":"","id":"0","type":0}`},
		"negative id":   {`{"id":-5}`, `{"data":"","id":"0","type":0}`},
		"id no number":  {`{"id":{"a":1}}`, `{"data":"","id":"0","type":0}`},
		"encrypted":     {`{"cypher":"aGk=","id":"9","data":"eA==","type":4,"prio":1,"pt":"x"}`, `{"cypher":"aGk=","id":"9","prio":1,"pt":"x"}`},
		"only sig":      {`{"sig":"aGk=","seq":4,"to":"` + recipient + `"}`, `{"data":"","id":"0","sig":"aGk=","type":0}`},
		"text":          {`{"utype":"\u00e9<>&/\ud83d\ude00\u0001` + "\x7f" + `\t\n\r\b\f\"\\"}`, `{"data":"","id":"0","type":0,"utype":"\u00e9<>&/\ud83d\ude00\u0001` + "\x7f" + `\t\n\r\b\f\"\\"}`},
		"nulls":         {`{"data":null,"prio":null,"cypher":null,"owner":null,"id":null}`, `{"data":"","id":"0","type":0}`},
		"unknown":       {`{"more":[1,{"a":[]}],"data":"eA=="}`, `{"data":"eA==","id":"0","type":0}`},
		"case of keys":  {`{"DATA":"eA==","Id":"4"}`, `{"data":"","id":"0","type":0}`},
		"white space":   {" { \"id\" : \"3\" }\r\n", `{"data":"","id":"3","type":0}`},
		"last of equal": {`{"id":"3","id":"4"}`, `{"data":"","id":"4","type":0}`},
	} {
		v, err := ParseJSON([]byte(test.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := string(AppendJSON(nil, v)); got != test.out {
			t.Errorf("%s:\n got %s\nwant %s", name, got, test.out)
		}
	}
}

func TestJSONRefused(t *testing.T) {
	pem := `-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n`
	big := base64.StdEncoding.EncodeToString(make([]byte, wire.MaxValueSize+1))
	for name, in := range map[string]string{
		"empty":                   ``,
		"array":                   `[]`,
		"null":                    `null`,
		"text":                    `"a"`,
		"cut":                     `{"id":"1"`,
		"two":                     `{}{}`,
		"base64":                  `{"data":"!!!!"}`,
		"no padding":              `{"data":"aGk"}`,
		"type is text":            `{"type":"3"}`,
		"type too large":          `{"type":65536}`,
		"prio too large":          `{"prio":4294967296}`,
		"negative":                `{"prio":-1}`,
		"fraction":                `{"prio":1.5}`,
		"data is number":          `{"data":5}`,
		"owner without signature": `{"owner":"` + pem + `"}`,
		"owner not PEM":           `{"owner":"x","sig":"aGk="}`,
		"owner private":           `{"owner":"` + strings.ReplaceAll(pem, "PUBLIC", "PRIVATE") + `","sig":"aGk="}`,
		"recipient":               `{"owner":"` + pem + `","sig":"aGk=","to":"00"}`,
		"recipient no hex":        `{"owner":"` + pem + `","sig":"aGk=","to":"` + strings.Repeat("g", 40) + `"}`,
		"no cypher":               `{"cypher":""}`,
		"value too large":         `{"data":"` + big + `"}`,
		"line too large":          `{"x":"` + strings.Repeat("a", MaxLine) + `"}`,
		"deep":                    `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	} {
		if v, err := ParseJSON([]byte(in)); !errors.Is(err, ErrJSON) {
			t.Errorf("%s: value %v, error %v, want ErrJSON", name, v, err)
		}
	}
}

func TestLargestLineFits(t *testing.T) {
	v := &dht.Value{
		ID: 1<<64 - 1, Type: 1<<16 - 1, Priority: 1<<32 - 1, Seq: 1<<16 - 1,
		UserType: strings.Repeat("\x01", 1<<16-1-2), Signature: []byte{1}, Data: []byte{1}, Owner: make([]byte, 8<<10),
	}
	v.To[0] = 1
	line := AppendJSON(nil, v)
	if len(line) > MaxLine {
		t.Fatalf("line of %d bytes", len(line))
	}
	got, err := ParseJSON(line)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(v, got); diff != "" {
		t.Errorf("value differs (-want +got):\n%s", diff)
	}
}

func FuzzParseJSON(f *testing.F) {
	f.Add(signedLine(f))
	f.Add([]byte(`{"cypher":"aGk=","id":9,"prio":1,"pt":"x","expired":true}`))
	f.Add([]byte(`{"data":"aGVsbG8=","id":"18446744073709551615","prio":5,"type":3,"utype":"text\u00e9"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseJSON(b)
		if err != nil {
			return
		}
		line := AppendJSON(nil, v)
		if !json.Valid(line) {
			t.Fatalf("not JSON: %s", line)
		}
		again, err := ParseJSON(line)
		if err != nil {
			t.Fatalf("our own %s: %v", line, err)
		}
		if diff := cmp.Diff(string(line), string(AppendJSON(nil, again))); diff != "" {
			t.Fatalf("differs when read again:\n%s", diff)
		}
	})
}
