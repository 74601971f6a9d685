package simnet

import (
	"math"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	testSrc = netip.MustParseAddrPort("198.51.100.1:1000")
	testDst = netip.MustParseAddrPort("[2001:db8::2]:2000")
)

func TestFateIsPure(t *testing.T) {
	l := Link{Latency: 50 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.1, Rate: 1e6}
	base := l.Fate(7, testSrc, testDst, 3, []byte("payload"))
	if again := l.Fate(7, testSrc, testDst, 3, []byte("payload")); !slices.Equal(base, again) {
		t.Fatalf("%v, then %v", base, again)
	}
	// Every argument counts.
	for name, other := range map[string][]time.Duration{
		"seed":    l.Fate(8, testSrc, testDst, 3, []byte("payload")),
		"src":     l.Fate(7, netip.AddrPortFrom(testSrc.Addr(), 1001), testDst, 3, []byte("payload")),
		"dst":     l.Fate(7, testSrc, testSrc, 3, []byte("payload")),
		"nth":     l.Fate(7, testSrc, testDst, 4, []byte("payload")),
		"payload": l.Fate(7, testSrc, testDst, 3, []byte("payloae")),
		"length":  l.Fate(7, testSrc, testDst, 3, []byte("payload\x00")),
	} {
		if slices.Equal(base, other) {
			t.Errorf("another %s gives the same fate %v", name, base)
		}
	}
	// The value is part of the contract: old seeds must give old runs.
	if want := []time.Duration{68490495}; !slices.Equal(base, want) {
		t.Errorf("fate is %d, was %d", base, want)
	}
	if got := (Link{}).Fate(1, testSrc, testDst, 0, nil); !slices.Equal(got, []time.Duration{0}) {
		t.Errorf("a perfect link gives %v", got)
	}
}

func TestFateShares(t *testing.T) {
	const n = 50_000
	l := Link{Latency: 100 * time.Millisecond, Jitter: 40 * time.Millisecond, Loss: 0.2, Duplicate: 0.1, Reorder: 0.05}
	var lost, twice, late int
	var sum float64
	for i := range uint64(n) {
		fate := l.Fate(1, testSrc, testDst, i, nil)
		switch len(fate) {
		case 0:
			lost++
			continue
		case 2:
			twice++
		}
		if fate[0] < l.Latency || fate[0] > 2*l.Latency+l.Jitter {
			t.Fatalf("delay %v", fate[0])
		}
		if fate[0] >= l.Latency+l.Jitter {
			late++
		} else {
			sum += fate[0].Seconds()
		}
	}
	arrived := float64(n - lost)
	near := func(what string, got, want, margin float64) {
		if math.Abs(got-want) > margin {
			t.Errorf("%s: %.4f, want %.4f ± %.4f", what, got, want, margin)
		}
	}
	near("loss", float64(lost)/n, 0.2, 0.01)
	near("duplicates", float64(twice)/arrived, 0.1, 0.01)
	near("late", float64(late)/arrived, 0.05*0.8, 0.01) // held back by more than what is left of the jitter
	near("mean delay", sum/(arrived-float64(late)), 0.120, 0.002)
	for _, loss := range []float64{0, 1} {
		l := Link{Latency: 1, Loss: loss}
		for i := range uint64(1000) {
			if got := len(l.Fate(1, testSrc, testDst, i, nil)); float64(got) != 1-loss {
				t.Fatalf("loss %v gives %d deliveries", loss, got)
			}
		}
	}
}

func TestLinkThen(t *testing.T) {
	a := Link{Latency: time.Second, Loss: 0.5, Rate: 1000}
	b := Link{Latency: time.Minute, Jitter: time.Hour, Loss: 0.5, Rate: 100}
	want := Link{Latency: time.Second + time.Minute, Jitter: time.Hour, Loss: 0.75, Rate: 100}
	if got := a.Then(b); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if a.Then(Link{}) != a || (Link{}).Then(a) != a {
		t.Error("a perfect link is not neutral")
	}
}

func TestPacer(t *testing.T) {
	l := Link{Rate: 1000}
	var p pacer
	const size = 100 - packetOverhead // a tenth of a second
	for i := range 11 {
		at, ok := p.admit(time.Second, size, l)
		if want := time.Second + time.Duration(i+1)*100*time.Millisecond; !ok || at != want {
			t.Fatalf("packet %d: %v, %v; want %v", i, at, ok, want)
		}
	}
	if at, ok := p.admit(time.Second, size, l); ok {
		t.Fatalf("the queue took a packet for %v", at)
	}
	if at, ok := p.admit(time.Minute, size, l); !ok || at != time.Minute+100*time.Millisecond {
		t.Fatalf("after the queue drained: %v, %v", at, ok)
	}
}
