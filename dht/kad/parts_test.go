package kad

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// A piece is a part as a test sends it.
type testPiece struct {
	index, from, to int
	garbage         bool
}

func largeValue(id wire.ValueID, size int) wire.Packed {
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(uint64(id), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return wire.Pack(&wire.Value{ID: id, Data: b})
}

// appendPiece appends a part that may lie anywhere.
func appendPiece(e *wire.Envelope, tid uint32, index, off int, data []byte) []byte {
	pad := make([]byte, off, off+len(data))
	return e.AppendPiece(nil, tid, index, off, append(pad, data...))
}

// Attack A5 and the order in which parts may come.
func TestParts(t *testing.T) {
	v := largeValue(5, 5000)
	size := len(v.Bytes)
	whole := []testPiece{{0, 0, 1280, false}, {0, 1280, 2560, false}, {0, 2560, 3840, false}, {0, 3840, size, false}}
	order := func(list ...int) (p []testPiece) {
		for _, i := range list {
			p = append(p, whole[i])
		}
		return p
	}
	bad := func(index, from, to int) testPiece { return testPiece{index, from, to, true} }
	tests := []struct {
		name   string
		early  int // parts that come before what announces them
		pieces []testPiece
		stored bool
	}{
		{"in order", 0, whole, true},
		{"reversed", 0, order(3, 2, 1, 0), true},
		{"twice", 0, order(0, 0, 1, 1, 2, 3), true},
		{"one missing", 0, order(0, 1, 3), false},
		{"two early", 2, whole, true},
		{"all early", 4, whole, true},
		{"overlapping", 0, []testPiece{{0, 0, 1000, false}, {0, 500, 1700, false}, {0, 1600, 2800, false}, {0, 2500, 3700, false}, {0, 3600, size - 100, false}, {0, size - 200, size, false}}, true},
		{"garbage over what is there", 0, append(order(0, 1), bad(0, 0, 1280), bad(0, 100, 900), whole[2], whole[3]), true},
		{"past the end", 0, append([]testPiece{bad(0, size-100, size+100), bad(0, size, size+1)}, whole...), true},
		{"other index", 0, append([]testPiece{bad(1, 0, 100), bad(7, 0, 100), bad(1<<31-1, 0, 10)}, whole...), true},
		{"empty", 0, append([]testPiece{bad(0, 5, 5)}, whole...), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			key := wire.Key{1}
			tid := uint32(777)
			var out []packet
			piece := func(x testPiece) {
				data := make([]byte, x.to-x.from)
				if !x.garbage {
					copy(data, v.Bytes[x.from:x.to])
				}
				out = append(out, r.receive(p.addr, appendPiece(&p.env, tid, x.index, x.from, data))...)
			}
			for _, x := range test.pieces[:test.early] {
				piece(x)
			}
			q := wire.Request{Method: wire.Put, Key: key, Token: p.token, Values: []wire.Packed{v}}
			out = append(out, r.receive(p.addr, p.env.AppendRequest(nil, tid, &q))...)
			for _, x := range test.pieces[test.early:] {
				piece(x)
			}
			if test.stored != (len(of(out, wire.Reply, 0)) == 1) {
				t.Errorf("answered by %v", kinds(out))
			}
			sh := r.c.store.shelves[key]
			if (sh != nil) != test.stored {
				t.Fatalf("stored: %v, want %v", sh != nil, test.stored)
			}
			if test.stored && !bytes.Equal(sh.values[0].Bytes, v.Bytes) {
				t.Error("another value is stored")
			}
			checkInvariants(t, r.c)
			r.pass(partsLife)
			if n := len(r.c.parts.open); n != 0 || r.c.parts.bytes != 0 {
				t.Errorf("%d partial messages are left", n)
			}
		})
	}
}

