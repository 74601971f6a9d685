package identity

import (
	"bytes"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

// vectors is testdata/vectors.json: what real OpenDHT nodes sent.
type vectors struct {
	Signed    []struct{ Body, Signature hexBytes }
	Encrypted []struct {
		Recipient string
		Cypher    hexBytes
	}
	Certificate []struct{ Key, Data hexBytes }
}

type hexBytes []byte

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	var v vectors
	if err := json.Unmarshal(testdata(t, "vectors.json"), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Signed) == 0 || len(v.Encrypted) == 0 || len(v.Certificate) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testIdentity(t testing.TB, name string) *Identity {
	t.Helper()
	id, err := Load(filepath.Join("testdata", name+".crt"), filepath.Join("testdata", name+".pem"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func testKey(t testing.TB, name string) *PrivateKey {
	t.Helper()
	k, err := ParsePrivateKey(testdata(t, name), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// ownerOf cuts the owner's key out of the msgpack body of a signed value.
func ownerOf(t testing.TB, body []byte) *PublicKey {
	t.Helper()
	_, rest, ok := bytes.Cut(body, []byte("\xa5owner\xc5"))
	if !ok || len(rest) < 2 {
		t.Fatal("no owner in body")
	}
	n := int(rest[0])<<8 | int(rest[1])
	if len(rest) < 2+n {
		t.Fatal("owner cut short")
	}
	k, err := ParsePublicKey(rest[2 : 2+n])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// largestKey is an RSA key with modulus n and the costliest exponent.
func largestKey(t testing.TB, n []byte) *PublicKey {
	t.Helper()
	k, err := newPublicKey(&rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 1<<31 - 1})
	if err != nil {
		t.Fatal(err)
	}
	return k
}
