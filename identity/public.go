package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxPublicKeySize holds an RSA key of maxRSABits in PEM with room to spare.
	maxPublicKeySize = 8 << 10

	minRSABits = 1024 // crypto/rsa refuses anything shorter
	maxRSABits = 16384

	weakRSABits = 2048 // shorter keys are weak; GnuTLS's "medium" profile draws the same line

	publicKeyPEM = "PUBLIC KEY"
)

// PublicKey is an RSA or elliptic-curve public key together with its DER form,
// which is what it is compared and named by. The zero PublicKey is not valid;
// keys come from [ParsePublicKey], a [PrivateKey] or a [Certificate].
type PublicKey struct {
	der    []byte
	key    crypto.PublicKey // *rsa.PublicKey or *ecdsa.PublicKey
	id     KeyID
	longID LongKeyID
}

// ParsePublicKey reads a public key from a DER SubjectPublicKeyInfo, or from the
// first PEM block of b, which must be a PUBLIC KEY. It takes at most 8 KiB, RSA
// keys of 1024 to 16384 bits and EC keys on the NIST curves; other kinds of key
// give [ErrUnsupportedKey]. The input is not retained.
//
// A DER form that would not be written out again byte for byte is refused: one
// key has one id.
func ParsePublicKey(b []byte) (*PublicKey, error) {
	if len(b) > maxPublicKeySize {
		return nil, fmt.Errorf("parsing public key of %d bytes: %w", len(b), ErrTooLarge)
	}
	if i := bytes.Index(b, []byte("-----BEGIN")); i >= 0 && !isDER(b) {
		block, _ := pem.Decode(b[i:])
		if block == nil {
			return nil, errors.New("parsing public key: malformed PEM")
		}
		if block.Type != publicKeyPEM {
			return nil, fmt.Errorf("parsing public key: PEM block is a %.40q", block.Type)
		}
		b = block.Bytes
	}
	key, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		if isOAEP(b) {
			return nil, fmt.Errorf("parsing public key: RSA-OAEP: %w", ErrUnsupportedKey)
		}
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	k, err := newPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("parsing public key: %w", err)
	}
	if !bytes.Equal(k.der, b) {
		return nil, errors.New("parsing public key: not in its canonical DER form")
	}
	return k, nil
}

// isDER reports whether b starts like a DER SEQUENCE, as every key and
// certificate does. PEM text does not, short of a preamble that begins with "0".
func isDER(b []byte) bool { return len(b) > 0 && b[0] == 0x30 }

// isOAEP reports whether the SubjectPublicKeyInfo der names the algorithm
// id-RSAES-OAEP (RFC 8017 A.2.1), which crypto/x509 does not read.
func isOAEP(der []byte) bool {
	oaep := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07}
	in := cryptobyte.String(der)
	var spki, alg, oid cryptobyte.String
	return in.ReadASN1(&spki, cbasn1.SEQUENCE) && spki.ReadASN1(&alg, cbasn1.SEQUENCE) &&
		alg.ReadASN1(&oid, cbasn1.OBJECT_IDENTIFIER) && bytes.Equal(oid, oaep)
}

// newPublicKey checks that key is of a kind and size that we use, so that no
// later operation meets anything else.
func newPublicKey(key crypto.PublicKey) (*PublicKey, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSABits || n > maxRSABits {
			return nil, fmt.Errorf("RSA key of %d bits: %w", n, ErrUnsupportedKey)
		}
		if key.N.Bit(0) == 0 || key.E < 3 || key.E&1 == 0 {
			return nil, errors.New("RSA key with an even modulus or exponent")
		}
	case *ecdsa.PublicKey:
	default:
		return nil, fmt.Errorf("%T: %w", key, ErrUnsupportedKey)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return &PublicKey{der: der, key: key, id: sha1.Sum(der), longID: sha256.Sum256(der)}, nil
}

// DER returns the DER SubjectPublicKeyInfo of k. The caller owns the result.
func (k *PublicKey) DER() []byte { return bytes.Clone(k.der) }

// PEM returns k as one PEM block of type PUBLIC KEY.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: publicKeyPEM, Bytes: k.der})
}

// ID returns the short id of k.
func (k *PublicKey) ID() KeyID { return k.id }

// LongID returns the long id of k.
func (k *PublicKey) LongID() LongKeyID { return k.longID }

// String returns the short id of k in hexadecimal.
func (k *PublicKey) String() string { return k.id.String() }

// Equal reports whether k and other are the same key, by their whole DER form.
// Nil and zero keys equal nothing.
func (k *PublicKey) Equal(other *PublicKey) bool {
	return k != nil && other != nil && len(k.der) > 0 && bytes.Equal(k.der, other.der)
}

// IsRSA reports whether k is an RSA key: only those verify and encrypt.
func (k *PublicKey) IsRSA() bool {
	_, ok := k.key.(*rsa.PublicKey)
	return ok
}

// Bits returns the size of k's modulus or curve in bits, 0 for a zero key.
func (k *PublicKey) Bits() int {
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen()
	case *ecdsa.PublicKey:
		return key.Curve.Params().BitSize
	}
	return 0
}

// Weak reports whether k is too short to be trusted with anything of value: an
// RSA key under 2048 bits. Weak keys work, since old peers have them.
func (k *PublicKey) Weak() bool { return k.IsRSA() && k.Bits() < weakRSABits }

// Verify checks that sig is the RSA PKCS#1 v1.5 signature with SHA-512 of msg by
// k. It returns an error that wraps [ErrSignature] if not, and one that wraps
// [ErrUnsupportedKey] if k is not an RSA key: in OpenDHT no other signature counts.
func (k *PublicKey) Verify(msg, sig []byte) error {
	key, ok := k.key.(*rsa.PublicKey)
	if !ok {
		return fmt.Errorf("verifying a signature without an RSA key: %w", ErrUnsupportedKey)
	}
	sum := sha512.Sum512(msg)
	if err := rsa.VerifyPKCS1v15(key, crypto.SHA512, sum[:], sig); err != nil {
		return fmt.Errorf("verifying a signature by %s: %w", k.id, ErrSignature)
	}
	return nil
}
