package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// dhtnode is a running node of OpenDHT with its command line.
type dhtnode struct {
	t     *testing.T
	in    io.Writer
	mu    sync.Mutex
	lines []string
}

// startNode runs dhtnode until the end of the test.
func startNode(t *testing.T, args ...string) *dhtnode {
	t.Helper()
	path, err := exec.LookPath("dhtnode")
	if err != nil {
		if os.Getenv("KITH_REQUIRE_PEERS") == "1" {
			t.Fatal("dhtnode is not installed (Debian package dhtnode)")
		}
		t.Skip("dhtnode is not installed (Debian package dhtnode)")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &dhtnode{t: t, in: in}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			n.mu.Lock()
			n.lines = append(n.lines, s.Text())
			n.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("dhtnode %v:\n%s", args, strings.Join(n.lines, "\n"))
		}
	})
	return n
}

// do gives commands to the node.
func (n *dhtnode) do(format string, args ...any) {
	n.t.Helper()
	if _, err := fmt.Fprintf(n.in, format+"\n", args...); err != nil {
		n.t.Fatal(err)
	}
}

// said tells whether the node has printed a text.
func (n *dhtnode) said(text string) func() bool {
	return func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		for _, line := range n.lines {
			if strings.Contains(line, text) {
				return true
			}
		}
		return false
	}
}

// freePort finds a port that is free for TCP and UDP.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		l.Close()
		if u, err := net.ListenPacket("udp", ":"+port); err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

// startNetwork runs two nodes and gives the address of the second one's proxy
// server, when they are connected.
func startNetwork(t *testing.T) (first *dhtnode, proxy string) {
	t.Helper()
	port1, port2, portP := freePort(t), freePort(t), freePort(t)
	first = startNode(t, "-p", port1, "-i")
	eventually(t, "first node runs", first.said("running on port"))
	startNode(t, "-p", port2, "-b", "127.0.0.1:"+port1, "--proxyserver", portP)
	proxy = "127.0.0.1:" + portP
	c := newClient(t, ClientConfig{URLs: []string{proxy}})
	eventually(t, "proxy server is connected", func() bool {
		info, err := c.Info(t.Context())
		return err == nil && info.Status == dht.Connected
	})
	return first, proxy
}

func TestClientOfOpenDHT(t *testing.T) {
	node, proxy := startNetwork(t)
	c := newClient(t, ClientConfig{URLs: []string{proxy}})
	runIt(t, c.Run)
	key := dht.KeyOf("kith")

	v := &dht.Value{Data: []byte("hello"), UserType: "text/plain", Type: 3, Priority: 2}
	if err := c.Put(t.Context(), key, v); err != nil {
		t.Fatal(err)
	}
	for got, err := range c.Get(t.Context(), key, wire.WhereID(v.ID)) {
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("value differs (-put +got):\n%s", diff)
		}
	}
	node.do("g kith")
	eventually(t, "the other node gets it", node.said("Get: completed"))
	if !node.said("hello")() && !node.said("68656c6c6f")() {
		t.Error("the other node has not got it")
	}

	next, _ := follow(t, c, key, dht.Query{})
	if got := next(); got != "+hello" {
		t.Fatalf("event %q", got)
	}
	node.do("p kith later")
	if got := next(); got != "+later" {
		t.Fatalf("event %q", got)
	}

	// What a real node signed can be checked after the way through JSON.
	node.do("s signed text")
	var signed *dht.Value
	eventually(t, "signed value", func() bool {
		for v, err := range c.Get(t.Context(), dht.KeyOf("signed"), dht.Query{}) {
			if err == nil {
				signed = v
			}
		}
		return signed != nil
	})
	if err := signed.VerifySignature(); err != nil {
		t.Error(err)
	}
	// And what we write is what the server reads: it goes to another key as it is.
	if err := c.Put(t.Context(), dht.KeyOf("copy"), signed); err != nil {
		t.Fatal(err)
	}
	for got, err := range c.Get(t.Context(), dht.KeyOf("copy"), dht.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(signed, got); diff != "" {
			t.Errorf("signed value differs:\n%s", diff)
		}
	}

	pub, err := c.Publish(t.Context(), dht.KeyOf("permanent"), &dht.Value{Data: []byte("kept")})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Cancel()
	node.do("g permanent")
	eventually(t, "the other node gets the permanent value", node.said("6b657074"))
}

