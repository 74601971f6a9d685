package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity"
)

// Secure is what a server signs and encrypts with, in its own name: a [dht.Secure].
type Secure interface {
	// KeyID names the server's key.
	KeyID() identity.KeyID
	// FindKey looks up the key to encrypt to.
	FindKey(ctx context.Context, id identity.KeyID) (*identity.PublicKey, error)
	// PutSigned signs v, which gets owner, seq and signature, and puts it.
	PutSigned(ctx context.Context, key dht.Key, v *dht.Value) error
	// PutEncrypted signs v and puts it encrypted to a key.
	PutEncrypted(ctx context.Context, key dht.Key, to *identity.PublicKey, v *dht.Value) error
}

// ServerConfig is what a [Server] needs; only Table must be set.
type ServerConfig struct {
	Table  dht.Table
	Secure Secure       // nil: the server neither signs nor encrypts
	Push   Pusher       // nil: no push subscriptions
	Log    *slog.Logger // nil: nothing is logged
	Limits Limits

	// State is the path of the file in which permanent values and subscriptions
	// outlive a restart; it has push tokens in it. "" keeps them in memory only.
	State string
	// ClientAddr tells who sent a request, for a server behind another one that
	// it trusts. nil takes the address of the connection.
	ClientAddr func(*http.Request) netip.Addr
}

// Server answers for a table over HTTP. It is an [http.Handler] and safe for
// concurrent use; permanent values and subscriptions are looked after while Run
// runs.
type Server struct {
	cfg    ServerConfig
	log    *slog.Logger
	limits Limits
	meter  meter
	routes []route

	life context.Context // ends with Run, and with it all streams
	end  context.CancelFunc
	wake chan struct{} // has Run look what has changed

	mu       sync.Mutex // guards all below
	leases   book
	run      context.Context // of Run while it runs, else nil
	children sync.WaitGroup  // of run; grown under mu while run is set
	busy     int             // children with an end in sight
	dirty    bool            // leases are not yet saved

	requests rate
	puts     atomic.Int64 // under way
}

// NewServer makes a server. Table must be set.
func NewServer(cfg ServerConfig) *Server {
	s := &Server{cfg: cfg, log: cfg.Log, limits: cfg.Limits.withDefaults(), wake: make(chan struct{}, 1)}
	s.life, s.end = context.WithCancel(context.Background())
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.meter.limits = s.limits
	s.routes = s.routeTable()
	return s
}

// HTTPServer gives an [http.Server] with s as its handler and bounds on header
// size and idle time. The caller serves with it, and shuts it down after Run.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:                      s,
		DisableGeneralOptionsHandler: true,
		ReadHeaderTimeout:            10 * time.Second,
		IdleTimeout:                  2 * time.Minute,
		MaxHeaderBytes:               16 << 10,
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// request is one request on its way through a handler.
type request struct {
	*http.Request
	w      http.ResponseWriter
	key    dht.Key
	client netip.Prefix
}

// route maps methods and paths to handlers. A path element ":" matches any text
// and gives the key.
type route struct {
	method string
	path   []string
	handle func(*request)
}

func (s *Server) routeTable() []route {
	var all []route
	add := func(method string, handle func(*request), paths ...string) {
		for _, p := range paths {
			all = append(all, route{method, strings.Split(p, "/"), handle})
		}
	}
	add("GET", s.handleInfo, "", "node/info")
	add("GET", s.handleStats, "node/stats")
	add("GET", s.handleHealth, "node/health")
	add("GET", s.handleGet, "key/:", ":")
	add("GET", s.handleListen, "key/:/listen")
	add("GET", s.handleOptions, "key/:/options")
	add("OPTIONS", s.handleOptions, ":", "key/:/listen")
	add("POST", s.handlePut, "key/:", ":")
	if s.cfg.Secure != nil {
		add("POST", s.handleSign, "key/:/sign")
		add("POST", s.handleEncrypt, "key/:/encrypt")
	}
	if s.cfg.Push != nil {
		add("POST", s.handlePingPush, "node/pingPush")
		add("SUBSCRIBE", s.handleSubscribe, "key/:", ":")
		add("UNSUBSCRIBE", s.handleUnsubscribe, "key/:", ":")
	}
	return all
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := time.Now()
	s.requests.count(now)
	req := &request{Request: r, w: w, client: clientOf(s.clientAddr(r))}
	header := w.Header()
	header["Date"] = nil
	if !s.meter.request(req.client, now) {
		s.jsonHeader(req)
		header.Set("Retry-After", "1")
		s.fail(req, http.StatusTooManyRequests, `{"err":"Too many requests"}`)
		return
	}
	// Keys are hashed as they came, escapes and all, as OpenDHT does.
	path := strings.Split(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"), "/")
	for i := range s.routes {
		if text, ok := s.routes[i].match(r.Method, path); ok {
			if text != "" {
				key, err := dht.ParseKey(text)
				if err != nil {
					break
				}
				req.key = key
			}
			s.jsonHeader(req)
			s.routes[i].handle(req)
			return
		}
	}
	s.notImplemented(req)
}

// notImplemented answers as OpenDHT does to what it does not know.
func (s *Server) notImplemented(r *request) {
	h := r.w.Header()
	clear(h)
	h["Date"] = nil
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close")
	}
	r.w.WriteHeader(http.StatusNotImplemented)
}

