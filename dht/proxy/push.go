package proxy

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
)

// Target is where a push goes.
type Target struct {
	Platform string `json:"platform,omitempty"` // "android", "ios" or "unifiedpush"
	Token    string `json:"token,omitempty"`    // of the device; a URL for unifiedpush
	Topic    string `json:"topic,omitempty"`    // the app, or the keys that the push is encrypted to
}

// Notice is what a push says. No content of values goes over a push service: the
// device is woken to fetch them.
type Notice struct {
	Data    map[string]string
	Urgent  bool // wake the device at once
	Visible bool // the user may be shown it: the device must act or be forgotten
}

// NoticeTTL is for how long a push service keeps a notice for a device that it
// cannot reach.
const NoticeTTL = 24 * time.Hour

// ErrGone is wrapped by errors of a [Pusher] about targets that never come back.
var ErrGone = errors.New("push target is gone")

// Pusher sends notices over a push service. Implementations are safe for
// concurrent use.
type Pusher interface {
	// Push sends one notice. It returns once the service has taken it.
	Push(ctx context.Context, to Target, n Notice) error
}

// Pushers picks a pusher by platform; "" is for all others.
type Pushers map[string]Pusher

// Push implements [Pusher].
func (p Pushers) Push(ctx context.Context, to Target, n Notice) error {
	one, ok := p[to.Platform]
	if !ok {
		one, ok = p[""]
	}
	if !ok {
		return errors.Join(ErrGone, errors.New("no push service for this platform"))
	}
	return one.Push(ctx, to, n)
}

// How a push is tried.
const (
	pushTime     = 20 * time.Second
	pushAttempts = 3
	pushBase     = time.Second
	pushLimit    = 10 * time.Second
)

// push sends a notice, with a few attempts, and ends the lease of a target that
// is gone.
func (s *Server) push(ctx context.Context, l *lease, n Notice) {
	s.mu.Lock()
	to := l.sub.Target
	s.mu.Unlock()
	retry := backoff{base: pushBase, limit: pushLimit}
	for attempt := range pushAttempts {
		if attempt > 0 && !sleep(ctx, retry.next()) {
			return
		}
		one, cancel := context.WithTimeout(ctx, pushTime)
		err := s.cfg.Push.Push(one, to, n)
		cancel()
		if err == nil {
			return
		}
		s.log.Debug("push failed", "platform", to.Platform, "key", l.key, "err", err)
		if errors.Is(err, ErrGone) {
			s.mu.Lock()
			if l.value == nil && s.leases.has(l) {
				s.leases.remove(l)
			} else {
				s.leases.edit(l, l.value, subscriber{ClientID: l.sub.ClientID})
			}
			s.change()
			s.mu.Unlock()
			return
		}
	}
}

// timeoutNotice tells a client that a lease is about to end.
func timeoutNotice(l *lease) Notice {
	data := noticeData(l)
	data["timeout"] = l.key.String()
	if l.value != nil {
		data["vid"] = strconv.FormatUint(uint64(l.value.ID), 10)
	}
	return Notice{Data: data, Urgent: true, Visible: true}
}

// valuesNotice tells a client that there are new values, or that one has gone.
func valuesNotice(l *lease, values []*dht.Value, expired bool) Notice {
	data := noticeData(l)
	data["key"] = l.key.String()
	ids := make([]string, len(values))
	types := make([]string, 0, len(values))
	n := Notice{Data: data}
	for i, v := range values {
		ids[i] = strconv.FormatUint(uint64(v.ID), 10)
		if v.PushType != "" {
			types = append(types, v.PushType)
		}
		if !expired && v.Priority == 0 {
			n.Urgent = true
		}
	}
	n.Visible = n.Urgent
	switch {
	case !expired:
		data["ids"] = strings.Join(ids, ",")
	case len(values) < 2:
		data["exp"] = strings.Join(ids, ",")
	}
	if len(types) > 0 {
		data["pt"] = strings.Join(types, ",")
	}
	return n
}

func noticeData(l *lease) map[string]string {
	return map[string]string{
		"to": l.sub.ClientID,
		"s":  l.sub.Session,
		"t":  strconv.FormatInt(time.Now().UnixMilli(), 10),
	}
}
