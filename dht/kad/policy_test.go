package kad

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/identity/identitytest"
	"github.com/kith-im/kith/internal/msgpack"
)

// signed returns a value signed by throwaway key number by.
func signed(t testing.TB, by int, id wire.ValueID, typ wire.TypeID, seq uint16, data string) *wire.Value {
	t.Helper()
	k := identitytest.Key(by)
	v := &wire.Value{ID: id, Type: typ, Seq: seq, Data: []byte(data), Owner: k.Public().DER()}
	sig, err := k.Sign(v.SignedBytes())
	if err != nil {
		t.Fatal(err)
	}
	v.Signature = sig
	return v
}

func forge(v *wire.Value) *wire.Value {
	v = v.Clone()
	v.Signature[10] ^= 1
	return v
}

func cert(i int, id wire.ValueID) *wire.Value {
	return &wire.Value{ID: id, Type: wire.TypeCertificate, Data: identitytest.Identity(i).Cert.DER()}
}

func service(addr string) *wire.Value {
	b := AppendSockaddr(nil, netip.MustParseAddrPort(addr))
	return &wire.Value{ID: 1, Type: wire.TypeService, Data: msgpack.AppendBin(nil, b)}
}

// Attacks A1, A3 and A4 on what is stored anew.
func TestStoreRules(t *testing.T) {
	short, long := identity.CertificateKeys(identitytest.Key(0).Public())
	someKey := wire.Key{1, 2, 3}
	stranger := signed(t, 0, 1, wire.TypeUserData, 1, "x")
	stranger.Owner = identitytest.Key(1).Public().DER()
	pem := cert(0, 1)
	pem.Data = identitytest.Identity(0).Cert.PEM()
	noService := &wire.Value{ID: 1, Type: wire.TypeMessage, Data: msgpack.AppendBin(msgpack.AppendString(msgpack.AppendArray(nil, 2), ""), []byte("x"))}
	withService := &wire.Value{ID: 1, Type: wire.TypeMessage, Data: msgpack.AppendString(msgpack.AppendArray(nil, 1), "GitSync")}
	tests := []struct {
		name string
		key  wire.Key
		v    *wire.Value
		want wire.Refusal
	}{
		{"unsigned data", someKey, &wire.Value{ID: 1, Data: []byte("x")}, wire.Stored},
		{"signed data", someKey, signed(t, 0, 1, wire.TypeUserData, 1, "x"), wire.Stored},
		{"forged data", someKey, forge(signed(t, 0, 1, wire.TypeUserData, 1, "x")), wire.BadValue},
		{"owner of another key", someKey, stranger, wire.BadValue},
		{"owner that is no key", someKey, &wire.Value{ID: 1, Owner: []byte("key"), Signature: []byte("sig")}, wire.BadValue},
		{"owner without signature", someKey, &wire.Value{ID: 1, Owner: identitytest.Key(0).Public().DER()}, wire.BadValue},
		{"forged IM", someKey, forge(signed(t, 0, 1, wire.TypeIM, 1, "x")), wire.BadValue},
		{"forged trust request", someKey, forge(signed(t, 0, 1, wire.TypeTrustRequest, 1, "x")), wire.BadValue},
		{"forged ICE", someKey, forge(signed(t, 0, 1, wire.TypeICE, 1, "x")), wire.BadValue},
		{"forged, unknown type", someKey, forge(signed(t, 0, 1, 77, 1, "x")), wire.Stored},
		{"encrypted", someKey, &wire.Value{ID: 1, Cypher: []byte("x")}, wire.Stored},
		{"largest", someKey, &wire.Value{ID: 1, Data: make([]byte, wire.MaxValueSize)}, wire.Stored},
		{"too large", someKey, &wire.Value{ID: 1, Data: make([]byte, wire.MaxValueSize+1)}, wire.BadValue},
		{"too large in all", someKey, &wire.Value{ID: 1, Data: make([]byte, wire.MaxValueSize-3), UserType: "text"}, wire.BadValue},
		{"message without service", someKey, noService, wire.BadValue},
		{"message with service", someKey, withService, wire.Stored},
		{"message that cannot be read", someKey, &wire.Value{ID: 1, Type: wire.TypeMessage, Data: []byte{0xc1}}, wire.Stored},
		{"certificate, short key", short, cert(0, 1), wire.Stored},
		{"certificate, long key", long, cert(0, 1), wire.Stored},
		{"certificate in PEM", short, pem, wire.Stored},
		{"certificate of another", short, cert(1, 1), wire.BadValue},
		{"certificate elsewhere", someKey, cert(0, 1), wire.BadValue},
		{"no certificate", short, &wire.Value{ID: 1, Type: wire.TypeCertificate, Data: []byte("x")}, wire.BadValue},
		{"service", someKey, service("203.0.113.5:80"), wire.Stored},
		{"service without port", someKey, service("203.0.113.5:0"), wire.BadValue},
		{"no service", someKey, &wire.Value{ID: 1, Type: wire.TypeService, Data: []byte("x")}, wire.BadValue},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			from := netip.MustParseAddrPort("192.0.2.1:4222")
			r.do(func(now time.Time, out *Outbox) {
				r.c.enter(now, out)
				got := r.c.keep(test.key, test.v, now, from, func() bool { return test.v.VerifySignature() == nil })
				if got != test.want {
					t.Errorf("refused: %v, want %v", got, test.want)
				}
			})
			if n := r.c.Info(r.now).Values; n != map[bool]int{true: 1, false: 0}[test.want == wire.Stored] {
				t.Errorf("%d values are stored", n)
			}
			checkInvariants(t, r.c)
		})
	}
}

