//go:build unix

package netx

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reuseAddr lets several programs bind the port of a multicast group. Which of
// the two options counts differs between systems, and the other program may have
// set either.
func reuseAddr(fd uintptr) error {
	err := errors.Join(
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	return os.NewSyscallError("setsockopt", err)
}
