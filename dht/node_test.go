package dht

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx/simnet"
)

func TestPutGet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 30, simnet.Link{})
		defer l.stop()
		key := KeyOf("greeting")
		l.put(l.nodes[3], key, "hello")
		l.put(l.nodes[3], key, "world")
		l.want(l.nodes[20], key, "hello", "world")
		l.want(l.nodes[20], KeyOf("nothing"))
	})
}

// roughLink is a bad day on a mobile network.
var roughLink = simnet.Link{Latency: 40 * time.Millisecond, Jitter: 60 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.2}

func TestRoughNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 20, roughLink)
		defer l.stop()
		key := KeyOf("rough")
		events := l.listen(l.nodes[7], key)
		time.Sleep(5 * time.Second)
		for i := range 10 {
			text := fmt.Sprint("value ", i)
			l.put(l.nodes[i], key, text)
			l.hears(events, text, 10*time.Second)
		}
		l.want(l.nodes[15], key, "value 0", "value 1", "value 2", "value 3", "value 4",
			"value 5", "value 6", "value 7", "value 8", "value 9")
	})
}

// Values of all sizes go in parts where they must, whatever is lost on the way.
func TestLargeValues(t *testing.T) {
	for _, link := range []simnet.Link{
		{Latency: 10 * time.Millisecond},
		{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.01, Duplicate: 0.05, Reorder: 0.2},
	} {
		t.Run(fmt.Sprint("loss ", link.Loss), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := cluster(t, 12, link)
				defer l.stop()
				for _, size := range []int{400, 599, 600, 1280, 1281, 20_000, wire.MaxValueSize} {
					key := KeyOf(fmt.Sprint("size ", size))
					events := l.listen(l.nodes[1], key)
					time.Sleep(2 * time.Second)
					v := testValue(size)
					if err := l.nodes[5].Put(l.ctx, key, v); err != nil {
						t.Fatalf("%d bytes: %v", size, err)
					}
					l.hears(events, string(v.Data), 30*time.Second)
					got, err := l.get(l.nodes[9], key)
					if err != nil || len(got) != 1 || !bytes.Equal([]byte(got[0]), v.Data) {
						t.Errorf("%d bytes: got %d values, error %v", size, len(got), err)
					}
				}
			})
		})
	}
}

func TestTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 3, simnet.Link{})
		defer l.stop()
		if err := l.nodes[0].Put(t.Context(), KeyOf("large"), testValue(wire.MaxValueSize+1)); !errors.Is(err, ErrRefused) {
			t.Errorf("too large: %v", err)
		}
		if err := l.nodes[0].Put(t.Context(), Key{}, testValue(1)); !errors.Is(err, ErrRefused) {
			t.Errorf("zero key: %v", err)
		}
	})
}

// A publication lives on past its type's life; a put does not, nor what was
// cancelled, and listeners hear of it.
func TestPublish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 16, simnet.Link{})
		defer l.stop()
		key := KeyOf("publish")
		events := l.listen(l.nodes[4], key)
		pub, err := l.nodes[2].Publish(t.Context(), key, &Value{Data: []byte("kept")})
		if err != nil {
			t.Fatal(err)
		}
		if pub.Key() != key || pub.Value().ID == 0 {
			t.Errorf("publication of %v, %+v", pub.Key(), pub.Value())
		}
		l.put(l.nodes[3], key, "put")
		l.want(l.nodes[9], key, "kept", "put")
		time.Sleep(2 * time.Hour)
		l.want(l.nodes[9], key, "kept")
		pub.Cancel()
		pub.Cancel() // again is allowed
		time.Sleep(12 * time.Minute)
		l.want(l.nodes[9], key)
		seen := map[string]int{}
		for len(events) > 0 {
			e := <-events
			seen[fmt.Sprint(string(e.Value.Data), " ", e.Expired)]++
		}
		if want := map[string]int{"kept false": 1, "kept true": 1, "put false": 1, "put true": 1}; fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("heard %v, want %v", seen, want)
		}
	})
}

// Publishing with the same id again replaces the publication; the older handle
// does not end the newer one.
func TestPublishAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		key := KeyOf("again")
		first, err := l.nodes[1].Publish(t.Context(), key, &Value{ID: 7, Data: []byte("same")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.nodes[1].Publish(t.Context(), key, &Value{ID: 7, Data: []byte("same")}); err != nil {
			t.Fatal(err)
		}
		if i, _ := l.nodes[1].Info(t.Context()); i.Publishing != 1 {
			t.Errorf("%d values are published, want 1", i.Publishing)
		}
		first.Cancel()
		time.Sleep(time.Hour)
		l.want(l.nodes[5], key, "same")
	})
}

