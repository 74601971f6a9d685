package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"
)

const (
	maxNameLen      = 64 // ub-common-name, RFC 5280 A.1
	defaultLifetime = 10 * 365 * 24 * time.Hour
)

// Options says how [New] and [NewCA] make an identity. The zero Options makes
// what OpenDHT's own node makes.
type Options struct {
	Bits     int           // size of the RSA key of [New], as for [GenerateKey]; 0 means 4096
	Issuer   *Identity     // the authority that signs; nil means a new one. [NewCA] ignores it.
	Now      time.Time     // start of validity; zero means the present
	Lifetime time.Duration // length of validity; 0 means ten years of 365 days
}

// New makes an identity: an RSA key and a certificate for it with the given common
// name (1 to 64 bytes of UTF-8), signed by opts.Issuer. Without an issuer it is
// signed by a new authority, made by [NewCA] with the name followed by " CA",
// whose certificate joins the chain and whose key is forgotten.
func New(name string, opts Options) (*Identity, error) {
	issuer := opts.Issuer
	if issuer == nil {
		var err error
		if issuer, err = NewCA(name+" CA", opts); err != nil {
			return nil, err
		}
	}
	if !issuer.Cert.IsCA() {
		return nil, fmt.Errorf("making identity %q: the issuer is not an authority", name)
	}
	key, err := GenerateKey(opts.Bits)
	if err != nil {
		return nil, fmt.Errorf("making identity %q: %w", name, err)
	}
	template, err := newTemplate(name, key.public, opts)
	if err != nil {
		return nil, fmt.Errorf("making identity %q: %w", name, err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageDataEncipherment
	return issue(key, template, issuer)
}

// NewCA makes a self-signed authority with a key on the curve P-384, fit to be
// an issuer for [New]. Its key can neither sign nor decrypt DHT values.
func NewCA(name string, opts Options) (*Identity, error) {
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making authority %q: %w", name, err)
	}
	key, err := newPrivateKey(ec)
	if err != nil {
		return nil, fmt.Errorf("making authority %q: %w", name, err)
	}
	template, err := newTemplate(name, key.public, opts)
	if err != nil {
		return nil, fmt.Errorf("making authority %q: %w", name, err)
	}
	template.BasicConstraintsValid = true
	template.IsCA = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	return issue(key, template, nil)
}

// newTemplate fills in what leaves and authorities have in common.
func newTemplate(name string, key *PublicKey, opts Options) (*x509.Certificate, error) {
	if name == "" || len(name) > maxNameLen {
		return nil, fmt.Errorf("a common name has 1 to %d bytes, not %d", maxNameLen, len(name))
	}
	now := opts.Now
	if now.IsZero() {
		now = time.Now()
	}
	lifetime := opts.Lifetime
	if lifetime == 0 {
		lifetime = defaultLifetime
	}
	if lifetime < 0 {
		return nil, errors.New("negative lifetime")
	}
	return &x509.Certificate{
		SerialNumber: newSerial(),
		Subject: pkix.Name{
			CommonName: name,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: oidUID(), Value: key.id.String()}},
		},
		SubjectKeyId: key.id[:],
		NotBefore:    now,
		NotAfter:     now.Add(lifetime),
	}, nil
}

// newSerial returns a random serial number of 8 bytes, positive for every parser.
func newSerial() *big.Int {
	var b [8]byte
	rand.Read(b[:]) // never fails
	n := binary.BigEndian.Uint64(b[:])>>1 | 1<<62
	return new(big.Int).SetUint64(n)
}

// issue signs template for key by issuer, or by key itself if that is nil.
func issue(key *PrivateKey, template *x509.Certificate, issuer *Identity) (*Identity, error) {
	parent, signer := template, key
	var above *Certificate
	if issuer != nil {
		parent, signer, above = issuer.Cert.x509, issuer.Key, issuer.Cert
	}
	if signer.public.IsRSA() {
		// What GnuTLS prefers for large RSA keys. For EC keys the curve decides.
		template.SignatureAlgorithm = x509.SHA384WithRSA
	}
	name := template.Subject.CommonName
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.public.key, signer.key)
	if err != nil {
		return nil, fmt.Errorf("signing certificate %q: %w", name, err)
	}
	cert, err := parseCertificate(der, above)
	if err != nil {
		return nil, fmt.Errorf("reading back certificate %q: %w", name, err)
	}
	return &Identity{Key: key, Cert: cert}, nil
}
