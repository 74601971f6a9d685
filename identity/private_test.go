package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const testPassword = "pa55"

func TestParsePrivateKey(t *testing.T) {
	want := testKey(t, "key-pkcs8.pem").Public()
	for _, name := range []string{
		"key-pkcs8.pem", "key-pkcs1.pem", "key-gnutls-aes256.pem", "key-openssl-aes128-sha1.pem",
		"key-openssl-aes192-sha512.pem", "key-openssl-aes256-sha256.pem",
	} {
		text := testdata(t, name)
		block, _ := pem.Decode(text)
		for form, b := range map[string][]byte{"PEM": text, "DER": block.Bytes} {
			k, err := ParsePrivateKey(b, []byte(testPassword))
			if err != nil {
				t.Errorf("%s as %s: %v", name, form, err)
			} else if !k.Public().Equal(want) {
				t.Errorf("%s as %s is another key", name, form)
			}
			if strings.HasPrefix(name, "key-pkcs") {
				continue
			}
			for _, password := range []string{"", "pa56"} {
				if _, err := ParsePrivateKey(b, []byte(password)); !errors.Is(err, ErrPassword) {
					t.Errorf("%s as %s with password %q: %v", name, form, password, err)
				}
			}
		}
	}
}

func TestParseECPrivateKey(t *testing.T) {
	text := testdata(t, "key-ec-sec1.pem") // behind a block of curve parameters
	k, err := ParsePrivateKey(text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if k.Public().IsRSA() || k.Public().Bits() != 384 {
		t.Errorf("RSA %v, %d bits", k.Public().IsRSA(), k.Public().Bits())
	}
	if _, err := k.Sign([]byte("m")); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("Sign: %v", err)
	}
	if _, ok := k.Signer().(*ecdsa.PrivateKey); !ok {
		t.Errorf("Signer is %T", k.Signer())
	}
	again, err := k.PEM(nil)
	if err != nil {
		t.Fatal(err)
	}
	if k2, err := ParsePrivateKey(again, nil); err != nil || !k2.Equal(k) {
		t.Errorf("key does not read back: %v", err)
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	good := testdata(t, "key-pkcs8.pem")
	block, _ := pem.Decode(good)
	for name, c := range map[string]struct {
		in   []byte
		want error // nil: any
	}{
		"empty":            {nil, nil},
		"garbage":          {[]byte("hello"), nil},
		"cut DER":          {block.Bytes[:len(block.Bytes)-1], nil},
		"public key":       {testdata(t, "key-public.pem"), nil},
		"too large":        {make([]byte, maxPrivateKeySize+1), ErrTooLarge},
		"too large DER":    {append([]byte{0x30}, make([]byte, maxPrivateKeyDER)...), ErrTooLarge},
		"RFC 1421":         {testdata(t, "key-pkcs1-rfc1421.pem"), ErrUnsupportedKey},
		"triple DES":       {testdata(t, "key-openssl-des3.pem"), ErrUnsupportedKey},
		"Ed25519":          {testdata(t, "key-ed25519.pem"), ErrUnsupportedKey},
		"RSA of 768 bits":  {testdata(t, "key-rsa768.pem"), nil},
		"many iterations":  {encryptedWithIterations(t, maxIterations+1), ErrTooLarge},
		"zero iterations":  {encryptedWithIterations(t, 0), ErrTooLarge},
		"minus iterations": {encryptedWithIterations(t, -1), ErrTooLarge},
	} {
		k, err := ParsePrivateKey(c.in, []byte(testPassword))
		if err == nil || k != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want error %v", name, k, err, c.want)
		}
	}
}

