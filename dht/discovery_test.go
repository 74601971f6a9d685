package dht

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// goldenAnnouncement is what OpenDHT announces for port 14701 and network 5.
const goldenAnnouncement = "81a364687493c414bfb151c3983d21fd0b18c101f7ab432c44500d5bcd396d05"

// Nodes of one local network find each other without being told of anybody, in
// either family, and those of other networks not.
func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		lan := l.world.NewLAN(simnet.Link{Latency: time.Millisecond})
		start := func(i int, network uint32, addrs ...netip.Addr) *Node {
			return l.start(lan.NewHost(fmt.Sprint("lan", i), addrs...), Config{Discovery: true, NetworkID: network})
		}
		var nodes []*Node
		for i := range 5 {
			nodes = append(nodes, start(i, 0, netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})))
			time.Sleep(7 * time.Second)
		}
		stranger := start(5, 5, addr("10.0.0.77"))
		six1, six2 := start(6, 0, addr("2001:db8::1")), start(7, 0, addr("2001:db8::2"))
		outside := l.start(l.world.NewHost("outside", addr("31.0.0.1")), Config{Discovery: true})
		l.connect(append(nodes, six1, six2)...)
		l.put(nodes[0], KeyOf("lan"), "found")
		l.want(nodes[4], KeyOf("lan"), "found")
		l.put(six1, KeyOf("lan6"), "found")
		l.want(six2, KeyOf("lan6"), "found")
		time.Sleep(3 * time.Minute)
		for name, n := range map[string]*Node{"of another network": stranger, "outside": outside} {
			if i, _ := n.Info(t.Context()); i.Status == Connected {
				t.Errorf("the node %s is connected", name)
			}
		}
	})
}

// Who floods the group gets no more than so many answers, and makes us ask no more
// than so many nodes.
func TestDiscoveryFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		lan := l.world.NewLAN(simnet.Link{})
		h := lan.NewHost("victim", addr("10.0.0.1"))
		victim := l.start(h, Config{Discovery: true})
		evil, err := lan.NewHost("evil", addr("10.0.0.66")).ListenMulticast(t.Context(), discoveryGroups[0])
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		before, sent := victim.Stats(), h.Stats().UDP.Sent.Packets
		for i := range 2000 {
			b := msgpack.AppendString(nil, "q")
			if i%2 == 1 {
				b = announce(NodeID(KeyOf(fmt.Sprint(i))), uint64(1+i), 0)
			}
			if _, err := evil.WriteBatch([]netx.Datagram{{Buf: b, N: len(b), Addr: discoveryGroups[0]}}); err != nil {
				t.Fatal(err)
			}
			if i%100 == 99 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		if asked := victim.Stats().Asked[1] - before.Asked[1]; asked > 2*discoveryAnswers {
			t.Errorf("the flood made us ping %d nodes in a second", asked)
		}
		time.Sleep(10 * time.Second)
		if n := h.Stats().UDP.Sent.Packets - sent; n > 8*discoveryAnswers {
			t.Errorf("the flood made us send %d packets", n)
		}
	})
}

func announce(id NodeID, port, network uint64) []byte {
	b := msgpack.AppendString(msgpack.AppendMap(nil, 1), discoveryService)
	b = msgpack.AppendBin(msgpack.AppendArray(b, 3), id[:])
	return msgpack.AppendUint(msgpack.AppendUint(b, port), network)
}

func TestAnnouncement(t *testing.T) {
	golden, err := hex.DecodeString(goldenAnnouncement)
	if err != nil {
		t.Fatal(err)
	}
	id, port, network, ok := parseAnnouncement(golden)
	if !ok || port != 14701 || network != 5 || id.String() != "bfb151c3983d21fd0b18c101f7ab432c44500d5b" {
		t.Errorf("read as %v %d %d %v", id, port, network, ok)
	}
	n := &Node{cfg: Config{ID: id, NetworkID: network}}
	if b := n.announcement(port); !bytes.Equal(b, golden) {
		t.Errorf("announced %x, want %x", b, golden)
	}
	if !isQuery([]byte{0xa1, 'q'}) || isQuery(golden) || isQuery(nil) || isQuery([]byte{0xa1, 'x'}) {
		t.Error("queries are not told from the rest")
	}
	// Other services may stand before ours.
	b := msgpack.AppendMap(nil, 2)
	b = msgpack.AppendArray(msgpack.AppendString(b, "jami"), 2)
	b = msgpack.AppendNil(msgpack.AppendNil(b))
	b = append(b, golden[1:]...)
	if _, port, _, ok := parseAnnouncement(b); !ok || port != 14701 {
		t.Errorf("among others: port %d, %v", port, ok)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "cut": golden[:30], "no port": announce(id, 0, 0), "port too large": announce(id, 1<<16, 0),
		"network too large": announce(id, 1, 1<<32), "no service": msgpack.AppendMap(nil, 0), "not a map": msgpack.AppendNil(nil),
		"short id": append(msgpack.AppendArray(msgpack.AppendString(msgpack.AppendMap(nil, 1), "dht"), 3), 0xc4, 1, 0, 1, 1),
	} {
		if _, _, _, ok := parseAnnouncement(b); ok {
			t.Errorf("%s: read", name)
		}
	}
}

func FuzzParseAnnouncement(f *testing.F) {
	golden, err := hex.DecodeString(goldenAnnouncement)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte{0xa1, 'q'})
	f.Add(announce(NodeID{1}, 65535, 1<<32-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		isQuery(b)
		id, port, network, ok := parseAnnouncement(b)
		if !ok {
			return
		}
		id2, port2, network2, ok := parseAnnouncement(announce(id, uint64(port), uint64(network)))
		if !ok || port == 0 || id2 != id || port2 != port || network2 != network {
			t.Errorf("%v %d %d became %v %d %d", id, port, network, id2, port2, network2)
		}
	})
}
