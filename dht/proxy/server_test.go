package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kith-im/kith/dht"
)

// exchange is a request and what OpenDHT 2.4.12 answered.
type exchange struct {
	Name, Method, Path, Body string
	Status                   int
	Header                   map[string]string
	Answer                   string
	Ends                     bool // the answer; else it is a listen
}

// elsewhere has the exchanges where we mean to differ.
var elsewhere = map[string]string{
	"badb64":   "rubbish is refused and not stored as other rubbish",
	"conflict": "a refused value is not called stored",
	"opts4":    "newer peers have it",
	"ping":     "newer peers have it",
	"sub2":     "the values before differ: compared by status and header",
}

// call sends one request; a listen's answer is read until it has lines lines.
func call(t *testing.T, base, method, path, body string, lines int) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if lines < 0 {
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	var text strings.Builder
	r := bufio.NewReader(res.Body)
	for range lines {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString(line)
	}
	return res, text.String()
}

// serve makes a server over a table, in memory but for the connection.
func serve(t *testing.T, cfg ServerConfig) (*Server, string) {
	t.Helper()
	s := NewServer(cfg)
	h := s.HTTPServer()
	web := httptest.NewUnstartedServer(nil)
	web.Config = h
	web.Start()
	t.Cleanup(web.Close)
	runIt(t, s.Run)
	return s, web.URL
}

// nullPusher takes every push.
type nullPusher struct{}

func (nullPusher) Push(context.Context, Target, Notice) error { return nil }

var randomID = regexp.MustCompile(`"id":"\d{10,}"`)

// normal replaces random ids and sorts lines.
func normal(text string) string {
	text = randomID.ReplaceAllStringFunc(text, func(s string) string {
		if strings.Contains(s, "18446744073709551615") {
			return s
		}
		return `"id":"random"`
	})
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

func TestAnswersAsOpenDHT(t *testing.T) {
	b, err := os.ReadFile("testdata/opendht-2.4.12.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	_, base := serve(t, ServerConfig{Table: newMemTable(), Push: nullPusher{}})
	for _, x := range all {
		reason, differs := elsewhere[x.Name]
		if differs && x.Name != "sub2" {
			t.Logf("%s differs: %s", x.Name, reason)
			continue
		}
		lines := -1
		if !x.Ends {
			lines = strings.Count(x.Answer, "\n")
		}
		res, answer := call(t, base, x.Method, x.Path, x.Body, lines)
		if res.StatusCode != x.Status {
			t.Errorf("%s: status %d, want %d", x.Name, res.StatusCode, x.Status)
		}
		header := make(map[string]string)
		for name := range res.Header {
			header[name] = res.Header.Get(name)
		}
		if len(res.TransferEncoding) > 0 {
			header["Transfer-Encoding"] = res.TransferEncoding[0]
		}
		if res.Close {
			header["Connection"] = "close" // net/http takes it out
		}
		if randomID.MatchString(x.Answer) {
			delete(x.Header, "Content-Length") // ids differ in length
			delete(header, "Content-Length")
		}
		if x.Name == "head" {
			delete(x.Header, "Content-Length") // net/http leaves it out
		}
		if x.Name == "sub3" { // to the client the same
			delete(x.Header, "Transfer-Encoding")
			delete(header, "Content-Length")
		}
		if diff := cmp.Diff(x.Header, header); diff != "" {
			t.Errorf("%s: header differs (-OpenDHT +ours):\n%s", x.Name, diff)
		}
		if differs {
			continue
		}
		if diff := cmp.Diff(normal(x.Answer), normal(answer)); diff != "" {
			t.Errorf("%s: answer differs (-OpenDHT +ours):\n%s", x.Name, diff)
		}
	}
}

func TestInfoAndStats(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	_, info := call(t, base, "GET", "/", "", -1)
	want := `{"ipv4":{"dubious":0,"good":3,"incoming":0},"ipv6":{"dubious":0,"good":0,"incoming":0},` +
		`"node_id":"0100000000000000000000000000000000000000","ops":0,"public_ip":"::ffff:127.0.0.1"}` + "\n"
	if info != want {
		t.Errorf("info is\n%swant\n%s", info, want)
	}
	_, stats := call(t, base, "GET", "/node/stats", "", -1)
	want = `{"listenCount":0,"nodeInfo":{"ipv4":{"dubious":0,"good":3,"incoming":0},"ipv6":{"dubious":0,"good":0,"incoming":0},` +
		`"node_id":"0100000000000000000000000000000000000000","ops":0},"pushListenersCount":0,"putCount":0,"requestRate":0.0,"totalPermanentPuts":0}` + "\n"
	if stats != want {
		t.Errorf("stats are\n%swant\n%s", stats, want)
	}
	if res, text := call(t, base, "GET", "/node/health", "", -1); res.StatusCode != 200 || text != "{\"status\":\"connected\"}\n" {
		t.Errorf("health %d %s", res.StatusCode, text)
	}
	table.mu.Lock()
	table.info.Status = dht.Disconnected
	table.mu.Unlock()
	if res, text := call(t, base, "GET", "/node/health", "", -1); res.StatusCode != 503 || text != "{\"status\":\"disconnected\"}\n" {
		t.Errorf("health %d %s", res.StatusCode, text)
	}
}

func TestPutErrors(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table})
	for _, test := range []struct {
		err    error
		status int
		text   string
	}{
		{dht.ErrNoNodes, 502, errPutFailed},
		{dht.ErrNotStored, 502, errPutFailed},
		{dht.ErrRefused, 409, errRefused},
		{context.DeadlineExceeded, 504, errTimeout},
		{errors.New("other"), 502, errPutFailed},
	} {
		table.mu.Lock()
		table.putErr = test.err
		table.mu.Unlock()
		for _, body := range []string{`{"data":"eA=="}`, `{"data":"eA==","permanent":true}`} {
			if res, text := call(t, base, "POST", "/key/a", body, -1); res.StatusCode != test.status || text != test.text {
				t.Errorf("%v: %d %s, want %d %s", test.err, res.StatusCode, text, test.status, test.text)
			}
		}
	}
	if _, pubs := table.state(dht.KeyOf("a")); pubs != 0 {
		t.Errorf("%d publications", pubs)
	}
}

