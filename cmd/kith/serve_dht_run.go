package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/proxy"
	"github.com/kith-im/kith/identity"
	"github.com/kith-im/kith/internal/obs"
)

const (
	// shutdownTime is how long HTTP requests under way may take at the end.
	shutdownTime = 2 * time.Second
	// retryCertificate is the pause before a certificate that no node took is
	// published again.
	retryCertificate = time.Minute
	// alonePause is the least pause before a node that was alone publishes again.
	alonePause = time.Second
	// renewCertificate is how often a node that stays alone renews its own copy, well
	// before that expires.
	renewCertificate = time.Hour
)

// dhtServer is a running kith serve dht.
type dhtServer struct {
	app     *App
	cmd     *serveDhtCmd
	id      *identity.Identity // nil without one
	node    *dht.Node
	secure  *dht.Secure
	proxy   *proxy.Server // nil without one
	metrics *obs.Registry
	// bootstrap is where nodes are hoped for; none for the first of a network.
	bootstrap []string
	web       []webServer
	ready     readyDoc
}

// webServer is an HTTP server on its listener.
type webServer struct {
	*http.Server
	addr  string
	serve func() error // until Shutdown or Close
	close func() error // of the listener, when serve was never called
}

// readyDoc is the line that kith serve dht --json prints when the node is ready.
type readyDoc struct {
	Ready    bool             `json:"ready"`
	Node     dht.NodeID       `json:"node"`
	KeyID    string           `json:"key_id,omitempty"`
	Network  uint32           `json:"network"`
	Addrs    []netip.AddrPort `json:"addrs"`
	HTTP     string           `json:"http,omitempty"`
	Proxy    []string         `json:"proxy,omitempty"`
	ProxyTLS []string         `json:"proxy_tls,omitempty"`
}

// String returns one line for people.
func (d readyDoc) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "DHT node %v of network %d is ready at %s", d.Node, d.Network, joined(d.Addrs))
	if d.KeyID != "" {
		fmt.Fprintf(&b, ", with key %s", d.KeyID)
	}
	if d.HTTP != "" {
		fmt.Fprintf(&b, ", metrics at http://%s/metrics", d.HTTP)
	}
	if len(d.Proxy) > 0 {
		fmt.Fprintf(&b, ", HTTP proxy at %s", joined(d.Proxy))
	}
	if len(d.ProxyTLS) > 0 {
		fmt.Fprintf(&b, ", HTTPS proxy at %s", joined(d.ProxyTLS))
	}
	return b.String() + "\n"
}

// joined says a list in words.
func joined[T any](list []T) string {
	var words []string
	for _, item := range list {
		words = append(words, fmt.Sprint(item))
	}
	return strings.Join(words, " and ")
}

// newRegistry returns metrics that begin with those of the Go runtime and of the
// build.
func newRegistry() *obs.Registry {
	r := new(obs.Registry)
	obs.AddRuntime(r)
	started := float64(time.Now().UnixMilli()) / 1000
	r.GaugeFunc("process_start_time_seconds", "When the process started, in seconds since 1970.",
		func() float64 { return started })
	if build, ok := debug.ReadBuildInfo(); ok {
		info := describe(build)
		r.Gauge("kith_build_info", "Always 1; the labels say what runs.",
			obs.Label{Name: "version", Value: info.Version}, obs.Label{Name: "revision", Value: info.Revision},
			obs.Label{Name: "go", Value: info.Go}).Set(1)
	}
	return r
}

// listen opens the listeners of HTTP and of the proxy. When it fails, none stays.
func (s *dhtServer) listen(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			for _, w := range s.web {
				err = errors.Join(err, w.close())
			}
		}
	}()
	s.ready = readyDoc{Ready: true, Node: s.node.ID(), Network: s.cmd.Network, Addrs: s.node.Addrs()}
	if s.id != nil {
		s.ready.KeyID = s.id.Key.Public().ID().String()
	}
	if s.cmd.HTTP != "" {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", s.metrics)
		mux.HandleFunc("GET /healthz", s.health)
		list, err := s.open(ctx, "--http", s.cmd.HTTP, []string{"127.0.0.1"}, nil, s.httpServer(mux))
		if err != nil {
			return err
		}
		s.ready.HTTP = list[0]
	}
	if s.cmd.Proxyserver == "" && s.cmd.Proxyserverssl == "" {
		if s.cmd.Pushserver != "" {
			return Fail(KindUsage, errors.New("--pushserver without a proxy"), "add --proxyserver PORT")
		}
		return nil
	}
	return s.listenProxy(ctx)
}

