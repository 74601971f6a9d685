package proxy

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/internal/netx"
)

// pipes is a network in memory with one server in it, for synctest bubbles.
type pipes struct {
	netx.Network
	conns   chan net.Conn
	changes chan struct{}

	mu    sync.Mutex
	dials int
	addr  netip.Prefix // of the client
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), changes: make(chan struct{}), addr: netip.MustParsePrefix("192.0.2.1/24")}
}

// Changes implements [netx.Network].
func (p *pipes) Changes(ctx context.Context) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-p.changes:
				out <- struct{}{}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Interfaces implements [netx.Network].
func (p *pipes) Interfaces() ([]netx.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return []netx.Interface{{Name: "wlan0", Addrs: []netip.Prefix{p.addr}}}, nil
}

// Dial implements [netx.Network]; all addresses are the server's.
func (p *pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	p.mu.Unlock()
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements [net.Listener], as do Close and Addr.
func (p *pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p *pipes) Close() error   { return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// inBubble runs a test with a server and a client over pipes.
func inBubble(t *testing.T, server ServerConfig, client ClientConfig, test func(t *testing.T, s *Server, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes()
		s := NewServer(server)
		web := s.HTTPServer()
		served := make(chan error, 1)
		go func() { served <- web.Serve(network) }()
		client.Network = network
		client.URLs = []string{"proxy.example"}
		c, err := NewClient(client)
		if err != nil {
			t.Fatal(err)
		}
		stopServer, stopClient := runIt(t, s.Run), runIt(t, c.Run)
		synctest.Wait()
		test(t, s, c)
		stopClient()
		stopServer()
		close(network.conns)
		web.Close()
		if err := <-served; err != http.ErrServerClosed && err != net.ErrClosed {
			t.Errorf("serve: %v", err)
		}
	})
}

func TestPublicationKeptForDays(t *testing.T) {
	table, key := newMemTable(), dht.KeyOf("a")
	inBubble(t, ServerConfig{Table: table}, ClientConfig{}, func(t *testing.T, s *Server, c *Client) {
		var pubs []dht.Publication
		for i := range 20 {
			p, err := c.Publish(t.Context(), key, &dht.Value{Data: []byte{byte(i)}})
			if err != nil {
				t.Fatal(err)
			}
			pubs = append(pubs, p)
		}
		time.Sleep(5 * 24 * time.Hour)
		if _, n := table.state(key); n != 20 {
			t.Errorf("%d publications after 5 days", n)
		}
		for _, p := range pubs {
			p.Cancel()
		}
		time.Sleep(leaseTime + 2*maxTick)
		if _, n := table.state(key); n != 0 {
			t.Errorf("%d publications a day after Cancel", n)
		}
	})
}

func TestPushListenKeptForDays(t *testing.T) {
	table, key := newMemTable(), dht.KeyOf("a")
	pushes := make(recordingPusher, 1000)
	inBubble(t, ServerConfig{Table: table, Push: pushes}, ClientConfig{Push: &PushConfig{Token: "token", Platform: "ios"}}, func(t *testing.T, s *Server, c *Client) {
		next, stop := follow(t, c, key, dht.Query{})
		time.Sleep(5 * 24 * time.Hour)
		if err := table.Put(t.Context(), key, &dht.Value{ID: 1, Data: []byte("one")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if len(pushes) == 0 {
			t.Fatal("no push after 5 days")
		}
		for len(pushes) > 0 {
			if n := <-pushes; !c.PushReceived(n.data) {
				t.Errorf("push %v is not taken", n.data)
			}
		}
		if got := next(); got != "+one" {
			t.Errorf("event %q", got)
		}
		table.expire(key, 1)
		time.Sleep(time.Second)
		if n := <-pushes; n.data["exp"] != "1" || !c.PushReceived(n.data) {
			t.Errorf("push %+v", n)
		}
		if got := next(); got != "-one" {
			t.Errorf("event %q", got)
		}
		for _, data := range []map[string]string{
			nil,
			{"key": ""},
			{"key": key.String(), "to": "other"},
			{"key": key.String(), "s": "earlier"},
			{"key": "other"},
			{"timeout": ""},
			{"timeout": key.String(), "vid": "x"},
			{"timeout": key.String(), "vid": "5"},
		} {
			if c.PushReceived(data) {
				t.Errorf("push %v is taken", data)
			}
		}
		stop()
		time.Sleep(time.Second)
		synctest.Wait()
		if n, _ := table.state(key); n != 0 {
			t.Errorf("%d listens after the end", n)
		}
	})
}

// TestSlowReader has a client that does not read; it holds up nothing but itself.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, key := newMemTable(), dht.KeyOf("a")
		network := newPipes()
		s := NewServer(ServerConfig{Table: table})
		web := s.HTTPServer()
		served := make(chan error, 1)
		go func() { served <- web.Serve(network) }()
		conn, err := network.Dial(t.Context(), "tcp", "a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET /key/a/listen HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1<<10)); err != nil { // the header, and no more
			t.Fatal(err)
		}
		synctest.Wait()
		if n, _ := table.state(key); n != 1 {
			t.Fatalf("%d listens", n)
		}
		if err := table.Put(t.Context(), key, &dht.Value{Data: make([]byte, 10_000)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(s.limits.WriteTime + time.Second)
		synctest.Wait()
		if n, _ := table.state(key); n != 0 || s.meter.streams() != 0 {
			t.Errorf("%d listens, %d streams", n, s.meter.streams())
		}
		conn.Close()
		close(network.conns)
		web.Close()
		<-served
	})
}

// TestServerAway has a client look for its server while that does not answer, at
// a modest rate, and come back soon.
func TestServerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := newPipes() // nobody accepts: dials hang
		c, err := NewClient(ClientConfig{URLs: []string{"a", "b"}, Network: network})
		if err != nil {
			t.Fatal(err)
		}
		stop := runIt(t, c.Run)
		table, key := newMemTable(), dht.KeyOf("a")
		next, stopListen := follow(t, c, key, dht.Query{})
		time.Sleep(time.Hour)
		network.mu.Lock()
		dials := network.dials
		network.mu.Unlock()
		if dials > 500 {
			t.Errorf("%d dials in an hour", dials)
		}
		s := NewServer(ServerConfig{Table: table})
		web := s.HTTPServer()
		served := make(chan error, 1)
		go func() { served <- web.Serve(network) }()
		time.Sleep(2 * time.Minute)
		mark(t, table, key, next, "back")
		stopListen()
		stop()
		close(network.conns)
		web.Close()
		<-served
	})
}

