package identity

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What OpenDHT 4.3 gives for the password "pa55".
const (
	sealedSalt  = "000102030405060708090a0b0c0d0e0f"
	sealedKey32 = "1225ce21e888aa17d8b025f53e6414b9206e94f0339ac2c2d52325e4d46789c7"
	sealedBox   = "679fa3092e602833a0de9fc9" +
		"e25360117415db70951cc1ba4a4f3a7bb0833f47" +
		"80f74fb59faeb3d6afc4b40a20f7ae37"
	sealedText = "hello password world"
)

func TestPasswordVector(t *testing.T) {
	t.Parallel() // deriving a key takes seconds under the race detector
	plain, err := OpenWithPassword(unhex(t, sealedSalt+sealedBox), []byte(testPassword))
	if err != nil || string(plain) != sealedText {
		t.Errorf("got %q, %v", plain, err)
	}
}

func TestSealWithPassword(t *testing.T) {
	t.Parallel()
	plain := []byte("text")
	sealed, err := SealWithPassword(plain, []byte(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != len(plain)+44 {
		t.Errorf("%d bytes", len(sealed))
	}
	if got, err := OpenWithPassword(sealed, []byte(testPassword)); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestOpenWithPasswordRefuses(t *testing.T) {
	if _, err := OpenWithPassword(make([]byte, sealOverhead-1), nil); err == nil {
		t.Error("opened a box that is too short")
	}
	if _, err := OpenWithPassword(make([]byte, maxSealedSize+1), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	if _, err := SealWithPassword(make([]byte, maxSealedSize), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
	key, box := unhex(t, sealedKey32), unhex(t, sealedBox)
	if plain, err := openWithKey(box, key); err != nil || string(plain) != sealedText {
		t.Errorf("unaltered: %q, %v", plain, err)
	}
	if plain, err := openWithKey(box, make([]byte, 32)); !errors.Is(err, ErrPassword) || plain != nil {
		t.Errorf("with another key: %q, %v", plain, err)
	}
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := openWithKey(bad, key); !errors.Is(err, ErrPassword) {
			t.Errorf("altered at %d: %v", i, err)
		}
	}
}

// The slow derivation of the key would leave a fuzzer one try a second, so it
// starts behind it.
func FuzzOpenWithKey(f *testing.F) {
	key := unhex(f, sealedKey32)
	f.Add(unhex(f, sealedBox))
	f.Add(make([]byte, sealOverhead-sealSaltSize))
	f.Fuzz(func(t *testing.T, box []byte) {
		if len(box) < sealOverhead-sealSaltSize {
			return // refused before a key is derived
		}
		if plain, err := openWithKey(box, key); err == nil && string(plain) != sealedText {
			t.Errorf("opened to %q", plain)
		}
	})
}
