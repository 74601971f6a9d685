package kad

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func addrPort(format string, n int) string {
	a := netip.MustParseAddr(fmt.Sprintf(format, n))
	return netip.AddrPortFrom(a, 4222).String()
}

func TestGenerations(t *testing.T) {
	g := generations[int, string]{span: time.Minute, half: 100}
	now := epoch
	g.set(now, 1, "a")
	for range 5 { // read again and again it stays
		now = now.Add(50 * time.Second)
		if v, ok := g.get(now, 1); !ok || v != "a" {
			t.Fatalf("after %v: %q, %v", now.Sub(epoch), v, ok)
		}
	}
	now = now.Add(2 * time.Minute)
	if _, ok := g.get(now, 1); ok {
		t.Error("an entry outlives two spans")
	}
	for i := range 10_000 {
		g.set(now, i, "x")
		g.get(now, i/2)
		if n := len(g.now) + len(g.old); n > 2*101 {
			t.Fatalf("%d entries, the bound is 200", n)
		}
	}
	if _, ok := g.get(now, 9_999); !ok {
		t.Error("the newest entry is gone")
	}
	g.delete(9_999)
	if _, ok := g.get(now, 9_999); ok {
		t.Error("a deleted entry is there")
	}
}

func TestBucket(t *testing.T) {
	var b bucket
	count := func(now time.Time, tries int) (n int) {
		for range tries {
			if b.take(now, 10) {
				n++
			}
		}
		return n
	}
	steps := []struct {
		after time.Duration
		tries int
		want  int
	}{
		{0, 100, 10}, {0, 5, 0}, {100 * time.Millisecond, 5, 1}, {time.Second, 100, 10}, {time.Hour, 100, 10}, {-time.Minute, 5, 0},
	}
	now := epoch
	for i, s := range steps {
		now = now.Add(s.after)
		if got := count(now, s.tries); got != s.want {
			t.Errorf("step %d: %d events, want %d", i, got, s.want)
		}
	}
}

func TestLimiter(t *testing.T) {
	quiet := netip.MustParseAddr("192.0.2.1")
	flood := func(l *limiter, now time.Time, sources, each int, format string, proven bool) (n int) {
		for i := range sources {
			for range each {
				if l.allow(now, netip.MustParseAddr(fmt.Sprintf(format, i)), proven) {
					n++
				}
			}
		}
		return n
	}
	tests := []struct {
		name          string
		sources, each int
		format        string
		proven        bool
		most          int
	}{
		{"one source", 1, 5000, "198.51.100.%d", true, 100},
		{"one /64", 200, 100, "2001:db8::%x", true, 100},
		{"many sources", 200, 100, "198.51.100.%d", true, 800 + 200*quietRate},
		{"forged sources", 200, 100, "198.51.100.%d", false, 400},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l := &limiter{total: 800, each: 100}
			l.sources = generations[netip.Addr, sourceRate]{span: time.Minute, half: 1 << 15}
			n := flood(l, epoch, test.sources, test.each, test.format, test.proven)
			if n > test.most || n < 100 {
				t.Errorf("%d requests are let in, at most %d should be", n, test.most)
			}
			for range quietRate {
				if !l.allow(epoch, quiet, true) {
					t.Fatal("somebody who asks little is shut out")
				}
			}
		})
	}
	off := &limiter{}
	if n := flood(off, epoch, 1, 5000, "198.51.100.%d", false); n != 5000 {
		t.Errorf("without limits %d of 5000 are let in", n)
	}
}

func TestTokens(t *testing.T) {
	tk := tokens{rand: rand.New(rand.NewPCG(1, 1))}
	a := netip.MustParseAddrPort("192.0.2.1:4222")
	tok := tk.issue(epoch, a)
	for _, other := range []string{"192.0.2.1:4223", "192.0.2.2:4222", "[2001:db8::1]:4222"} {
		if tk.valid(epoch, netip.MustParseAddrPort(other), tok[:]) {
			t.Errorf("the token of %s is valid for %s", a, other)
		}
	}
	for _, bad := range [][]byte{nil, tok[:7], append(tok[:], 0), make([]byte, tokenSize)} {
		if tk.valid(epoch, a, bad) {
			t.Errorf("%x is valid", bad)
		}
	}
	// Tokens last for 15 minutes at least, whenever issued, and for an hour at most.
	now := epoch
	for range 200 {
		now = now.Add(time.Duration(tk.rand.IntN(20)) * time.Minute)
		tok := tk.issue(now, a)
		for _, m := range []int{0, 5, 10, 15} {
			if m == 15 || m < 15 {
				check := tk // a copy: validity must not depend on other calls
				if !check.valid(now.Add(time.Duration(m)*time.Minute), a, tok[:]) {
					t.Fatalf("a token is not valid after %d minutes", m)
				}
			}
		}
		// With steady use, as in life, it ends.
		late := now
		valid := true
		for range 13 {
			late = late.Add(5 * time.Minute)
			valid = tk.valid(late, a, tok[:])
		}
		if valid {
			t.Fatal("a token is valid after 65 minutes")
		}
		now = late
	}
}
