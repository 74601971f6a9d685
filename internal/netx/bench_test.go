package netx_test

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/kith-im/kith/internal/netx"
)

const benchSize = 200 // bytes, about a DHT request

// BenchmarkBatch measures a ping and its pong on loopback, in batches.
func BenchmarkBatch(b *testing.B) {
	for _, width := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(width), func(b *testing.B) {
			one, two := benchSocket(b), benchSocket(b)
			go func() {
				d := benchBatch(width, netip.AddrPort{})
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
			out, in := benchBatch(width, two.LocalAddr()), benchBatch(width, netip.AddrPort{})
			b.ReportAllocs()
			for i := 0; i < b.N; i += width { // one operation is one packet and its echo
				if _, err := one.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < width; {
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
	one, two := benchNet(b), benchNet(b)
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := two.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if _, err := two.WriteToUDPAddrPort(buf[:n], from); err != nil {
				return
			}
		}
	}()
	to := two.LocalAddr().(*net.UDPAddr).AddrPort()
	buf := make([]byte, 1500)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := one.WriteToUDPAddrPort(buf[:benchSize], to); err != nil {
			b.Fatal(err)
		}
		if _, _, err := one.ReadFromUDPAddrPort(buf); err != nil {
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

// BenchmarkPass measures sending and receiving a packet without a second
// goroutine: what the calls themselves cost.
func BenchmarkPass(b *testing.B) {
	for _, width := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(width), func(b *testing.B) {
			one, two := benchSocket(b), benchSocket(b)
			out, in := benchBatch(width, two.LocalAddr()), benchBatch(width, netip.AddrPort{})
			b.ReportAllocs()
			for i := 0; i < b.N; i += width { // one operation is one packet
				if _, err := one.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
				if n, err := two.ReadBatch(in); n != width || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
	b.Run("net", func(b *testing.B) {
		one, two := benchNet(b), benchNet(b)
		to := two.LocalAddr().(*net.UDPAddr).AddrPort()
		buf := make([]byte, 1500)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := one.WriteToUDPAddrPort(buf[:benchSize], to); err != nil {
				b.Fatal(err)
			}
			if _, _, err := two.ReadFromUDPAddrPort(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchNet(b *testing.B) *net.UDPConn {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}
