package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/identity/identitytest"
	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// A fakeTable has fixed values under every key, and counts what is asked of it.
type fakeTable struct {
	Table
	values []*Value
	events []Event
	gets   atomic.Int32
	puts   []*Value
	err    error
}

func (f *fakeTable) Get(context.Context, Key, Query) iter.Seq2[*Value, error] {
	f.gets.Add(1)
	return func(yield func(*Value, error) bool) {
		for _, v := range f.values {
			if !yield(v, nil) {
				return
			}
		}
		if f.err != nil {
			yield(nil, f.err)
		}
	}
}

func (f *fakeTable) Listen(context.Context, Key, Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for _, e := range f.events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func (f *fakeTable) Put(_ context.Context, _ Key, v *Value) error {
	f.puts = append(f.puts, v.Clone())
	f.values = append(f.values, v.Clone())
	return nil
}

// texts returns the data of what a get yields.
func texts(t *testing.T, ctx context.Context, table Table) (list []string, err error) {
	t.Helper()
	for v, err := range table.Get(ctx, KeyOf("any"), Query{}) {
		if err != nil {
			return list, err
		}
		list = append(list, string(v.Data))
	}
	return list, nil
}

func signed(t *testing.T, i int, v Value) *Value {
	t.Helper()
	s := NewSecure(&fakeTable{err: ErrNoNodes}, identitytest.Identity(i))
	if err := s.sign(t.Context(), KeyOf("any"), &v, identity.KeyID{}); err != nil {
		t.Fatal(err)
	}
	return &v
}

// sealed is v signed by one and encrypted for another.
func sealed(t *testing.T, from, to int, v Value) *Value {
	t.Helper()
	s := NewSecure(&fakeTable{}, identitytest.Identity(from))
	e, err := s.seal(t.Context(), KeyOf("any"), identitytest.Key(to).Public(), &v)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSignedEdits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		time.Sleep(2 * time.Minute) // until all know all, and so the same nodes have the value
		alice, bob := NewSecure(l.nodes[2], identitytest.Identity(0)), NewSecure(l.nodes[3], identitytest.Identity(1))
		key := KeyOf("signed")
		v := &Value{ID: 77, Data: []byte("zero")}
		if err := alice.PutSigned(t.Context(), key, v); err != nil || v.Seq != 0 || v.OwnerID() != alice.KeyID() {
			t.Fatalf("%+v, error %v", v, err)
		}
		if err := alice.PutSigned(t.Context(), key, &Value{ID: 77, Data: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		// After a restart the version comes from the network.
		again := NewSecure(l.nodes[5], identitytest.Identity(0))
		v = &Value{ID: 77, Data: []byte("two")}
		if err := again.PutSigned(t.Context(), key, v); err != nil || v.Seq != 2 {
			t.Errorf("version %d, error %v", v.Seq, err)
		}
		l.want(l.nodes[6], key, "two")
		// Nobody else can take the id, with or without a signature.
		if err := bob.PutSigned(t.Context(), key, &Value{ID: 77, Data: []byte("bob")}); !errors.Is(err, ErrRefused) {
			t.Errorf("bob's edit: %v", err)
		}
		if err := l.nodes[7].Put(t.Context(), key, &Value{ID: 77, Data: []byte("plain")}); !errors.Is(err, ErrRefused) {
			t.Errorf("plain edit: %v", err)
		}
		l.want(NewSecure(l.nodes[6], nil), key, "two")
		// An older version does not come back (A2).
		old := signed(t, 0, Value{ID: 77, Data: []byte("zero")})
		if err := l.nodes[1].Put(t.Context(), key, old); !errors.Is(err, ErrRefused) {
			t.Errorf("replay: %v", err)
		}
		l.want(NewSecure(l.nodes[6], nil), key, "two")
	})
}

// Two who sign the same id at once never make two values of one version.
func TestSignAtOnce(t *testing.T) {
	s := NewSecure(&fakeTable{}, identitytest.Identity(0))
	var wg sync.WaitGroup
	seqs := make([]uint16, 8)
	for i := range seqs {
		wg.Go(func() {
			v := &Value{ID: 5, Data: []byte{byte(i)}}
			if err := s.sign(t.Context(), KeyOf("any"), v, identity.KeyID{}); err != nil {
				t.Error(err)
			}
			seqs[i] = v.Seq
		})
	}
	wg.Wait()
	slices.Sort(seqs)
	if !slices.Equal(seqs, []uint16{0, 1, 2, 3, 4, 5, 6, 7}) {
		t.Errorf("versions %v", seqs)
	}
}

func TestLastVersion(t *testing.T) {
	last := signed(t, 0, Value{ID: 5})
	last.Seq = 65535
	sig, err := identitytest.Key(0).Sign(last.SignedBytes())
	if err != nil {
		t.Fatal(err)
	}
	last.Signature = sig
	s := NewSecure(&fakeTable{values: []*Value{last}}, identitytest.Identity(0))
	if err := s.PutSigned(t.Context(), KeyOf("any"), &Value{ID: 5}); err == nil {
		t.Error("version 65536 was put")
	}
	// What others claim of our versions does not count.
	forged := *last
	forged.Data = []byte("other")
	s = NewSecure(&fakeTable{values: []*Value{&forged}}, identitytest.Identity(0))
	v := &Value{ID: 5}
	if err := s.PutSigned(t.Context(), KeyOf("any"), v); err != nil || v.Seq != 0 {
		t.Errorf("version %d, error %v", v.Seq, err)
	}
	s = NewSecure(&fakeTable{err: context.DeadlineExceeded}, identitytest.Identity(0))
	if err := s.PutSigned(t.Context(), KeyOf("any"), v); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without knowing the last version: %v", err)
	}
}

