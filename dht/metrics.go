package dht

import (
	"context"
	"time"

	"github.com/kith-im/kith/dht/kad"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/internal/obs"
)

// registerMetrics makes the node's counters visible. Names follow Prometheus'
// custom: units in the name, _total for counters.
func (n *Node) registerMetrics() {
	m := n.cfg.Metrics
	if m == nil {
		return
	}
	counter := func(name, help string, read func(*kad.Stats) uint64, labels ...obs.Label) {
		m.CounterFunc(name, help, func() float64 {
			s := n.Stats()
			return float64(read(&s))
		}, labels...)
	}
	gauge := func(name, help string, read func(*Info) float64, labels ...obs.Label) {
		m.GaugeFunc(name, help, func() float64 {
			i, err := n.Info(context.Background())
			if err != nil {
				return 0
			}
			return read(&i)
		}, labels...)
	}
	counter("kith_dht_received_packets_total", "Packets that could be read.", func(s *kad.Stats) uint64 { return s.Received })
	counter("kith_dht_received_bytes_total", "Bytes of packets that could be read.", func(s *kad.Stats) uint64 { return s.ReceivedBytes })
	counter("kith_dht_sent_packets_total", "Packets sent.", func(s *kad.Stats) uint64 { return s.Sent })
	counter("kith_dht_sent_bytes_total", "Bytes sent.", func(s *kad.Stats) uint64 { return s.SentBytes })
	m.CounterFunc("kith_dht_malformed_packets_total", "Packets that could not be read.", func() float64 { return float64(n.bad.count.Load()) })
	for q := wire.Ping; q <= wire.Update; q++ {
		label := obs.Label{Name: "method", Value: q.String()}
		counter("kith_dht_served_requests_total", "Requests of others.", func(s *kad.Stats) uint64 { return s.Requests[q] }, label)
		counter("kith_dht_requests_total", "Requests of ours, without retries.", func(s *kad.Stats) uint64 { return s.Asked[q] }, label)
	}
	counter("kith_dht_retries_total", "Requests sent again.", func(s *kad.Stats) uint64 { return s.Retries })
	counter("kith_dht_timeouts_total", "Requests that were never answered.", func(s *kad.Stats) uint64 { return s.Timeouts })
	for _, r := range kad.Reasons() {
		counter("kith_dht_ignored_packets_total", "Packets that were dropped, by reason.",
			func(s *kad.Stats) uint64 { return s.Ignored[r] }, obs.Label{Name: "reason", Value: r.String()})
	}
	for no, name := range map[wire.Refusal]string{wire.Stored: "stored", wire.BadValue: "bad_value", wire.Conflict: "conflict", wire.OverQuota: "over_quota"} {
		counter("kith_dht_puts_total", "Values that others, or we, put here, by what became of them.",
			func(s *kad.Stats) uint64 { return s.Refused[no] }, obs.Label{Name: "result", Value: name})
	}
	counter("kith_dht_challenges_total", "Strangers that had to prove their address.", func(s *kad.Stats) uint64 { return s.Challenges })
	counter("kith_dht_replicated_values_total", "Values handed to nodes that came nearer.", func(s *kad.Stats) uint64 { return s.Replicated })
	counter("kith_dht_widened_searches_total", "Searches that met a suspicious crowd of nodes.", func(s *kad.Stats) uint64 { return s.Widened })

	for name, read := range map[string]func(*Info) FamilyInfo{
		"ipv4": func(i *Info) FamilyInfo { return i.IPv4 }, "ipv6": func(i *Info) FamilyInfo { return i.IPv6 },
	} {
		label := obs.Label{Name: "family", Value: name}
		gauge("kith_dht_good_nodes", "Nodes that answered lately.", func(i *Info) float64 { return float64(read(i).Good) }, label)
		gauge("kith_dht_connected", "1 when connected, else 0.", func(i *Info) float64 {
			if read(i).Status == Connected {
				return 1
			}
			return 0
		}, label)
	}
	gauge("kith_dht_stored_values", "Values stored.", func(i *Info) float64 { return float64(i.Storage.Values) })
	gauge("kith_dht_stored_bytes", "Bytes of values stored, with book-keeping.", func(i *Info) float64 { return float64(i.Storage.Bytes) })
	gauge("kith_dht_listeners", "Listens of others here.", func(i *Info) float64 { return float64(i.Listening) })
	gauge("kith_dht_listens", "Listens of ours at others.", func(i *Info) float64 { return float64(i.Listens) })
	gauge("kith_dht_published_values", "Values kept alive.", func(i *Info) float64 { return float64(i.Publishing) })
	gauge("kith_dht_searches", "Searches held.", func(i *Info) float64 { return float64(i.Searches) })
	m.GaugeFunc("kith_dht_uptime_seconds", "Time since the node was made.", func() float64 { return time.Since(n.began).Seconds() })
}
