package identity

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const (
	// maxChainSize is the largest value that the DHT stores.
	maxChainSize = 64 << 10
	maxChainLen  = 16

	certificatePEM   = "CERTIFICATE"
	certificateBegin = "-----BEGIN CERTIFICATE-----"
)

func oidUID() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1} // RFC 4519 2.39
}

// Certificate is an X.509 certificate and, behind [Certificate.Issuer], the rest
// of the chain that it came with. Nothing about it has been verified beyond its
// syntax. The zero Certificate is not valid.
type Certificate struct {
	x509   *x509.Certificate
	public *PublicKey
	issuer *Certificate
}

// ParseChain reads a chain of 1 to 16 certificates, leaf first, of at most 64 KiB:
// concatenated DER, or PEM text in which other blocks and anything before the
// first block are skipped. It returns the leaf. The order is taken as it is, and
// whether one certificate really issued the other is for [VerifyChain] to say.
// Certificates with keys other than RSA or EC give [ErrUnsupportedKey]. The
// input is not retained.
func ParseChain(b []byte) (*Certificate, error) {
	if len(b) > maxChainSize {
		return nil, fmt.Errorf("parsing certificate chain of %d bytes: %w", len(b), ErrTooLarge)
	}
	ders, err := splitChain(b)
	if err != nil {
		return nil, fmt.Errorf("parsing certificate chain: %w", err)
	}
	var chain *Certificate
	for i := len(ders) - 1; i >= 0; i-- {
		if chain, err = parseCertificate(ders[i], chain); err != nil {
			return nil, fmt.Errorf("parsing certificate %d of %d: %w", i+1, len(ders), err)
		}
	}
	return chain, nil
}

// splitChain returns the DER certificates in b, at least one.
func splitChain(b []byte) ([][]byte, error) {
	var ders [][]byte
	if isDER(b) {
		for in := cryptobyte.String(b); !in.Empty(); {
			var der cryptobyte.String
			if len(ders) == maxChainLen {
				return nil, fmt.Errorf("more than %d certificates: %w", maxChainLen, ErrTooLarge)
			}
			if !in.ReadASN1Element(&der, cbasn1.SEQUENCE) {
				return nil, errors.New("malformed DER")
			}
			ders = append(ders, bytes.Clone(der))
		}
		return ders, nil
	}
	// On the DHT the text stands behind a msgpack header, where pem.Decode,
	// which wants a block to begin a line, would not see it.
	rest := b[max(0, bytes.Index(b, []byte("-----BEGIN"))):]
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != certificatePEM {
			continue
		}
		if len(ders) == maxChainLen {
			return nil, fmt.Errorf("more than %d certificates: %w", maxChainLen, ErrTooLarge)
		}
		ders = append(ders, block.Bytes)
	}
	if len(ders) == 0 {
		return nil, errors.New("no certificate found")
	}
	// pem.Decode passes over what it cannot read. With a damaged leaf passed
	// over, its issuer would be taken for the leaf.
	if bytes.Count(b, []byte(certificateBegin)) != len(ders) {
		return nil, errors.New("malformed PEM")
	}
	return ders, nil
}

func parseCertificate(der []byte, issuer *Certificate) (*Certificate, error) {
	cert, err := parseX509(der)
	if err != nil {
		return nil, err
	}
	public, err := newPublicKey(cert.PublicKey)
	if err != nil {
		return nil, err
	}
	// A key written in an unusual way would have another id for its author than for us.
	if !bytes.Equal(public.der, cert.RawSubjectPublicKeyInfo) {
		return nil, errors.New("public key not in its canonical DER form")
	}
	return &Certificate{x509: cert, public: public, issuer: issuer}, nil
}

// parseX509 is x509.ParseCertificate for negative serial numbers too. OpenDHT
// 2.4 writes eight random bytes as they come, so half of the certificates that
// it makes have one, and crypto/x509 reads those only under a GODEBUG setting
// that a library cannot count on. So the parser gets a copy whose serial number
// is made positive in place, and the result gets the true bytes back; they are
// what the signature covers.
func parseX509(der []byte) (*x509.Certificate, error) {
	tbs, serial, ok := findSerial(der)
	if !ok {
		return nil, errors.New("malformed certificate")
	}
	if der[serial.start]&0x80 == 0 {
		return x509.ParseCertificate(der)
	}
	patched := bytes.Clone(der)
	patched[serial.start] = 1 // any value of 1 to 127 keeps the encoding minimal
	cert, err := x509.ParseCertificate(patched)
	if err != nil {
		return nil, err
	}
	cert.Raw = bytes.Clone(der)
	cert.RawTBSCertificate = cert.Raw[tbs.start:tbs.end]
	// Two's complement: the value of the bits, less 2^n for the sign.
	digits := cert.Raw[serial.start:serial.end]
	n := new(big.Int).SetBytes(digits)
	cert.SerialNumber = n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(digits))))
	return cert, nil
}

