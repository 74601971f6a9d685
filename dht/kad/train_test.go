package kad

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// An answer of ours in parts is paced and complete.
func TestSendParts(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	v := largeValue(5, 64_000)
	r.put(p, wire.Key{1}, v)
	now := r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}})
	at := of(now, wire.Parts, 0)
	if len(now) != 1+trainLength || len(at) != trainLength {
		t.Errorf("%d packets are sent at once", len(now))
	}
	at = append(at, of(r.pass(time.Second), wire.Parts, 0)...)
	got := make([]byte, now[0].m.Sizes[0])
	for _, a := range at {
		x := a.m.Pieces[0]
		copy(got[x.Offset:], x.Data)
	}
	if !bytes.Equal(got, v.Bytes) {
		t.Errorf("%d parts do not give the value", len(at))
	}
	for range 2 * maxTrains {
		r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}})
	}
	checkInvariants(t, r.c)
}

// However many ask for much at once, what is sent in a tick is bounded: to one
// address, and in all. All answers go out in the end.
func TestTrainsArePaced(t *testing.T) {
	tests := []struct {
		name         string
		peers, gets  int
		most, trains int // bytes in a tick
	}{
		{"one address", 1, 20, trainLength * wire.PieceSize, 20},
		{"many addresses", 60, 2, trainBytes + wire.PieceSize, 120},
		{"more than may wait", 1, 100, trainLength * wire.PieceSize, maxTrains / 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{Limits: Limits{Requests: -1}})
			first := r.peer("192.0.2.1:4222")
			r.join(first)
			v := largeValue(5, 64_000)
			r.put(first, wire.Key{1}, v)
			r.pass(time.Second)
			peers := []*peer{first}
			for i := 1; i < test.peers; i++ {
				p := r.peer(address(i).String())
				r.join(p)
				peers = append(peers, p)
			}
			r.pass(time.Second)
			r.all = nil
			for range test.gets {
				for _, p := range peers {
					r.ask(p, wire.Request{Method: wire.Get, Key: wire.Key{1}})
				}
			}
			r.pass(time.Minute)
			ticks := map[time.Time]int{}
			each := map[netip.AddrPort]int{}
			sum := 0
			parts := of(r.all, wire.Parts, 0)
			soon := map[netip.AddrPort]bool{}
			for _, a := range parts[:len(parts)/3] {
				soon[a.to] = true
			}
			if len(soon) != len(peers) {
				t.Errorf("a third of the parts goes to %d addresses of %d", len(soon), len(peers))
			}
			for _, a := range parts {
				n := len(a.m.Pieces[0].Data)
				ticks[a.when] += n
				each[a.to] += n
				sum += n
			}
			for at, n := range ticks {
				if n > test.most {
					t.Errorf("%d bytes at %v, more than %d", n, at.Sub(epoch), test.most)
				}
			}
			if want := test.trains * len(v.Bytes); sum != want {
				t.Errorf("%d bytes are sent, want %d", sum, want)
			}
			for to, n := range each {
				if n != each[first.addr] {
					t.Errorf("%s was sent %d bytes, others %d", to, n, each[first.addr])
				}
			}
			checkInvariants(t, r.c)
		})
	}
}
