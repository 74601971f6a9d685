package dht

import (
	"errors"

	"golang.org/x/sys/windows"
)

// noFamily tells whether binding failed because the host lacks the family.
func noFamily(err error) bool {
	return err == nil || errors.Is(err, windows.WSAEAFNOSUPPORT) || errors.Is(err, windows.WSAEADDRNOTAVAIL) || errors.Is(err, windows.WSAEPROTONOSUPPORT)
}