// Attack A5: nobody else can add to a message.
func TestPartsOfAnother(t *testing.T) {
	r := newRig(t, Config{})
	v := largeValue(5, 2000)
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	q := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: []wire.Packed{v}}
	r.receive(p.addr, p.env.AppendRequest(nil, 7, &q))
	for _, addr := range []string{"192.0.2.1:4223", "192.0.2.2:4222"} {
		o := r.peer(addr)
		r.join(o)
		garbage := make([]byte, 2000)
		r.receive(o.addr, appendPiece(&p.env, 7, 0, 0, garbage[:1280]))
		r.receive(o.addr, appendPiece(&p.env, 7, 0, 1280, garbage[:720]))
	}
	r.receive(p.addr, p.env.AppendPiece(nil, 7, 0, 0, v.Bytes))
	r.receive(p.addr, p.env.AppendPiece(nil, 7, 0, 1280, v.Bytes))
	sh := r.c.store.shelves[wire.Key{1}]
	if sh == nil || !bytes.Equal(sh.values[0].Bytes, v.Bytes) {
		t.Error("parts of others count")
	}
	checkInvariants(t, r.c)
}

// Attack A4: sizes that lie.
func TestPartsOversize(t *testing.T) {
	sizes := func(p *peer, token []byte, list ...uint64) []byte {
		vals := make([]wire.Packed, 0, len(list))
		for range list {
			vals = append(vals, wire.Packed{Bytes: make([]byte, 1000)})
		}
		b := p.env.AppendRequest(nil, 9, &wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: token, Values: vals})
		at := bytes.Index(b, []byte("values")) + 7
		end := at + 3*len(list)
		rest := bytes.Clone(b[end:])
		b = b[:at]
		for _, n := range list {
			b = append(b, 0xcf, byte(n>>56), byte(n>>48), byte(n>>40), byte(n>>32), byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		}
		return append(b, rest...)
	}
	tests := []struct {
		name string
		list []uint64
		open int
	}{
		{"zero", []uint64{0}, 0},
		{"a value too large", []uint64{wire.MaxPackedSize + wireSlack + 1}, 0},
		{"2^31", []uint64{1 << 31}, 0},
		{"2^64-1", []uint64{1<<64 - 1}, 0},
		{"one fits", []uint64{1 << 40, 1000}, 1000},
		{"too many", []uint64{60_000, 60_000, 60_000, 60_000, 60_000, 60_000, 60_000, 60_000}, 8 * 60_000},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			r.receive(p.addr, sizes(p, p.token, test.list...))
			if r.c.parts.bytes != test.open {
				t.Errorf("%d bytes are set aside, want %d", r.c.parts.bytes, test.open)
			}
			checkInvariants(t, r.c)
		})
	}
	t.Run("of one source", func(t *testing.T) {
		r := newRig(t, Config{})
		for i := range 100 {
			p := &peer{addr: netip.AddrPortFrom(address(1).Addr(), uint16(5000+i)), env: wire.Envelope{Self: r.id()}}
			tok := r.c.tokens.issue(r.now, p.addr)
			r.receive(p.addr, sizes(p, tok[:], 60_000, 60_000))
		}
		if n := r.c.parts.bytes; n > maxPartialSum/16 || n < maxPartialSum/32 {
			t.Errorf("%d bytes are set aside, want up to a sixteenth of %d", n, maxPartialSum)
		}
	})
	t.Run("many", func(t *testing.T) {
		r := newRig(t, Config{})
		for i := range 2000 {
			p := &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
			tok := r.c.tokens.issue(r.now, p.addr)
			r.receive(p.addr, sizes(p, tok[:], 60_000, 60_000))
		}
		checkInvariants(t, r.c)
		if n := r.c.parts.bytes; n < maxPartialSum/3 || n > maxPartialSum/2 {
			t.Errorf("%d bytes are set aside, want up to half of %d", n, maxPartialSum)
		}
		r.pass(partsLife)
		if len(r.c.parts.open) > 0 || r.c.parts.bytes != 0 {
			t.Error("partial messages are kept")
		}
	})
}

