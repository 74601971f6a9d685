//go:build linux

package bench

import (
	"context"
	"crypto/sha1"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/kith-im/kith/interop/lab"
	"github.com/kith-im/kith/interop/raw"
)

// Client is a DHT client that runs workloads and takes the times itself.
type Client interface {
	// Bulk runs a workload; see [lab.PyClient.Bulk]. Clients in Go build it on [RunBulk].
	Bulk(ctx context.Context, b lab.Bulk) ([]lab.Sample, time.Duration, error)
	// Stats reads the counters since the last call.
	Stats(ctx context.Context) (ClientStats, error)
	// Kill ends the client at once.
	Kill()
}

// ClientStats is what a client says of itself.
type ClientStats struct {
	Requests float64 // sent; negative if the client does not count
	CPU      time.Duration
}

// ClientConfig configures a client.
type ClientConfig struct {
	Host      *lab.Host // whose sockets it uses
	Bootstrap netip.AddrPort
	Network   uint32
}

// ClientKind starts clients of one implementation.
type ClientKind interface {
	Name() string
	Start(ctx context.Context, l *lab.Lab, c ClientConfig) (Client, error)
}

// Python is the client on Debian's OpenDHT bindings. Its CPU time includes that
// of the Python layer.
type Python struct{}

// Name implements [ClientKind].
func (Python) Name() string { return "python" }

// Start implements [ClientKind].
func (Python) Start(ctx context.Context, l *lab.Lab, c ClientConfig) (Client, error) {
	p, err := l.StartPy(ctx, lab.PyConfig{Host: c.Host, Bootstrap: c.Bootstrap, Network: c.Network, NoLimits: true})
	if err != nil {
		return nil, err
	}
	return &python{PyClient: p}, nil
}

type python struct {
	*lab.PyClient
	cpu time.Duration // at the last look
}

func (p *python) Stats(ctx context.Context) (ClientStats, error) {
	s, err := p.PyClient.Stats(ctx)
	if err != nil {
		return ClientStats{}, err
	}
	out := ClientStats{CPU: s.CPU - p.cpu}
	p.cpu = s.CPU
	for _, n := range s.Sent {
		out.Requests += float64(n)
	}
	return out, nil
}

// Key is the key of operation i of a workload.
func Key(prefix string, i int) raw.ID { return sha1.Sum(fmt.Appendf(nil, "%s%d", prefix, i)) }

// Content is the value of operation i of a workload.
func Content(prefix string, i, size int) []byte {
	b := fmt.Appendf(nil, "%s%d|", prefix, i)
	head := len(b)
	for len(b) < size {
		b = append(b, '.')
	}
	return b[:max(size, head)]
}

// Operation does one operation of a workload and says how it went. For "put",
// OK means acknowledged; for "get", that want was among the values; for "miss",
// that there was no value. First is negative if no value came.
type Operation func(ctx context.Context, op string, key raw.ID, want []byte) lab.Sample

// RunBulk runs a workload of a client that lives in this process. Each operation
// is timed here, so an Operation need not set Latency.
func RunBulk(ctx context.Context, b lab.Bulk, do Operation) ([]lab.Sample, time.Duration, error) {
	samples := make([]lab.Sample, b.Count)
	next := make(chan int)
	var wg sync.WaitGroup
	begin := time.Now()
	for range max(1, min(b.Window, b.Count)) {
		wg.Go(func() {
			for i := range next {
				ctx, cancel := context.WithTimeout(ctx, b.Timeout)
				start := time.Now()
				s := do(ctx, b.Op, Key(b.Prefix, b.First+i), Content(b.Prefix, b.First+i, b.Size))
				s.Latency = time.Since(start)
				samples[i] = s
				cancel()
			}
		})
	}
	for i := range b.Count {
		next <- i
	}
	close(next)
	wg.Wait()
	return samples, time.Since(begin), ctx.Err()
}

// warmUp puts until nodes acknowledge: a client that has not reached its
// bootstrap node yet is refused.
func warmUp(ctx context.Context, c Client, prefix string) error {
	for i := 0; ; i++ {
		s, _, err := c.Bulk(ctx, lab.Bulk{Op: "put", Prefix: prefix, First: i, Count: 1, Size: 64, Window: 1, Timeout: opTimeout})
		if err != nil {
			return fmt.Errorf("warm up: %w", err)
		}
		if s[0].OK {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("warm up: no put was acknowledged: %w", ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// opTimeout is when a single operation counts as hung; the reference gives up on
// silent nodes after 10 s, one batch of them after the other.
const opTimeout = 60 * time.Second