func (s *dhtServer) listenProxy(ctx context.Context) (err error) {
	cfg := proxy.ServerConfig{Table: s.node, Log: s.app.Levels.Logger("dht/proxy")}
	if s.id != nil {
		cfg.Secure = s.secure
	}
	if s.cmd.Pushserver != "" {
		gorush := &proxy.Gorush{URL: "http://" + s.cmd.Pushserver, Network: s.app.Net}
		cfg.Push = proxy.Pushers{"android": gorush, "ios": gorush, "unifiedpush": &proxy.UnifiedPush{Network: s.app.Net}}
	}
	if s.cmd.Persist != "" {
		cfg.State = s.cmd.Persist + ".proxy"
	}
	s.proxy = proxy.NewServer(cfg)
	hosts := s.cmd.Bind
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if s.cmd.Proxyserver != "" {
		if s.ready.Proxy, err = s.open(ctx, "--proxyserver", s.cmd.Proxyserver, hosts, nil, s.proxy.HTTPServer()); err != nil {
			return err
		}
	}
	if s.cmd.Proxyserverssl != "" {
		if s.id == nil {
			return Fail(KindUsage, errors.New("TLS needs a certificate"), "add --identity, or --certificate and --privkey")
		}
		conf := &tls.Config{Certificates: []tls.Certificate{tlsCertificate(s.id)}}
		if s.ready.ProxyTLS, err = s.open(ctx, "--proxyserverssl", s.cmd.Proxyserverssl, hosts, conf, s.proxy.HTTPServer()); err != nil {
			return err
		}
	}
	return nil
}

// open listens where a flag says, [HOST:]PORT, at each of hosts if there is no
// HOST, and returns the addresses.
func (s *dhtServer) open(ctx context.Context, flag, value string, hosts []string, conf *tls.Config, server *http.Server) ([]string, error) {
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		host, port = "", value
	}
	if host != "" {
		hosts = []string{host}
	}
	var list []string
	for _, host := range hosts {
		l, err := s.app.Net.Listen(ctx, "tcp", net.JoinHostPort(strings.Trim(host, "[]"), port))
		if err != nil {
			return nil, cannotBind(fmt.Errorf("listen for HTTP: %w", err), flag, flag)
		}
		addr := l.Addr().String()
		list = append(list, addr)
		serve := func() error { return server.Serve(l) }
		if conf != nil {
			server.TLSConfig = conf
			serve = func() error { return server.ServeTLS(l, "", "") }
		}
		s.web = append(s.web, webServer{server, addr, serve, l.Close})
	}
	return list, nil
}

func (s *dhtServer) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.app.Logger.Handler(), slog.LevelDebug),
	}
}

// health answers while the node runs. It is not well while it should be connected
// and is not; a node that was told of nobody is, since it may be the first.
func (s *dhtServer) health(w http.ResponseWriter, r *http.Request) {
	info, err := s.node.Info(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if info.Status != dht.Connected && s.joins() {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	// A client that went away is none of our business.
	_, _ = fmt.Fprintf(w, `{"status":%q,"node":"%v","good":%d}`+"\n", info.Status, info.NodeID, info.IPv4.Good+info.IPv6.Good)
}

// tlsCertificate returns an identity with its chain.
func tlsCertificate(id *identity.Identity) tls.Certificate {
	c := tls.Certificate{PrivateKey: id.Key.Signer()}
	for cert := id.Cert; cert != nil; cert = cert.Issuer() {
		c.Certificate = append(c.Certificate, cert.DER())
	}
	return c
}

// run runs the node and what stands on it, which ends first, so that the node can
// finish its work.
func (s *dhtServer) run(ctx context.Context) error {
	out := &lockedWriter{w: s.app.Stdout}
	app := *s.app
	app.Stdout = out

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	nodeCtx, stopNode := context.WithCancel(context.WithoutCancel(ctx))
	defer stopNode()
	ended := make(chan error, 1)
	go func() {
		ended <- s.node.Run(nodeCtx)
		stop()
	}()

	g, ctx := errgroup.WithContext(ctx)
	for _, w := range s.web {
		g.Go(func() error {
			if err := w.serve(); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP at %s: %w", w.addr, err)
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		return s.shutdown()
	})
	if s.proxy != nil {
		g.Go(func() error { return s.proxy.Run(ctx) })
	}
	if s.id != nil {
		g.Go(func() error { return s.publishCertificate(ctx) })
	}
	g.Go(func() error { return s.watch(ctx, &app) })
	if err := app.Print(s.ready, s.ready.String()); err != nil {
		stop()
		return errors.Join(err, g.Wait())
	}
	if !s.joins() && !s.cmd.Discovery {
		app.Note("It joined no network: it waits for others, who join it with --bootstrap HOST:PORT. To join a network, add --bootstrap HOST:PORT here.")
	}
	if s.cmd.Interactive {
		g.Go(func() error {
			defer stop()
			p := &prompt{app: &app, node: s.node, secure: s.secure}
			return p.run(ctx)
		})
	}
	err := g.Wait()
	stopNode()
	return errors.Join(err, fileFailure(<-ended))
}

// shutdown ends the HTTP servers; requests under way get a moment.
func (s *dhtServer) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	var g errgroup.Group
	for _, w := range s.web {
		g.Go(func() error {
			if w.Shutdown(ctx) != nil {
				return w.Close()
			}
			return nil
		})
	}
	return g.Wait()
}

// publishCertificate lets others find the node's key, by which they encrypt to it. A
// node that is alone keeps a copy of its own, which it serves to the first who asks,
// and publishes again once there are others.
func (s *dhtServer) publishCertificate(ctx context.Context) error {
	for {
		_, err := s.secure.PublishCertificate(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		pause := alonePause
		if !errors.Is(err, dht.ErrNoNodes) {
			s.app.Logger.Warn("the certificate is not published yet", "error", err)
			pause = retryCertificate
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		alone, cancel := context.WithTimeout(ctx, renewCertificate)
		_ = s.node.WaitConnected(alone) // a time-out renews the copy here
		cancel()
	}
}

// lockedWriter lets several goroutines print whole lines.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