// TestNetworkChange has the client's address go: its streams begin anew without
// waiting for the old connections to fail.
func TestNetworkChange(t *testing.T) {
	table, key := newMemTable(), dht.KeyOf("a")
	inBubble(t, ServerConfig{Table: table}, ClientConfig{}, func(t *testing.T, s *Server, c *Client) {
		next, stop := follow(t, c, key, dht.Query{})
		synctest.Wait()
		mark(t, table, key, next, "one")
		network := c.cfg.Network.(*pipes)
		dials := func() int {
			network.mu.Lock()
			defer network.mu.Unlock()
			return network.dials
		}
		before := dials()
		network.changes <- struct{}{} // nothing has gone
		time.Sleep(10 * time.Second)
		if got := dials(); got != before {
			t.Errorf("%d connections after an idle change, %d before", got, before)
		}
		network.mu.Lock()
		network.addr = netip.MustParsePrefix("198.51.100.1/24")
		network.mu.Unlock()
		network.changes <- struct{}{}
		time.Sleep(10 * time.Second)
		if got := dials(); got <= before {
			t.Errorf("%d connections after the change, %d before", got, before)
		}
		if n, _ := table.state(key); n != 1 {
			t.Errorf("%d listens", n)
		}
		mark(t, table, key, next, "two")
		stop()
	})
}
