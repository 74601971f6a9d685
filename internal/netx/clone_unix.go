//go:build unix

package netx

import (
	"fmt"
	"net"
)

// clone duplicates the descriptor. The copy has its own place in Go's poller and
// its own deadlines; the socket lives until the last handle is closed.
func clone(conn *net.UDPConn) (PacketConn, error) {
	f, err := conn.File()
	if err != nil {
		return nil, fmt.Errorf("clone UDP socket: %w", err)
	}
	defer f.Close()
	pc, err := net.FilePacketConn(f) // duplicates once more
	if err != nil {
		return nil, fmt.Errorf("clone UDP socket: %w", err)
	}
	dup, ok := pc.(*net.UDPConn)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("clone UDP socket: it became a %T", pc)
	}
	return newPacketConn(dup)
}
