package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"hash"
)

// Encrypted PKCS#8 (RFC 5958 EncryptedPrivateKeyInfo) with PBES2 (RFC 8018):
// PBKDF2 derives the key of AES-CBC. crypto/x509 has no such thing.

const (
	writeIterations = 600_000   // OWASP's advice for PBKDF2-HMAC-SHA-256
	maxIterations   = 4_000_000 // seconds of work: a file may not ask for more
	writeSaltSize   = 16
	maxSaltSize     = 1024
)

type encryptedKey struct {
	Algorithm pkix.AlgorithmIdentifier
	Data      []byte
}

type pbes2Params struct {
	KDF    pkix.AlgorithmIdentifier
	Cipher pkix.AlgorithmIdentifier
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int                      `asn1:"optional"`
	PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
}

func oidPBES2() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13} }

func oidPBKDF2() asn1.ObjectIdentifier     { return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12} }
func oidHMACSHA256() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 2, 840, 113549, 2, 9} }
func oidAES256CBC() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 42}
}

// unmarshalAll decodes b into v and refuses anything left over.
func unmarshalAll(b []byte, v any) error {
	rest, err := asn1.Unmarshal(b, v)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	return err
}

// isEncryptedPKCS8 tells an encrypted key from a plain one, which begins with a
// version number.
func isEncryptedPKCS8(der []byte) bool {
	var k encryptedKey
	return unmarshalAll(der, &k) == nil
}

func parseEncryptedPKCS8(der, password []byte) (any, error) {
	var k encryptedKey
	if err := unmarshalAll(der, &k); err != nil {
		return nil, fmt.Errorf("encrypted PKCS#8: %w", err)
	}
	if len(password) == 0 {
		return nil, ErrPassword
	}
	plain, err := decryptPBES2(k, password)
	if err != nil {
		return nil, fmt.Errorf("encrypted PKCS#8: %w", err)
	}
	key, err := parsePlainKey(plain, x509PKCS8)
	if err != nil {
		// One wrong password in 256 or so leaves padding that looks right, so
		// garbage inside means the same as bad padding.
		return nil, ErrPassword
	}
	return key, nil
}

