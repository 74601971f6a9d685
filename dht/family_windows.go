package dht

import (
	"errors"

	"golang.org/x/sys/windows"
)

// noFamily tells whether binding failed because the host lacks the family.
func noFamily(err error) bool {
	return err == nil || errors.Is(err, windows.WSAEAFNOSUPPORT) || errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEPROTONOSUPPORT)
}

// unreachable tells whether sending failed because the host has no way to the
// address. Other errors, such as full buffers, say nothing about the address.
func unreachable(err error) bool {
	return errors.Is(err, windows.WSAEHOSTUNREACH) || errors.Is(err, windows.WSAENETUNREACH) || errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEAFNOSUPPORT)
}
