package simnet_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// A host behind a NAT asks a server which address it is seen at.
func Example() {
	w := simnet.New(simnet.Config{Seed: 42, Link: simnet.Link{Latency: 10 * time.Millisecond}})
	defer w.Close()
	server := w.NewHost("server", netip.MustParseAddr("198.51.100.1"))
	home := w.NewNAT(simnet.PortRestricted, netip.MustParseAddr("203.0.113.1"))
	phone := home.NewHost("phone", netip.MustParseAddr("192.168.1.2"))

	ctx := context.Background()
	s, err := server.ListenPacket(ctx, netip.MustParseAddrPort("0.0.0.0:3478"))
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := phone.ListenPacket(ctx, netip.MustParseAddrPort("0.0.0.0:0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	question := netx.Datagram{Buf: []byte("?"), N: 1, Addr: netip.MustParseAddrPort("198.51.100.1:3478")}
	if _, err := p.WriteBatch([]netx.Datagram{question}); err != nil {
		fmt.Println(err)
		return
	}
	d := []netx.Datagram{{Buf: make([]byte, 100)}}
	if _, err := s.ReadBatch(d); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("seen at", d[0].Addr.Addr())
	// Output: seen at 203.0.113.1
}
