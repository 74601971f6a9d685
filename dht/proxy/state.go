package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// stateHeader is the first line of a state file. Each other line is a lease.
const stateHeader = `{"kith":"proxy state","version":1}`

// leaseJSON is a lease in the state file.
type leaseJSON struct {
	Key     string          `json:"key"`
	Value   json.RawMessage `json:"value,omitempty"`
	Client  netip.Prefix    `json:"from"`
	Sub     subscriber      `json:"push"`
	Expires time.Time       `json:"expires"`
	Noticed bool            `json:"noticed,omitempty"`
}

// load reads the state file into the book and returns the leases that have not
// ended. Lines that cannot be read are passed over; a file that is not ours is
// an error, so that it is not overwritten.
func (s *Server) load(now time.Time) ([]*lease, error) {
	if s.cfg.State == "" {
		return nil, nil
	}
	f, err := os.Open(s.cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := lineReader{r: bufio.NewReader(f)}
	if line, err := lines.line(); err != nil || string(bytes.TrimSpace(line)) != stateHeader {
		return nil, fmt.Errorf("%s is not a state file of version 1", s.cfg.State)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var leases []*lease
	bad := 0
	for {
		line, err := lines.line()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", s.cfg.State, err)
		}
		l, err := parseLease(line)
		if err != nil {
			bad++
			continue
		}
		if now.Before(l.expires) && !s.leases.taken(l) && s.leases.room(s.limits, l.client, l.size()) {
			l.expires = earlier(l.expires, now.Add(leaseTime))
			s.leases.add(l)
			leases = append(leases, l)
		}
	}
	if bad > 0 {
		s.log.Warn("state file has bad lines", "file", s.cfg.State, "lines", bad)
	}
	return leases, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func parseLease(line []byte) (*lease, error) {
	var j leaseJSON
	if err := json.Unmarshal(line, &j); err != nil {
		return nil, err
	}
	if len(j.Key) != 2*wire.IDSize {
		return nil, fmt.Errorf("key %.50q", j.Key)
	}
	key, err := dht.ParseKey(j.Key)
	if err != nil {
		return nil, err
	}
	l := &lease{key: key, client: j.Client, sub: j.Sub, expires: j.Expires, noticed: j.Noticed}
	if j.Value == nil {
		if j.Sub.Token == "" {
			return nil, errors.New("subscription without token")
		}
		return l, nil
	}
	if l.value, err = ParseJSON(j.Value); err != nil {
		return nil, err
	}
	if l.value.ID == 0 {
		return nil, errors.New("value without id")
	}
	return l, nil
}

// save writes the state file if something has changed. A failure is logged and
// tried again.
func (s *Server) save() {
	s.mu.Lock()
	if !s.dirty || s.cfg.State == "" {
		s.mu.Unlock()
		return
	}
	s.dirty = false
	out := []byte(stateHeader + "\n")
	s.leases.all(func(l *lease) {
		j := leaseJSON{Key: l.key.String(), Client: l.client, Sub: l.sub, Expires: l.expires.UTC(), Noticed: l.noticed}
		if l.value != nil {
			j.Value = AppendJSON(nil, l.value)
		}
		line, err := json.Marshal(j)
		if err != nil { // nothing in it can fail
			s.log.Error("lease not saved", "key", l.key, "err", err)
			return
		}
		out = append(append(out, line...), '\n')
	})
	s.mu.Unlock()
	if err := writeFile(s.cfg.State, out); err != nil {
		s.log.Error("state not saved", "err", err)
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
	}
}

// writeFile replaces a file as a whole, readable by its owner only.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // without effect once it is renamed
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
