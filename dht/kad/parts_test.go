package kad

import (
	"bytes"
	"math/rand/v2"
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
			if n := len(r.c.parts.open); n != 0 || r.c.parts.unasked.bytes != 0 {
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
		{"one fits", []uint64{1 << 40, 1000}, partialCost + 2*64},
		{"announced but not sent", []uint64{60_000, 60_000, 60_000, 60_000}, partialCost + 4*64},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			r.receive(p.addr, sizes(p, p.token, test.list...))
			if n := r.c.parts.unasked.bytes; n != test.open {
				t.Errorf("%d bytes are set aside, want %d", n, test.open)
			}
			checkInvariants(t, r.c)
		})
	}
	t.Run("many", func(t *testing.T) {
		r := newRig(t, Config{})
		part := make([]byte, 1280)
		for i := range 2000 {
			p := &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
			tok := r.c.tokens.issue(r.now, p.addr)
			r.receive(p.addr, sizes(p, tok[:], 60_000, 60_000))
			r.receive(p.addr, p.env.AppendPiece(nil, 9, 0, 0, part))
			r.receive(p.addr, p.env.AppendPiece(nil, 9, 1, 0, part))
		}
		checkInvariants(t, r.c)
		if n := r.c.parts.unasked.bytes; n < maxPartialSum/2 {
			t.Errorf("only %d bytes are set aside", n)
		}
		r.pass(partsLife)
		if len(r.c.parts.open) > 0 || r.c.parts.unasked.bytes != 0 {
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

// A request whose answer has begun ends, whatever else its node sends.
func TestPartsOfOneTID(t *testing.T) {
	large := []wire.Packed{largeValue(1, 3000)}
	other := []wire.Packed{largeValue(2, 4000)}
	put := func(p *peer, tid uint32) []byte {
		return p.env.AppendRequest(nil, tid, &wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: other})
	}
	answer := func(p *peer, tid uint32, v []wire.Packed) []byte {
		return p.env.AppendReply(nil, tid, &wire.Answer{To: p.addr.Addr(), Values: v})
	}
	tests := []struct {
		name string
		send func(r *rig, p *peer, tid uint32)
	}{
		{"a put", func(r *rig, p *peer, tid uint32) {
			r.receive(p.addr, answer(p, tid, large))
			r.receive(p.addr, put(p, tid))
		}},
		{"a put that comes whole", func(r *rig, p *peer, tid uint32) {
			r.receive(p.addr, answer(p, tid, large))
			r.receive(p.addr, put(p, tid))
			for off := 0; off < len(other[0].Bytes); off += wire.PieceSize {
				r.receive(p.addr, p.env.AppendPiece(nil, tid, 0, off, other[0].Bytes))
			}
		}},
		{"beginnings without end", func(r *rig, p *peer, tid uint32) {
			for range 100 {
				r.receive(p.addr, answer(p, tid, large))
				r.receive(p.addr, put(p, tid))
				r.pass(200 * time.Millisecond)
				r.receive(p.addr, answer(p, tid, other))
				r.pass(200 * time.Millisecond)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			p := r.peer("192.0.2.1:4222")
			r.join(p)
			var q *request
			r.do(func(now time.Time, out *Outbox) {
				r.c.enter(now, out)
				q = r.c.ask(r.c.v4, r.c.v4.table.get(p.env.Self), wire.Request{Method: wire.Get, Key: wire.Key{1}}, nobody{})
			})
			test.send(r, p, q.tid)
			checkInvariants(t, r.c)
			r.pass(max(0, q.sent.Add(2*partsLife).Sub(r.now)))
			if r.c.requests[q.tid] == q {
				t.Error("the request never ends")
			}
		})
	}
}

// One source does not take the room of others, nor that of answers to us.
func TestPartsOfOneSource(t *testing.T) {
	r := newRig(t, Config{})
	greedy, honest, node := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222"), r.peer("203.0.113.1:4222")
	for _, p := range []*peer{greedy, honest, node} {
		r.join(p)
	}
	v := largeValue(1, 60_000)
	begin := func(p *peer, tid uint32) {
		r.receive(p.addr, p.env.AppendRequest(nil, tid, &wire.Request{Method: wire.Put, Key: wire.Key{2}, Token: p.token, Values: []wire.Packed{v}}))
		r.receive(p.addr, p.env.AppendPiece(nil, tid, 0, 0, v.Bytes))
	}
	begin(honest, 1)
	for tid := range uint32(1000) {
		begin(greedy, tid+1)
	}
	checkInvariants(t, r.c)
	if n := r.c.parts.unasked.sources[greedy.addr.Addr()].bytes; n > maxPartialSum/16 || n < maxPartialSum/32 {
		t.Errorf("one source has %d bytes", n)
	}
	if r.c.parts.open[partKey{honest.addr, 1}] == nil {
		t.Error("another source lost its own")
	}
	if r.c.parts.open[partKey{greedy.addr, 1}] != nil || r.c.parts.open[partKey{greedy.addr, 1000}] == nil {
		t.Error("not the oldest made room")
	}
	// All room is taken; an answer to us still has its own.
	for i := range 400 {
		p := &peer{addr: address(i), env: wire.Envelope{Self: r.id()}}
		tok := r.c.tokens.issue(r.now, p.addr)
		p.token = tok[:]
		begin(p, 1)
	}
	checkInvariants(t, r.c)
	if r.c.parts.unasked.bytes < maxPartialSum-2*len(v.Bytes) {
		t.Fatalf("only %d bytes are taken", r.c.parts.unasked.bytes)
	}
	var q *request
	r.do(func(now time.Time, out *Outbox) {
		r.c.enter(now, out)
		q = r.c.ask(r.c.v4, r.c.v4.table.get(node.env.Self), wire.Request{Method: wire.Get, Key: wire.Key{3}}, nobody{})
	})
	many := make([]wire.Packed, 40) // more than a source may send unasked
	for i := range many {
		many[i] = v
	}
	r.receive(node.addr, node.env.AppendReply(nil, q.tid, &wire.Answer{To: node.addr.Addr(), Values: many}))
	for i := range many {
		r.receive(node.addr, node.env.AppendPiece(nil, q.tid, i, 0, v.Bytes))
	}
	checkInvariants(t, r.c)
	p := r.c.parts.open[partKey{node.addr, q.tid}]
	if p == nil || p.r != q || p.bytes < len(many)*len(v.Bytes) {
		t.Error("there is no room for an answer to us")
	}
}

// An answer that there is no room for is not an empty answer.
func TestPartsWithoutRoom(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	var q *request
	r.do(func(now time.Time, out *Outbox) {
		r.c.enter(now, out)
		q = r.c.ask(r.c.v4, r.c.v4.table.get(p.env.Self), wire.Request{Method: wire.Get, Key: wire.Key{3}}, nobody{})
	})
	r.c.parts.answers.bytes = maxPartialSum
	r.receive(p.addr, p.env.AppendReply(nil, q.tid, &wire.Answer{To: p.addr.Addr(), Values: []wire.Packed{largeValue(1, 3000)}}))
	r.c.parts.answers.bytes = 0
	if r.c.requests[q.tid] != q {
		t.Error("the request is over")
	}
	checkInvariants(t, r.c)
	// Nor does the request wait for ever when an answer begins anew without room.
	r.receive(p.addr, p.env.AppendReply(nil, q.tid, &wire.Answer{To: p.addr.Addr(), Values: []wire.Packed{largeValue(1, 3000)}}))
	if len(r.c.parts.open) != 1 {
		t.Fatal("the answer does not begin")
	}
	r.c.parts.answers.bytes += maxPartialSum
	r.receive(p.addr, p.env.AppendReply(nil, q.tid, &wire.Answer{To: p.addr.Addr(), Values: []wire.Packed{largeValue(1, 4000)}}))
	r.c.parts.answers.bytes -= maxPartialSum
	checkInvariants(t, r.c)
	r.pass(2 * partsLife)
	if r.c.requests[q.tid] == q {
		t.Error("the request never ends")
	}
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