// Only values that are what they claim to be are handed out.
func TestOpen(t *testing.T) {
	const me, friend, mallory = 0, 1, 2
	good := signed(t, friend, Value{ID: 1, Data: []byte("signed")})
	changed := *good
	changed.Data = []byte("changed")
	stolen := *good
	stolen.Owner = identitytest.Key(mallory).Public().DER()

	// A value for somebody else, sent on to us by whoever could read it.
	inner := signed(t, friend, Value{ID: 1, Data: []byte("for mallory")})
	inner.To = identitytest.Key(mallory).Public().ID()
	sig, err := identitytest.Key(friend).Sign(inner.SignedBytes())
	if err != nil {
		t.Fatal(err)
	}
	inner.Signature = sig
	seal := func(content []byte) *Value {
		cypher, err := identitytest.Key(me).Public().Encrypt(rand.Reader, content)
		if err != nil {
			t.Fatal(err)
		}
		return &Value{ID: 9, Cypher: cypher}
	}
	forged := *inner
	forged.To = identitytest.Key(me).Public().ID() // but that is signed

	forMe := sealed(t, friend, me, Value{ID: 3, Data: []byte("secret"), UserType: "note", Priority: 2})
	cut := &Value{ID: 9, Cypher: forMe.Cypher[:len(forMe.Cypher)-1]}
	unsigned := &Value{ID: 9, Data: []byte("unsigned"), To: identitytest.Key(me).Public().ID()}

	for _, c := range []struct {
		name string
		v    *Value
		want string
	}{
		{"plain", &Value{ID: 1, Data: []byte("plain")}, "plain"},
		{"signed", good, "signed"},
		{"for me", forMe, "secret"},
		{"A1: changed", &changed, ""},
		{"A3: other owner", &stolen, ""},
		{"for others", sealed(t, friend, mallory, Value{ID: 3, Data: []byte("secret")}), ""},
		{"sent on", seal(inner.AppendContent(nil)), ""},
		{"sent on with another recipient", seal(forged.AppendContent(nil)), ""},
		{"not signed inside", seal(unsigned.AppendContent(nil)), ""},
		{"cut", cut, ""},
		{"rubbish inside", seal([]byte("rubbish")), ""},
		{"nothing inside", seal(nil), ""},
		{"short", &Value{ID: 9, Cypher: []byte{1}}, ""},
	} {
		s := NewSecure(&fakeTable{values: []*Value{c.v}}, identitytest.Identity(me))
		got, err := texts(t, t.Context(), s)
		if err != nil || c.want == "" && len(got) > 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s: got %q, error %v", c.name, got, err)
		}
	}

	s := NewSecure(nil, identitytest.Identity(me))
	v, err := s.open(t.Context(), forMe)
	if err != nil || v.ID != 3 || v.Priority != 2 || v.UserType != "note" || v.OwnerID() != identitytest.Key(friend).Public().ID() || v.Encrypted() {
		t.Errorf("opened: %+v, error %v", v, err)
	}
}

func TestEncryptedThroughNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		alice, bob, eve := NewSecure(l.nodes[2], identitytest.Identity(0)), NewSecure(l.nodes[3], identitytest.Identity(1)), NewSecure(l.nodes[4], identitytest.Identity(2))
		key := KeyOf("letterbox")
		events := l.listen(bob, key)
		time.Sleep(time.Second)
		big := string(testValue(60_000).Data)
		for _, text := range []string{"hello", big} {
			v := &Value{Data: []byte(text)}
			if err := alice.PutEncrypted(t.Context(), key, identitytest.Key(1).Public(), v); err != nil || v.ID == 0 {
				t.Fatal(err)
			}
			l.hears(events, text, 5*time.Second)
		}
		pub, err := alice.PublishEncrypted(t.Context(), key, identitytest.Key(1).Public(), &Value{Data: []byte("kept")})
		if err != nil {
			t.Fatal(err)
		}
		l.want(bob, key, "hello", "kept", big)
		l.want(eve, key)
		l.want(NewSecure(l.nodes[7], nil), key)
		time.Sleep(time.Hour)
		l.want(bob, key, "kept")
		pub.Cancel()
		signedPub, err := alice.PublishSigned(t.Context(), key, &Value{Data: []byte("signed")})
		if err != nil {
			t.Fatal(err)
		}
		l.want(eve, key, "signed")
		signedPub.Cancel()
		// The end of a value is told as what was told at its beginning.
		time.Sleep(15 * time.Minute)
		ends := map[string]int{}
		for len(events) > 0 {
			if e := <-events; e.Expired {
				ends[string(e.Value.Data)]++
			}
		}
		if ends["hello"] != 1 || ends[big] != 1 || ends["kept"] != 1 || ends["signed"] != 1 || len(ends) != 4 {
			t.Errorf("%d ends: %.60q", len(ends), fmt.Sprint(ends))
		}
	})
}

// A12: strangers who send what looks encrypted for us make us work at most so much
// a second, and for each value at most once.
func TestDecryptionIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		junk := func(count int) (list []Event) {
			for i := range count {
				b := make([]byte, 256+64)
				rand.Read(b)
				list = append(list, Event{Value: &Value{ID: ValueID(i + 1), Cypher: b}})
			}
			return list
		}
		const count = 700
		events := junk(count)
		letter := sealed(t, 1, 0, Value{Data: []byte("letter")})
		events = append(events, Event{Value: letter})
		for _, e := range events { // all of them end, too
			events = append(events, Event{Value: e.Value, Expired: true})
		}
		s := NewSecure(&fakeTable{events: events}, identitytest.Identity(0))
		began := time.Now()
		heard := 0
		for e, err := range s.Listen(t.Context(), KeyOf("any"), Query{}) {
			if err != nil || string(e.Value.Data) != "letter" {
				t.Fatalf("%+v, error %v", e, err)
			}
			heard++
		}
		if heard != 2 {
			t.Errorf("heard %d events, want the letter and its end", heard)
		}
		want := time.Duration(count+1-decryptBurst) * time.Second / decryptRate
		if took := time.Since(began); took < want || took > want+time.Second {
			t.Errorf("%d values were tried in %v, want %v", count+1, took, want)
		}

		// The budget is one for all gets and listens, and refills to no more than a burst.
		time.Sleep(time.Hour)
		table := &fakeTable{}
		for _, e := range events[:2*decryptBurst] {
			table.values = append(table.values, e.Value)
		}
		s.Table = table
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := texts(t, ctx, s); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestEndedWhileOpening(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	letter := sealed(t, 1, 0, Value{Data: []byte("letter")})
	s := NewSecure(&fakeTable{values: []*Value{letter, letter}, events: []Event{{Value: letter}, {Value: letter}}}, identitytest.Identity(0))
	s.budget = 0
	count := 0
	for v, err := range s.Get(ctx, KeyOf("any"), Query{}) {
		if count++; !errors.Is(err, context.Canceled) || v != nil {
			t.Errorf("get gives %v, %v", v, err)
		}
	}
	for e, err := range s.Listen(ctx, KeyOf("any"), Query{}) {
		if count++; !errors.Is(err, context.Canceled) || e.Value != nil {
			t.Errorf("listen gives %v, %v", e, err)
		}
	}
	if count != 2 {
		t.Errorf("%d errors, want one each", count)
	}
}

