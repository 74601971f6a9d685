//go:build linux

package lab

import (
	"bytes"
	"context"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const testNetwork = 7001

func startFour(t *testing.T) (*Lab, *Network, context.Context) {
	t.Helper()
	Require(t, "dhtnode", "python3-opendht")
	l := ForTest(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	t.Cleanup(cancel)
	net, err := l.StartNetwork(ctx, Kinds(Dhtnode{}, 4), NodeConfig{Network: testNetwork, NoLimits: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := net.Acquaint(ctx); err != nil {
		t.Fatal(err)
	}
	return l, net, ctx
}

func startPy(t *testing.T, l *Lab, ctx context.Context, c PyConfig) *PyClient {
	t.Helper()
	c.Network = testNetwork
	p, err := l.StartPy(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// mustPut puts until nodes acknowledge: a client that has not reached its
// bootstrap node yet is refused at once.
func mustPut(t *testing.T, ctx context.Context, p *PyClient, key string, data []byte, id uint64) PyResult {
	t.Helper()
	for {
		r, err := p.Put(ctx, key, data, id, "")
		if err != nil {
			t.Fatal(err)
		}
		if r.Done {
			return r
		}
		select {
		case <-ctx.Done():
			t.Fatalf("put at %s never acknowledged", key)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func TestPythonThroughDhtnodes(t *testing.T) {
	l, net, ctx := startFour(t)
	a := startPy(t, l, ctx, PyConfig{Bootstrap: net.Bootstrap()})
	b := startPy(t, l, ctx, PyConfig{Bootstrap: net.Nodes[3].Addr()})

	mustPut(t, ctx, a, "warm-up a", []byte("x"), 0)
	mustPut(t, ctx, b, "warm-up b", []byte("x"), 0)

	t.Run("small and large", func(t *testing.T) {
		large := make([]byte, 60_000)
		for i := range large {
			large[i] = byte(rand.Uint32())
		}
		for name, data := range map[string][]byte{"small": []byte("hello"), "large": large} {
			put := mustPut(t, ctx, a, name, data, 7)
			if put.Nodes == 0 || put.ID != 7 {
				t.Errorf("%s: put on %d nodes, id %d", name, put.Nodes, put.ID)
			}
			got, err := b.Get(ctx, name)
			if err != nil || !got.Done || len(got.Values) != 1 || got.Values[0].ID != 7 || !bytes.Equal(got.Values[0].Data, data) {
				t.Errorf("%s: got %d values, done %v, %v", name, len(got.Values), got.Done, err)
			}
		}
		got, err := b.Get(ctx, "missing")
		if err != nil || !got.Done || len(got.Values) != 0 {
			t.Errorf("missing key: %+v, %v", got, err)
		}
	})

	t.Run("listen", func(t *testing.T) {
		mustPut(t, ctx, a, "news", []byte("old"), 1)
		events, cancel, err := b.Listen(ctx, "news")
		if err != nil {
			t.Fatal(err)
		}
		mustPut(t, ctx, a, "news", []byte("new"), 2)
		seen := map[string]bool{}
		for len(seen) < 2 {
			select {
			case e := <-events:
				seen[string(e.Data)] = true
			case <-ctx.Done():
				t.Fatalf("saw only %v", seen)
			}
		}
		if err := cancel(); err != nil {
			t.Error(err)
		}
	})

	t.Run("bulk", func(t *testing.T) {
		work := Bulk{Op: "put", Prefix: "bulk", Count: 100, Size: 64, Window: 16, Timeout: 10 * time.Second}
		for _, op := range []string{"put", "get", "miss"} {
			work.Op = op
			if op == "miss" {
				work.Prefix = "nothing"
			}
			client := map[string]*PyClient{"put": a, "get": b, "miss": b}[op]
			if _, err := client.Stats(ctx); err != nil {
				t.Fatal(err)
			}
			samples, took, err := client.Bulk(ctx, work)
			if err != nil || len(samples) != 100 || took <= 0 {
				t.Fatalf("%s: %d samples in %v, %v", op, len(samples), took, err)
			}
			for i, s := range samples {
				if !s.OK || s.Latency <= 0 || (s.First >= 0) != (op == "get") {
					t.Errorf("%s %d: %+v", op, i, s)
				}
			}
			stats, err := client.Stats(ctx)
			if err != nil || stats.CPU == 0 || stats.Sent[map[string]int{"put": 4, "get": 2, "miss": 2}[op]] < 100 {
				t.Errorf("%s: %+v, %v", op, stats, err)
			}
		}
	})

	t.Run("restart", func(t *testing.T) {
		node := net.Nodes[1]
		port, pid := node.Config.Port, node.PID()
		node.Kill()
		probe, err := NewProbe(nil, testNetwork)
		if err != nil {
			t.Fatal(err)
		}
		defer probe.Close()
		if _, err := probe.Ping(node.Addr(), 50*time.Millisecond); err == nil {
			t.Error("a killed node answers")
		}
		if err := node.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if node.Config.Port != port || node.PID() == pid {
			t.Errorf("restarted on port %d (was %d), pid %d (was %d)", node.Config.Port, port, node.PID(), pid)
		}
		if _, err := probe.Ping(node.Addr(), time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestSignedAndEncrypted(t *testing.T) {
	l, net, ctx := startFour(t)
	cli, err := l.StartCLI(ctx, NodeConfig{Network: testNetwork, Bootstrap: net.Bootstrap(), Identity: true})
	if err != nil {
		t.Fatal(err)
	}
	reader := startPy(t, l, ctx, PyConfig{Bootstrap: net.Bootstrap(), Identity: true})
	stranger := startPy(t, l, ctx, PyConfig{Bootstrap: net.Bootstrap(), Identity: true})
	mustPut(t, ctx, reader, "warm-up reader", []byte("x"), 0)
	mustPut(t, ctx, stranger, "warm-up stranger", []byte("x"), 0)
	waitPut(t, ctx, cli)

	if err := cli.PutSigned(ctx, "signed", "by-me"); err != nil {
		t.Fatal(err)
	}
	got, err := reader.Get(ctx, "signed")
	if err != nil || len(got.Values) != 1 || !strings.Contains(got.Values[0].Text, "signed") {
		t.Errorf("signed: %+v, %v", got.Values, err)
	}

	waitCertificate(t, ctx, cli, reader.KeyID)
	if err := cli.PutEncrypted(ctx, "secret", reader.KeyID, "for-you"); err != nil {
		t.Fatal(err)
	}
	got, err = reader.Get(ctx, "secret")
	if err != nil || len(got.Values) != 1 || !strings.Contains(string(got.Values[0].Data), "for-you") {
		t.Errorf("the reader got %+v, %v", got.Values, err)
	}
	got, err = stranger.Get(ctx, "secret")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range got.Values {
		if strings.Contains(string(v.Data), "for-you") {
			t.Errorf("a stranger reads %q", v.Data)
		}
	}

	id, err := cli.PutPermanent(ctx, "lasting", "still-here")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := reader.Get(ctx, "lasting"); err != nil || len(got.Values) != 1 || got.Values[0].ID != id {
		t.Errorf("permanent: %+v, %v", got.Values, err)
	}
	if err := cli.CancelPut("lasting", id); err != nil {
		t.Error(err)
	}

	mark, err := cli.Listen(ctx, "cli-news")
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, ctx, reader, "cli-news", []byte("extra"), 9)
	if v, err := cli.WaitValue(ctx, mark, hexOf("extra")); err != nil || v.ID != 9 {
		t.Errorf("listen: %+v, %v", v, err)
	}
}

// waitPut puts until the node has reached the network.
func waitPut(t *testing.T, ctx context.Context, cli *DhtnodeCLI) {
	t.Helper()
	for {
		_, err := cli.Put(ctx, "warm-up", "x")
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// waitCertificate waits until a client has published its certificate.
func waitCertificate(t *testing.T, ctx context.Context, cli *DhtnodeCLI, keyID string) {
	t.Helper()
	for {
		vs, err := cli.Get(ctx, keyID)
		if err == nil && len(vs) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no certificate of %s: %v", keyID, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestProxyClient(t *testing.T) {
	l, net, ctx := startFour(t)
	port, err := (*Host)(nil).FreePort()
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.StartCLI(ctx, NodeConfig{Network: testNetwork, Bootstrap: net.Bootstrap(), ProxyPort: port})
	if err != nil {
		t.Fatal(err)
	}
	waitPut(t, ctx, server)
	client, err := l.StartCLI(ctx, NodeConfig{Network: testNetwork, Proxy: "127.0.0.1:" + itoa(port)})
	if err != nil {
		t.Fatal(err)
	}
	waitPut(t, ctx, client)
	mark, err := client.Listen(ctx, "proxied")
	if err != nil {
		t.Fatal(err)
	}
	other := startPy(t, l, ctx, PyConfig{Bootstrap: net.Bootstrap()})
	mustPut(t, ctx, other, "proxied", []byte("from the DHT"), 5)
	v, err := client.WaitValue(ctx, mark, hexOf("from the DHT"))
	if err != nil || v.ID != 5 {
		t.Errorf("listen over the proxy: %+v, %v", v, err)
	}
	if _, err := client.Put(ctx, "back", "from-the-proxy"); err != nil {
		t.Fatal(err)
	}
	got, err := other.Get(ctx, "back")
	if err != nil || len(got.Values) != 1 || !strings.Contains(string(got.Values[0].Data), "from-the-proxy") {
		t.Errorf("put over the proxy: %+v, %v", got, err)
	}
}
