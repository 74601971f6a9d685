package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
)

func TestValueDocument(t *testing.T) {
	id := identity.KeyID{1}
	for _, c := range []struct {
		v    dht.Value
		json string
		text string
	}{
		{
			dht.Value{ID: 0xab, Data: []byte("a<b")},
			`{"event":"added","id":"00000000000000ab","type":0,"data":"a\u003cb","data_base64":"YTxi"}`,
			`added   00000000000000ab  type 0  "a<b"`,
		},
		{
			dht.Value{ID: math.MaxUint64, Type: 65535},
			`{"event":"added","id":"ffffffffffffffff","type":65535,"data":"","data_base64":""}`,
			`added   ffffffffffffffff  type 65535  ""`,
		},
		{
			dht.Value{ID: 1, Data: []byte{0xff, 0}},
			`{"event":"added","id":"0000000000000001","type":0,"data":null,"data_base64":"/wA="}`,
			`added   0000000000000001  type 0  2 bytes ff00`,
		},
		{
			dht.Value{ID: 1, UserType: "a\x1b[2J", Data: []byte("\x1b[31m\n"), To: id},
			`{"event":"added","id":"0000000000000001","type":0,"data":"\u001b[31m\n","data_base64":"G1szMW0K","user_type":"a\u001b[2J","to":"` + id.String() + `"}`,
			`added   0000000000000001  type 0, user type "a\x1b[2J", encrypted to ` + id.String() + `  "\x1b[31m\n"`,
		},
	} {
		d := newEventDoc(dht.Event{Value: &c.v})
		got, err := json.Marshal(d)
		if err != nil || string(got) != c.json {
			t.Errorf("%+v:\ngot  %s, %v\nwant %s", c.v, got, err, c.json)
		}
		if text := d.String(); text != c.text+"\n" {
			t.Errorf("got  %q\nwant %q", text, c.text)
		}
	}
	if d := newEventDoc(dht.Event{Value: new(dht.Value), Expired: true}); d.Event != "expired" || !strings.HasPrefix(d.String(), "expired ") {
		t.Errorf("the end of a value is %+v", d)
	}
}

func TestValueIDs(t *testing.T) {
	for text, want := range map[string]valueID{"2a": 42, "FFFFFFFFFFFFFFFF": math.MaxUint64, "0": 0, "": 0, "10000000000000000": 0, "0x1": 0, "-1": 0} {
		var id valueID
		if err := id.UnmarshalText([]byte(text)); (err == nil) != (want != 0) || id != want {
			t.Errorf("%q: got %v, %v", text, id, err)
		}
	}
}

func TestByteSizes(t *testing.T) {
	for text, want := range map[string]byteSize{
		"1": 1, "2KiB": 2 << 10, "64MiB": 64 << 20, "8589934591GiB": 8589934591 << 30,
		"8589934592GiB": 0, "0": 0, "-1KiB": 0, "": 0, "MiB": 0, "1MB": 0, "9223372036854775808": 0,
	} {
		var s byteSize
		if err := s.UnmarshalText([]byte(text)); (err == nil) != (want != 0) || s != want {
			t.Errorf("%q: got %d, %v", text, s, err)
		}
	}
}