func TestBodyTooLarge(t *testing.T) {
	_, base := serve(t, ServerConfig{Table: newMemTable()})
	res, text := call(t, base, "POST", "/key/a", strings.Repeat(" ", MaxLine+1), -1)
	if res.StatusCode != http.StatusRequestEntityTooLarge || text != errTooLarge {
		t.Errorf("%d %s", res.StatusCode, text)
	}
}

func TestGetFailure(t *testing.T) {
	table := newMemTable()
	table.getErr = dht.ErrNoNodes
	_, base := serve(t, ServerConfig{Table: table})
	if res, text := call(t, base, "GET", "/key/a", "", -1); res.StatusCode != 503 || text != errNoNodes {
		t.Errorf("%d %s", res.StatusCode, text)
	}
	if err := table.Put(t.Context(), dht.KeyOf("a"), &dht.Value{}); err != nil {
		t.Fatal(err)
	}
	res, err := http.Get(base + "/key/a")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil || bytes.Count(b, []byte("\n")) != 1 {
		t.Errorf("cut answer reads %q, %v", b, err)
	}
}

func TestLimits(t *testing.T) {
	table := newMemTable()
	_, base := serve(t, ServerConfig{Table: table, Push: nullPusher{}, Limits: Limits{
		Rate: 1e-9, Burst: 8, ClientListens: 1, ClientLeases: 2,
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", base+"/key/a/listen", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for i, want := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/key/a/listen", "", 429},
		{"GET", "/key/a", "", 429},
		{"POST", "/key/a", `{"id":"1","permanent":true}`, 200},
		{"SUBSCRIBE", "/key/a", `{"key":"t"}`, 200},
		{"POST", "/key/a", `{"id":"2","permanent":true}`, 429},
		{"POST", "/key/a", `{"id":"1","permanent":true}`, 200}, // renewed
		{"SUBSCRIBE", "/key/b", `{"key":"t"}`, 429},
		{"GET", "/", "", 429}, // the rate
	} {
		if res, _ := call(t, base, want.method, want.path, want.body, -1); res.StatusCode != want.status {
			t.Errorf("request %d: status %d, want %d", i, res.StatusCode, want.status)
		}
	}
}

func TestMeter(t *testing.T) {
	m := meter{limits: Limits{Rate: 1, Burst: 2, Listens: 3, ClientListens: 2}}
	now := time.Unix(0, 0)
	a, b := clientOf(netip.MustParseAddr("192.0.2.1")), clientOf(netip.MustParseAddr("2001:db8::1"))
	if clientOf(netip.MustParseAddr("2001:db8::2")) != b || clientOf(netip.MustParseAddr("::ffff:192.0.2.1")) != a {
		t.Error("clients are told apart wrongly")
	}
	var got []bool
	for _, at := range []time.Duration{0, 0, 0, time.Second, time.Second, time.Hour, time.Hour, time.Hour} {
		got = append(got, m.request(a, now.Add(at)))
	}
	if want := []bool{true, true, false, true, false, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("allowed %v, want %v", got, want)
	}
	_, ok1 := m.listen(a, now)
	done, ok2 := m.listen(a, now)
	_, ok3 := m.listen(a, now)
	_, ok4 := m.listen(b, now)
	_, ok5 := m.listen(b, now)
	if !ok1 || !ok2 || ok3 || !ok4 || ok5 {
		t.Error("listens are counted wrongly")
	}
	done()
	if _, ok := m.listen(b, now); !ok || m.streams() != 3 {
		t.Error("an ended listen still counts")
	}
}

func TestMeterBounded(t *testing.T) {
	m := meter{limits: Limits{Rate: 1, Burst: 1}}
	now := time.Unix(0, 0)
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxClients + 1000 {
		addr = addr.Next()
		m.request(clientOf(addr), now)
	}
	if len(m.clients) > maxClients+1 {
		t.Errorf("%d clients are remembered", len(m.clients))
	}
	if !m.request(clientOf(addr.Next()), now.Add(time.Minute)) || len(m.clients) > 10 {
		t.Errorf("%d clients are remembered after a quiet time", len(m.clients))
	}
}

func TestStreamsEndWithRun(t *testing.T) {
	table := newMemTable()
	s := NewServer(ServerConfig{Table: table})
	web := httptest.NewServer(s)
	defer web.Close()
	stop := runIt(t, s.Run)
	res, err := http.Get(web.URL + "/key/a/listen")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	stop()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("the stream ends as if that was all")
	}
	if res, text := call(t, web.URL, "GET", "/node/health", "", -1); res.StatusCode != 503 || text != "{\"status\":\"ending\"}\n" {
		t.Errorf("health %d %s", res.StatusCode, text)
	}
	if res, _ := call(t, web.URL, "POST", "/key/a", `{"permanent":true}`, -1); res.StatusCode != 502 {
		t.Errorf("status %d", res.StatusCode)
	}
}
