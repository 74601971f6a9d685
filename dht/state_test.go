package dht

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/msgpack"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// goldenNode is the entry of a node as OpenDHT 4.3 exports it: the id is the
// SHA-1 of "foo", the address 127.0.0.1:4222.
const goldenNode = "82a26964c4140beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33a461646472c4100200107e7f0000010000000000000000"

func sampleState() *State {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	s := &State{
		ID: NodeID(KeyOf("self")),
		Nodes: []wire.Node{
			{ID: NodeID(KeyOf("foo")), Addr: netip.MustParseAddrPort("127.0.0.1:4222")},
			{ID: NodeID(KeyOf("bar")), Addr: netip.MustParseAddrPort("[2001:db8::7]:65535")},
		},
	}
	for i, from := range []netip.Addr{{}, addr("10.1.2.3"), addr("2001:db8::1")} {
		s.Values = append(s.Values, kad.Entry{
			Key: KeyOf(fmt.Sprint("key", i/2)), Created: at, Expires: at.Add(10 * time.Minute), From: from,
			Value: &Value{ID: ValueID(i + 1), Data: testValue(100 * i).Data, UserType: "text/plain"},
		})
	}
	return s
}

// sameState compares, but for the order of the values, which is by key.
func sameState(t *testing.T, got, want *State) {
	t.Helper()
	if got.ID != want.ID || !slices.Equal(got.Nodes, want.Nodes) {
		t.Errorf("got %v %v, want %v %v", got.ID, got.Nodes, want.ID, want.Nodes)
	}
	text := func(s *State) (list []string) {
		for _, e := range s.Values {
			list = append(list, fmt.Sprintf("%v %x %v %v %v", e.Key, e.Value.Append(nil), e.Created.UTC(), e.Expires.UTC(), e.From))
		}
		slices.Sort(list)
		return list
	}
	if a, b := text(got), text(want); !slices.Equal(a, b) {
		t.Errorf("got values\n%q\nwant\n%q", a, b)
	}
}

func TestStateRoundTrip(t *testing.T) {
	for name, want := range map[string]*State{"empty": {}, "sample": sampleState()} {
		b := want.Append(nil)
		got, err := ParseState(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		sameState(t, got, want)
		if again := got.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%s: packed again it is\n%x, was\n%x", name, again, b)
		}
	}
}

func TestStateGolden(t *testing.T) {
	want, err := hex.DecodeString(goldenNode)
	if err != nil {
		t.Fatal(err)
	}
	s := &State{Nodes: []wire.Node{{ID: NodeID(KeyOf("foo")), Addr: netip.MustParseAddrPort("127.0.0.1:4222")}}}
	if b := s.Append(nil); !bytes.Contains(b, want) {
		t.Errorf("%x does not contain %x", b, want)
	}
	// As OpenDHT orders it, with what it may add one day.
	b := msgpack.AppendMap(nil, 3)
	b = msgpack.AppendUint(msgpack.AppendString(b, "v"), 1)
	b = msgpack.AppendArray(msgpack.AppendString(b, "more"), 1)
	b = msgpack.AppendNil(b)
	b = append(msgpack.AppendArray(msgpack.AppendString(b, "nodes"), 1), want...)
	got, err := ParseState(b)
	if err != nil || !slices.Equal(got.Nodes, s.Nodes) {
		t.Errorf("read as %+v, error %v", got, err)
	}
}

