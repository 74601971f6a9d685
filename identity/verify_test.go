package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestVerifyChainVectors(t *testing.T) {
	for _, name := range []string{"n0", "n1", "n2"} {
		leaf := testIdentity(t, name).Cert
		for _, c := range []struct {
			now time.Time
			ok  bool
		}{
			{leaf.NotBefore(), true},
			{leaf.NotAfter(), true},
			{leaf.NotBefore().Add(-time.Second), false},
			{leaf.NotAfter().Add(time.Second), false},
		} {
			if err := VerifyChain(leaf, c.now); (err == nil) != c.ok {
				t.Errorf("%s at %v: %v", name, c.now, err)
			}
		}
	}
	if err := VerifyChain(nil, time.Now()); err == nil {
		t.Error("nothing verifies")
	}
}

func TestVerifyChainForgedIssuer(t *testing.T) {
	// n1's authority has the same common name but another key and UID.
	n0, n1 := testIdentity(t, "n0").Cert, testIdentity(t, "n1").Cert
	forged := &Certificate{x509: n0.x509, public: n0.public, issuer: n1.issuer}
	if err := VerifyChain(forged, n0.NotBefore()); err == nil {
		t.Error("a chain under another authority verifies")
	}
	altered := bytes.Clone(n0.x509.Raw)
	altered[bytes.Index(altered, []byte("DHT Node1"))] = 'd'
	c, err := parseCertificate(altered, n0.issuer)
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyChain(c, n0.NotBefore()); !errors.Is(err, ErrSignature) {
		t.Errorf("altered certificate: %v", err)
	}
}

func TestVerifyChainRules(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	opts := Options{Now: now, Lifetime: time.Hour, Bits: 2048}
	key := testKey(t, "key-pkcs8.pem")
	chain := func(weak bool, change func(root, middle *x509.Certificate)) *Certificate {
		t.Helper()
		rootKey, middleKey, leafKey := testIdentity(t, "n0").Key, testIdentity(t, "n1").Key, key
		if weak {
			leafKey = testKey(t, "key-rsa1024.pem")
		}
		var above *Identity
		authority := func(name string, k *PrivateKey) *x509.Certificate {
			c, err := newTemplate(name, k.public, opts)
			if err != nil {
				t.Fatal(err)
			}
			c.BasicConstraintsValid, c.IsCA, c.KeyUsage = true, true, x509.KeyUsageCertSign
			return c
		}
		root, middle := authority("root", rootKey), authority("middle", middleKey)
		leaf, err := newTemplate("leaf", leafKey.public, opts)
		if err != nil {
			t.Fatal(err)
		}
		change(root, middle)
		for _, s := range []struct {
			k *PrivateKey
			c *x509.Certificate
		}{{rootKey, root}, {middleKey, middle}, {leafKey, leaf}} {
			if above, err = issue(s.k, s.c, above); err != nil {
				t.Fatal(err)
			}
		}
		return above.Cert
	}
	for _, c := range []struct {
		name   string
		weak   bool
		change func(root, middle *x509.Certificate)
		want   string
	}{
		{"sound", false, func(_, _ *x509.Certificate) {}, ""},
		{"no usage named", false, func(_, m *x509.Certificate) { m.KeyUsage = 0 }, ""},
		{"one authority allowed", false, func(r, _ *x509.Certificate) { r.MaxPathLen = 1 }, ""},
		{"no authority allowed", false, func(r, _ *x509.Certificate) { r.MaxPathLenZero = true }, "allows 0 authorities"},
		{"middle is no authority", false, func(_, m *x509.Certificate) { m.IsCA = false }, "not an authority"},
		{"middle has no constraints", false, func(_, m *x509.Certificate) { m.BasicConstraintsValid = false }, "not an authority"},
		{"middle may not sign", false, func(_, m *x509.Certificate) { m.KeyUsage = x509.KeyUsageCRLSign }, "may not sign"},
		{"root expired", false, func(r, _ *x509.Certificate) { r.NotAfter = now.Add(-1); r.NotBefore = now.Add(-time.Hour) }, "expired"},
		{"middle not yet valid", false, func(_, m *x509.Certificate) { m.NotBefore = now.Add(time.Minute) }, "not valid before"},
		{"unknown demand", false, func(_, m *x509.Certificate) {
			m.ExtraExtensions = append(m.ExtraExtensions, criticalExtension())
		}, "critical extension"},
		{"weak key", true, func(_, _ *x509.Certificate) {}, "1024 bits"},
	} {
		err := VerifyChain(chain(c.weak, c.change), now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
