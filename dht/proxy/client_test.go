package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// newClient makes a client of servers; it is not run.
func newClient(t *testing.T, cfg ClientConfig) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end(dht.ErrClosed); c.http.CloseIdleConnections() })
	return c
}

// eventually waits for a condition that the network brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// follow listens in the background; next gives the next event as text.
func follow(t *testing.T, table dht.Table, key dht.Key, q dht.Query) (next func() string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := make(chan string, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e, err := range table.Listen(ctx, key, q) {
			if err != nil {
				if ctx.Err() == nil {
					events <- err.Error()
				}
				return
			}
			sign := "+"
			if e.Expired {
				sign = "-"
			}
			events <- sign + string(e.Value.Data)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return func() string {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(20 * time.Second):
			t.Fatal("no event")
			return ""
		}
	}, stop
}

// quiet fails the test if there is an event before a value that is put now.
func mark(t *testing.T, table *memTable, key dht.Key, next func() string, text string) {
	t.Helper()
	if err := table.Put(t.Context(), key, &dht.Value{Data: []byte(text)}); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "+"+text {
		t.Fatalf("event %q, want +%s", got, text)
	}
}

func TestClientPutGet(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	c := newClient(t, ClientConfig{URLs: []string{base}})
	key := dht.KeyOf("a")
	signed, err := ParseJSON(signedLine(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []*dht.Value{
		{Data: []byte("one"), UserType: "text/é", Type: 3, Priority: 7, PushType: "p"},
		{ID: 1<<64 - 1, Cypher: []byte("secret")},
		signed,
	} {
		if err := c.Put(t.Context(), key, v); err != nil {
			t.Fatal(err)
		}
		if v.ID == 0 {
			t.Fatal("value has no id")
		}
		n := 0
		for got, err := range c.Get(t.Context(), key, wire.WhereID(v.ID)) {
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v, got); diff != "" {
				t.Errorf("value differs (-put +got):\n%s", diff)
			}
			n++
		}
		if n != 1 {
			t.Errorf("%d values", n)
		}
	}
	info, err := c.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.NodeID != table.info.NodeID || info.Status != dht.Connected || info.IPv4.Good != 3 ||
		fmt.Sprint(info.PublicAddrs) != "[127.0.0.1]" {
		t.Errorf("info is %+v", info)
	}
}

func TestClientErrors(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	c := newClient(t, ClientConfig{URLs: []string{base}})
	for _, want := range []error{dht.ErrNotStored, dht.ErrRefused} {
		table.mu.Lock()
		table.putErr = want
		table.mu.Unlock()
		if err := c.Put(t.Context(), dht.KeyOf("a"), &dht.Value{}); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
		if _, err := c.Publish(t.Context(), dht.KeyOf("a"), &dht.Value{}); !errors.Is(err, want) {
			t.Errorf("error %v, want %v", err, want)
		}
	}
	table.mu.Lock()
	table.getErr = dht.ErrNoNodes
	table.mu.Unlock()
	var last error
	for _, err := range c.Get(t.Context(), dht.KeyOf("a"), dht.Query{}) {
		last = err
	}
	if !errors.Is(last, dht.ErrNoNodes) {
		t.Errorf("error %v, want ErrNoNodes", last)
	}
	nobody := newClient(t, ClientConfig{URLs: []string{"127.0.0.1:1"}})
	if info, err := nobody.Info(t.Context()); !errors.Is(err, dht.ErrNoNodes) || info.Status != dht.Disconnected {
		t.Errorf("info %+v, %v", info, err)
	}
	nobody.end(dht.ErrClosed)
	if err := nobody.Put(t.Context(), dht.KeyOf("a"), &dht.Value{}); !errors.Is(err, dht.ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

func TestClientURLs(t *testing.T) {
	for _, bad := range []string{"", "ftp://a", "http://", "http://a?b", "a:[90-80]", "a:[1-100]", "http://[::1"} {
		if _, err := NewClient(ClientConfig{URLs: []string{bad}}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	urls, err := parseURLs([]string{"a.example", "https://b.example:8/x/", "c.example:[80-82]"})
	if err != nil {
		t.Fatal(err)
	}
	if len(urls) != 5 || urls[0].String() != "http://a.example" || urls[1].String() != "https://b.example:8/x" {
		t.Errorf("servers %v", urls)
	}
}

func TestClientFailsOver(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	var mu sync.Mutex
	hits := 0
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if hits++; hits == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte("{\"id\":\"1\"}\n"))
		panic(http.ErrAbortHandler)
	}))
	defer broken.Close()
	key := dht.KeyOf("a")
	for id := range dht.ValueID(2) {
		if err := table.Put(t.Context(), key, &dht.Value{ID: id + 1}); err != nil {
			t.Fatal(err)
		}
	}
	for _, urls := range [][]string{{"127.0.0.1:1", broken.URL, base}, {broken.URL, base}} {
		c := newClient(t, ClientConfig{URLs: urls})
		ids := make(map[dht.ValueID]int)
		for v, err := range c.Get(t.Context(), key, dht.Query{}) {
			if err != nil {
				t.Fatal(err)
			}
			ids[v.ID]++
		}
		if len(ids) != 2 || ids[1] != 1 || ids[2] != 1 {
			t.Errorf("values %v", ids)
		}
	}
}

func TestListen(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	c := newClient(t, ClientConfig{URLs: []string{base}})
	key := dht.KeyOf("a")
	if err := table.Put(t.Context(), key, &dht.Value{ID: 1, Data: []byte("old"), UserType: "x"}); err != nil {
		t.Fatal(err)
	}
	next, stop := follow(t, c, key, dht.Query{})
	nextX, _ := follow(t, c, key, wire.WhereUserType("x"))
	if got := next() + nextX(); got != "+old+old" {
		t.Fatalf("events %q", got)
	}
	mark(t, table, key, next, "new")
	table.expire(key, 1)
	if got := next() + nextX(); got != "-old-old" {
		t.Fatalf("events %q", got)
	}
	stop()
	eventually(t, "server ends the listen", func() bool { n, _ := table.state(key); return n == 1 })
}

// flaky is a server whose connections a test can cut, at a fixed address.
type flaky struct {
	t    *testing.T
	s    *Server
	addr string
	web  *http.Server
}

func (f *flaky) up() {
	f.t.Helper()
	addr := f.addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	eventually(f.t, "listen again", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	f.addr = l.Addr().String()
	f.web = f.s.HTTPServer()
	go f.web.Serve(l) // until down
}

func (f *flaky) down() { f.web.Close() }

func TestListenSurvivesRestart(t *testing.T) {
	table := newMemTable()
	f := &flaky{t: t, s: NewServer(ServerConfig{Table: table})}
	f.up()
	defer func() { f.down() }()
	key := dht.KeyOf("a")
	c := newClient(t, ClientConfig{URLs: []string{f.addr}})
	next, _ := follow(t, c, key, dht.Query{})
	for _, text := range []string{"stays", "goes"} {
		eventually(t, "listen", func() bool { n, _ := table.state(key); return n == 1 })
		mark(t, table, key, next, text)
	}
	f.down()
	eventually(t, "server ends the listen", func() bool { n, _ := table.state(key); return n == 0 })
	table.mu.Lock()
	for id, v := range table.values[key] {
		if string(v.Data) == "goes" {
			delete(table.values[key], id)
		}
	}
	table.mu.Unlock()
	if err := table.Put(t.Context(), key, &dht.Value{Data: []byte("meanwhile")}); err != nil {
		t.Fatal(err)
	}
	f.up()
	got := []string{next(), next()}
	if strings.Join(got, " ") != "+meanwhile -goes" {
		t.Fatalf("events %q", got)
	}
	mark(t, table, key, next, "after") // and nothing twice
}

func TestPublicationPostedAgain(t *testing.T) {
	table := newMemTable()
	f := &flaky{t: t, s: NewServer(ServerConfig{Table: table})}
	f.up()
	defer func() { f.down() }()
	c := newClient(t, ClientConfig{URLs: []string{f.addr}})
	runIt(t, c.Run)
	key := dht.KeyOf("a")
	pub, err := c.Publish(t.Context(), key, &dht.Value{Data: []byte("x")})
	if err != nil {
		t.Fatal(err)
	}
	if pub.Key() != key || pub.Value().ID == 0 {
		t.Errorf("publication of %v at %v", pub.Value(), pub.Key())
	}
	eventually(t, "client knows the server", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !c.node.IsZero()
	})
	// Another server, of another node, takes the address over.
	f.down()
	table2 := newMemTable()
	table2.info.NodeID[0] = 2
	f.s = NewServer(ServerConfig{Table: table2})
	f.up()
	eventually(t, "client notices", func() bool {
		_, _ = c.Info(t.Context())
		_, pubs := table2.state(key)
		return pubs == 1
	})
	pub.Cancel()
	if info, err := c.Info(t.Context()); err != nil || info.Publishing != 0 {
		t.Errorf("info %+v, %v", info, err)
	}
}

// TestClientOverTLS has listens share a connection of HTTP/2.
func TestClientOverTLS(t *testing.T) {
	table, key := newMemTable(), dht.KeyOf("a")
	s := NewServer(ServerConfig{Table: table})
	web := httptest.NewUnstartedServer(nil)
	web.Config = s.HTTPServer()
	web.EnableHTTP2 = true
	web.StartTLS()
	t.Cleanup(web.Close)
	runIt(t, s.Run)
	stranger := newClient(t, ClientConfig{URLs: []string{web.URL}})
	if _, err := stranger.Info(t.Context()); err == nil {
		t.Error("a server with an unknown authority is accepted")
	}
	config := web.Client().Transport.(*http.Transport).TLSClientConfig
	c := newClient(t, ClientConfig{URLs: []string{web.URL}, TLS: &tls.Config{RootCAs: config.RootCAs}})
	var nexts []func() string
	for range 5 {
		next, _ := follow(t, c, key, dht.Query{})
		nexts = append(nexts, next)
	}
	if err := c.Put(t.Context(), key, &dht.Value{Data: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	for _, next := range nexts {
		if got := next(); got != "+one" {
			t.Errorf("event %q", got)
		}
	}
}
