// Package identity holds the keys, certificates and identifiers by which nodes,
// devices and accounts are known, in the formats that OpenDHT and Jami use.
//
// A public key is named by a hash over its DER SubjectPublicKeyInfo: [KeyID]
// (SHA-1, the "short id") and [LongKeyID] (SHA-256, the "long id"). Signatures
// are RSA PKCS#1 v1.5 over SHA-512, and nothing else verifies. Encryption is
// OpenDHT's hybrid of RSA PKCS#1 v1.5 and AES-GCM. Certificates are X.509 chains
// in PEM, leaf first; those with a negative serial number, which older peers
// made, are read as well, whatever the GODEBUG settings.
//
// All types are immutable once made and safe for concurrent use. The package
// starts no goroutine, keeps no state and opens no network connection; only
// [Load] and [Identity.Save] touch the file system.
//
// It does not decide whom to trust: [VerifyChain] checks that a chain holds
// together at a given time, and whether its top is anyone we know is the
// caller's question. It knows nothing of revocation either.
package identity

import "errors"

var (
	// ErrUnsupportedKey reports a key of a kind that this package, or the
	// operation asked for, cannot use.
	ErrUnsupportedKey = errors.New("unsupported key")

	// ErrSignature reports a signature that does not verify.
	ErrSignature = errors.New("invalid signature")

	// ErrDecrypt reports a message that could not be decrypted. It never says
	// why, so that it cannot be used as an oracle.
	ErrDecrypt = errors.New("decryption failed")

	// ErrPassword reports a password that is wrong, or missing where one is needed.
	ErrPassword = errors.New("wrong or missing password")

	// ErrTooLarge reports an input over the size or count that a parser accepts.
	ErrTooLarge = errors.New("input too large")
)
