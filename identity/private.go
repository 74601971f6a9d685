package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
)

const (
	// maxPrivateKeySize holds an encrypted RSA key of maxRSABits in PEM twice over.
	maxPrivateKeySize = 32 << 10
	// maxPrivateKeyDER holds such a key in DER. Checking a key costs more than
	// linearly in its size, so this bound is tighter.
	maxPrivateKeyDER = 12 << 10

	defaultRSABits = 4096

	pkcs8PEM          = "PRIVATE KEY"
	encryptedPKCS8PEM = "ENCRYPTED PRIVATE KEY"
	pkcs1PEM          = "RSA PRIVATE KEY"
	ecPEM             = "EC PRIVATE KEY"
)

// PrivateKey is an RSA or elliptic-curve private key. The zero PrivateKey is not
// valid. It prints and logs as the id of its public key, never as the secret.
type PrivateKey struct {
	key    crypto.Signer // *rsa.PrivateKey or *ecdsa.PrivateKey
	public *PublicKey
}

// GenerateKey makes a new RSA key of the given number of bits, 2048 to 16384; 0
// means 4096. Large keys take seconds.
func GenerateKey(bits int) (*PrivateKey, error) {
	if bits == 0 {
		bits = defaultRSABits
	}
	if bits < weakRSABits || bits > maxRSABits {
		return nil, fmt.Errorf("generating an RSA key of %d bits: %w", bits, ErrUnsupportedKey)
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("generating an RSA key: %w", err)
	}
	return newPrivateKey(key)
}

// ParsePrivateKey reads a private key in PKCS#8, plain or encrypted (PBES2 with
// PBKDF2 and AES-CBC), PKCS#1 or SEC 1 form, from DER or from the first PEM block
// of b whose type is one of theirs. It takes at most 32 KiB. The password is
// ignored for a plain key; a wrong or missing one gives [ErrPassword]. The kinds
// and sizes of key are those of [ParsePublicKey]. Neither argument is retained.
func ParsePrivateKey(b, password []byte) (*PrivateKey, error) {
	if len(b) > maxPrivateKeySize {
		return nil, fmt.Errorf("parsing private key of %d bytes: %w", len(b), ErrTooLarge)
	}
	key, err := parsePrivateKey(b, password)
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	k, err := newPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("parsing private key: %w", err)
	}
	return k, nil
}

func parsePrivateKey(b, password []byte) (any, error) {
	if isDER(b) {
		if isEncryptedPKCS8(b) {
			return parseEncryptedPKCS8(b, password)
		}
		return parsePlainKey(b, x509PKCS8, x509PKCS1, x509EC)
	}
	// An EC key file may begin with a block of curve parameters: look past
	// blocks that are no keys.
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("neither DER nor a PEM private key")
		}
		switch {
		case block.Headers["DEK-Info"] != "":
			return nil, fmt.Errorf("PEM encryption of RFC 1421, convert it to PKCS#8: %w", ErrUnsupportedKey)
		case block.Type == pkcs8PEM:
			return parsePlainKey(block.Bytes, x509PKCS8)
		case block.Type == encryptedPKCS8PEM:
			return parseEncryptedPKCS8(block.Bytes, password)
		case block.Type == pkcs1PEM:
			return parsePlainKey(block.Bytes, x509PKCS1)
		case block.Type == ecPEM:
			return parsePlainKey(block.Bytes, x509EC)
		}
	}
}

func x509PKCS8(der []byte) (any, error) { return x509.ParsePKCS8PrivateKey(der) }
func x509PKCS1(der []byte) (any, error) { return x509.ParsePKCS1PrivateKey(der) }
func x509EC(der []byte) (any, error)    { return x509.ParseECPrivateKey(der) }

// parsePlainKey tries the parsers in turn. The error is the first one's.
func parsePlainKey(der []byte, parsers ...func([]byte) (any, error)) (any, error) {
	if len(der) > maxPrivateKeyDER {
		return nil, fmt.Errorf("%d bytes of DER: %w", len(der), ErrTooLarge)
	}
	var first error
	for _, parse := range parsers {
		key, err := parse(der)
		if err == nil {
			return key, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, first
}

func newPrivateKey(key any) (*PrivateKey, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return withPublic(key)
	case *ecdsa.PrivateKey:
		return withPublic(key)
	default:
		return nil, fmt.Errorf("%T: %w", key, ErrUnsupportedKey)
	}
}

func withPublic(key crypto.Signer) (*PrivateKey, error) {
	public, err := newPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &PrivateKey{key: key, public: public}, nil
}

// Public returns the public half of k.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// Signer returns the key for use with crypto/tls and crypto/x509. It is the
// secret itself.
func (k *PrivateKey) Signer() crypto.Signer { return k.key }

// Sign returns the RSA PKCS#1 v1.5 signature with SHA-512 of msg, which is as
// long as the modulus. Keys other than RSA give [ErrUnsupportedKey], because no
// peer would accept their signatures.
func (k *PrivateKey) Sign(msg []byte) ([]byte, error) {
	key, ok := k.key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("signing without an RSA key: %w", ErrUnsupportedKey)
	}
	sum := sha512.Sum512(msg)
	sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA512, sum[:])
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", k.public.id, err)
	}
	return sig, nil
}

// PEM returns k as one PKCS#8 PEM block: plain if password is empty, else
// encrypted with PBES2, PBKDF2-HMAC-SHA-256 and AES-256-CBC, as GnuTLS and
// OpenSSL read it. The result is secret.
func (k *PrivateKey) PEM(password []byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.key)
	if err != nil {
		return nil, fmt.Errorf("encoding private key: %w", err)
	}
	if len(password) == 0 {
		return pem.EncodeToMemory(&pem.Block{Type: pkcs8PEM, Bytes: der}), nil
	}
	sealed, err := encryptPKCS8(der, password)
	if err != nil {
		return nil, fmt.Errorf("encrypting private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: encryptedPKCS8PEM, Bytes: sealed}), nil
}

// String returns "private key of" and the short id: it is safe to print.
func (k *PrivateKey) String() string {
	if k == nil || k.public == nil {
		return "no private key"
	}
	return "private key of " + k.public.id.String()
}

// Format prints what String returns, whatever the verb and flags, so that not
// even %#v shows the secret.
func (k *PrivateKey) Format(f fmt.State, _ rune) {
	_, _ = f.Write([]byte(k.String()))
}

// LogValue makes a logged key appear as String.
func (k *PrivateKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// Equal reports whether k and other are the same key.
func (k *PrivateKey) Equal(other *PrivateKey) bool {
	return k != nil && other != nil && k.public != nil && k.public.Equal(other.public)
}
