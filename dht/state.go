package dht

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/msgpack"
)

// A State is what a node takes over from an earlier run. Its bytes are in the form
// of OpenDHT's state files, so either program reads the other's nodes.
type State struct {
	ID     NodeID
	Nodes  []wire.Node
	Values []kad.Entry
}

// maxState bounds a state file: the default storage with room for book-keeping.
const maxState = 256 << 20

// keptNodes is how many nodes a state has at least, if ever there were so many.
const keptNodes = 64

// Export returns the node's present state: its id, the nodes that are good, and the
// values that it stores. When few nodes are good, others that were follow: a state
// that is saved while the network is away, or while liars surround us, leads back.
func (n *Node) Export() *State {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := &State{ID: n.cfg.ID, Nodes: n.core.Nodes(time.Now())}
	for _, old := range n.kept {
		if len(s.Nodes) >= keptNodes {
			break
		}
		if !slices.ContainsFunc(s.Nodes, func(have wire.Node) bool { return have.Addr == old.Addr }) {
			s.Nodes = append(s.Nodes, old)
		}
	}
	n.kept = slices.Clone(s.Nodes)
	for e := range n.core.Export {
		s.Values = append(s.Values, e)
	}
	return s
}

// SaveState writes the node's state to a file, which is replaced as a whole or not
// at all.
func (n *Node) SaveState(name string) error {
	n.saving.Lock()
	defer n.saving.Unlock()
	if err := writeFile(name, n.Export().Append(nil)); err != nil {
		return fmt.Errorf("save DHT state: %w", err)
	}
	return nil
}

// LoadState reads a state file. A file that does not exist is an empty state.
func LoadState(name string) (*State, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return &State{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load DHT state: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, fmt.Errorf("load DHT state %s: %w", name, err)
	}
	s, err := ParseState(b)
	if err != nil {
		return nil, fmt.Errorf("load DHT state %s: %w; move the file away to start anew", name, err)
	}
	return s, nil
}

