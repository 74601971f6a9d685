//go:build linux

package bench

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kith-im/kith/interop/lab"
	"github.com/kith-im/kith/interop/raw"
)

func TestQuantile(t *testing.T) {
	list := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]float64{0: 1, 0.5: 5, 0.9: 9, 0.99: 10, 1: 10} {
		if got := quantile(list, q); got != want {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestRunBulk(t *testing.T) {
	var flying, most atomic.Int32
	seen := make([]atomic.Int32, 50)
	work := lab.Bulk{Op: "put", Prefix: "p", First: 10, Count: 50, Size: 20, Window: 8, Timeout: time.Second}
	samples, took, err := RunBulk(t.Context(), work, func(_ context.Context, op string, key raw.ID, want []byte) lab.Sample {
		now := flying.Add(1)
		defer flying.Add(-1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		for i := range seen {
			if key == Key("p", 10+i) && bytes.Equal(want, Content("p", 10+i, 20)) && op == "put" {
				seen[i].Add(1)
			}
		}
		time.Sleep(time.Millisecond)
		return lab.Sample{OK: true, First: -1}
	})
	if err != nil || len(samples) != 50 || took < 5*time.Millisecond || most.Load() > 8 {
		t.Errorf("%d samples in %v, up to %d at once, %v", len(samples), took, most.Load(), err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 || !samples[i].OK || samples[i].Latency < time.Millisecond {
			t.Errorf("operation %d ran %d times: %+v", i, n, samples[i])
		}
	}
}

// The Python client makes keys and values by the same rules as clients in Go.
func TestContentLikePython(t *testing.T) {
	lab.Require(t, "dhtnode", "python3-opendht")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	l := lab.ForTest(t)
	node, err := l.StartNode(ctx, lab.Dhtnode{}, lab.NodeConfig{Network: network})
	if err != nil {
		t.Fatal(err)
	}
	c, err := Python{}.Start(ctx, l, ClientConfig{Bootstrap: node.Addr(), Network: network})
	if err != nil {
		t.Fatal(err)
	}
	if err := warmUp(ctx, c, "warm-up-"); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{3, 40} { // shorter and longer than what tells values apart
		prefix := fmt.Sprintf("size-%d-", size)
		work := lab.Bulk{Op: "put", Prefix: prefix, First: 41, Count: 2, Size: size, Window: 2, Timeout: opTimeout}
		if _, _, err := c.Bulk(ctx, work); err != nil {
			t.Fatal(err)
		}
		key := Key(prefix, 42)
		got, err := c.(*python).Get(ctx, hex.EncodeToString(key[:]))
		if err != nil || len(got.Values) != 1 || !bytes.Equal(got.Values[0].Data, Content(prefix, 42, size)) {
			t.Errorf("size %d: python put %+v, want %q; %v", size, got.Values, Content(prefix, 42, size), err)
		}
	}
}

func TestReport(t *testing.T) {
	r := &Report{
		Bench: "x", Settings: map[string]any{"b": 1, "a": 2}, Columns: []string{"p50", "ok"},
		Rows: []Row{{Nodes: "n", Client: "c", Op: "put", Round: 1, Values: map[string]float64{"p50": 1.2345}}},
	}
	var table, doc bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	if got := table.String(); !strings.HasPrefix(got, "x: a=2 b=1\n") || !strings.Contains(got, "1.23   -") {
		t.Errorf("table:\n%s", got)
	}
	var back Report
	if err := r.JSON(&doc); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(doc.Bytes(), &back); err != nil || back.Rows[0].Values["p50"] != 1.2345 {
		t.Errorf("%v in %s", err, doc.String())
	}
}

// Each benchmark, very small, against real nodes.
func TestBenchmarksRun(t *testing.T) {
	lab.Require(t, "dhtnode", "python3-opendht", "netns")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
	defer cancel()
	kinds := []lab.NodeKind{lab.Dhtnode{}}
	subjects := []Subject{{Nodes: lab.Dhtnode{}, Client: Python{}}, {Nodes: lab.Dhtnode{}, Client: Kith{}}}
	for name, run := range map[string]func(context.Context) (*Report, error){
		"lookup": Lookup{
			Subjects: subjects, Nodes: 2, Rounds: 1, Count: 10, Size: 64, Windows: []int{1, 4},
			Link: lab.Impairment{Delay: 5 * time.Millisecond},
		}.Run,
		"durability": Durability{Subjects: subjects, Nodes: 2, Rounds: 1, Count: 10, Size: 64, Window: 4}.Run,
		"idle":       Idle{Kinds: kinds, Nodes: 2, Rounds: 1, For: 100 * time.Millisecond}.Run,
	} {
		r, err := run(ctx)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, row := range r.Rows {
			v := row.Values
			if of := v["of"]; of != v["ok"] || v["unreachable"] > 0 {
				t.Errorf("%s: %+v", name, row)
			}
			if name == "lookup" && (v["p50 RTT"] < 0.95 || v["datagrams/op"] < 2 || v["nodes CPU ms/op"] <= 0) {
				t.Errorf("lookup: %+v", row)
			}
		}
	}
}

// The client of the raw benchmark, without restricting this process to few cores.
func TestRawPhases(t *testing.T) {
	lab.Require(t, "dhtnode")
	b := Raw{Rounds: 1, Requests: 400, Sockets: 2, Window: 16, Size: 64}
	rows, err := b.node(t.Context(), lab.Dhtnode{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(rawPhases()) {
		t.Errorf("%d phases", len(rows))
	}
	for _, row := range rows {
		if row.Values[colLost] != 0 || row.Values[colRate] < 100 || row.Values[colCPU] <= 0 {
			t.Errorf("%+v", row)
		}
	}
}
