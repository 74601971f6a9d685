package identity

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"testing"
)

func TestParsePublicKey(t *testing.T) {
	text := testdata(t, "key-public.pem")
	k, err := ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.PEM(), text) {
		t.Errorf("PEM came out as\n%s", k.PEM())
	}
	if k.Bits() != 2048 || !k.IsRSA() || k.Weak() {
		t.Errorf("bits %d, RSA %v, weak %v", k.Bits(), k.IsRSA(), k.Weak())
	}
	again, err := ParsePublicKey(k.DER())
	if err != nil {
		t.Fatal(err)
	}
	if !again.Equal(k) || again.ID() != k.ID() || again.LongID() != k.LongID() {
		t.Error("DER and PEM gave different keys")
	}
	if !testKey(t, "key-pkcs8.pem").Public().Equal(k) {
		t.Error("the private key has another public key")
	}

	k.DER()[20] ^= 1
	if !again.Equal(k) {
		t.Error("DER gave the key's own memory away")
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	good := testdata(t, "key-public.pem")
	block, _ := pem.Decode(good)
	der := block.Bytes
	evenModulus := bytes.Clone(der)
	evenModulus[len(der)-6] &^= 1 // the modulus ends before the five bytes of the exponent
	evenExponent := bytes.Clone(der)
	evenExponent[len(der)-1] = 0
	for name, c := range map[string]struct {
		in   []byte
		want error // nil: any
	}{
		"empty":         {nil, nil},
		"garbage":       {[]byte("hello"), nil},
		"cut short":     {der[:len(der)-1], nil},
		"trailing":      {append(bytes.Clone(der), 0), nil},
		"cut PEM":       {good[:len(good)-20], nil},
		"private key":   {testdata(t, "key-pkcs8.pem"), nil},
		"even modulus":  {evenModulus, nil},
		"even exponent": {evenExponent, nil},
		"too large":     {make([]byte, maxPublicKeySize+1), ErrTooLarge},
		"768 bits":      {testdata(t, "public-rsa768.pem"), ErrUnsupportedKey},
		"RSA-OAEP":      {testdata(t, "public-rsa-oaep.pem"), ErrUnsupportedKey},
	} {
		k, err := ParsePublicKey(c.in)
		if err == nil || k != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want error %v", name, k, err, c.want)
		}
	}
}

func TestWeakKeyIsFlagged(t *testing.T) {
	k := testKey(t, "key-rsa1024.pem")
	if !k.Public().Weak() || k.Public().Bits() != 1024 {
		t.Errorf("weak %v, %d bits", k.Public().Weak(), k.Public().Bits())
	}
	sig, err := k.Sign([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Public().Verify([]byte("m"), sig); err != nil {
		t.Error(err)
	}
}

func TestPublicKeyEqual(t *testing.T) {
	k, other := testKey(t, "key-pkcs8.pem").Public(), testKey(t, "key-rsa1024.pem").Public()
	var none *PublicKey
	if !k.Equal(k) {
		t.Error("key differs from itself")
	}
	if k.Equal(other) || k.Equal(nil) || none.Equal(k) || none.Equal(nil) || k.Equal(&PublicKey{}) || (&PublicKey{}).Equal(&PublicKey{}) {
		t.Error("different or invalid keys are equal")
	}
}

func TestZeroPublicKey(t *testing.T) {
	var k PublicKey
	if err := k.Verify(nil, nil); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("Verify: %v", err)
	}
	if _, err := k.Encrypt(nil, nil); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("Encrypt: %v", err)
	}
	if k.Bits() != 0 || k.IsRSA() || !k.ID().IsZero() {
		t.Error("zero key looks like a key")
	}
}

func TestVerifyVectors(t *testing.T) {
	for i, v := range readVectors(t).Signed {
		owner := ownerOf(t, v.Body)
		if err := owner.Verify(v.Body, v.Signature); err != nil {
			t.Errorf("vector %d: %v", i, err)
		}
		for _, at := range []int{0, len(v.Body) - 1} {
			body := bytes.Clone(v.Body)
			body[at] ^= 1
			if err := owner.Verify(body, v.Signature); !errors.Is(err, ErrSignature) {
				t.Errorf("vector %d altered at %d: %v", i, at, err)
			}
		}
	}
}

func TestVerifyTakesOneAlgorithmOnly(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem")
	msg := []byte("message")
	sum256, sum512 := sha256.Sum256(msg), sha512.Sum512(msg)
	key := k.key.(*rsa.PrivateKey)
	sha256Sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum256[:])
	if err != nil {
		t.Fatal(err)
	}
	pss, err := rsa.SignPSS(rand.Reader, key, crypto.SHA512, sum512[:], nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := k.Sign(msg)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Public().Verify(msg, good); err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string][]byte{
		"SHA-256": sha256Sig, "PSS": pss, "empty": nil,
		"short": good[1:], "long": append([]byte{0}, good...),
	} {
		if err := k.Public().Verify(msg, sig); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ec := testKey(t, "key-ec-sec1.pem")
	ecSig, err := ec.Signer().Sign(rand.Reader, sum512[:], crypto.SHA512)
	if err != nil {
		t.Fatal(err)
	}
	if err := ec.Public().Verify(msg, ecSig); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("EC: %v", err)
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, name := range []string{"key-public.pem", "public-rsa768.pem", "public-rsa-oaep.pem"} {
		b := testdata(f, name)
		f.Add(b)
		block, _ := pem.Decode(b)
		f.Add(block.Bytes)
	}
	for _, v := range readVectors(f).Signed {
		f.Add(ownerOf(f, v.Body).DER())
	}
	f.Add(testKey(f, "key-ec-sec1.pem").Public().DER())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePublicKey(b)
		if err != nil {
			return
		}
		for _, form := range [][]byte{k.DER(), k.PEM()} {
			again, err := ParsePublicKey(form)
			if err != nil || !again.Equal(k) {
				t.Errorf("key does not read back: %v", err)
			}
		}
		if err := k.Verify(b, make([]byte, (k.Bits()+7)/8)); err == nil {
			t.Error("an empty signature verifies")
		}
	})
}
