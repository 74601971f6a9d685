package identity

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"strings"
	"testing"
	"time"
)

func criticalExtension() pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, Critical: true, Value: []byte{5, 0}}
}

func TestNew(t *testing.T) {
	now := time.Date(2027, 3, 4, 5, 6, 7, 0, time.UTC)
	id, err := New("DHT Node", Options{Bits: 2048, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	leaf, ca := id.Cert, id.Cert.Issuer()
	if ca == nil || ca.Issuer() != nil {
		t.Fatal("not a chain of two")
	}
	if !leaf.SameKey(id.Key.Public()) {
		t.Error("certificate is for another key")
	}
	if leaf.CommonName() != "DHT Node" || ca.CommonName() != "DHT Node CA" {
		t.Errorf("names are %q and %q", leaf.CommonName(), ca.CommonName())
	}
	if ca.PublicKey().IsRSA() || ca.PublicKey().Bits() != 384 || ca.x509.SignatureAlgorithm != x509.ECDSAWithSHA384 {
		t.Errorf("authority has %d bits, RSA %v, signs with %v", ca.PublicKey().Bits(), ca.PublicKey().IsRSA(), ca.x509.SignatureAlgorithm)
	}
	if leaf.IsCA() || !ca.IsCA() {
		t.Error("wrong one is the authority")
	}
	if got, want := leaf.x509.KeyUsage, x509.KeyUsageDigitalSignature|x509.KeyUsageDataEncipherment; got != want {
		t.Errorf("leaf usage %b, want %b", got, want)
	}
	if got, want := ca.x509.KeyUsage, x509.KeyUsageCertSign|x509.KeyUsageCRLSign; got != want {
		t.Errorf("authority usage %b, want %b", got, want)
	}
	for _, c := range []*Certificate{leaf, ca} {
		keyID := c.KeyID()
		if c.UID() != keyID.String() || !bytes.Equal(c.x509.SubjectKeyId, keyID[:]) {
			t.Errorf("%v: UID %s, subject key id %x", c, c.UID(), c.x509.SubjectKeyId)
		}
		if !c.NotBefore().Equal(now) || !c.NotAfter().Equal(now.Add(3650*24*time.Hour)) {
			t.Errorf("%v: valid %v to %v", c, c.NotBefore(), c.NotAfter())
		}
		if s := c.Serial(); s.Sign() <= 0 || s.BitLen() != 63 {
			t.Errorf("%v: serial %v", c, s)
		}
	}
	if err := VerifyChain(leaf, now); err != nil {
		t.Error(err)
	}
	// The names are laid out as a real node's, but for the id.
	vector := testIdentity(t, "n0").Cert.x509.RawSubject
	got := bytes.Replace(leaf.x509.RawSubject, []byte(leaf.UID()), []byte(n0KeyID), 1)
	if !bytes.Equal(got, vector) {
		t.Errorf("subject is %x, want %x", got, vector)
	}
}

func TestNewUnderIssuer(t *testing.T) {
	ca, err := NewCA("authority", Options{})
	if err != nil {
		t.Fatal(err)
	}
	id, err := New("leaf", Options{Bits: 2048, Issuer: ca})
	if err != nil {
		t.Fatal(err)
	}
	if !id.Cert.Issuer().Equal(ca.Cert) {
		t.Error("issued by somebody else")
	}
	if err := VerifyChain(id.Cert, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := New("leaf of leaf", Options{Bits: 2048, Issuer: id}); err == nil {
		t.Error("a leaf can issue")
	}
}

func TestNewRefuses(t *testing.T) {
	long := strings.Repeat("x", maxNameLen+1)
	for name, c := range map[string]struct {
		name string
		opts Options
	}{
		"no name":           {"", Options{Bits: 2048}},
		"long name":         {long, Options{Bits: 2048}},
		"bad UTF-8":         {"\xff", Options{Bits: 2048}},
		"small key":         {"n", Options{Bits: 512}},
		"negative lifetime": {"n", Options{Bits: 2048, Lifetime: -1}},
	} {
		if id, err := New(c.name, c.opts); err == nil || id != nil {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
	}
}
