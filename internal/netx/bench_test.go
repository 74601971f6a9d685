package netx_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/kith-im/kith/internal/netx"
)

const benchSize = 200 // bytes, about a DHT request

// BenchmarkBatch measures a ping and its pong on loopback, in batches.
func BenchmarkBatch(b *testing.B) {
	for _, bm := range []struct {
		name  string
		width int
	}{{"1", 1}, {"8", 8}, {"64", 64}} {
		b.Run(bm.name, func(b *testing.B) {
			one, two := benchSocket(b), benchSocket(b)
			go func() {
				d := benchBatch(bm.width, netip.AddrPort{})
				for {
					n, err := two.ReadBatch(d)
					if err != nil {
						return
					}
					if _, err := two.WriteBatch(d[:n]); err != nil {
						return
					}
				}
			}()
			out, in := benchBatch(bm.width, two.LocalAddr()), benchBatch(bm.width, netip.AddrPort{})
			b.ReportAllocs()
			for i := 0; i < b.N; i += bm.width { // one operation is one packet and its echo
				if _, err := one.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < bm.width; {
					n, err := one.ReadBatch(in)
					if err != nil {
						b.Fatal(err)
					}
					got += n
				}
			}
		})
	}
}

// BenchmarkNet is the same with package net, one packet at a time.
func BenchmarkNet(b *testing.B) {
	var conns [2]*net.UDPConn
	for i := range conns {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conns[1].ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if _, err := conns[1].WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	to := conns[1].LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := conns[0].WriteToUDPAddrPort(buf[:benchSize], to); err != nil {
			b.Fatal(err)
		}
		if _, _, err := conns[0].ReadFromUDPAddrPort(buf); err != nil {
			b.Fatal(err)
		}
	}
}

func benchSocket(b *testing.B) netx.PacketConn {
	c, err := (&netx.System{}).ListenPacket(b.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

func benchBatch(n int, to netip.AddrPort) []netx.Datagram {
	d := make([]netx.Datagram, n)
	for i := range d {
		d[i] = netx.Datagram{Buf: make([]byte, 1500), N: benchSize, Addr: to}
	}
	return d
}
