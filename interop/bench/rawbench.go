//go:build linux

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity/identitytest"
	"github.com/kith-im/kith/interop/lab"
	"github.com/kith-im/kith/interop/raw"
)

// Raw measures how many single requests one node serves and what each costs it.
type Raw struct {
	Kinds    []lab.NodeKind // the first is what the others are compared with
	Cores    int            // cores of the node: it gets the first ones, the harness the rest (or all, if none is left)
	Rounds   int            // the kinds take turns; each round has fresh nodes
	Requests int            // in each phase
	Sockets  int            // of the client
	Window   int            // requests under way over all sockets
	Size     int            // bytes of a value
	Progress io.Writer
}

// Columns of the raw benchmark. "lost" are requests that were not answered
// within lostAfter, or by a get reply without the value that was put before.
const (
	colRate = "req/s"
	colCPU  = "CPU us/req"
	colLost = "lost"
)

// lostAfter is when the rest of a window counts as lost. A local node needs
// milliseconds.
const lostAfter = 500 * time.Millisecond

// rawPhases are the kinds of request. A signed put makes the node verify an RSA
// signature, which is work for the processor and little for the network: the kind
// that shows best whether a second core is of use.
func rawPhases() []string {
	return []string{"ping", "find", "put", "get hit", "get miss", "put signed"}
}

// Run does the measurement. It restricts the calling program to the cores that
// the node does not use, for good.
func (b Raw) Run(ctx context.Context) (*Report, error) {
	r := &Report{
		Bench: "raw",
		Settings: map[string]any{
			"cores": b.Cores, "requests": b.Requests, "sockets": b.Sockets, "window": b.Window, "size": b.Size,
		},
		Columns: []string{colRate, colCPU, colLost, "median req/s", "min CPU us/req", "median CPU us/req", "rate ratio", "CPU ratio"},
	}
	var node, own []int
	for c := range runtime.NumCPU() {
		if c < b.Cores {
			node = append(node, c)
		} else {
			own = append(own, c)
		}
	}
	if len(own) > 0 {
		if err := lab.RestrictSelf(own); err != nil {
			return nil, err
		}
	}
	for round := 1; round <= b.Rounds; round++ {
		for _, kind := range b.Kinds {
			say(b.Progress, "round %d: %s on %d core(s)", round, kind.Name(), b.Cores)
			rows, err := b.node(ctx, kind, node)
			for _, row := range rows {
				row.Round = round
				r.Rows = append(r.Rows, row)
			}
			if err != nil {
				return r, fmt.Errorf("raw requests to %s: %w", kind.Name(), err)
			}
		}
	}
	r.Rows = append(r.Rows, b.compare(r.Rows)...)
	return r, nil
}

// compare sums up the rounds: best and median, and ratios to the first kind
// (of median rates, and of least CPU times, which other load disturbs least).
func (b Raw) compare(rows []Row) []Row {
	var out []Row
	for _, op := range rawPhases() {
		var base map[string]float64
		for _, kind := range b.Kinds {
			var rates, cpus []float64
			v := map[string]float64{}
			for _, row := range rows {
				if row.Nodes == kind.Name() && row.Op == op {
					rates = append(rates, row.Values[colRate])
					cpus = append(cpus, row.Values[colCPU])
					v[colLost] += row.Values[colLost]
				}
			}
			slices.Sort(rates)
			slices.Sort(cpus)
			v[colRate] = quantile(rates, 1)
			v["median req/s"] = quantile(rates, 0.5)
			v["min CPU us/req"] = quantile(cpus, 0)
			v["median CPU us/req"] = quantile(cpus, 0.5)
			if base == nil {
				base = v
			}
			v["rate ratio"] = v["median req/s"] / base["median req/s"]
			v["CPU ratio"] = v["min CPU us/req"] / base["min CPU us/req"]
			out = append(out, Row{Nodes: kind.Name(), Op: op, Values: v})
		}
	}
	return out
}

func (b Raw) node(ctx context.Context, kind lab.NodeKind, cpus []int) ([]Row, error) {
	l, err := lab.Open("")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	node, err := l.StartNode(ctx, kind, lab.NodeConfig{Network: network, NoLimits: true, CPUs: cpus})
	if err != nil {
		return nil, err
	}
	socks := make([]*socket, b.Sockets)
	for i := range socks {
		if socks[i], err = newSocket(node.Addr(), max(1, b.Window/b.Sockets)); err != nil {
			return nil, err
		}
		defer socks[i].conn.Close()
		if err := socks[i].fetchToken(); err != nil {
			return nil, err
		}
	}
	var rows []Row
	value := make([]byte, b.Size)
	signed, err := signedValue(value)
	if err != nil {
		return nil, err
	}
	for _, op := range rawPhases() {
		// Without this, what the last phase left over would count for this one.
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return rows, err
		}
		before, err := node.Usage()
		if err != nil {
			return rows, err
		}
		start := time.Now()
		var wg sync.WaitGroup
		answered, errs := make([]int, len(socks)), make([]error, len(socks))
		for i, s := range socks {
			wg.Go(func() {
				data := value
				if op == "put signed" {
					data = signed
				}
				answered[i], errs[i] = s.phase(op, b.Requests/len(socks), data)
			})
		}
		wg.Wait()
		took := time.Since(start)
		if err := errors.Join(errs...); err != nil {
			return rows, fmt.Errorf("%s: %w", op, err)
		}
		after, err := node.Usage()
		if err != nil {
			return rows, err
		}
		total, sent := 0, b.Requests/len(socks)*len(socks)
		for _, n := range answered {
			total += n
		}
		if total == 0 {
			return rows, fmt.Errorf("%s: no request was answered", op)
		}
		rows = append(rows, Row{Nodes: kind.Name(), Op: op, Values: map[string]float64{
			colRate: float64(total) / took.Seconds(),
			colCPU:  float64((after.CPU - before.CPU).Microseconds()) / float64(total),
			colLost: float64(sent - total),
		}})
	}
	return rows, nil
}

