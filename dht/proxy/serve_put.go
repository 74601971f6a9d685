package proxy

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
)

// handlePut puts a value, once or for as long as the client comes again.
func (s *Server) handlePut(r *request) {
	f, ok := s.body(r, errMissing)
	if !ok {
		return
	}
	v, err := f.value()
	if err != nil {
		s.failJSON(r, err)
		return
	}
	s.puts.Add(1)
	defer s.puts.Add(-1)
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.PutTime)
	defer cancel()
	if permanent, asked := f.permanent(); asked {
		v, err = s.putPermanent(ctx, r, v, permanent)
	} else {
		setID(v)
		err = s.cfg.Table.Put(ctx, r.key, v)
	}
	s.answerPut(r, v, err)
}

// answerPut gives the value back with its id, or says honestly that it is not
// in the DHT.
func (s *Server) answerPut(r *request, v *dht.Value, err error) {
	if err == nil {
		s.sendLine(r, AppendJSON(nil, v))
		return
	}
	s.log.Debug("put failed", "key", r.key, "err", err)
	switch {
	case errors.Is(err, dht.ErrRefused):
		s.fail(r, http.StatusConflict, errRefused)
	case errors.Is(err, errOverQuota):
		s.fail(r, http.StatusTooManyRequests, errQuota)
	case errors.Is(err, context.DeadlineExceeded):
		s.fail(r, http.StatusGatewayTimeout, errTimeout)
	default:
		s.fail(r, http.StatusBadGateway, errPutFailed)
	}
}

// setID gives a value that has none a random id.
func setID(v *dht.Value) {
	for v.ID == 0 {
		v.ID = dht.ValueID(rand.Uint64())
	}
}

// handleSign puts a value signed by the server.
func (s *Server) handleSign(r *request) {
	s.putSecure(r, func(ctx context.Context, _ fields, v *dht.Value) error {
		return s.cfg.Secure.PutSigned(ctx, r.key, v)
	})
}

// errNoRecipient is about a request to encrypt that does not say to whom.
var errNoRecipient = errors.New("no recipient")

// handleEncrypt puts a value signed by the server and encrypted to a key.
func (s *Server) handleEncrypt(r *request) {
	s.putSecure(r, func(ctx context.Context, f fields, v *dht.Value) error {
		var text string
		var to identity.KeyID
		if err := f.string("to", &text); err != nil || len(text) != 2*len(to) {
			return errNoRecipient
		}
		if _, err := hex.Decode(to[:], []byte(text)); err != nil {
			return errNoRecipient
		}
		recipient, err := s.cfg.Secure.FindKey(ctx, to)
		if err != nil {
			return fmt.Errorf("find key to encrypt to: %w", err)
		}
		return s.cfg.Secure.PutEncrypted(ctx, r.key, recipient, v)
	})
}

func (s *Server) putSecure(r *request, put func(context.Context, fields, *dht.Value) error) {
	f, ok := s.body(r, errMissing)
	if !ok {
		return
	}
	v, err := f.value()
	if err == nil && (v.Signed() || v.Encrypted()) {
		err = ErrJSON
	}
	if err != nil {
		s.failJSON(r, err)
		return
	}
	setID(v)
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.PutTime)
	defer cancel()
	err = put(ctx, f, v)
	if errors.Is(err, errNoRecipient) {
		s.fail(r, http.StatusBadRequest, errNoTarget)
		return
	}
	s.answerPut(r, v, err)
}

// subscriber is who is told by push, and what that client calls itself.
type subscriber struct {
	Target
	ClientID string `json:"client,omitempty"`
	Session  string `json:"session,omitempty"`
}

// size is what a subscriber counts against the limit, in bytes.
func (s subscriber) size() int64 {
	return int64(len(s.Platform) + len(s.Token) + len(s.Topic) + len(s.ClientID) + len(s.Session))
}

// maxPushText bounds each text of a subscriber, in bytes: push tokens are URLs
// at most.
const maxPushText = 4 << 10

// subscriber reads the fields that tell whom to push to.
func (f fields) subscriber() (subscriber, bool) {
	var sub subscriber
	for key, text := range map[string]*string{
		"key": &sub.Token, "client_id": &sub.ClientID, "session_id": &sub.Session,
		"platform": &sub.Platform, "topic": &sub.Topic,
	} {
		if f.string(key, text) != nil || len(*text) > maxPushText {
			return subscriber{}, false
		}
	}
	return sub, true
}

// permanent tells whether a put is to be kept, and who is told when that ends.
func (f fields) permanent() (subscriber, bool) {
	switch raw := string(f["permanent"]); {
	case raw == "" || raw == "false" || raw == "null":
		return subscriber{}, false
	case raw[0] == '{':
		inner, err := parseFields(f["permanent"])
		if err != nil {
			return subscriber{}, true
		}
		sub, _ := inner.subscriber()
		return sub, true
	}
	return subscriber{}, true
}

// putPermanent publishes a value and keeps it for leaseTime, or renews one that
// is kept. It returns the value with its id.
func (s *Server) putPermanent(ctx context.Context, r *request, v *dht.Value, sub subscriber) (*dht.Value, error) {
	if s.life.Err() != nil {
		return nil, dht.ErrClosed
	}
	s.mu.Lock()
	old := s.leases.findPut(r.key, v, sub.ClientID)
	switch {
	case old == nil:
		if !s.leases.room(s.limits, r.client, int64(cost(v))+sub.size()) {
			s.mu.Unlock()
			return nil, errOverQuota
		}
	case old.value.SameContent(v) && old.value.Seq == v.Seq:
		v = old.value
		if old.pub != nil {
			s.renew(old, sub)
			s.mu.Unlock()
			return v, nil
		}
	case !editable(old.value, v):
		s.mu.Unlock()
		return nil, dht.ErrRefused
	}
	s.mu.Unlock()

	setID(v)
	pub, err := s.cfg.Table.Publish(ctx, r.key, v)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases.puts[putKey{r.key, v.ID}]
	if l == nil {
		l = &lease{key: r.key, client: r.client, value: v}
		s.leases.add(l)
	}
	s.leases.edit(l, v, l.sub)
	if l.pub != nil {
		l.pub.Cancel()
	}
	l.pub = pub
	s.renew(l, sub)
	return v, nil
}

// renew lets a lease run anew. The caller has locked s.mu.
func (s *Server) renew(l *lease, sub subscriber) {
	l.expires, l.noticed = time.Now().Add(leaseTime), false
	if sub.Token != "" && (l.sub.Token == "" || l.sub.ClientID == sub.ClientID) {
		s.leases.edit(l, l.value, sub)
	}
	s.change()
}

// editable tells whether a value may take the place of another with its id.
func editable(old, v *dht.Value) bool {
	return old.Signed() && v.Signed() && !v.Encrypted() && string(old.Owner) == string(v.Owner) &&
		v.Seq > old.Seq && v.VerifySignature() == nil
}
