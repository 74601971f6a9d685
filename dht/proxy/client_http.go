package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
)

// headerTime bounds how long a server may take to begin its answer: a put takes
// it most of a minute when nodes do not answer.
const headerTime = 90 * time.Second

// fetchTime bounds one answer to a get.
const fetchTime = 2 * time.Minute

// maxAnswer bounds answers that are no stream, in bytes.
const maxAnswer = MaxLine

// How many servers there may be, and how many are tried for one request.
const (
	maxServers  = 64
	maxAttempts = 4
)

// errStopped is about a caller that wants no more.
var errStopped = errors.New("stopped")

// parseURLs reads the addresses of servers.
func parseURLs(texts []string) ([]*url.URL, error) {
	var bases []*url.URL
	for _, text := range texts {
		list, err := expandPorts(text)
		if err != nil {
			return nil, err
		}
		for _, one := range list {
			if !strings.Contains(one, "://") {
				one = "http://" + one
			}
			u, err := url.Parse(one)
			if err != nil {
				return nil, fmt.Errorf("proxy server %q: %w", text, err)
			}
			if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
				return nil, fmt.Errorf("proxy server %q: want http://host:port or https://host:port", text)
			}
			u.Path = strings.TrimSuffix(u.Path, "/")
			bases = append(bases, u)
		}
	}
	if len(bases) == 0 || len(bases) > maxServers {
		return nil, fmt.Errorf("%d proxy servers: want 1 to %d", len(bases), maxServers)
	}
	return bases, nil
}

// expandPorts turns "host:[80-95]" into an address for each port.
func expandPorts(text string) ([]string, error) {
	host, ports, ok := strings.Cut(text, ":[")
	lo, hi, isRange := strings.Cut(strings.TrimSuffix(ports, "]"), "-")
	if !ok || !isRange {
		return []string{text}, nil
	}
	first, err1 := strconv.ParseUint(lo, 10, 16)
	last, err2 := strconv.ParseUint(hi, 10, 16)
	if err1 != nil || err2 != nil || first > last || last-first >= maxServers {
		return nil, fmt.Errorf("proxy server %q: bad range of ports", text)
	}
	var list []string
	for port := first; port <= last; port++ {
		list = append(list, host+":"+strconv.FormatUint(port, 10))
	}
	rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list, nil
}

// server gives the server in use and its number.
func (c *Client) server() (int, *url.URL) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.base, c.bases[c.base]
}

// failed has the client go on to the next server, if that one is still in use.
func (c *Client) failed(base int) {
	c.mu.Lock()
	if c.base == base {
		c.base = (c.base + 1) % len(c.bases)
	}
	c.trouble = true
	c.mu.Unlock()
	c.wake()
}

// do sends a request to the server in use, or to the next ones if that fails or
// has no DHT. It returns the number of the server that answered; the caller
// closes the body.
func (c *Client) do(ctx context.Context, method, path string, body []byte) (*http.Response, int, error) {
	var lastErr error
	for range max(2, min(len(c.bases), maxAttempts)) {
		base, u := c.server()
		res, err := c.once(ctx, u, method, path, body)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				res.Body.Close()
			}
			return nil, base, context.Cause(ctx)
		case err != nil:
			lastErr = err
		case res.StatusCode == http.StatusServiceUnavailable:
			res.Body.Close()
			lastErr = fmt.Errorf("%s answers %s", u.Host, res.Status)
		default:
			return res, base, nil
		}
		c.failed(base)
	}
	return nil, 0, fmt.Errorf("%w: %w", dht.ErrNoNodes, lastErr)
}

func (c *Client) once(ctx context.Context, u *url.URL, method, path string, body []byte) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String()+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	req.Header.Set("Accept", "*/*")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.http.Do(req)
}

// drain reads the rest of a short answer, so that the connection is used again.
func drain(res *http.Response) {
	_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // what does not come is not needed
	res.Body.Close()
}

// statusError turns an answer that is not 200 into an error.
func statusError(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 200)) // only for people to read
	err := fmt.Errorf("proxy server answers %s %q", res.Status, bytes.TrimSpace(text))
	switch res.StatusCode {
	case http.StatusConflict, http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusInternalServerError:
		return fmt.Errorf("%w: %w", dht.ErrRefused, err)
	case http.StatusBadGateway, http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", dht.ErrNotStored, err)
	}
	return err
}

// post puts a value.
func (c *Client) post(ctx context.Context, key dht.Key, v *dht.Value, permanent bool) error {
	setID(v)
	body := AppendJSON(nil, v)
	if permanent {
		o := object{b: []byte{'{'}}
		o.raw("permanent", string(c.permanent()))
		body = append(append(o.b, ','), body[1:]...)
	}
	res, _, err := c.do(ctx, http.MethodPost, "/key/"+key.String(), body)
	if err != nil {
		return fmt.Errorf("put at %s through proxy: %w", key, err)
	}
	defer drain(res)
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("put at %s: %w", key, statusError(res))
	}
	return nil
}

// permanent gives the JSON that asks the server to keep a value.
func (c *Client) permanent() []byte {
	if c.cfg.Push == nil {
		return []byte("true")
	}
	return c.subscription(false)
}

// subscription gives the JSON that tells the server whom to push to.
func (c *Client) subscription(refresh bool) []byte {
	p := c.cfg.Push
	o := object{b: []byte{'{'}}
	o.text("client_id", p.ClientID)
	o.text("key", p.Token)
	o.text("platform", p.Platform)
	if refresh {
		o.raw("refresh", "true")
	}
	o.text("session_id", c.session)
	o.text("topic", p.Topic)
	return append(o.b, '}')
}

// fetch calls f for each value under a key until it is false. When an answer
// breaks off it is asked for again, so f can have a value twice.
func (c *Client) fetch(ctx context.Context, key dht.Key, f func(*dht.Value) bool) error {
	var err error
	for range max(2, min(len(c.bases), maxAttempts)) {
		var base int
		if base, err = c.fetchOnce(ctx, key, f); err == nil || errors.Is(err, errStopped) || errors.Is(err, dht.ErrNoNodes) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.failed(base)
	}
	return err
}

func (c *Client) fetchOnce(ctx context.Context, key dht.Key, f func(*dht.Value) bool) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	res, base, err := c.do(ctx, http.MethodGet, "/key/"+key.String(), nil)
	if err != nil {
		return base, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return base, statusError(res)
	}
	lines := newLineReader(res.Body)
	for {
		e, err := lines.next()
		if err == io.EOF {
			return base, nil
		}
		if err != nil {
			return base, err
		}
		if !e.Expired && !f(e.Value) {
			return base, errStopped
		}
	}
}

// askInfo asks for the state of the server's node.
func (c *Client) askInfo(ctx context.Context) (dht.Info, error) {
	res, _, err := c.do(ctx, http.MethodGet, "/node/info", nil)
	if err != nil {
		return dht.Info{}, fmt.Errorf("ask proxy server for its state: %w", err)
	}
	defer drain(res)
	if res.StatusCode != http.StatusOK {
		return dht.Info{}, statusError(res)
	}
	var n nodeInfo
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&n); err != nil {
		return dht.Info{}, fmt.Errorf("read proxy server's state: %w", err)
	}
	info := n.table()
	if a, err := netip.ParseAddr(n.PublicIP); err == nil {
		info.PublicAddrs = []netip.Addr{a.Unmap()}
	}
	c.mu.Lock()
	if !c.node.IsZero() && c.node != info.NodeID {
		c.moved, c.trouble = true, true
		c.wake()
	}
	c.node = info.NodeID
	c.mu.Unlock()
	return info, nil
}
