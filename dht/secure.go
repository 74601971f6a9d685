package dht

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"
	"sync"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/msgpack"
)

const (
	// Decrypting takes milliseconds and anybody can send what looks encrypted to
	// us, so it is paced: so many a second, and so many at once.
	decryptRate  = 64
	decryptBurst = 512

	certificateID = ValueID(1) // the value id of certificates, by custom
	maxKeys       = 1 << 12    // public keys that are remembered
	maxSeqs       = 1 << 14    // versions of own values that are remembered
)

// A Secure signs and encrypts the values it puts into a table, and hands out only
// values that are what they claim to be: signed ones whose signature verifies,
// encrypted ones that are for us and signed by their sender, opened, and plain
// ones, which claim nothing (see [Value.Signed]). It owns no goroutine. Its methods
// are safe for concurrent use.
type Secure struct {
	Table
	id *identity.Identity

	mu     sync.Mutex
	keys   map[identity.KeyID]*identity.Certificate
	seqs   map[pubKey]uint16
	budget float64
	at     time.Time
}

// NewSecure wraps a table. The identity signs and decrypts; it is nil for somebody
// who only reads.
func NewSecure(t Table, id *identity.Identity) *Secure {
	return &Secure{Table: t, id: id, keys: make(map[identity.KeyID]*identity.Certificate), seqs: make(map[pubKey]uint16), budget: decryptBurst}
}

// errNoIdentity is returned where a key is needed.
var errNoIdentity = errors.New("no identity to sign or decrypt with")

// KeyID is the short id of our own key, zero without identity.
func (s *Secure) KeyID() identity.KeyID {
	if s.id == nil {
		return identity.KeyID{}
	}
	return s.id.Key.Public().ID()
}

// PutSigned is Put for a value that we sign. When v.ID is given and we have put a
// value with it before, v becomes its next version. It sets v's ID, Seq, Owner and
// Signature.
func (s *Secure) PutSigned(ctx context.Context, key Key, v *Value) error {
	if err := s.sign(ctx, key, v, identity.KeyID{}); err != nil {
		return err
	}
	return s.Put(ctx, key, v)
}

// PublishSigned is Publish for a value that we sign; see [Secure.PutSigned].
func (s *Secure) PublishSigned(ctx context.Context, key Key, v *Value) (Publication, error) {
	if err := s.sign(ctx, key, v, identity.KeyID{}); err != nil {
		return nil, err
	}
	return s.Publish(ctx, key, v)
}

// PutEncrypted is Put for a value that only the owner of the key to can read. It is
// signed, too. It sets v's ID, Seq, Owner, To and Signature.
func (s *Secure) PutEncrypted(ctx context.Context, key Key, to *identity.PublicKey, v *Value) error {
	sealed, err := s.seal(ctx, key, to, v)
	if err != nil {
		return err
	}
	return s.Put(ctx, key, sealed)
}

// PublishEncrypted is Publish for a value that only the owner of the key to can
// read; see [Secure.PutEncrypted].
func (s *Secure) PublishEncrypted(ctx context.Context, key Key, to *identity.PublicKey, v *Value) (Publication, error) {
	sealed, err := s.seal(ctx, key, to, v)
	if err != nil {
		return nil, err
	}
	return s.Publish(ctx, key, sealed)
}

func (s *Secure) seal(ctx context.Context, key Key, to *identity.PublicKey, v *Value) (*Value, error) {
	if err := s.sign(ctx, key, v, to.ID()); err != nil {
		return nil, err
	}
	cypher, err := to.Encrypt(rand.Reader, v.AppendContent(nil))
	if err != nil {
		return nil, fmt.Errorf("encrypt value for %v: %w", to, err)
	}
	return &Value{ID: v.ID, Cypher: cypher, Priority: v.Priority, PushType: v.PushType}, nil
}

