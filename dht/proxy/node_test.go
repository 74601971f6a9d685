package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity/identitytest"
)

// runNode runs a real node on the loopback interface.
func runNode(t *testing.T, bootstrap ...string) *dht.Node {
	t.Helper()
	n, err := dht.New(dht.Config{
		Addrs:     []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")},
		Bootstrap: bootstrap,
	})
	if err != nil {
		t.Fatal(err)
	}
	runIt(t, n.Run)
	return n
}

func connected(t *testing.T, table dht.Table) {
	t.Helper()
	eventually(t, "node is connected", func() bool {
		info, err := table.Info(t.Context())
		return err == nil && info.Status == dht.Connected
	})
}

// TestOverNodes goes all the way: client, server, node, another node.
func TestOverNodes(t *testing.T) {
	far := runNode(t)
	near := runNode(t, far.Addrs()[0].String())
	connected(t, near)
	connected(t, far)
	s, base := serve(t, ServerConfig{Table: near, Secure: dht.NewSecure(near, identitytest.Identity(0))})
	c := newClient(t, ClientConfig{URLs: []string{base}})
	runIt(t, c.Run)
	connected(t, c)
	key := dht.KeyOf("key")

	fromFar, _ := follow(t, far, key, dht.Query{})
	fromClient, _ := follow(t, c, key, dht.Query{})
	if err := c.Put(t.Context(), key, &dht.Value{Data: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	if got := fromFar() + fromClient(); got != "+one+one" {
		t.Fatalf("events %q", got)
	}
	if err := far.Put(t.Context(), key, &dht.Value{Data: []byte("two")}); err != nil {
		t.Fatal(err)
	}
	if got := fromFar() + fromClient(); got != "+two+two" {
		t.Fatalf("events %q", got)
	}
	if _, err := c.Publish(t.Context(), key, &dht.Value{Data: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range c.Get(t.Context(), key, dht.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d values", n)
	}
	info, err := c.Info(t.Context())
	if err != nil || info.NodeID != near.ID() {
		t.Errorf("info %+v, %v", info, err)
	}

	// What is signed or encrypted by the server is what others can check and read.
	if w := ask(s, "POST", "/key/signed/sign", `{"data":"eA=="}`); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	for v, err := range far.Get(t.Context(), dht.KeyOf("signed"), dht.Query{}) {
		if err != nil {
			t.Fatal(err)
		}
		if err := v.VerifySignature(); err != nil || v.OwnerID() != identitytest.Key(0).Public().ID() {
			t.Errorf("signed value %+v: %v", v, err)
		}
	}
	reader := dht.NewSecure(far, identitytest.Identity(1))
	if _, err := reader.PublishCertificate(t.Context()); err != nil {
		t.Fatal(err)
	}
	to := reader.KeyID().String()
	if w := ask(s, "POST", "/key/secret/encrypt", `{"data":"eA==","to":"`+to+`"}`); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	found := false
	for v, err := range reader.Get(t.Context(), dht.KeyOf("secret"), dht.Query{}) {
		found = err == nil && string(v.Data) == "x"
	}
	if !found {
		t.Error("the recipient has not got the encrypted value")
	}
	for _, body := range []string{`{"data":"eA=="}`, `{"data":"eA==","to":"00"}`, `{"data":"eA==","to":"` + strings.Repeat("x", 40) + `"}`} {
		if w := ask(s, "POST", "/key/secret/encrypt", body); w.Code != http.StatusBadRequest || w.Body.String() != errNoTarget {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w := ask(s, "OPTIONS", "/key", ""); !strings.HasSuffix(w.Header().Get("Access-Control-Allow-Methods"), "SIGN, ENCRYPT") {
		t.Errorf("header %v", w.Header())
	}
	var id struct{ ID string }
	if err := json.Unmarshal(ask(s, "GET", "/", "").Body.Bytes(), &id); err != nil || id.ID != identitytest.Key(0).Public().ID().String() {
		t.Errorf("id %q, %v", id.ID, err)
	}
}

// TestAlone has a server whose node knows nobody.
func TestAlone(t *testing.T) {
	_, base := serve(t, ServerConfig{Table: runNode(t)})
	c := newClient(t, ClientConfig{URLs: []string{base}})
	if err := c.Put(t.Context(), dht.KeyOf("a"), &dht.Value{}); !errors.Is(err, dht.ErrNotStored) {
		t.Errorf("error %v, want ErrNotStored", err)
	}
	info, err := c.Info(t.Context())
	if err != nil || info.Status == dht.Connected {
		t.Errorf("info %+v, %v", info, err)
	}
}

// TestNodeAmongOpenDHT has OpenDHT's node and OpenDHT's client with our server
// and node between them.
func TestNodeAmongOpenDHT(t *testing.T) {
	port := freePort(t)
	peer := startNode(t, "-p", port)
	eventually(t, "peer runs", peer.said("running on port"))
	node := runNode(t, "127.0.0.1:"+port)
	connected(t, node)
	_, base := serve(t, ServerConfig{Table: node})
	client := startNode(t, "-p", "0", "-i", "--proxyclient", strings.TrimPrefix(base, "http://"))
	eventually(t, "client runs", client.said("running on port"))
	client.do("l kith")
	for i, n := range []*dhtnode{peer, client} {
		text := fmt.Sprint("text", i)
		n.do("p kith %s", text)
		eventually(t, "put of "+text, n.said("Put: success"))
		eventually(t, "client hears "+text, client.said(text))
	}
	peer.do("g kith")
	eventually(t, "peer gets the client's value", peer.said("text1"))
}