func decryptPBES2(k encryptedKey, password []byte) ([]byte, error) {
	if !k.Algorithm.Algorithm.Equal(oidPBES2()) {
		return nil, fmt.Errorf("encryption scheme %v: %w", k.Algorithm.Algorithm, ErrUnsupportedKey)
	}
	var p pbes2Params
	if err := unmarshalAll(k.Algorithm.Parameters.FullBytes, &p); err != nil {
		return nil, fmt.Errorf("PBES2: %w", err)
	}
	keySize, err := aesCBCKeySize(p.Cipher.Algorithm)
	if err != nil {
		return nil, err
	}
	var iv []byte
	if err := unmarshalAll(p.Cipher.Parameters.FullBytes, &iv); err != nil {
		return nil, fmt.Errorf("AES-CBC parameters: %w", err)
	}
	if len(iv) != aes.BlockSize || len(k.Data) == 0 || len(k.Data)%aes.BlockSize != 0 {
		return nil, errors.New("AES-CBC: wrong IV or data length")
	}
	key, err := derivePBKDF2(p.KDF, password, keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	plain := make([]byte, len(k.Data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, k.Data)
	return unpad(plain)
}

func aesCBCKeySize(oid asn1.ObjectIdentifier) (int, error) {
	// id-aes128-CBC, id-aes192-CBC and id-aes256-CBC differ in the last arc.
	if want := oidAES256CBC(); len(oid) == len(want) && oid[:len(oid)-1].Equal(want[:len(want)-1]) {
		switch oid[len(oid)-1] {
		case 2:
			return 16, nil
		case 22:
			return 24, nil
		case 42:
			return 32, nil
		}
	}
	return 0, fmt.Errorf("cipher %v: %w", oid, ErrUnsupportedKey)
}

func derivePBKDF2(kdf pkix.AlgorithmIdentifier, password []byte, keySize int) ([]byte, error) {
	if !kdf.Algorithm.Equal(oidPBKDF2()) {
		return nil, fmt.Errorf("key derivation %v: %w", kdf.Algorithm, ErrUnsupportedKey)
	}
	var p pbkdf2Params
	if err := unmarshalAll(kdf.Parameters.FullBytes, &p); err != nil {
		return nil, fmt.Errorf("PBKDF2 parameters: %w", err)
	}
	if p.Iterations < 1 || p.Iterations > maxIterations || len(p.Salt) > maxSaltSize {
		return nil, fmt.Errorf("PBKDF2 with %d iterations and a salt of %d bytes: %w", p.Iterations, len(p.Salt), ErrTooLarge)
	}
	if p.KeyLength != 0 && p.KeyLength != keySize {
		return nil, fmt.Errorf("PBKDF2: key length %d, the cipher needs %d", p.KeyLength, keySize)
	}
	h, err := prfHash(p.PRF.Algorithm)
	if err != nil {
		return nil, err
	}
	return pbkdf2.Key(h, string(password), p.Salt, p.Iterations, keySize)
}

// prfHash returns the hash of an HMAC named by RFC 8018 B.1. HMAC-SHA-1 is the
// default for a missing one.
func prfHash(oid asn1.ObjectIdentifier) (func() hash.Hash, error) {
	if len(oid) == 0 {
		return sha1.New, nil
	}
	if want := oidHMACSHA256(); len(oid) == len(want) && oid[:len(oid)-1].Equal(want[:len(want)-1]) {
		switch oid[len(oid)-1] {
		case 7:
			return sha1.New, nil
		case 9:
			return sha256.New, nil
		case 10:
			return sha512.New384, nil
		case 11:
			return sha512.New, nil
		}
	}
	return nil, fmt.Errorf("PBKDF2 function %v: %w", oid, ErrUnsupportedKey)
}

// unpad removes PKCS#7 padding. Its timing reveals where the padding is wrong:
// there is no oracle in a key that the owner of the password opens.
func unpad(b []byte) ([]byte, error) {
	n := int(b[len(b)-1])
	if n < 1 || n > aes.BlockSize || !bytes.HasSuffix(b, bytes.Repeat([]byte{byte(n)}, n)) {
		return nil, ErrPassword
	}
	return b[:len(b)-n], nil
}

func encryptPKCS8(der, password []byte) ([]byte, error) {
	salt, iv := make([]byte, writeSaltSize), make([]byte, aes.BlockSize)
	rand.Read(salt) // never fails
	rand.Read(iv)
	key, err := pbkdf2.Key(sha256.New, string(password), salt, writeIterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	n := aes.BlockSize - len(der)%aes.BlockSize
	data := append(bytes.Clone(der), bytes.Repeat([]byte{byte(n)}, n)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(data, data)

	kdf, err := algorithm(oidPBKDF2(), pbkdf2Params{
		Salt:       salt,
		Iterations: writeIterations,
		PRF:        pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256(), Parameters: asn1.NullRawValue},
	})
	if err != nil {
		return nil, err
	}
	return sealedKey(kdf, iv, data)
}

// sealedKey encodes an EncryptedPrivateKeyInfo around data, the AES-256-CBC
// cipher text.
func sealedKey(kdf pkix.AlgorithmIdentifier, iv, data []byte) ([]byte, error) {
	enc, err := algorithm(oidAES256CBC(), iv)
	if err != nil {
		return nil, err
	}
	alg, err := algorithm(oidPBES2(), pbes2Params{KDF: kdf, Cipher: enc})
	if err != nil {
		return nil, err
	}
	return asn1.Marshal(encryptedKey{Algorithm: alg, Data: data})
}

func algorithm(oid asn1.ObjectIdentifier, params any) (pkix.AlgorithmIdentifier, error) {
	der, err := asn1.Marshal(params)
	return pkix.AlgorithmIdentifier{Algorithm: oid, Parameters: asn1.RawValue{FullBytes: der}}, err
}
