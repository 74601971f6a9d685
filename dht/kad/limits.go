package kad

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"time"
)

// generations is a bounded map that forgets: entries live for one to two spans,
// or less when more than half the bound arrive within a span.
type generations[K comparable, V any] struct {
	span     time.Duration
	half     int // entries per generation
	now, old map[K]V
	turned   time.Time
}

func (g *generations[K, V]) turn(now time.Time) {
	if g.now == nil || now.Sub(g.turned) >= g.span || len(g.now) >= g.half {
		if now.Sub(g.turned) >= 2*g.span {
			g.now = nil
		}
		g.old, g.now, g.turned = g.now, make(map[K]V), now
	}
}

func (g *generations[K, V]) get(now time.Time, key K) (V, bool) {
	g.turn(now)
	v, ok := g.now[key]
	if !ok {
		if v, ok = g.old[key]; ok {
			g.now[key] = v
		}
	}
	return v, ok
}

func (g *generations[K, V]) set(now time.Time, key K, v V) {
	g.turn(now)
	g.now[key] = v
}

func (g *generations[K, V]) delete(key K) {
	delete(g.now, key)
	delete(g.old, key)
}

// A bucket lets rate events a second pass, and a second's worth at once.
type bucket struct {
	tokens float32
	at     time.Time
}

func (b *bucket) take(now time.Time, rate float32) bool {
	if b.at.IsZero() {
		b.tokens = rate
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(rate, b.tokens+rate*float32(d.Seconds()))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// A limiter bounds requests by source and in all. A source that asks little, from an
// address that is proven, is served even while others exhaust what is allowed in all.
type limiter struct {
	total, each float32 // per second; 0 means no limit
	all         bucket
	strangers   bucket // half of all, for who has not proven an address
	sources     generations[netip.Addr, sourceRate]
}

type sourceRate struct {
	all   bucket // what this source may ask
	quiet bucket // what it is granted beside the total
}

// quietRate is how many requests a second a proven source may make at any time.
const quietRate = 32

func (l *limiter) allow(now time.Time, from netip.Addr, proven bool) bool {
	if l.each == 0 {
		return true
	}
	src := source(from)
	r, _ := l.sources.get(now, src)
	ok := r.all.take(now, l.each)
	if ok && proven {
		ok = r.quiet.take(now, quietRate) || l.all.take(now, l.total)
	} else if ok {
		ok = l.strangers.take(now, l.total/2) && l.all.take(now, l.total)
	}
	l.sources.set(now, src, r)
	return ok
}

// tokenSize keeps the first answer to a stranger smaller than the question. A
// guess has one chance in 2^64, and guesses are rate-limited.
const tokenSize = 8

// tokens issues and checks write tokens, which prove that their holder receives
// what is sent to its address.
type tokens struct {
	rand        *rand.Rand
	secret, old [16]byte
	next        time.Time // when the secret changes
}

func (t *tokens) rotate(now time.Time) {
	if now.Before(t.next) {
		return
	}
	t.old = t.secret
	if t.next.IsZero() || now.Sub(t.next) > time.Hour {
		t.old = t.newSecret()
	}
	t.secret = t.newSecret()
	t.next = now.Add(15*time.Minute + time.Duration(t.rand.Int64N(int64(15*time.Minute))))
}

func (t *tokens) newSecret() (s [16]byte) {
	binary.LittleEndian.PutUint64(s[:8], t.rand.Uint64())
	binary.LittleEndian.PutUint64(s[8:], t.rand.Uint64())
	return s
}

func token(secret [16]byte, a netip.AddrPort) [tokenSize]byte {
	var b [16 + 16 + 2]byte
	copy(b[:], secret[:])
	ip := a.Addr().As16()
	copy(b[16:], ip[:])
	binary.BigEndian.PutUint16(b[32:], a.Port())
	sum := sha256.Sum256(b[:])
	return [tokenSize]byte(sum[:])
}

func (t *tokens) issue(now time.Time, a netip.AddrPort) [tokenSize]byte {
	t.rotate(now)
	return token(t.secret, a)
}

func (t *tokens) valid(now time.Time, a netip.AddrPort, got []byte) bool {
	t.rotate(now)
	if len(got) != tokenSize {
		return false
	}
	have := [tokenSize]byte(got)
	return have == token(t.secret, a) || have == token(t.old, a)
}
