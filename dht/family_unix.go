//go:build unix

package dht

import (
	"errors"
	"syscall"
)

// noFamily tells whether binding failed because the host lacks the family.
func noFamily(err error) bool {
	return err == nil || errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EPROTONOSUPPORT)
}
