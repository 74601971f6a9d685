//lint:file-ignore SA1019 the wire format of OpenDHT is PKCS #1 v1.5

package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestDecryptVectors(t *testing.T) {
	for i, v := range readVectors(t).Encrypted {
		to := testIdentity(t, v.Recipient).Key
		plain, err := to.Decrypt(v.Cypher)
		if err != nil {
			t.Errorf("vector %d: %v", i, err)
			continue
		}
		// Inside is the map {"body": …, "sig": …} with a signature of 512 bytes by n0.
		const before, between, sigSize = "\x82\xa4body", "\xa3sig\xc5\x02\x00", 512
		end := len(plain) - sigSize - len(between)
		if end < 0 || !bytes.HasPrefix(plain, []byte(before)) || !bytes.HasPrefix(plain[end:], []byte(between)) {
			t.Errorf("vector %d: unexpected content %x", i, plain)
			continue
		}
		body, sig := plain[len(before):end], plain[len(plain)-sigSize:]
		owner := ownerOf(t, body)
		if owner.ID().String() != n0KeyID {
			t.Errorf("vector %d: owner is %v", i, owner)
		}
		if err := owner.Verify(body, sig); err != nil {
			t.Errorf("vector %d: %v", i, err)
		}
		id := to.Public().ID()
		if !bytes.Contains(body, append([]byte("\xa2to\xc4\x14"), id[:]...)) {
			t.Errorf("vector %d is not addressed to its recipient", i)
		}
		if _, err := testIdentity(t, "n0").Key.Decrypt(v.Cypher); err != ErrDecrypt {
			t.Errorf("vector %d with another key: %v", i, err)
		}
	}
}

func TestEncryptSizes(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem") // 2048 bits
	for _, c := range []struct{ plain, cypher int }{
		{0, 256}, {1, 256}, {245, 256}, {246, 530}, {1000, 1284},
	} {
		plain := bytes.Repeat([]byte{0xa5}, c.plain)
		cypher, err := k.Public().Encrypt(rand.Reader, plain)
		if err != nil {
			t.Fatal(err)
		}
		if len(cypher) != c.cypher {
			t.Errorf("%d bytes encrypt to %d, want %d", c.plain, len(cypher), c.cypher)
		}
		got, err := k.Decrypt(cypher)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: got %x, %v", c.plain, got, err)
		}
		other, err := k.Public().Encrypt(nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(other, cypher) {
			t.Error("encrypting twice gives the same bytes")
		}
	}
}

// Whatever is wrong with a message, the answer is the same error value.
func TestDecryptIsOpaque(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem")
	n := 256
	plain := make([]byte, 400)
	good, err := k.Public().Encrypt(nil, plain)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	// A sound RSA block that holds a key of the wrong size.
	short, err := rsa.EncryptPKCS1v15(rand.Reader, k.Public().key.(*rsa.PublicKey), make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	single := bytes.Clone(good[:n])
	single[n-1] ^= 1
	for name, b := range map[string][]byte{
		"empty":               nil,
		"short":               good[:n-1],
		"cut":                 good[:len(good)-1],
		"no room for a tag":   good[:n+gcmIVSize+gcmTagSize-1],
		"altered RSA block":   flip(n - 1),
		"altered IV":          flip(n),
		"altered text":        flip(n + gcmIVSize),
		"altered tag":         flip(len(good) - 1),
		"above the modulus":   append(bytes.Repeat([]byte{0xff}, n), good[n:]...),
		"zero RSA block":      append(make([]byte, n), good[n:]...),
		"AES key of 16 bytes": append(short, good[n:]...),
		"bad single block":    single,
		"single above":        bytes.Repeat([]byte{0xff}, n),
	} {
		if got, err := k.Decrypt(b); err != ErrDecrypt || got != nil {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

func TestEncryptNeedsRSA(t *testing.T) {
	k := testKey(t, "key-ec-sec1.pem")
	if _, err := k.Public().Encrypt(nil, []byte("x")); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("Encrypt: %v", err)
	}
	if _, err := k.Decrypt([]byte("x")); !errors.Is(err, ErrUnsupportedKey) {
		t.Errorf("Decrypt: %v", err)
	}
}

func TestEncryptWithoutRandomness(t *testing.T) {
	k := testKey(t, "key-pkcs8.pem").Public()
	broken := errors.New("no entropy")
	for _, r := range []io.Reader{iotest.ErrReader(broken), bytes.NewReader(make([]byte, 10))} {
		if out, err := k.Encrypt(r, make([]byte, 400)); err == nil || out != nil {
			t.Errorf("got %x, %v", out, err)
		}
	}
}

func FuzzDecrypt(f *testing.F) {
	n1, n2 := testIdentity(f, "n1").Key, testIdentity(f, "n2").Key
	for _, v := range readVectors(f).Encrypted {
		f.Add([]byte(v.Cypher))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, k := range []*PrivateKey{n1, n2} {
			if plain, err := k.Decrypt(b); err != nil && (err != ErrDecrypt || plain != nil) {
				t.Errorf("got %x, %v", plain, err)
			}
		}
	})
}
