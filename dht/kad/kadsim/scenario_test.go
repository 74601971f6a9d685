package kadsim

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/netx/simnet"
)

// scaled returns n, or less under the race detector.
func scaled(n int) int {
	if raceEnabled {
		return max(n/4, 1)
	}
	return n
}

// The same seed gives the same report, and so the same packets; another seed gives
// others.
func TestDeterminism(t *testing.T) {
	scenarios := map[string]Scenario{
		"calm":  {Nodes: scaled(80), Seed: 5, Duration: 2 * time.Minute, Puts: 30, Rounds: 2},
		"churn": {Nodes: scaled(80), Seed: 6, Churn: 0.2, Duration: 3 * time.Minute, Puts: 30, Rounds: 2},
		"large": {Nodes: scaled(60), Seed: 7, Size: 20_000, Duration: time.Minute, Puts: 10, Rounds: 1, Link: simnet.Link{Latency: 30 * time.Millisecond, Jitter: 30 * time.Millisecond, Loss: 0.05, Duplicate: 0.02, Reorder: 0.02}},
	}
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, err := s.Run(context.Background(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if again, _ := s.Run(context.Background(), nil); !reflect.DeepEqual(first, again) {
					t.Errorf("two runs differ:\n%+v\n%+v", first, again)
				}
			}
			s.Seed++
			if other, _ := s.Run(context.Background(), nil); other.Digest == first.Digest {
				t.Error("another seed gives the same packets")
			}
			if first.Get.Success < 0.999 || first.Put.Success < 1 {
				t.Errorf("puts %+v, gets %+v", first.Put, first.Get)
			}
		})
	}
}

// With 85 % of the nodes replaced every ten minutes, values that were put once are
// reachable for as long as they live.
func TestChurn(t *testing.T) {
	t.Parallel()
	s := Scenario{Nodes: scaled(200), Seed: 11, Churn: 0.1733, Duration: 21 * time.Minute, Puts: scaled(200), Rounds: 4, Type: wire.TypeTrustRequest}
	rep, err := s.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", rep)
	found, of := 0, 0
	for _, sv := range rep.Survival {
		found += sv.Found
		of += sv.Of
	}
	if last := rep.Survival[len(rep.Survival)-1]; last.Replaced < 0.97 {
		t.Errorf("only %.0f %% of the nodes were replaced", 100*last.Replaced)
	}
	if of < 3*s.Puts || float64(found) < 0.999*float64(of) {
		t.Errorf("%d of %d lookups find the value", found, of)
	}
}

func TestScenarioErrors(t *testing.T) {
	for name, s := range map[string]Scenario{
		"one node":   {Nodes: 1},
		"churn":      {Churn: 2},
		"size":       {Size: 1 << 20},
		"small size": {Size: 1},
		"time":       {Duration: -1},
	} {
		if _, err := s.Run(context.Background(), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	calls := 0
	_, err := Scenario{Nodes: 20}.Run(ctx, func(Progress) {
		if calls++; calls == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || calls > 11 {
		t.Errorf("cancelled after %d calls: %v", calls, err)
	}
}

func TestReportJSON(t *testing.T) {
	rep, err := Scenario{Nodes: 10, Settle: time.Second, Duration: time.Second, Puts: 2, Rounds: 1}.Run(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(rep)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || !reflect.DeepEqual(rep, back) {
		t.Errorf("%s: %v", b, err)
	}
}
