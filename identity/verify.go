package identity

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// VerifyChain checks that the chain of leaf holds together at the time now: every
// certificate is within its validity, demands nothing that we do not know, and
// every one but the topmost is signed by the one above it, which is an authority
// allowed to sign certificates, with no more authorities below it than it allows.
// Signatures with MD5 or SHA-1 do not count, nor keys under 2048 bits (RSA).
//
// The topmost certificate is the anchor and is taken as it is; a chain of one
// therefore proves nothing but its dates. Whether the anchor is trusted, and
// whether anything has been revoked, is for the caller to decide.
func VerifyChain(leaf *Certificate, now time.Time) error {
	if leaf == nil {
		return errors.New("verifying certificate chain: no certificate")
	}
	authorities := 0 // between the leaf and the issuer at hand
	for c := leaf; c != nil; c = c.issuer {
		if err := verifyAlone(c.x509, now); err != nil {
			return fmt.Errorf("verifying certificate %v: %w", c, err)
		}
		if c.public.Weak() {
			return fmt.Errorf("verifying certificate %v: RSA key of %d bits", c, c.public.Bits())
		}
		if c.issuer == nil {
			break
		}
		if err := verifyIssued(c, c.issuer, authorities); err != nil {
			return fmt.Errorf("verifying certificate %v as issued by %v: %w", c, c.issuer, err)
		}
		authorities++
	}
	return nil
}

func verifyAlone(c *x509.Certificate, now time.Time) error {
	if now.Before(c.NotBefore) {
		return fmt.Errorf("not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	if now.After(c.NotAfter) {
		return fmt.Errorf("expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if len(c.UnhandledCriticalExtensions) > 0 {
		return fmt.Errorf("unknown critical extension %v", c.UnhandledCriticalExtensions[0])
	}
	return nil
}

func verifyIssued(c, issuer *Certificate, authorities int) error {
	switch ic := issuer.x509; {
	case !bytes.Equal(c.x509.RawIssuer, ic.RawSubject):
		return errors.New("issuer has another name")
	case !issuer.IsCA():
		return errors.New("issuer is not an authority")
	case ic.KeyUsage != 0 && ic.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("issuer may not sign certificates")
	case (ic.MaxPathLen > 0 || ic.MaxPathLenZero) && authorities > ic.MaxPathLen:
		return fmt.Errorf("issuer allows %d authorities below it, not %d", ic.MaxPathLen, authorities)
	}
	if err := issuer.x509.CheckSignature(c.x509.SignatureAlgorithm, c.x509.RawTBSCertificate, c.x509.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}
