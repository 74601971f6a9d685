package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// infoTime bounds how long a table may take to tell its state.
const infoTime = 5 * time.Second

// nodeInfo is the JSON form of a node's state. The fields are sorted by key, as
// OpenDHT writes them.
type nodeInfo struct {
	ID       string     `json:"id,omitempty"`
	IPv4     familyJSON `json:"ipv4"`
	IPv6     familyJSON `json:"ipv6"`
	NodeID   string     `json:"node_id"`
	Ops      int        `json:"ops"`
	Port4    uint16     `json:"port_ipv4,omitempty"`
	Port6    uint16     `json:"port_ipv6,omitempty"`
	PublicIP string     `json:"public_ip,omitempty"`
	Size     int64      `json:"storage_size,omitempty"`
	Values   int        `json:"storage_values,omitempty"`
}

type familyJSON struct {
	Dubious  int `json:"dubious"`
	Good     int `json:"good"`
	Incoming int `json:"incoming"` // heard from but never asked: nodes of ours do not count them
	Estimate int `json:"network_size_estimation,omitempty"`
	Depth    int `json:"table_depth,omitempty"`
}

func (s *Server) nodeInfo(ctx context.Context) (nodeInfo, dht.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	info, err := s.cfg.Table.Info(ctx)
	if err != nil {
		return nodeInfo{}, dht.Info{}, err
	}
	n := nodeInfo{
		IPv4: familyOf(info.IPv4), IPv6: familyOf(info.IPv6),
		NodeID: info.NodeID.String(), Ops: info.Searches + info.Requests,
		Port4: info.IPv4.Addr.Port(), Port6: info.IPv6.Addr.Port(),
		Size: info.Storage.Bytes, Values: info.Storage.Values,
	}
	if s.cfg.Secure != nil {
		n.ID = s.cfg.Secure.KeyID().String()
	}
	return n, info, nil
}

func familyOf(f dht.FamilyInfo) familyJSON {
	j := familyJSON{Dubious: f.Dubious, Good: f.Good}
	if f.Depth > 1 {
		j.Depth, j.Estimate = f.Depth, f.Estimate
	}
	return j
}

// handleInfo tells the state of the node and the client's address.
func (s *Server) handleInfo(r *request) {
	n, _, err := s.nodeInfo(r.Context())
	if err != nil {
		s.fail(r, http.StatusServiceUnavailable, `{"err":"Incorrect DhtRunner"}`)
		return
	}
	n.PublicIP = s.remote(r)
	s.answer(r, n)
}

// stats is the JSON form of a server's statistics.
type stats struct {
	Listens    int         `json:"listenCount"`
	Node       nodeInfo    `json:"nodeInfo"`
	Subscribed int         `json:"pushListenersCount"`
	Puts       int64       `json:"putCount"`
	Rate       json.Number `json:"requestRate"`
	Permanent  int         `json:"totalPermanentPuts"`
}

// handleStats tells what the server does.
func (s *Server) handleStats(r *request) {
	n, _, err := s.nodeInfo(r.Context())
	if err != nil {
		s.fail(r, http.StatusServiceUnavailable, `{"err":"Incorrect DhtRunner"}`)
		return
	}
	s.mu.Lock()
	st := stats{Node: n, Subscribed: len(s.leases.subs), Permanent: len(s.leases.puts)}
	s.mu.Unlock()
	st.Listens = s.meter.streams()
	st.Puts = s.puts.Load()
	st.Rate = json.Number(strconv.FormatFloat(s.requests.perSecond(time.Now()), 'f', 1, 64))
	s.answer(r, st)
}

// handleHealth tells load balancers, by status, whether requests make sense: the
// table is connected and the server is not ending. OpenDHT has nothing like it.
func (s *Server) handleHealth(r *request) {
	status := http.StatusServiceUnavailable
	text := `{"status":"ending"}`
	if s.life.Err() == nil {
		text = `{"status":"disconnected"}`
		if _, info, err := s.nodeInfo(r.Context()); err == nil {
			text = `{"status":"` + info.Status.String() + `"}`
			if info.Status == dht.Connected {
				status = http.StatusOK
			}
		}
	}
	s.fail(r, status, text+"\n")
}

// answer sends v as one JSON line.
func (s *Server) answer(r *request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.fail(r, http.StatusInternalServerError, errInternal)
		return
	}
	s.sendLine(r, b)
}

// sendLine sends a whole answer of one line.
func (s *Server) sendLine(r *request, line []byte) {
	r.w.Header().Set("Content-Length", strconv.Itoa(len(line)+1))
	s.write(r, append(line, '\n'))
}

// table reads the JSON form back.
func (n *nodeInfo) table() dht.Info {
	info := dht.Info{
		IPv4: n.IPv4.info(), IPv6: n.IPv6.info(),
		Storage: dht.StorageInfo{Values: n.Values, Bytes: n.Size},
	}
	info.Status = max(info.IPv4.Status, info.IPv6.Status)
	if id, err := wire.ParseNodeID(n.NodeID); err == nil {
		info.NodeID = id
	}
	return info
}

func (f *familyJSON) info() dht.FamilyInfo {
	i := dht.FamilyInfo{Good: f.Good, Dubious: f.Dubious, Depth: f.Depth, Estimate: f.Estimate}
	switch {
	case f.Good > 0:
		i.Status = dht.Connected
	case f.Dubious > 0:
		i.Status = dht.Connecting
	}
	i.Known = f.Good + f.Dubious
	return i
}

// rateWindow is over what time the rate of requests is measured.
const rateWindow = 2 * time.Minute

// rate measures requests per second over the last whole window.
type rate struct {
	mu    sync.Mutex
	start time.Time
	n     int
	last  float64
}

func (c *rate) count(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roll(now)
	c.n++
}

func (c *rate) perSecond(now time.Time) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.roll(now)
	return c.last
}

func (c *rate) roll(now time.Time) {
	passed := now.Sub(c.start)
	if passed < rateWindow {
		return
	}
	c.last = 0
	if passed < 2*rateWindow {
		c.last = float64(c.n) / passed.Seconds()
	}
	c.start, c.n = now, 0
}
