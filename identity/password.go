package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// Encryption under a password, as OpenDHT's aesEncrypt does it:
//
//	salt(16) ‖ iv(12) ‖ AES-256-GCM ‖ tag(16)
//	key = SHA-256(Argon2i(password, salt, t=16, m=64 MiB, p=1, 32 bytes))
const (
	sealSaltSize  = 16
	argonPasses   = 16
	argonMemory   = 64 << 10 // KiB
	argonLanes    = 1
	argonKeySize  = 32
	sealOverhead  = sealSaltSize + gcmIVSize + gcmTagSize
	maxSealedSize = 64 << 20
)

// SealWithPassword encrypts plain under password. The result is 44 bytes longer.
// It takes about a second and 64 MiB of memory, which is the point.
func SealWithPassword(plain, password []byte) ([]byte, error) {
	if len(plain) > maxSealedSize-sealOverhead {
		return nil, fmt.Errorf("sealing %d bytes with a password: %w", len(plain), ErrTooLarge)
	}
	head := make([]byte, sealSaltSize+gcmIVSize, len(plain)+sealOverhead)
	rand.Read(head) // never fails
	gcm, err := newGCM(passwordKey(password, head[:sealSaltSize]))
	if err != nil {
		return nil, fmt.Errorf("sealing with a password: %w", err)
	}
	return gcm.Seal(head, head[sealSaltSize:], plain, nil), nil
}

// OpenWithPassword decrypts what [SealWithPassword] made, at most 64 MiB. A
// wrong password and an altered box cannot be told apart: both give [ErrPassword].
// It costs as much as sealing.
func OpenWithPassword(sealed, password []byte) ([]byte, error) {
	if len(sealed) > maxSealedSize {
		return nil, fmt.Errorf("opening %d bytes with a password: %w", len(sealed), ErrTooLarge)
	}
	if len(sealed) < sealOverhead {
		return nil, errors.New("opening with a password: truncated")
	}
	key := passwordKey(password, sealed[:sealSaltSize])
	return openWithKey(sealed[sealSaltSize:], key)
}

func openWithKey(box, key []byte) ([]byte, error) {
	gcm, err := newGCM(key)
	if err != nil {
		return nil, fmt.Errorf("opening with a password: %w", err)
	}
	plain, err := gcm.Open(nil, box[:gcmIVSize], box[gcmIVSize:], nil)
	if err != nil {
		return nil, fmt.Errorf("opening with a password: %w", ErrPassword)
	}
	return plain, nil
}

func passwordKey(password, salt []byte) []byte {
	raw := argon2.Key(password, salt, argonPasses, argonMemory, argonLanes, argonKeySize)
	key := sha256.Sum256(raw)
	return key[:]
}
