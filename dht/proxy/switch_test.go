package proxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht"
)

func TestSwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, key := newMemTable(), newMemTable(), dht.KeyOf("a")
		s := NewSwitch(a)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- s.Run(ctx) }()
		if err := s.Put(t.Context(), key, &dht.Value{ID: 1, Data: []byte("both")}); err != nil {
			t.Fatal(err)
		}
		if err := s.Put(t.Context(), key, &dht.Value{ID: 2, Data: []byte("only a")}); err != nil {
			t.Fatal(err)
		}
		if err := b.Put(t.Context(), key, &dht.Value{ID: 1, Data: []byte("both")}); err != nil {
			t.Fatal(err)
		}
		pub, err := s.Publish(t.Context(), key, &dht.Value{ID: 3, Data: []byte("published")})
		if err != nil {
			t.Fatal(err)
		}
		next, stop := follow(t, s, key, dht.Query{})
		seen := map[string]bool{next(): true, next(): true, next(): true}
		if !seen["+both"] || !seen["+only a"] || !seen["+published"] {
			t.Fatalf("events %v", seen)
		}

		b.putErr = dht.ErrNoNodes // not yet connected
		s.Set(b)
		time.Sleep(time.Second)
		b.mu.Lock()
		b.putErr = nil
		b.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		_, onA := a.state(key)
		if listens, onB := b.state(key); onA != 0 || onB != 1 || listens != 1 {
			t.Errorf("%d publications on the old table, %d on the new, %d listens", onA, onB, listens)
		}
		var got []string
		for range 3 {
			got = append(got, next())
		}
		// The publication may have been missed for a moment.
		for _, e := range got {
			seen[e] = true
		}
		if !seen["-only a"] || seen["-both"] {
			t.Errorf("events %v", got)
		}
		mark(t, b, key, next, "after")
		pub.Cancel()
		if _, onB := b.state(key); onB != 0 {
			t.Errorf("%d publications after Cancel", onB)
		}
		stop()
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := s.Put(t.Context(), key, &dht.Value{}); !errors.Is(err, dht.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
		for _, err := range s.Listen(t.Context(), key, dht.Query{}) {
			if !errors.Is(err, dht.ErrClosed) {
				t.Errorf("error %v, want ErrClosed", err)
			}
		}
	})
}