func (rt *route) match(method string, path []string) (key string, ok bool) {
	if rt.method != method || len(rt.path) != len(path) {
		return "", false
	}
	for i, want := range rt.path {
		switch {
		case want == ":" && path[i] != "":
			key = path[i]
		case want != path[i]:
			return "", false
		}
	}
	return key, true
}

func (s *Server) clientAddr(r *http.Request) netip.Addr {
	if s.cfg.ClientAddr != nil {
		return s.cfg.ClientAddr(r)
	}
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// jsonHeader sets what every answer but "not implemented" has.
func (s *Server) jsonHeader(r *request) {
	h := r.w.Header()
	h.Set("Connection", "keep-alive")
	h.Set("Server", "RESTinio") // clients know OpenDHT's proxy by it
	h.Set("Content-Type", "application/json")
	h.Set("Access-Control-Allow-Origin", "*")
}

// fail ends a request with an error text.
func (s *Server) fail(r *request, status int, body string) {
	r.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	r.w.WriteHeader(status)
	s.write(r, []byte(body))
}

// write sends bytes, and gives up on clients that do not take them in time.
func (s *Server) write(r *request, b []byte) bool {
	rc := http.NewResponseController(r.w)
	deadline := func(t time.Time) { _ = rc.SetWriteDeadline(t) } // not all writers have one
	deadline(time.Now().Add(s.limits.WriteTime))
	defer deadline(time.Time{})
	if _, err := r.w.Write(b); err != nil {
		return false
	}
	err := rc.Flush()
	return err == nil || errors.Is(err, http.ErrNotSupported)
}

// The texts of errors, with the odd key that one of them has in OpenDHT.
const (
	errMissing   = `{"err":"Missing parameters"}`
	errNotJSON   = `{"err:":"Incorrect JSON"}`
	errInternal  = `{"err":"Internal server error"}`
	errPutFailed = `{"err":"Put failed"}`
	errNoToken   = `{"err":"No token"}`
	errNoTarget  = `{"err":"No destination found"}`
	errTooLarge  = `{"err":"Value too large"}`
	errRefused   = `{"err":"Value refused"}`
	errTimeout   = `{"err":"Timeout"}`
	errQuota     = `{"err":"Too many permanent values or subscriptions"}`
	errListens   = `{"err":"Too many listens"}`
	errNoNodes   = `{"err":"No DHT node can be reached"}`
	errEnding    = `{"err":"Server is ending"}`
)

// body reads and parses the body of a request. It has answered if that fails.
func (s *Server) body(r *request, emptyText string) (fields, bool) {
	rc := http.NewResponseController(r.w)
	_ = rc.SetReadDeadline(time.Now().Add(s.limits.ReadTime)) // not all writers have one
	b, err := io.ReadAll(http.MaxBytesReader(r.w, r.Body, MaxLine))
	_ = rc.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		s.fail(r, http.StatusRequestEntityTooLarge, errTooLarge)
		return nil, false
	}
	if err != nil {
		s.fail(r, http.StatusBadRequest, errMissing)
		return nil, false
	}
	if len(b) == 0 {
		s.fail(r, http.StatusBadRequest, emptyText)
		return nil, false
	}
	f, err := parseFields(b)
	if err != nil {
		s.failJSON(r, err)
		return nil, false
	}
	return f, true
}

// failJSON answers to a body that is no value. OpenDHT has an internal error
// where the JSON is right but not what it expects.
func (s *Server) failJSON(r *request, err error) {
	s.log.Debug("bad request body", "client", r.client, "err", err)
	if errors.Is(err, errSyntax) {
		s.fail(r, http.StatusBadRequest, errNotJSON)
		return
	}
	s.fail(r, http.StatusInternalServerError, errInternal)
}

// handleOptions tells browsers what they may do.
func (s *Server) handleOptions(r *request) {
	methods := "OPTIONS, GET, POST, LISTEN"
	if s.cfg.Secure != nil {
		methods += ", SIGN, ENCRYPT"
	}
	h := r.w.Header()
	h.Set("Access-Control-Allow-Methods", methods)
	h.Set("Access-Control-Allow-Headers", "content-type")
	h.Set("Access-Control-Max-Age", "86400")
	r.w.WriteHeader(http.StatusOK)
}

// remote gives the address that a client is told to have.
func (s *Server) remote(r *request) string {
	a := s.clientAddr(r.Request)
	if !a.IsValid() {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		return host
	}
	return netip.AddrFrom16(a.As16()).String()
}
