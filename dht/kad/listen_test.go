package kad

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
)

// listening is a core with one peer that it listens at.
func listeningRig(t *testing.T, key wire.Key) (r *rig, p *peer, socket uint32, events *[]string) {
	t.Helper()
	r = newRig(t, Config{Families: wire.IPv4})
	p = r.peer("192.0.2.1:4222")
	r.join(p)
	events = new([]string)
	out := r.do(func(now time.Time, out *Outbox) {
		r.c.Listen(now, key, wire.Query{}, func(v *wire.Value, expired bool) {
			s := fmt.Sprintf("%d:%s", v.ID, v.Data)
			if expired {
				s = "-" + s
			}
			*events = append(*events, s)
		}, out)
	})
	for i := 0; i < 50 && socket == 0; i++ {
		var next []packet
		for _, a := range out {
			switch {
			case a.m.Kind != wire.Ask:
			case a.m.Method == wire.Listen:
				socket = a.m.Socket
				next = append(next, r.reply(p, a, wire.Answer{})...)
			default:
				next = append(next, r.reply(p, a, wire.Answer{Token: []byte("tokentok")})...)
			}
		}
		if out = next; len(out) == 0 {
			out = r.pass(100 * time.Millisecond)
		}
	}
	if socket == 0 {
		t.Fatal("no listen is sent")
	}
	return r, p, socket, events
}

func TestListenEvents(t *testing.T) {
	key := wire.Key{7}
	r, p, socket, events := listeningRig(t, key)
	want := func(list ...string) {
		t.Helper()
		if !slices.Equal(*events, list) {
			t.Errorf("events %q, want %q", *events, list)
		}
		*events = nil
	}
	update := func(q wire.Request) packet {
		t.Helper()
		q.Method, q.Key, q.Socket = wire.Update, key, socket
		return r.only(r.ask(p, q))
	}
	if a := update(wire.Request{Values: []wire.Packed{text(1, "a")}}); a.m.Kind != wire.Reply {
		t.Error("an update is not answered")
	}
	want("1:a")
	update(wire.Request{Values: []wire.Packed{text(1, "a"), text(2, "b")}})
	want("2:b")
	// Another node, or another socket, cannot push.
	other := r.peer("192.0.2.9:4222")
	r.join(other)
	r.ask(other, wire.Request{Method: wire.Update, Key: key, Socket: socket, Values: []wire.Packed{text(3, "c")}})
	r.ask(p, wire.Request{Method: wire.Update, Key: key, Socket: socket + 1, Values: []wire.Packed{text(3, "c")}})
	want()
	update(wire.Request{Expired: []wire.ValueID{1, 9}})
	want("-1:a")
	// In parts.
	big := largeValue(4, 3000)
	r.askParts(p, wire.Request{Method: wire.Update, Key: key, Socket: socket, Values: []wire.Packed{big}})
	if len(*events) != 1 {
		t.Errorf("a large value brings %d events", len(*events))
	}
	*events = nil
	// The forms before version 1.
	r.receive(p.addr, p.env.AppendReply(nil, socket, &wire.Answer{Values: []wire.Packed{text(5, "old")}}))
	want("5:old")
	r.receive(p.addr, p.env.AppendNotice(nil, socket, []byte("t"), nil, []wire.ValueID{5}))
	want("-5:old")
}

// A node that has a newer version has the older one no more: versions do not pile
// up, and that one is gone is no event.
func TestListenVersions(t *testing.T) {
	key := wire.Key{7}
	r, p, socket, events := listeningRig(t, key)
	for seq := range uint16(3) {
		v := signed(t, 0, 1, wire.TypeUserData, seq, fmt.Sprint("v", seq))
		r.askParts(p, wire.Request{Method: wire.Update, Key: key, Socket: socket, Values: []wire.Packed{wire.Pack(v)}})
	}
	if want := []string{"1:v0", "1:v1", "1:v2"}; !slices.Equal(*events, want) {
		t.Errorf("events %q, want %q", *events, want)
	}
	l := r.c.listens[key][0]
	if l.count != 1 || len(l.values[1]) != 1 {
		t.Errorf("%d versions are kept", l.count)
	}
	r.ask(p, wire.Request{Method: wire.Update, Key: key, Socket: socket, Expired: []wire.ValueID{1}})
	if last := (*events)[len(*events)-1]; last != "-1:v2" || l.count != 0 {
		t.Errorf("last event %q, %d kept", last, l.count)
	}
}

// A value with a short life ends in time though one with a long life came first.
func TestListenExpiry(t *testing.T) {
	key := wire.Key{7}
	r, p, socket, events := listeningRig(t, key)
	for _, v := range []*wire.Value{
		{ID: 1, Type: wire.TypeTrustRequest, Data: []byte("long")},
		{ID: 2, Type: wire.TypeICE, Data: []byte("short")},
	} {
		r.ask(p, wire.Request{Method: wire.Update, Key: key, Socket: socket, Values: []wire.Packed{wire.Pack(v)}})
	}
	r.pass(iceLife + expirySlack - time.Second)
	if len(*events) != 2 {
		t.Errorf("too early: %q", *events)
	}
	r.pass(2 * time.Second)
	if want := []string{"1:long", "2:short", "-2:short"}; !slices.Equal(*events, want) {
		t.Errorf("events %q, want %q", *events, want)
	}
	r.now = r.now.Add(trustRequestLife)
	r.pass(time.Minute)
	if last := (*events)[len(*events)-1]; last != "-1:long" {
		t.Errorf("last event %q", last)
	}
}

func TestListenBound(t *testing.T) {
	key := wire.Key{7}
	r, p, socket, events := listeningRig(t, key)
	for i := range maxFound + 100 {
		r.ask(p, wire.Request{Method: wire.Update, Key: key, Socket: socket, Values: []wire.Packed{text(wire.ValueID(i+1), "x")}})
		if i%500 == 0 {
			r.now = r.now.Add(time.Second)
		}
	}
	if len(*events) != maxFound {
		t.Errorf("%d values are told of, want %d", len(*events), maxFound)
	}
}

// Our own storage tells our own listens, also while there is nobody else.
func TestListenLocal(t *testing.T) {
	r := newRig(t, Config{})
	var events []string
	r.do(func(now time.Time, out *Outbox) {
		r.c.Listen(now, wire.Key{1}, wire.Query{}, func(v *wire.Value, expired bool) {
			events = append(events, fmt.Sprint(v.ID, expired))
		}, out)
		var failed error
		r.c.Put(now, wire.Key{1}, &wire.Value{ID: 4, Data: []byte("x")}, time.Time{}, false, func(err error) { failed = err }, out)
		if failed != ErrNoNodes {
			t.Errorf("put with nobody there ends with %v", failed)
		}
	})
	r.pass(defaultLife + time.Minute)
	if want := []string{"4 false", "4 true"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
}