func TestPartsTimeouts(t *testing.T) {
	tests := []struct {
		name   string
		gap    time.Duration
		pieces int
		stored bool
	}{
		{"slow", 2 * time.Second, 4, true},
		{"silent", partsSilence + time.Second, 2, false},
		{"too long in all", 2 * time.Second, 20, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			v := largeValue(5, test.pieces*wire.PieceSize-100)
			q := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: []wire.Packed{v}}
			r.receive(p.addr, p.env.AppendRequest(nil, 7, &q))
			for off := 0; off < len(v.Bytes); off += wire.PieceSize {
				r.pass(test.gap)
				r.receive(p.addr, p.env.AppendPiece(nil, 7, 0, off, v.Bytes))
			}
			if got := r.c.store.values == 1; got != test.stored {
				t.Errorf("stored: %v, want %v", got, test.stored)
			}
		})
	}
}

// Parts that belong to nothing are bounded, and strangers' are not kept at all.
func TestEarlyParts(t *testing.T) {
	r := newRig(t, Config{})
	p, stranger := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
	r.join(p)
	for i := range 500 {
		r.receive(stranger.addr, stranger.env.AppendPiece(nil, uint32(i), 0, 0, []byte("x")))
	}
	if n := len(r.c.parts.early); n != 0 {
		t.Errorf("%d parts of a stranger are kept", n)
	}
	for i := range 500 {
		r.receive(p.addr, p.env.AppendPiece(nil, uint32(i), 0, 0, []byte("x")))
	}
	checkInvariants(t, r.c)
	// Once they are old they do not stand in the way of others.
	r.pass(time.Minute)
	q := r.peer("203.0.113.1:4222")
	r.join(q)
	v := largeValue(5, 2000)
	put := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: q.token, Values: []wire.Packed{v}}
	r.receive(q.addr, q.env.AppendPiece(nil, 1000, 0, 0, v.Bytes))
	r.receive(q.addr, q.env.AppendRequest(nil, 1000, &put))
	r.receive(q.addr, q.env.AppendPiece(nil, 1000, 0, 1280, v.Bytes))
	if r.c.store.values != 1 {
		t.Error("old parts are in the way of new ones")
	}
}

// Crumbs do not take more memory than the message.
func TestCrumbs(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	v := largeValue(5, 60_000)
	q := wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: []wire.Packed{v}}
	r.receive(p.addr, p.env.AppendRequest(nil, 7, &q))
	for off := 1; off < 60_000; off += 2 {
		r.receive(p.addr, appendPiece(&p.env, 7, 0, off, v.Bytes[off:off+1]))
	}
	for key, m := range r.c.parts.open {
		if n := len(m.values[0].missing); n > 200 {
			t.Errorf("%v is cut into %d", key, n)
		}
	}
}

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

// A node that answers us cannot displace its answer by another message with the same
// transaction id: our request would wait for ever.
func TestPartsDisplaced(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	done := false
	out := r.do(func(now time.Time, out *Outbox) {
		r.c.Get(now, wire.Key{1}, wire.Query{}, func(*wire.Value) {}, func(error) { done = true }, out)
	})
	asked := of(out, wire.Ask, wire.Get)
	if len(asked) != 1 {
		t.Fatalf("%d nodes are asked", len(asked))
	}
	big := wire.Pack(&wire.Value{ID: 1, Data: make([]byte, 3000)})
	r.receive(p.addr, p.env.AppendReply(nil, asked[0].m.TID, &wire.Answer{Token: []byte("12345678"), Values: []wire.Packed{big}}))
	r.receive(p.addr, p.env.AppendRequest(nil, asked[0].m.TID, &wire.Request{Method: wire.Put, Key: wire.Key{2}, Values: []wire.Packed{big}, Token: p.token}))
	r.pass(time.Minute)
	if !done {
		t.Error("the get does not end")
	}
}
