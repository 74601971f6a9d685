package identity

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
)

func TestParseChainVector(t *testing.T) {
	text := testdata(t, "n0.crt")
	leaf, err := ParseChain(text)
	if err != nil {
		t.Fatal(err)
	}
	ca := leaf.Issuer()
	if ca == nil || ca.Issuer() != nil {
		t.Fatal("not a chain of two")
	}
	for _, c := range []struct{ what, got, want string }{
		{"leaf CN", leaf.CommonName(), "DHT Node"},
		{"leaf UID", leaf.UID(), n0KeyID},
		{"leaf key id", leaf.KeyID().String(), n0KeyID},
		{"leaf long key id", leaf.LongKeyID().String(), n0LongKeyID},
		{"leaf serial", leaf.Serial().Text(16), "52da5d876b6d39b0"},
		{"leaf start", leaf.NotBefore().UTC().String(), "2026-11-22 11:07:19 +0000 UTC"},
		{"leaf end", leaf.NotAfter().UTC().String(), "2036-11-19 11:07:19 +0000 UTC"},
		{"leaf", leaf.String(), `"DHT Node" ` + n0KeyID},
		{"CA CN", ca.CommonName(), "DHT Node CA"},
		{"CA UID", ca.UID(), ca.KeyID().String()},
	} {
		if c.got != c.want {
			t.Errorf("%s is %s, want %s", c.what, c.got, c.want)
		}
	}
	if leaf.IsCA() || !ca.IsCA() {
		t.Errorf("leaf is CA: %v, CA is CA: %v", leaf.IsCA(), ca.IsCA())
	}
	if !leaf.SameKey(testKey(t, "n0.pem").Public()) || leaf.SameKey(ca.PublicKey()) || leaf.SameKey(nil) {
		t.Error("SameKey is wrong")
	}
	if !bytes.Equal(leaf.PEM(), text) {
		t.Errorf("PEM came out as\n%s", leaf.PEM())
	}
	if leaf.Equal(ca) || !leaf.Equal(leaf) || leaf.Equal(nil) {
		t.Error("Equal is wrong")
	}

	fromDER, err := ParseChain(append(leaf.DER(), ca.DER()...))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(fromDER.PEM(), text) {
		t.Error("DER gave another chain")
	}
}

// A certificate value on the DHT begins with a msgpack header, and lies under
// one of two keys.
func TestParseChainFromDHT(t *testing.T) {
	for i, v := range readVectors(t).Certificate {
		c, err := ParseChain(v.Data)
		if err != nil {
			t.Errorf("vector %d: %v", i, err)
			continue
		}
		short, long := CertificateKeys(c.PublicKey())
		if !bytes.Equal(v.Key, short[:]) && !bytes.Equal(v.Key, long[:]) {
			t.Errorf("vector %d lies at %x, want %x or %x", i, v.Key, short, long)
		}
		if c.Issuer() == nil {
			t.Errorf("vector %d has no issuer", i)
		}
	}
}

func TestParseNegativeSerial(t *testing.T) {
	text := testdata(t, "negative-serial.crt")
	leaf, err := ParseChain(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := leaf.Serial().Text(16); got != "-2bb6f178a8b2f69c" {
		t.Errorf("serial is %s", got)
	}
	if !bytes.Equal(leaf.PEM(), text) {
		t.Error("the chain does not come out as it went in")
	}
	// The signature covers the true serial number, so the true bytes must be there.
	if err := VerifyChain(leaf, leaf.NotBefore()); err != nil {
		t.Error(err)
	}
	negative := 0
	for c := leaf; c != nil; c = c.Issuer() {
		if c.Serial().Sign() < 0 {
			negative++
		}
		if c.UID() != c.KeyID().String() {
			t.Errorf("%v has UID %s", c, c.UID())
		}
	}
	if negative != 2 {
		t.Errorf("%d negative serial numbers", negative)
	}
}

func TestParseChainRefuses(t *testing.T) {
	text := testdata(t, "n0.crt")
	block, ca := pem.Decode(text)
	der := block.Bytes
	badLeaf := bytes.Clone(text)
	badLeaf[60] = '!' // not base64
	unsupported := strings.Replace(string(text), "CERTIFICATE", "PRIVATE KEY", 4)
	for name, c := range map[string]struct {
		in   []byte
		want error // nil: any
	}{
		"empty":             {nil, nil},
		"garbage":           {[]byte("hello"), nil},
		"no certificate":    {[]byte(unsupported), nil},
		"cut DER":           {der[:len(der)-1], nil},
		"trailing DER":      {append(bytes.Clone(der), 0), nil},
		"empty sequence":    {[]byte{0x30, 0}, nil},
		"nested sequences":  {[]byte{0x30, 2, 0x30, 0}, nil},
		"empty serial":      {[]byte{0x30, 4, 0x30, 2, 2, 0}, nil},
		"negative, no more": {[]byte{0x30, 5, 0x30, 3, 2, 1, 0x80}, nil},
		"damaged leaf":      {badLeaf, nil},
		"cut issuer":        {text[:len(text)-40], nil},
		"17 of PEM":         {bytes.Repeat(ca, maxChainLen+1), ErrTooLarge},
		"17 of DER":         {bytes.Repeat(der, maxChainLen+1), ErrTooLarge},
		"64 KiB and one":    {make([]byte, maxChainSize+1), ErrTooLarge},
	} {
		got, err := ParseChain(c.in)
		if err == nil || got != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want error %v", name, got, err, c.want)
		}
	}
	if _, err := ParseChain(bytes.Repeat(ca, maxChainLen)); err != nil {
		t.Errorf("16 of PEM: %v", err)
	}
}

func TestParseChainSkipsOtherBlocks(t *testing.T) {
	text := append(testdata(t, "key-public.pem"), testdata(t, "n0.crt")...)
	c, err := ParseChain(append([]byte("Some words first.\n"), text...))
	if err != nil {
		t.Fatal(err)
	}
	if c.KeyID().String() != n0KeyID || c.Issuer() == nil {
		t.Errorf("got %v", c)
	}
}

func FuzzParseChain(f *testing.F) {
	for _, name := range []string{"n0.crt", "negative-serial.crt"} {
		text := testdata(f, name)
		f.Add(text)
		c, err := ParseChain(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(c.DER())
	}
	for _, v := range readVectors(f).Certificate {
		f.Add([]byte(v.Data))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseChain(b)
		if err != nil {
			return
		}
		again, err := ParseChain(c.PEM())
		if err != nil {
			t.Fatalf("chain does not read back: %v", err)
		}
		for a, c := again, c; c != nil; a, c = a.Issuer(), c.Issuer() {
			if !c.Equal(a) || c.Serial().Cmp(a.Serial()) != 0 {
				t.Fatal("chain reads back as another")
			}
		}
		_ = VerifyChain(c, c.NotBefore())
		_, _, _ = c.UID(), c.IsCA(), c.String()
	})
}