// Of a file with bad records the good ones are read.
func TestStateBadRecords(t *testing.T) {
	good := sampleState()
	entry := func(e kad.Entry) []byte {
		b := msgpack.AppendTime(msgpack.AppendArray(nil, 4), e.Created)
		b = msgpack.AppendBin(e.Value.Append(b), nil)
		return msgpack.AppendTime(b, e.Expires)
	}
	node := func(id, addr []byte) []byte {
		b := msgpack.AppendBin(msgpack.AppendString(msgpack.AppendMap(nil, 2), "id"), id)
		return msgpack.AppendBin(msgpack.AppendString(b, "addr"), addr)
	}
	id := good.Nodes[0].ID
	at := kad.AppendSockaddr(nil, good.Nodes[0].Addr)
	nodes := [][]byte{
		msgpack.AppendNil(nil), node(id[:19], at), node(id[:], at[:3]), node(make([]byte, 20), at),
		node(nil, nil), msgpack.AppendString(nil, "node"), node(id[:], at), msgpack.AppendMap(nil, 0),
		msgpack.AppendUint(msgpack.AppendString(msgpack.AppendMap(nil, 1), "id"), 7),
	}
	e := good.Values[0]
	damaged := entry(e)
	damaged[20] ^= 0xff
	old := msgpack.AppendUint(msgpack.AppendArray(nil, 2), 12345) // of OpenDHT 2.4
	old = e.Value.Append(old)
	records := msgpack.AppendArray(nil, 4)
	for _, r := range [][]byte{old, msgpack.AppendNil(nil), entry(e), {0xc0}} {
		records = append(records, r...)
	}
	pair := func(key, values []byte) []byte {
		return msgpack.AppendBin(msgpack.AppendBin(msgpack.AppendArray(nil, 2), key), values)
	}
	values := [][]byte{
		pair(e.Key[:19], records), pair(e.Key[:], []byte("rubbish")), msgpack.AppendNil(nil), pair(e.Key[:], nil),
		pair(e.Key[:], append(msgpack.AppendArray(nil, 1), damaged...)), pair(e.Key[:], records),
	}
	b := msgpack.AppendMap(nil, 3)
	b = msgpack.AppendBin(msgpack.AppendString(b, "id"), good.ID[:])
	b = msgpack.AppendArray(msgpack.AppendString(b, "nodes"), len(nodes))
	b = append(b, slices.Concat(nodes...)...)
	b = msgpack.AppendArray(msgpack.AppendString(b, "values"), len(values))
	b = append(b, slices.Concat(values...)...)
	got, err := ParseState(b)
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got, &State{ID: good.ID, Nodes: good.Nodes[:1], Values: good.Values[:1]})
}

// A file that was cut anywhere is an error or a part of the whole, never a panic
// and never something else.
func TestStateCut(t *testing.T) {
	whole := sampleState()
	b := whole.Append(nil)
	for n := range b {
		got, err := ParseState(b[:n])
		if err == nil {
			t.Errorf("cut at %d of %d it is read as %+v", n, len(b), got)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(sampleState().Append(nil))
	f.Add((&State{}).Append(nil))
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseState(b)
		if err != nil {
			return
		}
		// What was read can be written and read again, and is then the same.
		again, err := ParseState(s.Append(nil))
		if err != nil || len(again.Nodes) != len(s.Nodes) || len(again.Values) != len(s.Values) || again.ID != s.ID {
			t.Errorf("%+v\nbecame %+v, error %v", s, again, err)
		}
	})
}

// A node that starts again has its id, its values and its nodes, and joins without
// anybody's help.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 16, simnet.Link{})
		defer l.stop()
		file := filepath.Join(t.TempDir(), "dht.state")
		h := l.world.NewHost("restarted", addr("60.0.0.1"))
		first := l.make(h, Config{Bootstrap: []string{boot}, StateFile: file})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- first.Run(ctx) }()
		l.connect(first)
		time.Sleep(2 * time.Minute)
		for i := range 30 {
			l.put(l.nodes[i%16], KeyOf(fmt.Sprint("restart ", i)), fmt.Sprint(i))
		}
		before, _ := first.Info(t.Context())
		if before.Storage.Values == 0 {
			t.Fatal("nothing is stored: the test tests nothing")
		}
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)

		second := l.start(h, Config{StateFile: file})
		l.connect(second)
		after, err := second.Info(t.Context())
		if err != nil || after.NodeID != before.NodeID || after.Storage.Values != before.Storage.Values || after.Storage.Bytes != before.Storage.Bytes {
			t.Errorf("before %+v\nafter %+v, error %v", before, after, err)
		}
		time.Sleep(2 * time.Minute)
		l.want(second, KeyOf("restart 3"), "3")
		l.put(l.nodes[4], KeyOf("after"), "restart")
		l.want(second, KeyOf("after"), "restart")
		// Values end when they would have.
		time.Sleep(11 * time.Minute)
		if i, _ := second.Info(t.Context()); i.Storage.Values != 0 {
			t.Errorf("%d values live on", i.Storage.Values)
		}
	})
}

