package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/kith-im/kith/internal/netx"
)

// newTransport makes the transport of a client: all of its connections go
// through dial.
func newTransport(dial func(ctx context.Context, network, addr string) (net.Conn, error), config *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true, // listens share a connection where the server can
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
		ExpectContinueTimeout:  time.Second,
	}
}

// errPrivate is about an address that strangers may not make us connect to.
var errPrivate = errors.New("address is not on the public internet")

// publicDial dials only what is on the public internet, since the URL to go to
// came from a stranger who could mean a machine beside us.
func publicDial(network netx.Network) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, family, addr string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		addrs, err := network.Lookup(ctx, host)
		if err != nil {
			return nil, err
		}
		err = fmt.Errorf("dial %s: %w", addr, errPrivate)
		for _, a := range addrs {
			if !public(a) {
				continue
			}
			var conn net.Conn
			if conn, err = network.Dial(ctx, family, net.JoinHostPort(a.String(), port)); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
}

// notPublic has the special networks that netip does not tell by itself.
var notPublic = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"), // shared address space, RFC 6598
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("64:ff9b::/96"), // NAT64: any IPv4 address is behind it
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"), // 6to4, the same
	netip.MustParsePrefix("2001::/32"), // Teredo, the same
}

func public(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return true
}
