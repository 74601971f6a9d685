//go:build !unix

package netx

import (
	"errors"
	"fmt"
	"net"
)

func clone(*net.UDPConn) (PacketConn, error) {
	return nil, fmt.Errorf("clone UDP socket: %w", errors.ErrUnsupported)
}
