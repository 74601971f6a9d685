package main

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// TestWatchTellsOfSilence has a node whose only bootstrap node starts late.
func TestWatchTellsOfSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world := simnet.New(simnet.Config{Seed: 1, Link: simnet.Link{Latency: 10 * time.Millisecond}})
		defer world.Close()
		ours := world.NewHost("ours", netip.MustParseAddr("30.0.0.2"))
		late := world.NewHost("late", netip.MustParseAddr("30.0.0.1"))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var out, errs bytes.Buffer
		locked := &lockedWriter{w: &errs}
		log := func() string {
			locked.mu.Lock()
			defer locked.mu.Unlock()
			return errs.String()
		}
		code := make(chan int, 1)
		go func() {
			code <- Main(ctx, Env{Stdin: strings.NewReader(""), Stdout: &out, Stderr: locked, Net: ours, Getenv: func(string) string { return "" }},
				[]string{"serve", "dht", "--workers", "1", "--log", "dht=debug", "--bootstrap", "30.0.0.1"})
		}()
		logged := func(after time.Duration, text string, want bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if strings.Contains(log(), text) != want {
				t.Errorf("want %q: %v; the log is:\n%s", text, want, log())
			}
		}
		const silence = "no node answers at 30.0.0.1; still trying"
		logged(joinTime-watchEvery, silence, false)
		logged(2*watchEvery, silence, true)
		node, err := dht.New(dht.Config{Network: late, Port: dht.DefaultPort, Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- node.Run(ctx) }()
		logged(5*time.Minute, "Connected to the network.\n", true)
		logged(0, "good DHT nodes", true)
		if n := strings.Count(log(), silence); n != 1 {
			t.Errorf("told %d times", n)
		}
		cancel()
		if c, err := <-code, <-ended; c != 0 || err != nil {
			t.Errorf("ended with exit code %d, %v", c, err)
		}
	})
}
