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

// unreachable tells whether sending failed because the host has no way to the
// address. Other errors, such as full buffers, say nothing about the address.
func unreachable(err error) bool {
	return errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT)
}
