package kad

import (
	"net/netip"
	"testing"
	"time"
)

func TestRTT(t *testing.T) {
	var r, other rtt
	if got := r.timeout(&other); got != firstRTO {
		t.Errorf("nothing known: %v", got)
	}
	other.observe(20 * time.Millisecond)
	if got := r.timeout(&other); got < minRTO || got > firstRTO {
		t.Errorf("others known: %v", got)
	}
	for range 50 {
		r.observe(100 * time.Millisecond)
	}
	if got := r.timeout(nil); got < 100*time.Millisecond || got > 130*time.Millisecond {
		t.Errorf("steady 100 ms: %v", got)
	}
	for i := range 50 {
		r.observe(time.Duration(50+100*(i%2)) * time.Millisecond)
	}
	if got := r.timeout(nil); got < 200*time.Millisecond || got > 500*time.Millisecond {
		t.Errorf("between 50 and 150 ms: %v", got)
	}
	for range 50 {
		r.observe(10 * time.Second)
	}
	if got := r.timeout(nil); got != maxRTO {
		t.Errorf("10 s: %v", got)
	}
	var fast rtt
	for range 50 {
		fast.observe(time.Microsecond)
	}
	if got := fast.timeout(nil); got != minRTO {
		t.Errorf("1 µs: %v", got)
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct {
		addr, source, network string
		martian               bool
	}{
		{"192.0.2.7:1", "192.0.2.7", "192.0.2.0/24", false},
		{"[2001:db8:1:2:3::4]:1", "2001:db8:1:2::", "2001:db8:1::/48", false},
		{"[fe80::1%eth0]:1", "fe80::", "", false},
		{"127.0.0.1:1", "127.0.0.1", "", false},
		{"10.0.0.1:1", "10.0.0.1", "", false},
		{"192.0.2.7:0", "192.0.2.7", "192.0.2.0/24", true},
		{"0.1.2.3:1", "0.1.2.3", "0.1.2.0/24", true},
		{"224.0.0.1:1", "224.0.0.1", "224.0.0.0/24", true},
		{"255.255.255.255:1", "255.255.255.255", "255.255.255.0/24", true},
		{"[ff02::1]:1", "ff02::", "ff02::/48", true},
		{"[::]:1", "::", "::/48", true},
		{"[::ffff:192.0.2.7]:1", "", "", true},
	}
	for _, test := range tests {
		a := netip.MustParseAddrPort(test.addr)
		if got := martian(a); got != test.martian {
			t.Errorf("%s: martian %v", a, got)
		}
		if test.source != "" && source(a.Addr()) != netip.MustParseAddr(test.source) {
			t.Errorf("%s: source %s, want %s", a, source(a.Addr()), test.source)
		}
		if test.source == "" {
			continue
		}
		p, ok := network(a.Addr())
		if ok != (test.network != "") || ok && p != netip.MustParsePrefix(test.network) {
			t.Errorf("%s: network %v, %v", a, p, ok)
		}
	}
}
