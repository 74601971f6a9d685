package kad

import (
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// signedValue returns a value that claims to be signed, as anybody can send it.
func signedValue(id wire.ValueID, size int) wire.Packed {
	return wire.Pack(&wire.Value{ID: id, Data: make([]byte, size), Owner: []byte("key"), Seq: 1, Signature: []byte("signature")})
}

// What is signed leaves the core to be checked, whole or in parts, and is only
// stored when it comes back.
func TestSignaturesAreCheckedOutside(t *testing.T) {
	for _, size := range []int{10, 3000} {
		r := newRig(t, Config{})
		p := r.peer("192.0.2.1:4222")
		r.join(p)
		v := signedValue(1, size)
		list := packets(t, p, 7, wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: []wire.Packed{v}})
		var out Outbox
		for _, b := range list {
			var m wire.Message
			if err := m.Parse(b); err != nil {
				t.Fatal(err)
			}
			r.c.Receive(r.now, p.addr, &m, len(b), &out)
		}
		if len(out.Checks()) != 1 || out.Len() != 0 || r.c.store.values != 0 {
			t.Fatalf("%d checks, %d packets, %d values stored", len(out.Checks()), out.Len(), r.c.store.values)
		}
		put := out.Checks()[0]
		r.c.Deliver(r.now, put, &out)
		if r.c.store.values != 0 {
			t.Error("stored, though it was not checked")
		}
		put.Message.CheckSignatures()
		out.Reset()
		r.c.Deliver(r.now, put, &out)
		if r.c.store.values != 0 || out.Len() != 1 || len(out.Checks()) != 0 {
			t.Error("a signature that does not verify is not refused")
		}
		if out.Reset(); len(out.Checks()) != 0 {
			t.Error("checks outlive a reset")
		}
	}
}

// packets returns a request and the parts of its values.
func packets(t *testing.T, p *peer, tid uint32, q wire.Request) [][]byte {
	t.Helper()
	list := [][]byte{p.env.AppendRequest(nil, tid, &q)}
	if wire.Inline(q.Values) {
		return list
	}
	for i, v := range q.Values {
		for off := 0; off < len(v.Bytes); off += wire.PieceSize {
			list = append(list, p.env.AppendPiece(nil, tid, i, off, v.Bytes))
		}
	}
	return list
}

func TestCheckLimits(t *testing.T) {
	// checked counts the puts of n signed values that are to be checked.
	checked := func(r *rig, p *peer, puts, n int) (count int) {
		var out Outbox
		for i := range puts {
			var values []wire.Packed
			for j := range n {
				values = append(values, signedValue(wire.ValueID(i*100+j+1), 10))
			}
			for _, b := range packets(t, p, uint32(i+1), wire.Request{Method: wire.Put, Key: wire.Key{1}, Token: p.token, Values: values}) {
				var m wire.Message
				if err := m.Parse(b); err != nil {
					t.Fatal(err)
				}
				r.c.Receive(r.now, p.addr, &m, len(b), &out)
			}
		}
		return len(out.Checks())
	}
	tests := []struct {
		name               string
		requests, puts, n  int
		want, afterASecond int
	}{
		{"one each", 0, 300, 1, checkBurst, checkRate},
		{"as many as may be", 0, 300, maxPutSigned, checkBurst / maxPutSigned, checkRate / maxPutSigned},
		{"too many in one", 0, 300, maxPutSigned + 1, 0, 0},
		{"without limits", -1, 300, 1, 300, 300},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{Limits: Limits{Requests: test.requests, RequestsPerSource: 1 << 20}})
			p, other := r.peer("192.0.2.1:4222"), r.peer("198.51.100.1:4222")
			r.join(p)
			r.join(other)
			if n := checked(r, p, test.puts, test.n); n != test.want {
				t.Errorf("%d are checked, want %d", n, test.want)
			}
			if n := checked(r, other, 10, 1); n != 10 {
				t.Errorf("%d of another source are checked, want 10", n)
			}
			r.pass(time.Second)
			if n := checked(r, p, test.puts, test.n); n != test.afterASecond {
				t.Errorf("%d are checked a second later, want %d", n, test.afterASecond)
			}
		})
	}
}

// What is stored already is not checked again.
func TestStoredIsNotChecked(t *testing.T) {
	r := newRig(t, Config{})
	p := r.peer("192.0.2.1:4222")
	r.join(p)
	key := wire.Key{1}
	v := signedValue(1, 10)
	s := &stored{Packed: detach(v.Value), created: r.now, expires: r.now.Add(time.Hour)}
	if !r.c.store.put(r.now, key, s) {
		t.Fatal("not stored")
	}
	count := func(v wire.Packed) (checks, replies int) {
		b := p.env.AppendRequest(nil, 1, &wire.Request{Method: wire.Put, Key: key, Token: p.token, Values: []wire.Packed{v}})
		var m wire.Message
		if err := m.Parse(b); err != nil {
			t.Fatal(err)
		}
		var out Outbox
		r.c.Receive(r.now, p.addr, &m, len(b), &out)
		return len(out.Checks()), out.Len()
	}
	if checks, replies := count(v); checks != 0 || replies != 1 {
		t.Errorf("%d checks and %d replies for what is stored", checks, replies)
	}
	if checks, replies := count(signedValue(1, 11)); checks != 1 || replies != 0 {
		t.Errorf("%d checks and %d replies for other content", checks, replies)
	}
}
