package main

import (
	"context"
	"strings"
	"time"

	"github.com/kith-im/kith/dht"
)

const (
	// joinTime is how long joining usually takes at most: after it, an operator is
	// told that nobody answers.
	joinTime = 5 * time.Second
	// watchEvery is how often the state of the node is looked at.
	watchEvery = time.Second
)

// joins tells whether the node was told of others, and so should be connected.
func (s *dhtServer) joins() bool { return len(s.bootstrap) > 0 }

// watch tells the operator how the node gets on, until ctx ends: at level debug all
// changes, at level info those of being connected, and as a warning that no node
// answers where the flags say that there are some.
func (s *dhtServer) watch(ctx context.Context, app *App) error {
	log := app.Levels.Logger("dht")
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var last dht.Info
	lost, warned := time.Now(), false // lost: since when it is not connected
	for {
		info, err := s.node.Info(ctx)
		if err != nil {
			return nil // the node has ended, and says itself why
		}
		if info.Status != last.Status {
			if last.Status == dht.Connected {
				lost = time.Now()
			}
			log.Info("DHT status", "status", info.Status, "was", last.Status)
			if warned && info.Status == dht.Connected {
				warned = false
				app.Note("Connected to the network.")
			}
		}
		if info.IPv4.Good != last.IPv4.Good || info.IPv6.Good != last.IPv6.Good {
			log.Debug("good DHT nodes", "ipv4", info.IPv4.Good, "ipv6", info.IPv6.Good, "estimate", max(info.IPv4.Estimate, info.IPv6.Estimate))
		}
		last = info
		if s.joins() && !warned && info.Status != dht.Connected && time.Since(lost) >= joinTime {
			warned = true
			log.Warn("no node answers at " + strings.Join(s.bootstrap, ", ") + "; still trying")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