func TestPushClientOfOpenDHT(t *testing.T) {
	node, proxy := startNetwork(t)
	c := newClient(t, ClientConfig{URLs: []string{proxy}, Push: &PushConfig{Token: "token", Platform: "android"}})
	runIt(t, c.Run)
	key := dht.KeyOf("kith")
	if err := c.Put(t.Context(), key, &dht.Value{Data: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	next, stop := follow(t, c, key, dht.Query{})
	if got := next(); got != "+one" {
		t.Fatalf("event %q", got)
	}
	node.do("p kith two")
	eventually(t, "put", node.said("Put: success"))
	if !c.PushReceived(map[string]string{"key": key.String(), "to": c.cfg.Push.ClientID, "s": c.session}) {
		t.Fatal("push is not taken")
	}
	if got := next(); got != "+two" {
		t.Fatalf("event %q", got)
	}
	if !c.PushReceived(map[string]string{"timeout": key.String()}) {
		t.Fatal("push is not taken")
	}
	if _, err := c.Publish(t.Context(), key, &dht.Value{Data: []byte("three")}); err != nil {
		t.Fatal(err)
	}
	stop()
}

func TestServerForOpenDHT(t *testing.T) {
	for _, token := range []string{"", "device"} {
		t.Run("push="+token, func(t *testing.T) {
			pushes := make(recordingPusher, 100)
			table, key := newMemTable(), dht.KeyOf("kith")
			_, base := serve(t, ServerConfig{Table: table, Push: Pushers{"": pushes}})
			args := []string{"-p", "0", "-i", "--proxyclient", strings.TrimPrefix(base, "http://")}
			if token != "" {
				args = append(args, "--devicekey", token)
			}
			node := startNode(t, args...)
			eventually(t, "client runs", node.said("running on port"))
			get := func(data string) *dht.Value {
				t.Helper()
				var found *dht.Value
				eventually(t, data+" is there", func() bool {
					for v := range table.Get(t.Context(), key, dht.Query{}) {
						if string(v.Data) == data {
							found = v
						}
					}
					return found != nil
				})
				return found
			}
			node.do("p kith once")
			if v := get("once"); v.ID == 0 || v.UserType != "text/plain" {
				t.Errorf("value %+v", v)
			}
			eventually(t, "put succeeds", node.said("Put: success"))
			node.do("pp kith kept")
			get("kept")
			if _, pubs := table.state(key); pubs != 1 {
				t.Errorf("%d publications", pubs)
			}
			node.do("s kith signed")
			if err := get("signed").VerifySignature(); err != nil {
				t.Error(err)
			}
			node.do("g kith")
			eventually(t, "get", node.said("Get: completed"))
			if !node.said("6f6e6365")() && !node.said("once")() {
				t.Error("the client has not got the value")
			}
			if err := table.Put(t.Context(), key, &dht.Value{Data: []byte("listened")}); err != nil {
				t.Fatal(err)
			}
			node.do("l kith")
			if token != "" {
				n := pushes.wait(t)
				if n.to.Token != token || n.data["key"] != key.String() || n.data["to"] != "dhtnode" || n.data["s"] == "" {
					t.Errorf("push %+v", n)
				}
				return
			}
			eventually(t, "the client hears the value", node.said("6c697374656e6564"))
			if err := table.Put(t.Context(), key, &dht.Value{ID: 77, Data: []byte("fresh")}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the client hears the new value", node.said("6672657368"))
			table.expire(key, 77)
			eventually(t, "the client hears its end", node.said("expired"))
			node.do("x")
			eventually(t, "the client ends its listen", func() bool { n, _ := table.state(key); return n == 0 })
		})
	}
}

// recordingPusher gives what is pushed to the test.
type recordingPusher chan recordedPush

type recordedPush struct {
	to     Target
	data   map[string]string
	urgent bool
}

func (p recordingPusher) Push(_ context.Context, to Target, n Notice) error {
	p <- recordedPush{to, n.Data, n.Urgent}
	return nil
}

func (p recordingPusher) wait(t *testing.T) recordedPush {
	t.Helper()
	select {
	case n := <-p:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("no push")
		return recordedPush{}
	}
}