func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		id := identitytest.Identity(0)
		alice := NewSecure(l.nodes[2], id)
		pubs, err := alice.PublishCertificate(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		short, long := identity.CertificateKeys(id.Key.Public())
		if len(pubs) != 2 || pubs[0].Key() != Key(short) || pubs[1].Key() != Key(long) {
			t.Errorf("published %d times", len(pubs))
		}
		bob := NewSecure(l.nodes[5], nil)
		cert, err := bob.FindCertificateLong(t.Context(), id.Cert.LongKeyID())
		if err != nil || !cert.Equal(id.Cert) {
			t.Errorf("by the long id: %v, error %v", cert, err)
		}
		carol := NewSecure(l.nodes[6], nil)
		cert, err = carol.FindCertificate(t.Context(), id.Cert.KeyID())
		if err != nil || !cert.Equal(id.Cert) || cert.Issuer() == nil {
			t.Errorf("by the short id: %v, error %v", cert, err)
		}
		if _, err := bob.FindKey(t.Context(), identitytest.Key(1).Public().ID()); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("of a stranger: %v", err)
		}
		// Under a key there is place for the one certificate that belongs there.
		other := &Value{ID: certificateID, Type: wire.TypeCertificate, Data: msgpack.AppendBin(nil, identitytest.Identity(1).Cert.PEM())}
		if err := l.nodes[7].Put(t.Context(), Key(short), other); !errors.Is(err, ErrRefused) {
			t.Errorf("another's certificate: %v", err)
		}
		time.Sleep(3 * time.Hour)
		if _, err := NewSecure(l.nodes[8], nil).FindKey(t.Context(), id.Cert.KeyID()); err != nil {
			t.Errorf("later: %v", err)
		}
	})
}

// What is no certificate of the key is passed over, and what was found is kept.
func TestFindKeyCache(t *testing.T) {
	id := identitytest.Identity(0)
	certificate := func(b []byte) *Value {
		return &Value{ID: 1, Type: wire.TypeCertificate, Data: msgpack.AppendBin(nil, b)}
	}
	table := &fakeTable{values: []*Value{
		certificate([]byte("rubbish")), certificate(nil), certificate(identitytest.Identity(3).Cert.PEM()), certificate(id.Cert.PEM()),
	}}
	s := NewSecure(table, nil)
	for range 3 {
		key, err := s.FindKey(t.Context(), id.Cert.KeyID())
		if err != nil || !key.Equal(id.Key.Public()) {
			t.Fatalf("%v, error %v", key, err)
		}
	}
	if n := table.gets.Load(); n != 1 {
		t.Errorf("the table was asked %d times", n)
	}
	s.mu.Lock()
	for i := range maxKeys {
		s.keys[identity.KeyID{1, byte(i), byte(i >> 8)}] = id.Cert
	}
	s.mu.Unlock()
	if _, err := s.FindCertificateLong(t.Context(), id.Cert.LongKeyID()); err != nil {
		t.Error(err)
	}
	if len(s.keys) > maxKeys {
		t.Errorf("%d keys are remembered", len(s.keys))
	}
	s = NewSecure(&fakeTable{err: ErrNoNodes}, nil)
	if _, err := s.FindKey(t.Context(), id.Cert.KeyID()); !errors.Is(err, ErrNoNodes) {
		t.Errorf("without network: %v", err)
	}
}

func TestWithoutIdentity(t *testing.T) {
	table := &fakeTable{}
	s := NewSecure(table, nil)
	v := &Value{Data: []byte("x")}
	_, err := s.PublishSigned(t.Context(), KeyOf("any"), v)
	_, err2 := s.PublishEncrypted(t.Context(), KeyOf("any"), identitytest.Key(1).Public(), v)
	_, err3 := s.PublishCertificate(t.Context())
	for i, err := range []error{
		s.PutSigned(t.Context(), KeyOf("any"), v), s.PutEncrypted(t.Context(), KeyOf("any"), identitytest.Key(1).Public(), v), err, err2, err3,
	} {
		if !errors.Is(err, errNoIdentity) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if len(table.puts) > 0 || !s.KeyID().IsZero() {
		t.Error("something was put")
	}
}
