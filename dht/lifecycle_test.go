package dht

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/internal/netx/simnet"
)

// A get ends at once when its context does.
func TestGetCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 20, simnet.Link{Latency: 200 * time.Millisecond})
		defer l.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		began := time.Now()
		var last error
		for _, err := range l.nodes[7].Get(ctx, KeyOf("slow"), Query{}) {
			last = err
		}
		if d := time.Since(began); !errors.Is(last, context.DeadlineExceeded) || d != 300*time.Millisecond {
			t.Errorf("ended after %v with %v", d, last)
		}
		time.Sleep(2 * time.Minute) // joining takes a while, and requests of its own
		if i, _ := l.nodes[7].Info(t.Context()); i.Requests > 1 {
			t.Errorf("%d requests are still in flight", i.Requests)
		}
	})
}

func TestPutCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{Latency: 200 * time.Millisecond})
		defer l.stop()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := l.nodes[1].Put(ctx, KeyOf("slow"), testValue(10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("put: %v", err)
		}
		if _, err := l.nodes[1].Publish(ctx, KeyOf("slow"), testValue(10)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publish: %v", err)
		}
		if i, _ := l.nodes[1].Info(t.Context()); i.Publishing != 0 {
			t.Errorf("%d values are still published", i.Publishing)
		}
	})
}

// Breaking off a loop cancels what it was about.
func TestBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		n, key := l.nodes[5], KeyOf("break")
		for i := range 5 {
			l.put(l.nodes[i], key, fmt.Sprint(i))
		}
		count := 0
		for _, err := range n.Get(t.Context(), key, Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			if count++; count == 2 {
				break
			}
		}
		for _, err := range n.Listen(t.Context(), key, Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			i, _ := n.Info(t.Context())
			if i.Searches == 0 {
				t.Error("a listen without a search")
			}
			break
		}
		time.Sleep(10 * time.Second)
		i, err := n.Info(t.Context())
		if err != nil || i.Listens != 0 || i.Requests > 1 {
			t.Errorf("left behind: %+v, error %v", i, err)
		}
		time.Sleep(15 * time.Minute)
		for i, n := range l.nodes {
			if info, _ := n.Info(t.Context()); info.Listening != 0 {
				t.Errorf("node %d is still listened to", i)
			}
		}
	})
}

// Whatever goes on when a node is closed ends with ErrClosed, and so does what is
// begun later.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{Latency: 500 * time.Millisecond})
		defer l.stop()
		n, key := l.nodes[3], KeyOf("close")
		ops := map[string]func() error{
			"get": func() error {
				for _, err := range n.Get(t.Context(), key, Query{}) {
					if err != nil {
						return err
					}
				}
				return nil
			},
			"listen": func() error {
				for _, err := range n.Listen(t.Context(), key, Query{}) {
					if err != nil {
						return err
					}
				}
				return nil
			},
			"put":     func() error { return n.Put(t.Context(), key, testValue(9)) },
			"publish": func() error { _, err := n.Publish(t.Context(), key, testValue(9)); return err },
			"ping":    func() error { _, _, err := n.Ping(t.Context(), netip.MustParseAddrPort("30.4.0.1:4222")); return err },
		}
		check := func(when, name string, err error) {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("%s, %s: %v", name, when, err)
			}
		}
		var wg sync.WaitGroup
		for name, op := range ops {
			wg.Go(func() { check("in progress", name, op()) })
		}
		time.Sleep(time.Second / 4)
		n.Close()
		wg.Wait()
		if err := n.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		ops["wait"] = func() error { return n.WaitConnected(t.Context()) }
		ops["info"] = func() error { _, err := n.Info(t.Context()); return err }
		for name, op := range ops {
			check("afterwards", name, op())
		}
		if err := n.Run(t.Context()); err != nil {
			t.Errorf("run of a closed node: %v", err)
		}
	})
}

// Run returns when its context ends, and leaves no goroutine, whatever it did. (The
// bubble would find one too, but not say whose it is.)
func TestRunLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		lan := l.world.NewLAN(simnet.Link{})
		before := goroutines()
		ctx, cancel := context.WithCancel(t.Context())
		n := l.make(lan.NewHost("host", addr("30.0.0.1")), Config{
			Workers: 3, Discovery: true, StateFile: t.TempDir() + "/state", Bootstrap: []string{"nowhere.example"},
		})
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		time.Sleep(time.Hour)
		if got := goroutines(); got < before+8 {
			t.Errorf("%d goroutines while it runs: is this test blind?", got-before)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if got := goroutines(); got != before {
			t.Errorf("%d goroutines are left", got-before)
		}
	})
}

// goroutines counts those that stand in this package, but tests.
func goroutines() int {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	count := 0
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "/dht.(*Node)") {
			count++
		}
	}
	return count
}

// A listener that does not read is dropped, with what waits for it bounded; it
// holds up nobody.
func TestSlowListener(t *testing.T) {
	q := newQueue[int]()
	for i := range maxQueued + 1000 {
		q.add(i)
	}
	if len(q.items) != maxQueued {
		t.Errorf("%d items wait", len(q.items))
	}
	q.end(nil) // too late to change how it ends
	count := 0
	var last error
	forward(t.Context(), nil, q, func(_ int, err error) bool {
		if last = err; err == nil {
			count++
		}
		return true
	})
	if !errors.Is(last, errSlow) || count != maxQueued {
		t.Errorf("got %d items, then %v", count, last)
	}
}

func TestQueue(t *testing.T) {
	q := newQueue[int]()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.add(1)
	if items, ended, err := q.take(ctx, nil); len(items) != 1 || ended || err != nil {
		t.Errorf("what waits comes first: %v %v %v", items, ended, err)
	}
	if _, ended, err := q.take(ctx, nil); !ended || !errors.Is(err, context.Canceled) {
		t.Errorf("with the context ended: %v %v", ended, err)
	}
	closed := make(chan struct{})
	close(closed)
	select {
	case <-q.ready: // the token of the item above, unless take had it
	default:
	}
	if _, ended, err := q.take(t.Context(), closed); !ended || !errors.Is(err, ErrClosed) {
		t.Errorf("with the node closed: %v %v", ended, err)
	}
	q.end(ErrNoNodes)
	if _, ended, err := q.take(t.Context(), nil); !ended || !errors.Is(err, ErrNoNodes) {
		t.Errorf("at the end: %v %v", ended, err)
	}
}

// A reader that takes its time gets everything in order.
func TestLazyListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 8, simnet.Link{})
		defer l.stop()
		key := KeyOf("lazy")
		got := make(chan []string)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			var texts []string
			for e, err := range l.nodes[3].Listen(ctx, key, Query{}) {
				if err != nil {
					break
				}
				texts = append(texts, string(e.Value.Data))
				time.Sleep(10 * time.Second)
			}
			got <- texts
		}()
		time.Sleep(time.Second)
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			l.put(l.nodes[5], key, fmt.Sprint(i))
		}
		time.Sleep(4 * time.Minute)
		cancel()
		if texts := <-got; !slices.Equal(texts, want) {
			t.Errorf("got %q", texts)
		}
	})
}

func TestValueIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, simnet.Link{})
		defer l.stop()
		h := l.world.NewHost("host", addr("30.0.0.1"))
		seen := map[ValueID]bool{}
		n := l.start(h, Config{})
		for range 1000 {
			id := n.NewValueID()
			if id == 0 || seen[id] {
				t.Fatalf("value id %x", uint64(id))
			}
			seen[id] = true
		}
	})
}
