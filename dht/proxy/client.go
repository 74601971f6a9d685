package proxy

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/internal/netx"
)

// ClientConfig is what a [Client] needs; only URLs must be set.
type ClientConfig struct {
	// URLs are the proxy servers, the preferred one first: "http://host:port",
	// "https://host", or "host:port" for http. "host:[80-95]" stands for a server
	// at each of these ports, which are tried in random order.
	URLs      []string
	Network   netx.Network // nil: the operating system's
	UserAgent string       // "": "kith"
	TLS       *tls.Config  // for https; nil: the system's authorities, no certificate of ours
	Push      *PushConfig  // nil: listens are streams
	Log       *slog.Logger // nil: nothing is logged
}

// PushConfig makes a client be told by push what its listens are to know: the
// app calls [Client.PushReceived] with what arrives.
type PushConfig struct {
	Token    string // of this device at its push service
	Platform string // "android", "ios" or "unifiedpush"
	Topic    string // see [Target]
	ClientID string // names this client to itself; "": random for each Client
}

// How a client behaves.
const (
	republishTime   = 22 * time.Hour   // between posts of a value that is kept
	checkConnected  = 15 * time.Minute // between questions for the state of the node
	checkTrouble    = time.Minute
	reconnectBase   = time.Second
	reconnectLimit  = time.Minute
	maxReposts      = 8 // at a time
	repostSpread    = 50 * time.Millisecond
	maxRepostSpread = 30 * time.Second
)

// Client is a [dht.Table] behind proxy servers. Requests work at once, but values
// are kept alive and the connection is watched only while Run runs. When Run has
// ended everything fails with [dht.ErrClosed].
//
// Filters are applied here, so a query does not save traffic; fields to select
// are not looked at.
type Client struct {
	cfg     ClientConfig
	log     *slog.Logger
	http    *http.Client
	session string // tells our pushes from those of an earlier process

	life context.Context // ends with cause ErrClosed
	end  context.CancelCauseFunc
	poke chan struct{} // wakes Run

	mu       sync.Mutex // guards all below
	bases    []*url.URL
	base     int
	node     dht.NodeID // of the server that answered last
	moved    bool       // that is another node than before, as Run does not know yet
	trouble  bool       // a server failed since Run last asked for its state
	pubs     map[*publication]struct{}
	watchers map[dht.Key]map[*watcher]struct{}
	listens  int
	era      context.Context // ends when all streams are to begin anew
	endEra   context.CancelFunc
	run      context.Context // of Run while it runs, else nil
	children sync.WaitGroup  // of run; grown under mu while run is set
}

var _ dht.Table = (*Client)(nil)

// NewClient makes a client. It fails only if a URL is wrong or there is none.
func NewClient(cfg ClientConfig) (*Client, error) {
	bases, err := parseURLs(cfg.URLs)
	if err != nil {
		return nil, err
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "kith"
	}
	if cfg.Push != nil {
		push := *cfg.Push
		if push.ClientID == "" {
			push.ClientID = rand.Text()
		}
		cfg.Push = &push
	}
	c := &Client{
		cfg: cfg, log: cfg.Log, bases: bases, session: rand.Text()[:8],
		poke:     make(chan struct{}, 1),
		pubs:     make(map[*publication]struct{}),
		watchers: make(map[dht.Key]map[*watcher]struct{}),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	transport := newTransport(orSystem(cfg.Network).Dial, cfg.TLS)
	transport.ResponseHeaderTimeout = headerTime
	c.http = &http.Client{Transport: transport}
	c.life, c.end = context.WithCancelCause(context.Background())
	c.era, c.endEra = context.WithCancel(context.Background())
	return c, nil
}

// join gives a context that also ends with the client.
func (c *Client) join(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.life, func() { cancel(context.Cause(c.life)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// Info implements [dht.Table]. It asks the server; when none can be reached the
// state is disconnected and the error says why.
func (c *Client) Info(ctx context.Context) (dht.Info, error) {
	ctx, stop := c.join(ctx)
	defer stop()
	info, err := c.askInfo(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	info.Publishing, info.Listens = len(c.pubs), c.listens
	return info, err
}

// Get implements [dht.Table].
func (c *Client) Get(ctx context.Context, key dht.Key, q dht.Query) iter.Seq2[*dht.Value, error] {
	return func(yield func(*dht.Value, error) bool) {
		ctx, stop := c.join(ctx)
		defer stop()
		var seen tracker
		err := c.fetch(ctx, key, func(v *dht.Value) bool {
			if !q.Matches(v) || !seen.filter(dht.Event{Value: v}) {
				return true
			}
			return yield(v, nil)
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(nil, fmt.Errorf("get %s through proxy: %w", key, err))
		}
	}
}

// Put implements [dht.Table].
func (c *Client) Put(ctx context.Context, key dht.Key, v *dht.Value) error {
	ctx, stop := c.join(ctx)
	defer stop()
	return c.post(ctx, key, v, false)
}

// Publish implements [dht.Table]. The server keeps the value for a day after the
// client was last there, also when the publication is cancelled.
func (c *Client) Publish(ctx context.Context, key dht.Key, v *dht.Value) (dht.Publication, error) {
	ctx, stop := c.join(ctx)
	defer stop()
	if err := c.post(ctx, key, v, true); err != nil {
		return nil, err
	}
	p := &publication{client: c, key: key, value: v, next: time.Now().Add(republishTime - jitter(time.Hour))}
	p.retry = backoff{base: reconnectBase, limit: reconnectLimit}
	c.mu.Lock()
	c.pubs[p] = struct{}{}
	c.mu.Unlock()
	c.wake()
	return p, nil
}

// publication is a value that the client has the server keep alive.
type publication struct {
	client *Client
	key    dht.Key
	value  *dht.Value

	// guarded by client.mu
	next    time.Time // post
	retry   backoff
	working bool
}

func (p *publication) Key() dht.Key      { return p.key }
func (p *publication) Value() *dht.Value { return p.value }

func (p *publication) Cancel() {
	p.client.mu.Lock()
	defer p.client.mu.Unlock()
	delete(p.client.pubs, p)
}

// wake has Run look again.
func (c *Client) wake() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}
