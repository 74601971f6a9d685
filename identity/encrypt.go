//lint:file-ignore SA1019 the wire format of OpenDHT is PKCS #1 v1.5

package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
)

// OpenDHT's hybrid encryption. With an RSA modulus of n bytes:
//
//	plain ≤ n-11 bytes:  RSA(plain)                                    n bytes
//	longer:              RSA(key) ‖ iv ‖ AES-256-GCM(plain) ‖ tag      n+12+len+16 bytes
//
// where RSA is PKCS#1 v1.5 encryption and GCM has no associated data. PKCS#1 v1.5
// is what peers speak, so what makes it dangerous has to be kept away from here:
// see Decrypt.
const (
	pkcs1Overhead = 11
	aesKeySize    = 32 // the largest AES key that fits n-11 bytes, for every n we allow
	gcmIVSize     = 12
	gcmTagSize    = 16
)

// Encrypt encrypts plain to k in OpenDHT's hybrid format. Randomness comes from
// random, or from crypto/rand if that is nil; anything else is for tests, and
// even then the result need not be reproducible. Keys other than RSA give [ErrUnsupportedKey].
//
// Nothing in the result says who made it: sign first.
func (k *PublicKey) Encrypt(random io.Reader, plain []byte) ([]byte, error) {
	key, ok := k.key.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("encrypting without an RSA key: %w", ErrUnsupportedKey)
	}
	if random == nil {
		random = rand.Reader
	}
	if len(plain) <= key.Size()-pkcs1Overhead {
		out, err := rsa.EncryptPKCS1v15(random, key, plain)
		if err != nil {
			return nil, fmt.Errorf("encrypting to %s: %w", k.id, err)
		}
		return out, nil
	}

	var secret [aesKeySize + gcmIVSize]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return nil, fmt.Errorf("encrypting to %s: %w", k.id, err)
	}
	aesKey, iv := secret[:aesKeySize], secret[aesKeySize:]
	head, err := rsa.EncryptPKCS1v15(random, key, aesKey)
	if err != nil {
		return nil, fmt.Errorf("encrypting to %s: %w", k.id, err)
	}
	gcm, err := newGCM(aesKey)
	if err != nil {
		return nil, fmt.Errorf("encrypting to %s: %w", k.id, err)
	}
	out := make([]byte, 0, len(head)+gcmIVSize+len(plain)+gcmTagSize)
	out = append(out, head...)
	out = append(out, iv...)
	return gcm.Seal(out, iv, plain, nil), nil
}

// Decrypt decrypts what [PublicKey.Encrypt] made for k's public key. Every
// failure is the same [ErrDecrypt], except that keys other than RSA give
// [ErrUnsupportedKey].
//
// In the hybrid form a bad RSA block yields a random AES key and the failure
// comes from GCM, after the same work, so that a sender learns nothing about the
// padding (Bleichenbacher's attack). The single-block form has no such cover:
// callers must not let its sender see the difference between a failure here and
// a failure in what follows.
func (k *PrivateKey) Decrypt(b []byte) ([]byte, error) {
	key, ok := k.key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("decrypting without an RSA key: %w", ErrUnsupportedKey)
	}
	n := key.Size()
	if len(b) == n {
		plain, err := rsa.DecryptPKCS1v15(nil, key, b)
		if err != nil {
			return nil, ErrDecrypt
		}
		return plain, nil
	}
	if len(b) < n+gcmIVSize+gcmTagSize {
		return nil, ErrDecrypt
	}

	var aesKey [aesKeySize]byte
	rand.Read(aesKey[:]) // never fails
	// An error here means a block not below the modulus, which its sender knows
	// anyway; aesKey stays random and GCM fails.
	_ = rsa.DecryptPKCS1v15SessionKey(nil, key, b[:n], aesKey[:])
	gcm, err := newGCM(aesKey[:])
	if err != nil {
		return nil, ErrDecrypt
	}
	plain, err := gcm.Open(nil, b[n:n+gcmIVSize], b[n+gcmIVSize:], nil)
	if err != nil {
		return nil, ErrDecrypt
	}
	return plain, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
