package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/kith-im/kith/dht"
)

// handleGet streams the values under a key.
func (s *Server) handleGet(r *request) {
	done, ok := s.meter.listen(r.client, time.Now())
	if !ok {
		s.fail(r, http.StatusTooManyRequests, errListens)
		return
	}
	defer done()
	s.streamValues(r)
}

// streamValues sends each value as it is found. An answer that is cut short by
// an error ends without the mark of its end, so that the client can tell.
func (s *Server) streamValues(r *request) {
	ctx, cancel := context.WithTimeout(r.Context(), s.limits.GetTime)
	defer cancel()
	sent := 0
	var line []byte
	for v, err := range s.cfg.Table.Get(ctx, r.key, dht.Query{}) {
		if err != nil {
			s.log.Debug("get failed", "key", r.key, "sent", sent, "err", err)
			if sent > 0 {
				panic(http.ErrAbortHandler) // net/http's way to cut an answer
			}
			status, text := failureOf(err)
			s.fail(r, status, text)
			return
		}
		line = append(AppendJSON(line[:0], v), '\n')
		if !s.write(r, line) {
			return
		}
		if sent++; sent >= s.limits.Values {
			panic(http.ErrAbortHandler)
		}
	}
	if sent == 0 {
		http.NewResponseController(r.w).Flush() // chunked, as with values
	}
}

// failureOf says how a failure of the table is answered.
func failureOf(err error) (status int, text string) {
	switch {
	case errors.Is(err, dht.ErrNoNodes):
		return http.StatusServiceUnavailable, errNoNodes
	case errors.Is(err, dht.ErrClosed):
		return http.StatusServiceUnavailable, errEnding
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout, errTimeout
	}
	return http.StatusInternalServerError, errInternal
}

// handleListen streams the values under a key, those that come and the ends of
// those that go, until the client or the server ends.
func (s *Server) handleListen(r *request) {
	done, ok := s.meter.listen(r.client, time.Now())
	if !ok {
		s.fail(r, http.StatusTooManyRequests, errListens)
		return
	}
	defer done()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	if http.NewResponseController(r.w).Flush() != nil {
		return
	}
	var line []byte
	for e, err := range s.cfg.Table.Listen(ctx, r.key, dht.Query{}) {
		if err != nil {
			s.log.Debug("listen ended", "key", r.key, "err", err)
			panic(http.ErrAbortHandler) // the client is to come again
		}
		line = append(appendLine(line[:0], e.Value, e.Expired), '\n')
		if !s.write(r, line) {
			return
		}
	}
	panic(http.ErrAbortHandler) // there is no proper end of a listen
}