// sign makes v ours, as the version that follows those that are known.
func (s *Secure) sign(ctx context.Context, key Key, v *Value, to identity.KeyID) error {
	if s.id == nil {
		return errNoIdentity
	}
	owner := s.id.Key.Public().DER()
	last := -1
	if v.ID == 0 {
		id, err := randomValueID()
		if err != nil {
			return err
		}
		v.ID = id
	} else if to == (identity.KeyID{}) {
		var err error
		if last, err = s.lastSeq(ctx, key, v.ID, owner); err != nil {
			return err
		}
	}
	var next uint16 // what is encrypted has no versions
	if to == (identity.KeyID{}) {
		var err error
		if next, err = s.nextSeq(pubKey{key, v.ID}, last); err != nil {
			return err
		}
	}
	v.Owner, v.Seq, v.To = owner, next, to
	sig, err := s.id.Key.Sign(v.SignedBytes())
	if err != nil {
		return fmt.Errorf("sign value: %w", err)
	}
	v.Signature = sig
	return nil
}

// nextSeq takes the version after last, and after those that were taken here, so
// that two who put at once do not take the same.
func (s *Secure) nextSeq(at pubKey, last int) (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq, ok := s.seqs[at]; ok {
		last = max(last, int(seq))
	}
	if last >= math.MaxUint16 {
		return 0, fmt.Errorf("value %x has had %d versions: use another id", uint64(at.id), math.MaxUint16+1)
	}
	if len(s.seqs) >= maxSeqs {
		clear(s.seqs) // the network knows them
	}
	s.seqs[at] = uint16(last + 1)
	return uint16(last + 1), nil
}

// lastSeq returns the highest version of our value that is known in the network,
// or -1.
func (s *Secure) lastSeq(ctx context.Context, key Key, id ValueID, owner []byte) (int, error) {
	last := -1
	for v, err := range s.Table.Get(ctx, key, wire.WhereID(id)) {
		if errors.Is(err, ErrNoNodes) {
			break // the put will say so
		}
		if err != nil {
			return 0, fmt.Errorf("look for the last version: %w", err)
		}
		if string(v.Owner) == string(owner) && v.VerifySignature() == nil {
			last = max(last, int(v.Seq))
		}
	}
	return last, nil
}

func randomValueID() (ValueID, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, err
	}
	id := ValueID(0)
	for _, x := range b {
		id = id<<8 | ValueID(x)
	}
	return id | 1, nil
}

// errNotForUs is what open says of values that are to be passed over.
var errNotForUs = errors.New("not for us, or not what it claims to be")

// open checks a value and decrypts it.
func (s *Secure) open(ctx context.Context, v *Value) (*Value, error) {
	if !v.Encrypted() {
		if v.Signed() && v.VerifySignature() != nil {
			return nil, errNotForUs
		}
		return v, nil
	}
	if s.id == nil {
		return nil, errNotForUs
	}
	if err := s.pace(ctx); err != nil {
		return nil, err
	}
	content, err := s.id.Key.Decrypt(v.Cypher)
	if err != nil {
		return nil, errNotForUs
	}
	inner, err := wire.ParseContent(content)
	if err != nil || inner.To != s.KeyID() || inner.VerifySignature() != nil {
		return nil, errNotForUs
	}
	inner.ID, inner.Priority, inner.PushType = v.ID, v.Priority, v.PushType
	return inner, nil
}

