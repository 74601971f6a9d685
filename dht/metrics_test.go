package dht

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
	"github.com/kith-im/kith/internal/obs"
)

// metric reads one sample of an exposition.
func metric(t *testing.T, r *obs.Registry, series string) float64 {
	t.Helper()
	var b bytes.Buffer
	if _, err := r.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(b.String()) {
		var v float64
		if rest, ok := strings.CutPrefix(line, series+" "); ok {
			if _, err := fmt.Sscan(rest, &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no metric %s in\n%s", series, b.String())
	return 0
}

// sender is a socket of somebody who is no node.
func (l *lab) sender(ip string) (send func(b []byte)) {
	h := l.world.NewHost("sender "+ip, addr(ip))
	conn, err := h.ListenPacket(l.ctx, netip.MustParseAddrPort("0.0.0.0:7000"))
	if err != nil {
		l.t.Fatal(err)
	}
	to := netip.MustParseAddrPort(boot + ":4222")
	return func(b []byte) {
		if _, err := conn.WriteBatch([]netx.Datagram{{Buf: b, N: len(b), Addr: to}}); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Whatever is wrong with a packet is counted, and does no harm.
func TestBadPacketsAreCounted(t *testing.T) {
	const (
		malformed = "kith_dht_malformed_packets_total"
		ignored   = "kith_dht_ignored_packets_total{reason=%q}"
	)
	ping := (&wire.Envelope{Self: NodeID(KeyOf("sender"))}).AppendRequest(nil, 7, &wire.Request{Method: wire.Ping})
	nested := bytes.Repeat([]byte{0x91}, 1400)
	long := append(msgpack.AppendMap(nil, 1), msgpack.AppendString(nil, "t")...)
	long = msgpack.AppendBin(long, make([]byte, 60_000))
	reply, err := hex.DecodeString("84a17282a26964c41432c116dce15641080f6804469b85d3d8c4e0149da27361c41000000000000000000000000000000001a17401a179a172a176a4524e4731")
	if err != nil {
		t.Fatal(err)
	}
	foreign := (&wire.Envelope{Self: NodeID(KeyOf("sender")), Network: 9}).AppendRequest(nil, 7, &wire.Request{Method: wire.Ping})
	part := (&wire.Envelope{Self: NodeID(KeyOf("sender"))}).AppendPiece(nil, 5, 0, 0, make([]byte, 100))
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		registry := new(obs.Registry)
		n := l.start(l.world.NewHost("target", addr(boot)), Config{Metrics: registry})
		send := l.sender("60.0.0.1")
		for _, c := range []struct {
			name, series string
			packet       []byte
			count        float64
		}{
			{"empty", malformed, nil, 1},
			{"rubbish", malformed, []byte("GET / HTTP/1.1\r\n\r\n"), 1},
			{"truncated", malformed, ping[:len(ping)-3], 1},
			{"nested", malformed, nested, 1},
			{"over-long", malformed, long, 1},
			{"count that lies", malformed, []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, 1},
			{"forged answer", fmt.Sprintf(ignored, "unexpected"), reply, 1},
			{"other network", fmt.Sprintf(ignored, "other_network"), foreign, 1},
			{"part of nothing", fmt.Sprintf(ignored, "bad_part"), part, 1},
		} {
			before := metric(t, registry, c.series)
			send(c.packet)
			time.Sleep(time.Second)
			if got := metric(t, registry, c.series) - before; got != c.count {
				t.Errorf("%s: %s grew by %v, want %v", c.name, c.series, got, c.count)
			}
		}
		// Every cut of a good packet, and every flipped bit.
		for i := range ping {
			send(ping[:i])
			flipped := bytes.Clone(ping)
			flipped[i] ^= 1 << (i % 8)
			send(flipped)
		}
		time.Sleep(10 * time.Second)
		if got := metric(t, registry, malformed); got < float64(len(ping)) {
			t.Errorf("%v malformed packets of at least %d were counted", got, len(ping))
		}
		before := metric(t, registry, `kith_dht_served_requests_total{method="ping"}`)
		send(ping)
		time.Sleep(time.Second)
		if got := metric(t, registry, `kith_dht_served_requests_total{method="ping"}`) - before; got != 1 {
			t.Errorf("a good ping counts %v after all that", got)
		}
		if i, err := n.Info(t.Context()); err != nil || i.Storage.Values != 0 || i.IPv4.Good != 0 {
			t.Errorf("%+v, error %v", i, err)
		}
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		l.grow(4)
		registry := new(obs.Registry)
		n := l.start(l.world.NewHost("measured", addr("60.0.0.1")), Config{Metrics: registry, Bootstrap: []string{boot}})
		l.connect(n)
		l.put(l.nodes[2], KeyOf("metrics"), "stored")
		if _, err := n.Publish(t.Context(), KeyOf("published"), &Value{Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		l.listen(n, KeyOf("metrics"))
		l.listen(l.nodes[2], KeyOf("metrics"))
		time.Sleep(time.Minute)
		for series, least := range map[string]float64{
			"kith_dht_received_packets_total": 20, "kith_dht_received_bytes_total": 1000,
			"kith_dht_sent_packets_total": 20, "kith_dht_sent_bytes_total": 1000,
			`kith_dht_requests_total{method="ping"}`: 1, `kith_dht_requests_total{method="find"}`: 1,
			`kith_dht_requests_total{method="put"}`: 1, `kith_dht_requests_total{method="listen"}`: 1,
			`kith_dht_served_requests_total{method="put"}`: 1, `kith_dht_served_requests_total{method="listen"}`: 1,
			`kith_dht_puts_total{result="stored"}`: 2,
			`kith_dht_good_nodes{family="ipv4"}`:   4, `kith_dht_connected{family="ipv4"}`: 1,
			"kith_dht_stored_values": 2, "kith_dht_stored_bytes": 2, "kith_dht_listeners": 1, "kith_dht_listens": 1,
			"kith_dht_published_values": 1, "kith_dht_searches": 1, "kith_dht_uptime_seconds": 60,
		} {
			if got := metric(t, registry, series); got < least {
				t.Errorf("%s is %v, want %v at least", series, got, least)
			}
		}
		for _, series := range []string{
			"kith_dht_malformed_packets_total", `kith_dht_connected{family="ipv6"}`, `kith_dht_puts_total{result="bad_value"}`,
			`kith_dht_ignored_packets_total{reason="banned"}`, "kith_dht_replicated_values_total",
		} {
			if got := metric(t, registry, series); got != 0 {
				t.Errorf("%s is %v", series, got)
			}
		}
		n.Close()
		if got := metric(t, registry, `kith_dht_connected{family="ipv4"}`); got != 0 {
			t.Error("a closed node is connected")
		}
	})
}