// A put ends with its life, also where one address family leads nowhere.
func TestPutEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		l.put(l.nodes[2], KeyOf("ends"), "ends")
		time.Sleep(11 * time.Minute)
		for i, n := range l.nodes {
			if info, _ := n.Info(t.Context()); info.Storage.Values != 0 {
				t.Errorf("node %d keeps it", i)
			}
		}
	})
}

func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		n := l.start(l.world.NewHost("alone", addr("30.0.0.1")), Config{})
		if err := n.Put(t.Context(), KeyOf("a"), testValue(3)); !errors.Is(err, ErrNoNodes) {
			t.Errorf("put: %v", err)
		}
		// It is the first of its network: what it has is all there is.
		for key, want := range map[string]int{"a": 1, "b": 0} {
			if got, err := l.get(n, KeyOf(key)); err != nil || len(got) != want {
				t.Errorf("get %s: %d values, %v", key, len(got), err)
			}
		}
		if _, err := n.Publish(t.Context(), KeyOf("a"), testValue(3)); !errors.Is(err, ErrNoNodes) {
			t.Errorf("publish: %v", err)
		}
		if _, _, err := n.Ping(t.Context(), netip.MustParseAddrPort("31.0.0.1:4222")); !errors.Is(err, ErrNoNodes) {
			t.Errorf("ping: %v", err)
		}
	})
}

// Requests made before Run are carried out once it runs, and wait for the network.
func TestRequestsBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		key := KeyOf("early")
		n := l.make(l.world.NewHost("early", addr("60.0.0.1")), Config{Bootstrap: []string{boot}})
		done := make(chan error)
		go func() { done <- n.Put(t.Context(), key, &Value{Data: []byte("early")}) }()
		synctest.Wait()
		l.runs.Go(func() error { return n.Run(l.ctx) })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		l.want(l.nodes[4], key, "early")
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 2, simnet.Link{Latency: 25 * time.Millisecond})
		defer l.stop()
		id, rtt, err := l.nodes[0].Ping(t.Context(), netip.MustParseAddrPort("30.1.0.1:4222"))
		if err != nil || id != l.nodes[1].ID() || rtt != 50*time.Millisecond {
			t.Errorf("%v after %v, error %v", id, rtt, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := l.nodes[0].Ping(ctx, netip.MustParseAddrPort("31.0.0.1:4222")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with little time: %v", err)
		}
	})
}

func TestManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 120, simnet.Link{Latency: 20 * time.Millisecond, Jitter: 20 * time.Millisecond})
		defer l.stop()
		time.Sleep(2 * time.Minute)
		for i := range 20 {
			key := KeyOf(fmt.Sprint("many ", i))
			l.put(l.nodes[6*i], key, fmt.Sprint(i))
			l.want(l.nodes[(7*i+60)%120], key, fmt.Sprint(i))
		}
		holders := 0
		for _, n := range l.nodes {
			i, err := n.Info(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			holders += i.Storage.Values
			if i.IPv4.Good < 8 {
				t.Errorf("node %v knows %d nodes", n.ID(), i.IPv4.Good)
			}
		}
		if holders < 20*7 || holders > 20*16 {
			t.Errorf("20 values are stored %d times, want 8 to 13 times each", holders)
		}
	})
}

// A packet larger than usual is lost once; then there is room for its repetition.
func TestLargePackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 3, simnet.Link{})
		defer l.stop()
		send := l.sender("60.0.0.1")
		packet := (&wire.Envelope{Self: NodeID(KeyOf("sender"))}).AppendRequest(nil, 7, &wire.Request{
			Method: wire.Put, Key: KeyOf("large"), Values: []wire.Packed{wire.Pack(&Value{ID: 1, Data: make([]byte, 500)})},
		})
		packet = append(packet[:1:1], packet[1:]...)
		packet[0]++ // one more pair in the map, which nobody knows
		packet = msgpack.AppendBin(msgpack.AppendString(packet, "padding"), make([]byte, 50_000))
		for i, want := range []uint64{0, 1, 2} {
			send(packet)
			time.Sleep(time.Second)
			if got := l.nodes[0].Stats().Requests[wire.Put]; got != want {
				t.Errorf("sent %d times, read %d times", i+1, got)
			}
		}
	})
}