// pace waits until one more value may be decrypted.
func (s *Secure) pace(ctx context.Context) error {
	for {
		s.mu.Lock()
		now := time.Now()
		if !s.at.IsZero() {
			s.budget = min(decryptBurst, s.budget+decryptRate*now.Sub(s.at).Seconds())
		}
		s.at = now
		if s.budget >= 1 {
			s.budget--
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		select {
		case <-time.After(time.Second / decryptRate):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Get is the table's Get without values that are not what they claim to be.
func (s *Secure) Get(ctx context.Context, key Key, q Query) iter.Seq2[*Value, error] {
	return func(yield func(*Value, error) bool) {
		for v, err := range s.Table.Get(ctx, key, q) {
			if err == nil {
				if v, err = s.open(ctx, v); err != nil {
					if err = ctx.Err(); err == nil {
						continue
					}
				}
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// Listen is the table's Listen without values that are not what they claim to be.
func (s *Secure) Listen(ctx context.Context, key Key, q Query) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		// What became of each value, so that its end needs no second decryption.
		opened := make(map[*Value]*Value)
		for e, err := range s.Table.Listen(ctx, key, q) {
			if err == nil {
				v, seen := opened[e.Value] // nil when it is to be passed over
				if !seen {
					if v, err = s.open(ctx, e.Value); err != nil {
						v = nil
					}
				}
				if e.Expired {
					delete(opened, e.Value)
				} else if len(opened) < maxQueued {
					opened[e.Value] = v
				}
				if v == nil && ctx.Err() == nil {
					continue
				}
				if v == nil {
					err = ctx.Err()
				}
				e.Value = v
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// PublishCertificate keeps our certificate chain in the table, under both keys
// where peers look for it: those before OpenDHT 3.5 use the first, and refuse the
// second. It fails when neither could be stored.
func (s *Secure) PublishCertificate(ctx context.Context) ([]Publication, error) {
	if s.id == nil || s.id.Cert == nil {
		return nil, errNoIdentity
	}
	short, long := identity.CertificateKeys(s.id.Key.Public())
	var pubs []Publication
	var errs []error
	for _, key := range []Key{short, long} {
		v := &Value{ID: certificateID, Type: wire.TypeCertificate, Data: msgpack.AppendBin(nil, s.id.Cert.PEM())}
		p, err := s.Publish(ctx, key, v)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		pubs = append(pubs, p)
	}
	if len(pubs) == 0 {
		return nil, fmt.Errorf("publish certificate: %w", errors.Join(errs...))
	}
	return pubs, nil
}

// ErrNoCertificate says that no certificate of a key is in the table.
var ErrNoCertificate = errors.New("no certificate of that key is in the DHT")

// FindCertificate looks for the certificate of the key with a short id. Its chain
// is not verified: only its key is known to be the right one.
func (s *Secure) FindCertificate(ctx context.Context, id identity.KeyID) (*identity.Certificate, error) {
	s.mu.Lock()
	cert := s.keys[id]
	s.mu.Unlock()
	if cert != nil {
		return cert, nil
	}
	return s.findCertificate(ctx, Key(id), func(c *identity.Certificate) bool { return c.KeyID() == id })
}

// FindCertificateLong is [Secure.FindCertificate] by the long id, under which peers
// since OpenDHT 3.5 publish.
func (s *Secure) FindCertificateLong(ctx context.Context, id identity.LongKeyID) (*identity.Certificate, error) {
	return s.findCertificate(ctx, wire.KeyOf(id[:]), func(c *identity.Certificate) bool { return c.LongKeyID() == id })
}

func (s *Secure) findCertificate(ctx context.Context, key Key, right func(*identity.Certificate) bool) (*identity.Certificate, error) {
	for v, err := range s.Table.Get(ctx, key, wire.WhereType(wire.TypeCertificate)) {
		if err != nil {
			return nil, fmt.Errorf("look for certificate: %w", err)
		}
		cert, err := identity.ParseChain(v.Data)
		if err != nil || !right(cert) {
			continue
		}
		s.mu.Lock()
		if len(s.keys) >= maxKeys {
			clear(s.keys)
		}
		s.keys[cert.KeyID()] = cert
		s.mu.Unlock()
		return cert, nil
	}
	return nil, fmt.Errorf("%w: %v", ErrNoCertificate, key)
}

// FindKey looks for the public key with a short id, by its certificate.
func (s *Secure) FindKey(ctx context.Context, id identity.KeyID) (*identity.PublicKey, error) {
	cert, err := s.FindCertificate(ctx, id)
	if err != nil {
		return nil, err
	}
	return cert.PublicKey(), nil
}