type span struct{ start, end int }

// findSerial returns where in the certificate der its TBSCertificate lies, header
// included, and the digits of the serial number, of which there is at least one.
func findSerial(der []byte) (tbs, serial span, ok bool) {
	in := cryptobyte.String(der)
	var cert, body, element, digits cryptobyte.String
	if !in.ReadASN1(&cert, cbasn1.SEQUENCE) || !in.Empty() {
		return
	}
	tbs.start = len(der) - len(cert)
	if !cert.ReadASN1Element(&element, cbasn1.SEQUENCE) || !element.ReadASN1(&body, cbasn1.SEQUENCE) {
		return
	}
	tbs.end = len(der) - len(cert)
	if !body.SkipOptionalASN1(cbasn1.Tag(0).Constructed().ContextSpecific()) ||
		!body.ReadASN1(&digits, cbasn1.INTEGER) || digits.Empty() {
		return
	}
	serial.end = tbs.end - len(body)
	serial.start = serial.end - len(digits)
	return tbs, serial, true
}

// Issuer returns the next certificate up the chain, nil at the top.
func (c *Certificate) Issuer() *Certificate { return c.issuer }

// PublicKey returns the certified key.
func (c *Certificate) PublicKey() *PublicKey { return c.public }

// KeyID returns the short id of the certified key.
func (c *Certificate) KeyID() KeyID { return c.public.id }

// LongKeyID returns the long id of the certified key.
func (c *Certificate) LongKeyID() LongKeyID { return c.public.longID }

// SameKey reports whether c certifies exactly the key k, by the whole key and not
// by an id that somebody may have found a collision for.
func (c *Certificate) SameKey(k *PublicKey) bool { return c.public.Equal(k) }

// Equal reports whether c and other are the same certificate byte for byte. Their
// issuers are not compared.
func (c *Certificate) Equal(other *Certificate) bool {
	return c != nil && other != nil && bytes.Equal(c.x509.Raw, other.x509.Raw)
}

// CommonName returns the subject's CN, which anybody may have chosen.
func (c *Certificate) CommonName() string { return c.x509.Subject.CommonName }

// UID returns the subject's UID, "" if there is none. By custom it is the short
// id in hexadecimal, but that is only a claim: [Certificate.KeyID] is the truth.
func (c *Certificate) UID() string {
	for _, name := range c.x509.Subject.Names {
		if s, ok := name.Value.(string); ok && name.Type.Equal(oidUID()) {
			return s
		}
	}
	return ""
}

// IsCA reports whether the certificate has basic constraints that make it an authority.
func (c *Certificate) IsCA() bool { return c.x509.BasicConstraintsValid && c.x509.IsCA }

// Serial returns the serial number, which may be negative. The caller owns the result.
func (c *Certificate) Serial() *big.Int { return new(big.Int).Set(c.x509.SerialNumber) }

// NotBefore returns the time from which the certificate is valid.
func (c *Certificate) NotBefore() time.Time { return c.x509.NotBefore }

// NotAfter returns the last moment at which the certificate is valid.
func (c *Certificate) NotAfter() time.Time { return c.x509.NotAfter }

// DER returns this one certificate. The caller owns the result.
func (c *Certificate) DER() []byte { return bytes.Clone(c.x509.Raw) }

// PEM returns the whole chain as PEM, leaf first: the form in which OpenDHT
// publishes and stores certificates.
func (c *Certificate) PEM() []byte {
	var out []byte
	for ; c != nil; c = c.issuer {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: certificatePEM, Bytes: c.x509.Raw})...)
	}
	return out
}

// String returns the common name and the short id of the certified key.
func (c *Certificate) String() string { return fmt.Sprintf("%q %s", c.CommonName(), c.KeyID()) }
