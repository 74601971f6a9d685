package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht"
)

// ask gives a request straight to the handler.
func ask(s *Server, method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w
}

const permanentBody = `{"data":"eA==","permanent":{"key":"token","client_id":"c","session_id":"s","platform":"android","topic":"app"}}`

func TestPermanentEndsAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, key := newMemTable(), dht.KeyOf("a")
		pushes := make(recordingPusher, 10)
		s := NewServer(ServerConfig{Table: table, Push: pushes})
		stop := runIt(t, s.Run)
		defer stop()
		pubs := func() int { _, n := table.state(key); return n }
		first := ask(s, "POST", "/key/a", permanentBody).Body.String()
		if again := ask(s, "POST", "/key/a", permanentBody).Body.String(); again != first || table.published != 1 {
			t.Errorf("the same value again: %s, not %s; %d published", again, first, table.published)
		}
		time.Sleep(20 * time.Hour)
		if got := ask(s, "POST", "/key/a", permanentBody).Body.String(); got != first {
			t.Errorf("renewed value is %s, not %s", got, first)
		}
		time.Sleep(21 * time.Hour)
		synctest.Wait()
		if pubs() != 1 || len(pushes) != 0 {
			t.Fatalf("%d publications and %d pushes after 21 h", pubs(), len(pushes))
		}
		time.Sleep(time.Hour + 2*time.Minute)
		synctest.Wait()
		if pubs() != 1 || len(pushes) != 1 {
			t.Fatalf("%d publications and %d pushes after 22 h", pubs(), len(pushes))
		}
		v, err := ParseJSON([]byte(first))
		if err != nil {
			t.Fatal(err)
		}
		n := <-pushes
		if n.data["timeout"] != key.String() || n.data["vid"] != fmt.Sprint(v.ID) || n.data["to"] != "c" ||
			n.data["s"] != "s" || !n.urgent || n.to != (Target{"android", "token", "app"}) {
			t.Errorf("notice %+v", n)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if pubs() != 0 || len(pushes) != 0 || s.leases.bytes != 0 || len(s.leases.count) != 0 || len(s.leases.byKey) != 0 {
			t.Errorf("%d publications and %d pushes after a day, book %+v", pubs(), len(pushes), s.leases)
		}
	})
}

func TestPermanentIsNotTaken(t *testing.T) {
	table := newMemTable()
	s := NewServer(ServerConfig{Table: table})
	if w := ask(s, "POST", "/key/a", `{"id":"1","data":"eA==","permanent":true}`); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	signed := strings.Replace(string(signedLine(t)), `{`, `{"permanent":true,`, 1)
	if w := ask(s, "POST", "/key/a", signed); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	for name, body := range map[string]string{
		"other content":     `{"id":"1","data":"eQ==","permanent":true}`,
		"encrypted":         `{"id":"1","cypher":"eQ==","permanent":true}`,
		"edit not signed":   `{"id":"13862524975066289268","data":"eQ==","permanent":true}`,
		"edit wrong signed": strings.Replace(signed, `"seq":0`, `"seq":1`, 1),
	} {
		if w := ask(s, "POST", "/key/a", body); w.Code != http.StatusConflict {
			t.Errorf("%s: status %d", name, w.Code)
		}
	}
	if _, pubs := table.state(dht.KeyOf("a")); pubs != 2 {
		t.Errorf("%d publications", pubs)
	}
}

func TestSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, key := newMemTable(), dht.KeyOf("a")
		pushes := make(recordingPusher, 10)
		s := NewServer(ServerConfig{Table: table, Push: pushes})
		stop := runIt(t, s.Run)
		defer stop()
		synctest.Wait()
		body := `{"key":"token","client_id":"c","session_id":"s","platform":"ios","topic":"app"}`
		if w := ask(s, "SUBSCRIBE", "/key/a", body); w.Body.String() != "{}\n" {
			t.Errorf("answer %q", w.Body)
		}
		synctest.Wait()
		put := func(id dht.ValueID, priority uint32, pushType string) {
			t.Helper()
			if err := table.Put(t.Context(), key, &dht.Value{ID: id, Priority: priority, PushType: pushType}); err != nil {
				t.Fatal(err)
			}
		}
		put(1, 0, "m")
		put(2, 5, "")
		time.Sleep(time.Second)
		put(3, 5, "")
		time.Sleep(time.Second)
		table.expire(key, 1)
		time.Sleep(time.Second)
		table.expire(key, 2)
		table.expire(key, 3)
		time.Sleep(time.Second)
		for i, want := range []struct {
			ids, exp, pt string
			urgent       bool
		}{{"1,2", "", "m", true}, {"3", "", "", false}, {"", "1", "m", false}, {"", "", "", false}} {
			if len(pushes) == 0 {
				t.Fatalf("no push %d", i)
			}
			n := <-pushes
			if n.data["key"] != key.String() || n.data["ids"] != want.ids || n.data["exp"] != want.exp ||
				n.data["pt"] != want.pt || n.urgent != want.urgent || n.to != (Target{"ios", "token", "app"}) {
				t.Errorf("push %d is %+v, want %+v", i, n, want)
			}
		}
		// Known now: it gets the values, or nothing when it only renews.
		put(4, 0, "")
		if w := ask(s, "SUBSCRIBE", "/key/a", body); w.Body.String() != "{\"data\":\"\",\"id\":\"4\",\"type\":0}\n" {
			t.Errorf("answer %q", w.Body)
		}
		if w := ask(s, "SUBSCRIBE", "/key/a", body[:len(body)-1]+`,"refresh":true}`); w.Body.String() != "{}\n" {
			t.Errorf("answer %q", w.Body)
		}
		time.Sleep(time.Second)
		<-pushes
		time.Sleep(leaseTime - noticeTime + time.Minute)
		if n := <-pushes; n.data["timeout"] != key.String() || n.data["vid"] != "" {
			t.Errorf("notice %+v", n)
		}
		if n, _ := table.state(key); n != 1 {
			t.Errorf("%d listens", n)
		}
		ask(s, "UNSUBSCRIBE", "/key/a", `{"key":"token","client_id":"other"}`)
		if w := ask(s, "UNSUBSCRIBE", "/key/a", `{"key":"token","client_id":"c"}`); w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("answer %d %q", w.Code, w.Body)
		}
		synctest.Wait()
		if n, _ := table.state(key); n != 0 || len(s.leases.subs) != 0 {
			t.Errorf("%d listens, %d leases", n, len(s.leases.subs))
		}
	})
}

