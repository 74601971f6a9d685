package proxy

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := anyBase64(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWebPushVector is the example of RFC 8291, section 5 and appendix A. Its keys
// are for tests.
func TestWebPushVector(t *testing.T) {
	ephemeral, err := ecdh.P256().NewPrivateKey(unbase64(t, "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := webPush(ephemeral, unbase64(t, "DGv6ra1nlYgDCS1FRnbzlw"),
		unbase64(t, "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
		unbase64(t, "BTBZMqHH6r4Tts7J_aSIgg"), []byte("When I grow up, I want to be a watermelon"))
	if err != nil {
		t.Fatal(err)
	}
	want := unbase64(t, "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	if !bytes.Equal(got, want) {
		t.Errorf("encrypted\n%x\nwant\n%x", got, want)
	}
}

func TestWebPushRefuses(t *testing.T) {
	key := base64.RawURLEncoding.EncodeToString(make([]byte, 65))
	good := "BCVxsr7N/eNgVRqvHtD0zTZsEc6+VV+JvLexhqUzORcxaOzi6+AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4="
	auth := "BTBZMqHH6r4Tts7J_aSIgg"
	if _, err := encryptTo(good+"|"+auth, []byte("x")); err != nil {
		t.Error(err)
	}
	for _, topic := range []string{good, "|", good + "|", good + "|AAAA", key + "|" + auth, "!|" + auth} {
		if _, err := encryptTo(topic, []byte("x")); err == nil {
			t.Errorf("topic %q is accepted", topic)
		}
	}
	if _, err := encryptTo(good+"|"+auth, make([]byte, maxPlain+1)); err == nil {
		t.Error("too long a message is accepted")
	}
}

// pushService records one request and answers with a status.
func pushService(t *testing.T, status int) (url string, got func() (*http.Request, string)) {
	var req *http.Request
	var body []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req = r
		body, _ = io.ReadAll(r.Body)
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() (*http.Request, string) { return req, string(body) }
}

func TestUnifiedPush(t *testing.T) {
	url, got := pushService(t, 201)
	u := &UnifiedPush{AllowPrivate: true}
	n := Notice{Data: map[string]string{"key": "k"}, Urgent: true}
	if err := u.Push(t.Context(), Target{Token: url + "/up"}, n); err != nil {
		t.Fatal(err)
	}
	r, body := got()
	if body != `{"key":"k"}` || r.URL.Path != "/up" || r.Header.Get("TTL") != "86400" || r.Header.Get("Urgency") != "high" {
		t.Errorf("request %v %v %q", r.URL, r.Header, body)
	}
	topic := "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4|BTBZMqHH6r4Tts7J_aSIgg"
	if err := u.Push(t.Context(), Target{Token: url, Topic: topic}, n); err != nil {
		t.Fatal(err)
	}
	if r, body := got(); r.Header.Get("Content-Encoding") != "aes128gcm" || len(body) != 16+4+1+65+len(`{"key":"k"}`)+1+16 {
		t.Errorf("request %v, %d bytes", r.Header, len(body))
	}
	gone, _ := pushService(t, 410)
	if err := u.Push(t.Context(), Target{Token: gone}, n); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
	broken, _ := pushService(t, 500)
	if err := u.Push(t.Context(), Target{Token: broken}, n); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("error %v", err)
	}
}

// TestUnifiedPushStaysOutside has strangers name a server beside ours.
func TestUnifiedPushStaysOutside(t *testing.T) {
	beside := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was reached") }))
	defer beside.Close()
	for _, token := range []string{beside.URL, "http://push.example/", "https://", "ftp://a/", "https://u:p@push.example/", "https://[::1]/", "x"} {
		if err := (&UnifiedPush{}).Push(t.Context(), Target{Token: token}, Notice{}); !errors.Is(err, ErrGone) {
			t.Errorf("%s: error %v, want ErrGone", token, err)
		}
	}
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "127.0.0.1": false, "10.1.1.1": false, "100.64.1.1": false, "169.254.169.254": false,
		"::1": false, "::ffff:127.0.0.1": false, "fe80::1%eth0": false, "fd00::1": false, "0.0.0.0": false, "224.0.0.1": false,
		"255.255.255.255": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if public(netip.MustParseAddr(text)) != want {
			t.Errorf("%s: public is not %v", text, want)
		}
	}
}

func TestGorush(t *testing.T) {
	url, got := pushService(t, 200)
	g := &Gorush{URL: url + "/"}
	for _, test := range []struct {
		platform string
		n        Notice
		want     map[string]any
	}{
		{"android", Notice{Urgent: true}, map[string]any{"platform": 2.0, "priority": "high", "time_to_live": 86400.0}},
		{"android", Notice{}, map[string]any{"platform": 2.0, "priority": "normal"}},
		{"ios", Notice{Urgent: true, Visible: true}, map[string]any{"platform": 1.0, "priority": "high", "topic": "app", "push_type": "alert"}},
		{"ios", Notice{}, map[string]any{"platform": 1.0, "priority": "normal", "topic": "app", "push_type": "background"}},
	} {
		test.n.Data = map[string]string{"key": "k"}
		if err := g.Push(t.Context(), Target{Platform: test.platform, Token: "tok", Topic: "app"}, test.n); err != nil {
			t.Fatal(err)
		}
		r, body := got()
		var msg struct{ Notifications []map[string]any }
		if err := json.Unmarshal([]byte(body), &msg); err != nil || len(msg.Notifications) != 1 || r.URL.Path != "/api/push" {
			t.Fatalf("%s: %v %v", body, r.URL, err)
		}
		one := msg.Notifications[0]
		for key, want := range test.want {
			if one[key] != want {
				t.Errorf("%s %+v: %s is %v, want %v", test.platform, test.n, key, one[key], want)
			}
		}
		if tokens, ok := one["tokens"].([]any); !ok || len(tokens) != 1 || tokens[0] != "tok" {
			t.Errorf("tokens %v", one["tokens"])
		}
	}
	if err := g.Push(t.Context(), Target{Platform: "other"}, Notice{}); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
}

func TestPushers(t *testing.T) {
	a, rest := &failingPusher{}, &failingPusher{}
	p := Pushers{"a": a, "": rest}
	for _, platform := range []string{"a", "b", ""} {
		if err := p.Push(t.Context(), Target{Platform: platform}, Notice{}); err != nil {
			t.Error(err)
		}
	}
	if a.n != 1 || rest.n != 2 {
		t.Errorf("%d and %d pushes", a.n, rest.n)
	}
	if err := (Pushers{"a": a}).Push(t.Context(), Target{Platform: "b"}, Notice{}); !errors.Is(err, ErrGone) {
		t.Errorf("error %v, want ErrGone", err)
	}
}
