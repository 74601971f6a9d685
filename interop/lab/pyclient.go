//go:build linux

package lab

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

//go:embed client.py
var clientScript string

// PyClient is a DHT node on Debian's OpenDHT bindings, in a process of its own.
// It has no signed, encrypted or permanent puts: the bindings lack them, and
// [DhtnodeCLI] has them. With an identity it decrypts what is meant for it.
// Its methods are safe for concurrent use; each runs in the client at once.
type PyClient struct {
	*Process
	NodeID string // 40 hex digits
	KeyID  string // id of its public key; zeros without identity
	Port   uint16

	mu      sync.Mutex
	serial  int
	waiting map[int]chan<- pyMessage
	listens map[int]chan PyEvent
	early   map[int][]PyEvent // events that overtook the answer to their listen
	rest    []byte
}

// PyConfig configures a PyClient.
type PyConfig struct {
	Host      *Host
	Bootstrap netip.AddrPort // the zero value joins nobody
	Network   uint32
	Identity  bool // generate a 2048-bit key, which takes a fraction of a second
	NoLimits  bool // switch off the limits on incoming requests
	CPUs      []int
}

// PyValue is a value as the library delivered it.
type PyValue struct {
	ID       uint64 `json:"vid"`
	Text     string `json:"text"` // the library's description: says "signed", "decrypted"
	UserType string `json:"utype"`
	Data     []byte `json:"data"` // empty when encrypted for somebody else
}

// PyEvent is a value delivered by a listen.
type PyEvent struct {
	PyValue
	Expired bool    `json:"expired"`
	Time    float64 `json:"time"` // seconds since 1970
	Listen  int     `json:"listen"`
}

// PyResult says how a put or get went.
type PyResult struct {
	Done   bool      `json:"done"`  // the library's verdict
	Nodes  int       `json:"nodes"` // that took part
	Micros int64     `json:"us"`
	First  int64     `json:"first_us"` // microseconds to the first value
	ID     uint64    `json:"vid"`      // of a put's value
	Values []PyValue `json:"values"`
}

// Bulk describes many operations of one kind. Operation i has the key
// SHA1(Prefix + decimal(i)) and a value made from both.
type Bulk struct {
	Op      string        // "put", "get" or "miss" (a get that must find nothing)
	Prefix  string        //
	First   int           // first i
	Count   int           //
	Size    int           // bytes of a value
	Window  int           // operations under way at once
	Timeout time.Duration // for each; then the whole workload fails
}

// Sample is the outcome of one operation.
type Sample struct {
	Latency time.Duration
	First   time.Duration // to the first value; negative if none came
	OK      bool          // acknowledged; found with the right content; not found, for "miss"
	Nodes   int           // that took part, as far as the client says
}

// PyStats are the client's counters since the last call of Stats.
type PyStats struct {
	Sent [5]int // requests: ping, find, get, listen, put
	CPU  time.Duration
}

type pyMessage struct {
	PyEvent
	PyResult
	Number  int      `json:"id"`
	OK      bool     `json:"ok"`
	Error   string   `json:"error"`
	Event   string   `json:"event"`
	Port    uint16   `json:"port"`
	Node    string   `json:"node"`
	Key     string   `json:"key"`
	VID     uint64   `json:"vid"`
	Micros  int64    `json:"us"`
	Samples [][4]int `json:"samples"`
	Sent    [5]int   `json:"sent"`
	CPU     int64    `json:"cpu_us"`
	LongTxt string   `json:"text"`
}

// maxAnswer bounds a line from the client; a bulk of 100,000 samples fits.
const maxAnswer = 16 << 20

// StartPy starts a client and returns once it listens; it may not yet have
// reached its bootstrap node.
func (l *Lab) StartPy(ctx context.Context, c PyConfig) (*PyClient, error) {
	p := &PyClient{waiting: map[int]chan<- pyMessage{}, listens: map[int]chan PyEvent{}, early: map[int][]PyEvent{}}
	proc, err := l.Start(Spec{
		Name: "pyclient", Path: Python, Args: []string{"-c", clientScript},
		Host: c.Host, CPUs: c.CPUs, Stdout: p,
	})
	if err != nil {
		return nil, err
	}
	p.Process = proc
	req := map[string]any{
		"addr": c.Host.Addr().String(), "network": c.Network, "identity": c.Identity, "nolimits": c.NoLimits,
	}
	if c.Bootstrap.IsValid() {
		req["bootstrap"] = c.Bootstrap.String()
	}
	m, err := p.call(ctx, "start", req)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("start python client: %w; its log ends:\n%s", err, p.Tail())
	}
	p.NodeID, p.KeyID, p.Port = m.Node, m.Key, m.Port
	return p, nil
}

// Write takes the client's output; it is for the process only.
func (p *PyClient) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append(p.rest, b...)
	for {
		line, rest, ok := bytes.Cut(p.rest, []byte("\n"))
		if !ok {
			break
		}
		p.line(line)
		p.rest = rest
	}
	if len(p.rest) > maxAnswer {
		return 0, errors.New("the python client's answer is too long")
	}
	return len(b), nil
}