// writeFile writes a file beside name, syncs it, and moves it there. What a crash
// leaves half-written is overwritten the next time.
func writeFile(name string, b []byte) (err error) {
	f, err := os.OpenFile(name+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return err
}

// newSuffix ends the name of a state file that is being written.
const newSuffix = ".new"

// Append appends the packed state: a map of v, id, nodes and values. The nodes are
// OpenDHT's; a value is an array of when it was made, itself, the address that it
// counts for, and when it ends.
func (s *State) Append(b []byte) []byte {
	b = msgpack.AppendMap(b, 4)
	b = msgpack.AppendUint(msgpack.AppendString(b, "v"), 1)
	b = msgpack.AppendBin(msgpack.AppendString(b, "id"), s.ID[:])
	b = msgpack.AppendArray(msgpack.AppendString(b, "nodes"), len(s.Nodes))
	for _, n := range s.Nodes {
		b = msgpack.AppendBin(msgpack.AppendString(msgpack.AppendMap(b, 2), "id"), n.ID[:])
		b = msgpack.AppendBin(msgpack.AppendString(b, "addr"), kad.AppendSockaddr(nil, n.Addr))
	}
	byKey := make(map[Key][]kad.Entry)
	var keys []Key
	for _, e := range s.Values {
		if byKey[e.Key] == nil {
			keys = append(keys, e.Key)
		}
		byKey[e.Key] = append(byKey[e.Key], e)
	}
	slices.SortFunc(keys, func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
	b = msgpack.AppendArray(msgpack.AppendString(b, "values"), len(keys))
	for _, key := range keys {
		list := msgpack.AppendArray(nil, len(byKey[key]))
		for _, e := range byKey[key] {
			list = msgpack.AppendTime(msgpack.AppendArray(list, 4), e.Created)
			list = e.Value.Append(list)
			var from []byte
			if e.From.IsValid() {
				from = kad.AppendSockaddr(nil, netip.AddrPortFrom(e.From, 0))
			}
			list = msgpack.AppendBin(list, from)
			list = msgpack.AppendTime(list, e.Expires)
		}
		b = msgpack.AppendBin(msgpack.AppendArray(b, 2), key[:])
		b = msgpack.AppendBin(b, list)
	}
	return b
}

// ParseState reads what [State.Append] or OpenDHT wrote. Nodes and values that
// cannot be read are left out: the others still count. Values of OpenDHT 2.4,
// whose times are those of a clock that has ended, are left out too.
func ParseState(b []byte) (*State, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("state is larger than %d bytes", maxState)
	}
	r := msgpack.NewReader(b)
	pairs, err := r.Map()
	if err != nil {
		return nil, fmt.Errorf("not a DHT state: %w", err)
	}
	s := &State{}
	for range pairs {
		key, err := r.Str()
		if err != nil {
			return nil, fmt.Errorf("not a DHT state: %w", err)
		}
		part, err := r.Raw()
		if err != nil {
			return nil, fmt.Errorf("DHT state is cut or damaged: %w", err)
		}
		p := msgpack.NewReader(part)
		switch string(key) {
		case "id":
			if id, err := p.Bin(); err == nil && len(id) == len(s.ID) {
				s.ID = NodeID(id)
			}
		case "nodes":
			s.Nodes = parseNodes(&p)
		case "values":
			s.Values = parseValues(&p)
		}
	}
	return s, nil
}

func parseNodes(r *msgpack.Reader) (list []wire.Node) {
	count, err := r.Array()
	for i := 0; err == nil && i < count; i++ {
		var raw []byte
		if raw, err = r.Raw(); err != nil {
			break
		}
		n := wire.Node{}
		p := msgpack.NewReader(raw)
		pairs, bad := p.Map()
		for j := 0; bad == nil && j < pairs; j++ {
			var key, val []byte
			if key, bad = p.Str(); bad != nil {
				break
			}
			if val, bad = p.Bytes(); bad != nil {
				break
			}
			switch string(key) {
			case "id":
				if len(val) == len(n.ID) {
					n.ID = NodeID(val)
				}
			case "addr":
				n.Addr, _ = kad.ParseSockaddr(val)
			}
		}
		if bad == nil && !n.ID.IsZero() && n.Addr.IsValid() && len(list) < 1<<12 {
			list = append(list, n)
		}
	}
	return list
}

func parseValues(r *msgpack.Reader) (list []kad.Entry) {
	keys, err := r.Array()
	for i := 0; err == nil && i < keys; i++ {
		var raw []byte
		if raw, err = r.Raw(); err != nil {
			break
		}
		p := msgpack.NewReader(raw)
		if n, bad := p.Array(); bad != nil || n != 2 {
			continue
		}
		key, bad := p.Bin()
		if bad != nil || len(key) != wire.IDSize {
			continue
		}
		values, bad := p.Bin()
		if bad != nil {
			continue
		}
		v := msgpack.NewReader(values)
		count, bad := v.Array()
		for j := 0; bad == nil && j < count; j++ {
			var item []byte
			if item, bad = v.Raw(); bad == nil {
				if e, ok := parseEntry(Key(key), item); ok {
					list = append(list, e)
				}
			}
		}
	}
	return list
}

func parseEntry(key Key, b []byte) (e kad.Entry, ok bool) {
	r := msgpack.NewReader(b)
	if n, err := r.Array(); err != nil || n < 4 {
		return e, false
	}
	created, err := r.Time()
	if err != nil {
		return e, false
	}
	raw, err := r.Raw()
	if err != nil {
		return e, false
	}
	v, err := wire.ParseValue(raw)
	if err != nil {
		return e, false
	}
	from, err := r.Bin()
	if err != nil {
		return e, false
	}
	expires, err := r.Time()
	if err != nil {
		return e, false
	}
	e = kad.Entry{Key: key, Value: v, Created: created, Expires: expires}
	if a, ok := kad.ParseSockaddr(from); ok {
		e.From = a.Addr()
	}
	return e, true
}