// What is saved while the network is away still leads back into it.
func TestSaveOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 12, simnet.Link{})
		defer l.stop()
		file := filepath.Join(t.TempDir(), "dht.state")
		h := l.world.NewHost("offline", addr("60.0.0.1"))
		first := l.start(h, Config{Bootstrap: []string{boot}, StateFile: file})
		l.connect(first)
		time.Sleep(15 * time.Minute)
		h.SetUp(false)
		time.Sleep(3 * time.Hour)
		first.Close()
		time.Sleep(time.Second)
		// A start without network must not lose them either.
		l.start(h, Config{StateFile: file}).Close()
		time.Sleep(time.Second)
		h.SetUp(true)
		l.connect(l.start(h, Config{StateFile: file}))
	})
}

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "state")
	if s, err := LoadState(name); err != nil || !s.ID.IsZero() {
		t.Errorf("a file that does not exist: %+v, error %v", s, err)
	}
	if _, err := LoadState(dir); err == nil {
		t.Error("a folder was loaded")
	}
	old, next := sampleState().Append(nil), (&State{ID: NodeID(KeyOf("next"))}).Append(nil)
	if err := writeFile(name, old); err != nil {
		t.Fatal(err)
	}

	// A crash at any point of the next save leaves the old state, or has the new one.
	for n := range next {
		if err := os.WriteFile(name+newSuffix, next[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := LoadState(name); err != nil || s.ID != sampleState().ID {
			t.Fatalf("with %d bytes of the next state written: %+v, error %v", n, s, err)
		}
	}
	// What it left behind is in nobody's way, however long it is.
	if err := os.WriteFile(name+newSuffix, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(name, next); err != nil {
		t.Fatal(err)
	}
	if s, err := LoadState(name); err != nil || s.ID != NodeID(KeyOf("next")) {
		t.Errorf("after the next save: %+v, error %v", s, err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%d files are left, error %v", len(files), err)
	}
	if i, err := os.Stat(name); err != nil || i.Mode().Perm()&0o077 != 0 {
		t.Errorf("others can read the state: %v, error %v", i.Mode(), err)
	}
}

// A save that fails leaves the old file as it is, and nothing else.
func TestSaveFails(t *testing.T) {
	dir := t.TempDir()
	old := sampleState().Append(nil)
	for _, c := range []struct {
		name    string
		prepare func(name string) error
	}{
		{"no folder", func(name string) error { return os.Remove(filepath.Dir(name)) }},
		{"cannot be written", func(name string) error { return os.MkdirAll(name+newSuffix, 0o700) }},
		{"cannot be replaced", func(name string) error { return os.MkdirAll(filepath.Join(name, "x"), 0o700) }},
	} {
		name := filepath.Join(dir, c.name, "state")
		if err := os.Mkdir(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := c.prepare(name); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(name, old); err == nil {
			t.Errorf("%s: no error", c.name)
		}
		if i, err := os.Stat(name + newSuffix); err == nil && i.Mode().IsRegular() {
			t.Errorf("%s: a file is left behind", c.name)
		}
	}
}

// A node that cannot save its state works, and says so at the end; one that cannot
// read it does not start, lest it be overwritten.
func TestStateFileErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 4, simnet.Link{})
		defer l.stop()
		dir := t.TempDir()
		n := l.make(l.world.NewHost("unsaved", addr("60.0.0.1")), Config{Bootstrap: []string{boot}, StateFile: filepath.Join(dir, "no", "state")})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- n.Run(ctx) }()
		l.connect(n)
		time.Sleep(time.Hour)
		l.put(n, KeyOf("works"), "works")
		cancel()
		if err := <-done; err == nil {
			t.Error("the state was lost without a word")
		}
		bad := filepath.Join(dir, "bad")
		if err := os.WriteFile(bad, []byte("rubbish"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := New(Config{Network: l.world.NewHost("bad", addr("61.0.0.1")), StateFile: bad}); err == nil {
			t.Error("a bad state file was taken")
		}
	})
}

// Saving is safe while the node works, and from several goroutines.
func TestSaveWhileWorking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := cluster(t, 6, simnet.Link{})
		defer l.stop()
		name := filepath.Join(t.TempDir(), "state")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for j := range 5 {
					l.put(l.nodes[i], KeyOf(fmt.Sprint(i, j)), "x")
					if err := l.nodes[1].SaveState(name); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		s, err := LoadState(name)
		if err != nil || s.ID != l.nodes[1].ID() || len(s.Nodes) != 5 {
			t.Errorf("%+v, error %v", s, err)
		}
		keys := func(s *State) []kad.Entry {
			slices.SortFunc(s.Values, func(a, b kad.Entry) int {
				return cmp.Or(bytes.Compare(a.Key[:], b.Key[:]), cmp.Compare(a.Value.ID, b.Value.ID))
			})
			return s.Values
		}
		if a, b := keys(s), keys(l.nodes[1].Export()); len(a) != len(b) {
			t.Errorf("%d values were saved of %d", len(a), len(b))
		}
	})
}