func (p *PyClient) line(b []byte) {
	var head struct {
		Event string `json:"event"`
	}
	if json.Unmarshal(b, &head) != nil {
		return // a library's own chatter
	}
	if head.Event == "value" {
		var e PyEvent
		if json.Unmarshal(b, &e) != nil {
			return
		}
		if ch := p.listens[e.Listen]; ch != nil {
			offer(ch, e)
		} else if len(p.early[e.Listen]) < listenBuffer {
			p.early[e.Listen] = append(p.early[e.Listen], e)
		}
		return
	}
	var m pyMessage
	if json.Unmarshal(b, &m) != nil {
		return
	}
	if ch := p.waiting[m.Number]; ch != nil {
		delete(p.waiting, m.Number)
		ch <- m // has room for one
	}
}

func (p *PyClient) call(ctx context.Context, cmd string, req map[string]any) (pyMessage, error) {
	p.mu.Lock()
	p.serial++
	n := p.serial
	ch := make(chan pyMessage, 1)
	p.waiting[n] = ch
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, n)
		p.mu.Unlock()
	}()

	req["id"], req["cmd"] = n, cmd
	if deadline, ok := ctx.Deadline(); ok && req["timeout"] == nil {
		req["timeout"] = time.Until(deadline).Seconds()
	} else if !ok && req["timeout"] == nil {
		req["timeout"] = 30.0
	}
	line, err := json.Marshal(req)
	if err != nil {
		return pyMessage{}, fmt.Errorf("python client: %s: %w", cmd, err)
	}
	if _, err := p.Stdin.Write(append(line, '\n')); err != nil {
		return pyMessage{}, fmt.Errorf("python client: %s: %w", cmd, err)
	}
	select {
	case m := <-ch:
		if !m.OK {
			return m, fmt.Errorf("python client: %s: %s", cmd, m.Error)
		}
		return m, nil
	case <-ctx.Done():
		return pyMessage{}, fmt.Errorf("python client: %s: %w", cmd, ctx.Err())
	case <-p.Done():
		return pyMessage{}, fmt.Errorf("python client: %s: the process has ended: %v", cmd, p.Err())
	}
}

// Put stores a value. Id 0 lets the library choose one. The key is 40 hex digits,
// or text that is hashed. Done in the result says whether nodes acknowledged it.
func (p *PyClient) Put(ctx context.Context, key string, data []byte, id uint64, userType string) (PyResult, error) {
	m, err := p.call(ctx, "put", map[string]any{"key": key, "data": data, "vid": id, "utype": userType})
	r := m.PyResult
	r.ID, r.Micros = m.VID, m.Micros
	return r, err
}

// Get fetches the values under key.
func (p *PyClient) Get(ctx context.Context, key string) (PyResult, error) {
	m, err := p.call(ctx, "get", map[string]any{"key": key})
	r := m.PyResult
	r.Micros = m.Micros
	return r, err
}

// listenBuffer is how many events wait for a slow reader; the rest are lost.
const listenBuffer = 4096

// Listen delivers the values under key, present and future, until cancel.
func (p *PyClient) Listen(ctx context.Context, key string) (events <-chan PyEvent, cancel func() error, err error) {
	m, err := p.call(ctx, "listen", map[string]any{"key": key})
	if err != nil {
		return nil, nil, err
	}
	n := m.Listen
	ch := make(chan PyEvent, listenBuffer)
	p.mu.Lock()
	p.listens[n] = ch
	for _, e := range p.early[n] {
		offer(ch, e)
	}
	delete(p.early, n)
	p.mu.Unlock()
	cancel = func() error {
		_, err := p.call(context.WithoutCancel(ctx), "cancel", map[string]any{"listen": n})
		p.mu.Lock()
		delete(p.listens, n)
		p.mu.Unlock()
		return err
	}
	return ch, cancel, nil
}

func offer(ch chan PyEvent, e PyEvent) {
	select {
	case ch <- e:
	default:
	}
}

// Bulk runs a workload inside the client, where its times are taken, and returns
// one sample for each operation and the time that all took.
func (p *PyClient) Bulk(ctx context.Context, b Bulk) ([]Sample, time.Duration, error) {
	m, err := p.call(ctx, "bulk", map[string]any{
		"op": b.Op, "prefix": b.Prefix, "first": b.First, "count": b.Count, "size": b.Size,
		"window": max(1, b.Window), "timeout": b.Timeout.Seconds(),
	})
	if err != nil {
		return nil, 0, err
	}
	out := make([]Sample, len(m.Samples))
	for i, s := range m.Samples {
		out[i] = Sample{
			Latency: time.Duration(s[0]) * time.Microsecond,
			First:   time.Duration(s[1]) * time.Microsecond,
			OK:      s[2] == 1, Nodes: s[3],
		}
	}
	return out, time.Duration(m.Micros) * time.Microsecond, nil
}

// Stats reads the client's counters.
func (p *PyClient) Stats(ctx context.Context) (PyStats, error) {
	m, err := p.call(ctx, "stats", map[string]any{})
	return PyStats{Sent: m.Sent, CPU: time.Duration(m.CPU) * time.Microsecond}, err
}

// Bootstrap pings one more node.
func (p *PyClient) Bootstrap(ctx context.Context, addr netip.AddrPort) error {
	_, err := p.call(ctx, "bootstrap", map[string]any{"bootstrap": addr.String()})
	return err
}

// Storage is the library's description of the values that the client stores.
func (p *PyClient) Storage(ctx context.Context) (string, error) {
	m, err := p.call(ctx, "storage", map[string]any{})
	return m.LongTxt, err
}