// signedValue packs a value that is signed with a throwaway key. No signature
// covers the key that a value is put under, so one will do for all requests.
func signedValue(data []byte) ([]byte, error) {
	id := identitytest.Identity(0)
	v := &wire.Value{ID: 1, Data: data, Owner: id.Key.Public().DER()}
	sig, err := id.Key.Sign(v.SignedBytes())
	if err != nil {
		return nil, fmt.Errorf("sign a value: %w", err)
	}
	v.Signature = sig
	return v.Append(nil), nil
}

// socket is one client: a connected socket that keeps a window of requests under
// way and moves them in batches.
type socket struct {
	conn   *net.UDPConn
	batch  *ipv4.PacketConn
	out    []ipv4.Message
	in     []ipv4.Message
	req    raw.Request
	token  []byte
	window int
	seed   uint64
}

func newSocket(to netip.AddrPort, window int) (*socket, error) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil, fmt.Errorf("open client socket: %w", err)
	}
	s := &socket{conn: conn, batch: ipv4.NewPacketConn(conn), window: window, seed: rand.Uint64()}
	s.req = raw.Request{Network: network, TID: 1}
	binary.BigEndian.PutUint64(s.req.Self[:], rand.Uint64())
	for range window {
		s.out = append(s.out, ipv4.Message{Buffers: [][]byte{make([]byte, 0, 2048)}})
		s.in = append(s.in, ipv4.Message{Buffers: [][]byte{make([]byte, 4096)}})
	}
	return s, nil
}

func (s *socket) fetchToken() error {
	if _, err := s.conn.Write(s.req.Find(nil, s.key(0))); err != nil {
		return fmt.Errorf("fetch token: %w", err)
	}
	s.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 4096)
	n, err := s.conn.Read(buf)
	if err != nil {
		return fmt.Errorf("fetch token: %w", err)
	}
	m, err := raw.Parse(buf[:n])
	if err != nil || len(m.Token) == 0 {
		return fmt.Errorf("fetch token: no token in the answer: %v", err)
	}
	s.token = slices.Clone(m.Token)
	return nil
}

// key gives this socket's i-th key; negative numbers are keys that nobody puts.
func (s *socket) key(i int) raw.ID {
	var k raw.ID
	r := rand.New(rand.NewPCG(s.seed, uint64(i)))
	for j := 0; j < 16; j += 8 {
		binary.BigEndian.PutUint64(k[j:], r.Uint64())
	}
	binary.BigEndian.PutUint32(k[16:], uint32(i))
	return k
}

// phase sends n requests of one kind and returns how many were answered.
func (s *socket) phase(op string, n int, value []byte) (int, error) {
	first := s.req.TID + 1
	s.req.TID = first + uint32(n)
	req := s.req
	seen := make([]bool, n)
	sent, flying, answered := 0, 0, 0
	for sent < n || flying > 0 {
		k := min(s.window-flying, n-sent)
		for i := range k {
			req.TID = first + uint32(sent+i)
			buf := s.out[i].Buffers[0][:0]
			switch op {
			case "ping":
				buf = req.Ping(buf)
			case "find":
				buf = req.Find(buf, s.key(sent+i))
			case "put":
				buf = req.Put(buf, s.key(sent+i), s.token, uint64(sent+i+1), value)
			case "put signed":
				buf = req.PutPacked(buf, s.key(n+sent+i), s.token, value)
			case "get hit":
				buf = req.Get(buf, s.key(sent+i))
			default:
				buf = req.Get(buf, s.key(-1-sent-i))
			}
			s.out[i].Buffers[0] = buf
		}
		for done := 0; done < k; {
			m, err := s.batch.WriteBatch(s.out[done:k], 0)
			if err != nil {
				return answered, fmt.Errorf("send: %w", err)
			}
			done += m
		}
		sent += k
		flying += k

		s.conn.SetReadDeadline(time.Now().Add(lostAfter))
		got, err := s.batch.ReadBatch(s.in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			flying = 0 // lost
			continue
		}
		if err != nil {
			return answered, fmt.Errorf("receive: %w", err)
		}
		for i := range got {
			m, err := raw.Parse(s.in[i].Buffers[0][:s.in[i].N])
			at := m.TID - first
			// Requests of the node itself, and answers to what counts as lost
			// already in an earlier phase, come here too.
			if err != nil || m.Kind != raw.Reply || at >= uint32(n) || seen[at] {
				continue
			}
			seen[at] = true
			flying = max(0, flying-1)
			if op == "get hit" && m.Values != 1 {
				continue // what was put is not there: no better than no answer
			}
			answered++
		}
	}
	return answered, nil
}