// Attacks A1, A2 and A3 on what is there.
func TestEditRules(t *testing.T) {
	short, _ := identity.CertificateKeys(identitytest.Key(0).Public())
	unsigned := &wire.Value{ID: 1, Data: []byte("old")}
	old := signed(t, 0, 1, wire.TypeUserData, 5, "old")
	renewed := cert(0, 1)
	renewed.UserType = "newer"
	otherType := signed(t, 0, 1, wire.TypeIM, 6, "new")
	tests := []struct {
		name   string
		key    wire.Key
		old, v *wire.Value
		want   wire.Refusal
		edited bool
	}{
		{"unsigned, same", wire.Key{1}, unsigned, unsigned.Clone(), wire.Stored, false},
		{"unsigned, other data", wire.Key{1}, unsigned, &wire.Value{ID: 1, Data: []byte("new")}, wire.Conflict, false},
		{"unsigned by signed", wire.Key{1}, unsigned, signed(t, 0, 1, wire.TypeUserData, 9, "new"), wire.Conflict, false},
		{"signed by unsigned", wire.Key{1}, old, &wire.Value{ID: 1, Data: []byte("new")}, wire.Conflict, false},
		{"signed by encrypted", wire.Key{1}, old, &wire.Value{ID: 1, Cypher: []byte("new")}, wire.Conflict, false},
		{"encrypted by other", wire.Key{1}, &wire.Value{ID: 1, Cypher: []byte("old")}, &wire.Value{ID: 1, Cypher: []byte("new")}, wire.Conflict, false},
		{"higher seq", wire.Key{1}, old, signed(t, 0, 1, wire.TypeUserData, 6, "new"), wire.Stored, true},
		{"same seq, same", wire.Key{1}, old, old.Clone(), wire.Stored, false},
		{"same seq, other data", wire.Key{1}, old, signed(t, 0, 1, wire.TypeUserData, 5, "new"), wire.Conflict, false},
		{"lower seq", wire.Key{1}, old, signed(t, 0, 1, wire.TypeUserData, 4, "new"), wire.Conflict, false},
		{"other owner", wire.Key{1}, old, signed(t, 1, 1, wire.TypeUserData, 6, "new"), wire.Conflict, false},
		{"bad signature", wire.Key{1}, old, forge(signed(t, 0, 1, wire.TypeUserData, 6, "new")), wire.Conflict, false},
		{"other type", wire.Key{1}, old, otherType, wire.Conflict, false},
		{"unknown type", wire.Key{1}, signed(t, 0, 1, 77, 1, "old"), signed(t, 0, 1, 77, 2, "new"), wire.Conflict, false},
		{"certificate, same key", short, cert(0, 1), renewed, wire.Stored, true},
		{"certificate, other key", short, cert(0, 1), cert(1, 1), wire.Conflict, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, Config{})
			from := netip.MustParseAddrPort("192.0.2.1:4222")
			keep := func(v *wire.Value) (no wire.Refusal) {
				r.do(func(now time.Time, out *Outbox) {
					r.c.enter(now, out)
					no = r.c.keep(test.key, v, now, from, func() bool { return v.VerifySignature() == nil })
				})
				return no
			}
			if no := keep(test.old); no != wire.Stored {
				t.Fatalf("the old version is refused: %v", no)
			}
			if no := keep(test.v); no != test.want {
				t.Errorf("refused: %v, want %v", no, test.want)
			}
			have := r.c.store.shelves[test.key].get(1).Value
			if got := have.SameContent(test.v) && have.UserType == test.v.UserType && !test.old.SameContent(test.v); got != test.edited {
				t.Errorf("edited: %v, want %v", got, test.edited)
			}
			checkInvariants(t, r.c)
		})
	}
}

func TestServiceAddress(t *testing.T) {
	for _, from := range []string{"192.0.2.1:4222", "[2001:db8::7]:4222"} {
		r := newRig(t, Config{})
		p := r.peer(from)
		r.join(p)
		r.put(p, wire.Key{1}, wire.Pack(service("203.0.113.5:8080")))
		v := r.c.store.shelves[wire.Key{1}].values[0].Value
		rd := msgpack.NewReader(v.Data)
		b, err := rd.Bin()
		if a, ok := ParseSockaddr(b); err != nil || !ok || a != netip.AddrPortFrom(p.addr.Addr(), 8080) {
			t.Errorf("announced from %s, it is stored as %v", from, a)
		}
	}
}

func TestSockaddr(t *testing.T) {
	tests := []struct{ addr, hex string }{
		{"127.0.0.1:4222", "0200107e7f0000010000000000000000"},
		{"[2001:db8::1]:4222", "0a00107e0000000020010db800000000000000000000000100000000"},
	}
	for _, test := range tests {
		a := netip.MustParseAddrPort(test.addr)
		b := AppendSockaddr(nil, a)
		if hex.EncodeToString(b) != test.hex {
			t.Errorf("%s: %x", a, b)
		}
		if back, ok := ParseSockaddr(b); !ok || back != a {
			t.Errorf("%x: %v, %v", b, back, ok)
		}
	}
	for _, bad := range [][]byte{nil, {2, 0}, {2, 0, 1, 2, 3, 4, 5}, bytes.Repeat([]byte{10, 0}, 11), {9, 9, 9, 9, 9, 9, 9, 9}} {
		if a, ok := ParseSockaddr(bad); ok {
			t.Errorf("%x is %v", bad, a)
		}
	}
}
