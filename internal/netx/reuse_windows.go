package netx

import (
	"os"

	"golang.org/x/sys/windows"
)

// reuseAddr lets several programs bind the port of a multicast group.
func reuseAddr(fd uintptr) error {
	err := windows.SetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_REUSEADDR, 1)
	return os.NewSyscallError("setsockopt", err)
}
