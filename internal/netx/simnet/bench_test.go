package simnet_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

func BenchmarkFate(b *testing.B) {
	l := simnet.Link{Latency: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01, Duplicate: 0.01}
	src, dst := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	payload, fate := make([]byte, 200), make([]time.Duration, 0, 2)
	b.ReportAllocs()
	for i := range uint64(b.N) {
		fate = l.AppendFate(fate[:0], 1, src, dst, i, payload)
	}
}

func BenchmarkDelivery(b *testing.B) {
	w := simnet.New(simnet.Config{})
	defer w.Close()
	h1, h2 := w.NewHost("a", netip.MustParseAddr("10.0.0.1")), w.NewHost("b", netip.MustParseAddr("10.0.0.2"))
	one, err := h1.ListenPacket(b.Context(), netip.MustParseAddrPort("0.0.0.0:1"))
	if err != nil {
		b.Fatal(err)
	}
	two, err := h2.ListenPacket(b.Context(), netip.MustParseAddrPort("0.0.0.0:2"))
	if err != nil {
		b.Fatal(err)
	}
	out := []netx.Datagram{{Buf: make([]byte, 200), N: 200, Addr: netip.MustParseAddrPort("10.0.0.2:2")}}
	in := []netx.Datagram{{Buf: make([]byte, 200)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := one.WriteBatch(out); err != nil {
			b.Fatal(err)
		}
		if _, err := two.ReadBatch(in); err != nil {
			b.Fatal(err)
		}
	}
}