// encryptedWithIterations is an encrypted key, with rubbish inside, that asks for
// n iterations of PBKDF2.
func encryptedWithIterations(t *testing.T, n int) []byte {
	t.Helper()
	kdf, err := algorithm(oidPBKDF2(), pbkdf2Params{Salt: []byte("saltsalt"), Iterations: n})
	if err != nil {
		t.Fatal(err)
	}
	b, err := sealedKey(kdf, make([]byte, 16), make([]byte, 64))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPrivateKeyPEM(t *testing.T) {
	text := testdata(t, "key-pkcs8.pem")
	k := testKey(t, "key-pkcs8.pem")
	plain, err := k.PEM(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(plain, text) {
		t.Errorf("plain PEM differs from OpenSSL's")
	}
	sealed, err := k.PEM([]byte(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(sealed, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")) {
		t.Errorf("got %.40s", sealed)
	}
	again, err := ParsePrivateKey(sealed, []byte(testPassword))
	if err != nil || !again.Equal(k) {
		t.Errorf("encrypted key does not read back: %v", err)
	}
	if _, err := ParsePrivateKey(sealed, []byte("other")); !errors.Is(err, ErrPassword) {
		t.Errorf("with another password: %v", err)
	}
}

func TestGenerateKey(t *testing.T) {
	k, err := GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	if k.Public().Bits() != 2048 {
		t.Errorf("%d bits", k.Public().Bits())
	}
	sig, err := k.Sign([]byte("m"))
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Public().Verify([]byte("m"), sig); err != nil {
		t.Error(err)
	}
	for _, bits := range []int{-1, 1, 1024, 2047, maxRSABits + 1} {
		if _, err := GenerateKey(bits); !errors.Is(err, ErrUnsupportedKey) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// A signature must be what a real node would have made: PKCS#1 v1.5 is
// deterministic, so it can be compared.
func TestSignVector(t *testing.T) {
	n0 := testIdentity(t, "n0").Key
	found := false
	for i, v := range readVectors(t).Signed {
		if !ownerOf(t, v.Body).Equal(n0.Public()) {
			continue
		}
		found = true
		sig, err := n0.Sign(v.Body)
		if err != nil || !bytes.Equal(sig, v.Signature) {
			t.Errorf("vector %d: another signature, %v", i, err)
		}
	}
	if !found {
		t.Error("no vector signed by n0")
	}
}

func TestPrivateKeyStaysSecret(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem")
	want := "private key of " + k.Public().ID().String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, k); got != want {
			t.Errorf("%s prints %q", verb, got)
		}
	}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("m", "key", k)
	log.Info("m", "identity", &Identity{Key: k})
	text := slog.New(slog.NewTextHandler(&out, nil))
	text.Info("m", "key", k)
	text.Info("m", "identity", Identity{Key: k})
	if n := strings.Count(out.String(), want); n != 3 || out.Len() > 1000 {
		t.Errorf("the log says %d times what it should: %s", n, out.String())
	}
	if got := new(PrivateKey).String(); got != "no private key" {
		t.Errorf("zero key prints %q", got)
	}
}

func TestPrivateKeyEqual(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem")
	var none *PrivateKey
	if !k.Equal(testKey(t, "key-pkcs1.pem")) {
		t.Error("the same key differs")
	}
	if k.Equal(testKey(t, "key-rsa1024.pem")) || k.Equal(nil) || none.Equal(nil) || (&PrivateKey{}).Equal(&PrivateKey{}) {
		t.Error("different or invalid keys are equal")
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	for _, name := range []string{
		"key-pkcs8.pem", "key-pkcs1.pem", "key-openssl-aes128-sha1.pem", "key-openssl-des3.pem",
		"key-openssl-aes192-sha512.pem", "key-pkcs1-rfc1421.pem", "key-ec-sec1.pem", "key-ed25519.pem", "key-rsa768.pem",
	} {
		b := testdata(f, name)
		f.Add(b)
		block, _ := pem.Decode(b)
		f.Add(block.Bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParsePrivateKey(b, []byte(testPassword))
		if err != nil {
			return
		}
		text, err := k.PEM(nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParsePrivateKey(text, nil); err != nil || !again.Equal(k) {
			t.Errorf("key does not read back: %v", err)
		}
	})
}

func BenchmarkVerifyLargestKey(b *testing.B) {
	// A key may be as large and have as awkward an exponent as its maker likes.
	n := make([]byte, maxRSABits/8)
	rand.Read(n)
	n[0] |= 0x80
	n[len(n)-1] |= 1
	k := largestKey(b, n)
	sig := make([]byte, len(n))
	sig[1] = 1
	for b.Loop() {
		if k.Verify(nil, sig) == nil {
			b.Fatal("verified")
		}
	}
}
