// Package identitytest is a small pool of ready-made identities, so that tests
// need not wait for RSA keys to be generated. The keys are public and worth
// nothing: THROWAWAY, never for use outside tests.
//
// The package keeps no state and starts no goroutine: each call parses the files
// anew and gives the caller values of its own.
package identitytest

import (
	"embed"
	"fmt"

	"github.com/kith-im/kith/identity"
)

// Len is the size of the pool.
const Len = 8

//go:embed testdata
var files embed.FS

// Key returns key i of the pool, an RSA key of 2048 bits that is the same in
// every run. It panics unless 0 ≤ i < [Len].
func Key(i int) *identity.PrivateKey {
	k, err := identity.ParsePrivateKey(read(i, "pem"), nil)
	if err != nil {
		panic(err)
	}
	return k
}

// Identity returns the identity of [Key] i: a certificate under an authority of
// its own, both valid from 1999 to 2099, so that they are in the clock of a
// testing/synctest bubble too. It panics unless 0 ≤ i < [Len].
func Identity(i int) *identity.Identity {
	cert, err := identity.ParseChain(read(i, "crt"))
	if err != nil {
		panic(err)
	}
	return &identity.Identity{Key: Key(i), Cert: cert}
}

func read(i int, suffix string) []byte {
	b, err := files.ReadFile(fmt.Sprintf("testdata/throwaway%d.%s", i, suffix))
	if err != nil {
		panic(fmt.Sprintf("identitytest: no identity %d in a pool of %d", i, Len))
	}
	return b
}