// failingPusher refuses every push.
type failingPusher struct {
	err error
	n   int
}

func (p *failingPusher) Push(context.Context, Target, Notice) error {
	p.n++
	return p.err
}

func TestPushFailures(t *testing.T) {
	for name, test := range map[string]struct {
		err         error
		tries, left int
	}{
		"gone":  {fmt.Errorf("x: %w", ErrGone), 1, 0},
		"fails": {errors.New("x"), pushAttempts, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				table := newMemTable()
				p := &failingPusher{err: test.err}
				s := NewServer(ServerConfig{Table: table, Push: p})
				stop := runIt(t, s.Run)
				defer stop()
				ask(s, "SUBSCRIBE", "/key/a", `{"key":"token"}`)
				if err := table.Put(t.Context(), dht.KeyOf("a"), &dht.Value{}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if p.n != test.tries || len(s.leases.subs) != test.left {
					t.Errorf("%d tries, %d subscriptions left", p.n, len(s.leases.subs))
				}
			})
		})
	}
}

func TestSubscriptionSurvivesTableFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, key := newMemTable(), dht.KeyOf("a")
		table.listenErr = dht.ErrNoNodes
		s := NewServer(ServerConfig{Table: table, Push: nullPusher{}})
		stop := runIt(t, s.Run)
		defer stop()
		ask(s, "SUBSCRIBE", "/key/a", `{"key":"token"}`)
		time.Sleep(10 * time.Second)
		table.mu.Lock()
		table.listenErr = nil
		table.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if n, _ := table.state(key); n != 1 {
			t.Errorf("%d listens", n)
		}
	})
}

func TestStateSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		state := filepath.Join(t.TempDir(), "state")
		table := newMemTable()
		cfg := ServerConfig{Table: table, Push: nullPusher{}, State: state, Limits: Limits{RestoreInterval: time.Second}}
		s := NewServer(cfg)
		stop := runIt(t, s.Run)
		const n = 100
		for i := range n {
			path := fmt.Sprintf("/key/%d", i)
			if w := ask(s, "POST", path, `{"data":"eA==","permanent":true}`); w.Code != http.StatusOK {
				t.Fatal(w.Code)
			}
		}
		ask(s, "SUBSCRIBE", "/key/sub", `{"key":"token"}`)
		time.Sleep(2 * saveInterval)
		synctest.Wait()
		if info, err := os.Stat(state); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("state file: %v, %v", info, err)
		}
		time.Sleep(time.Hour)
		stop()
		if len(table.pubs) != 0 {
			t.Errorf("%d publications after Run", len(table.pubs))
		}

		// The values come back one after another, not all at once.
		table = newMemTable()
		cfg.Table = table
		s = NewServer(cfg)
		stop = runIt(t, s.Run)
		defer stop()
		count := func() int {
			synctest.Wait()
			table.mu.Lock()
			defer table.mu.Unlock()
			return len(table.pubs)
		}
		time.Sleep(10 * time.Second)
		if got := count(); got < 1 || got > n/3 {
			t.Errorf("%d values after 10 s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := count(); got != n {
			t.Errorf("%d values after 2 minutes", got)
		}
		if l, _ := table.state(dht.KeyOf("sub")); l != 1 {
			t.Errorf("%d subscriptions", l)
		}
		// Their time has gone on.
		time.Sleep(22*time.Hour + 50*time.Minute)
		if got := count(); got != n {
			t.Errorf("%d values after 23 h 52 min", got)
		}
		time.Sleep(10 * time.Minute)
		if got := count(); got != 0 {
			t.Errorf("%d values after a day", got)
		}
	})
}

func TestBadState(t *testing.T) {
	dir := t.TempDir()
	good := `{"key":"` + dht.KeyOf("a").String() + `","value":{"id":"1","data":""},"from":"192.0.2.1/32","push":{},"expires":"2999-01-01T00:00:00Z"}`
	for name, test := range map[string]struct {
		text   string
		fails  bool
		leases int
	}{
		"empty":     {"", true, 0},
		"not ours":  {"hello\n", true, 0},
		"none":      {stateHeader + "\n", false, 0},
		"good":      {stateHeader + "\n" + good + "\n", false, 1},
		"bad lines": {stateHeader + "\n{\n[]\n{}\n" + strings.Replace(good, `"1"`, `"0"`, 1) + "\n" + good + "\n" + good + "\n" + good[:50], false, 1},
		"over":      {stateHeader + "\n" + strings.Replace(good, "2999", "1999", 1) + "\n", false, 0},
	} {
		path := filepath.Join(dir, "state")
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewServer(ServerConfig{Table: newMemTable(), State: path})
		leases, err := s.load(time.Now())
		if (err != nil) != test.fails || len(leases) != test.leases {
			t.Errorf("%s: %d leases, error %v", name, len(leases), err)
		}
	}
}
