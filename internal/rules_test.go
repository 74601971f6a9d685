package internal_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// pure are the packages that decide and do nothing else: the same calls give the
// same results, on any machine, at any speed.
var pure = []string{"dht/kad", "dht/wire", "internal/msgpack"}

// impure are the imports that they may not have, with the reason.
var impure = map[string]string{
	"net":          "addresses are net/netip; sockets belong to the shell",
	"os":           "no files and no environment in a pure core",
	"sync":         "a pure core is entered by one goroutine at a time; its owner locks",
	"sync/atomic":  "a pure core is entered by one goroutine at a time; its owner locks",
	"math/rand":    "use a *math/rand/v2.Rand that the caller hands in",
	"crypto/rand":  "randomness is handed in, so that a run can be repeated",
	"log":          "return what happened; the shell logs",
	"log/slog":     "return what happened; the shell logs",
	"context":      "nothing in a pure core waits",
	"runtime":      "results must not depend on the machine",
	"unsafe":       "input is hostile",
	"reflect":      "codecs are written out, so that their bytes can be read off",
	"encoding/gob": "formats are ours",
}

// clocks are the functions of package time that look at a clock or wait.
var clocks = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick"}

// seeded is what a pure package may use of math/rand/v2.
var seeded = []string{"Rand", "New", "Source", "PCG", "NewPCG", "ChaCha8", "NewChaCha8", "Zipf", "NewZipf"}

func TestPurePackagesStayPure(t *testing.T) { eachFile(t, purityProblems) }

func TestPurityRulesCatch(t *testing.T) {
	for _, c := range []struct{ imports, body, want string }{
		{"net/netip", "var a netip.Addr", ""},
		{"time", "func f(now time.Time) time.Time { return now.Add(time.Second) }", ""},
		{"math/rand/v2", "func f(r *rand.Rand) int { return r.IntN(3) }", ""},
		{"net", "var a net.IP", "net/netip"},
		{"os", "var a = os.Args", "no files"},
		{"sync", "var a sync.Mutex", "its owner locks"},
		{"time", "var a = time.Now()", "time.Now"},
		{"time", "var f = time.Since", "time.Since"},
		{"math/rand/v2", "var a = rand.IntN(3)", "rand.IntN"},
		{"time", "func f(now time.Time) { go f(now) }", "goroutine"},
		{"time", "var c chan time.Time", "channel"},
	} {
		text := fmt.Sprintf("package p\n\nimport %q\n\n%s\n", c.imports, c.body)
		checkRule(t, purityProblems, "dht/kad/x.go", text, c.want)
		checkRule(t, purityProblems, "dht/kad/x_test.go", text, "")
		checkRule(t, purityProblems, "dht/x.go", text, "")
	}
}

func purityProblems(s *source) []problem {
	if s.test || !slices.Contains(pure, s.dir) {
		return nil
	}
	var found []problem
	report := func(at token.Pos, format string, args ...any) {
		what := s.dir + " is a pure package: " + fmt.Sprintf(format, args...)
		found = append(found, problem{s.at(at), what})
	}
	for _, spec := range s.file.Imports {
		if why := impure[importPath(spec)]; why != "" {
			report(spec.Pos(), "no import of %s: %s", importPath(spec), why)
		}
	}
	s.uses(func(pkg, name string, at token.Pos) {
		switch {
		case pkg == "time" && slices.Contains(clocks, name):
			report(at, "no time.%s: take now as an argument and return when to be called again", name)
		case pkg == "math/rand/v2" && !slices.Contains(seeded, name):
			report(at, "no rand.%s of the global generator: use the *rand.Rand of the caller", name)
		}
	})
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n.(type) {
		case *ast.GoStmt:
			report(n.Pos(), "no goroutine: its owner decides what runs at the same time")
		case *ast.ChanType:
			report(n.Pos(), "no channel: return what should happen")
		}
		return true
	})
	return found
}

// doors are the names that reach the network, by package. A name that ends in *
// stands for all with that beginning.
var doors = map[string][]string{
	"net": {
		"Dial*", "Listen*", "Lookup*", "Resolve*", "Resolver", "DefaultResolver",
		"Interfaces", "InterfaceAddrs", "InterfaceBy*", "File*",
	},
	"crypto/tls": {"Dial*", "Listen"},
	"net/http": {
		"Get", "Head", "Post", "PostForm", "DefaultClient", "DefaultTransport", "ListenAndServe*",
		"Handle", "HandleFunc", "DefaultServeMux",
	},
	"syscall":               {"Socket", "Connect", "Bind", "Sendto", "Sendmsg*"},
	"golang.org/x/sys/unix": {"Socket", "Connect", "Bind", "Sendto", "Sendmsg*"},
}

// wholeDoors are packages that only netx may import at all.
var wholeDoors = []string{
	"net/smtp", "net/rpc", "log/syslog", "net/http/pprof", "golang.org/x/net/proxy",
	"golang.org/x/net/icmp", "golang.org/x/net/ipv4", "golang.org/x/net/ipv6", "golang.org/x/net/websocket",
}

const oneDoor = "only internal/netx reaches the network, so that tests can replace it and nothing leaks around it; use netx.Network"

func TestOneDoorToTheNetwork(t *testing.T) { eachFile(t, networkProblems) }

func TestNetworkRulesCatch(t *testing.T) {
	for _, c := range []struct{ imports, body, want string }{
		{"net", "func f(c net.Conn) error { return net.ErrClosed }", ""},
		{"net/http", "var c = http.Client{Transport: &http.Transport{DialContext: nil}}", ""},
		{"net/http", "func f(s *http.Server) { _ = s.Serve(nil) }", ""},
		{"net", "var f = net.Dial", "net.Dial"},
		{"net", "var f = net.ListenPacket", "net.ListenPacket"},
		{"net", "var f = net.LookupHost", "net.LookupHost"},
		{"net", "var r net.Resolver", "net.Resolver"},
		{"net", "var d net.Dialer", "net.Dialer"},
		{"net", "var f = net.ResolveUDPAddr", "net.ResolveUDPAddr"},
		{"crypto/tls", "var f = tls.DialWithDialer", "tls.DialWithDialer"},
		{"net/http", "var f = http.Get", "http.Get"},
		{"net/http", "func f(s *http.Server) { _ = s.ListenAndServe() }", "ListenAndServe"},
		{"net/http", "var c = &http.Client{}", "http.Client without"},
		{"net/http", "var c = http.Transport{}", "http.Transport without"},
		{"golang.org/x/net/ipv6", "var c *ipv6.PacketConn", "golang.org/x/net/ipv6"},
	} {
		text := fmt.Sprintf("package p\n\nimport %q\n\n%s\n", c.imports, c.body)
		checkRule(t, networkProblems, "dht/x.go", text, c.want)
		checkRule(t, networkProblems, "dht/x_test.go", text, "")
		checkRule(t, networkProblems, "interop/x.go", text, "")
		checkRule(t, networkProblems, "internal/netx/x.go", text, "")
	}
}

func networkProblems(s *source) []problem {
	if s.test || under(s.dir, "internal/netx") || under(s.dir, "interop") {
		return nil
	}
	var found []problem
	report := func(at token.Pos, what string) {
		found = append(found, problem{s.at(at), what + ": " + oneDoor})
	}
	for _, spec := range s.file.Imports {
		if p := importPath(spec); slices.Contains(wholeDoors, p) {
			report(spec.Pos(), "import of "+p)
		}
	}
	s.uses(func(pkg, name string, at token.Pos) {
		for _, door := range doors[pkg] {
			prefix, wild := strings.CutSuffix(door, "*")
			if name == door || wild && strings.HasPrefix(name, prefix) {
				report(at, pkg[strings.LastIndexByte(pkg, '/')+1:]+"."+name)
				return
			}
		}
	})
	imports := s.imports()
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr: // the method of http.Server
			id, ok := n.X.(*ast.Ident)
			if strings.HasPrefix(n.Sel.Name, "ListenAndServe") && !(ok && imports[id.Name] != "") {
				report(n.Pos(), n.Sel.Name)
			}
		case *ast.CompositeLit:
			sel, ok := n.Type.(*ast.SelectorExpr)
			if !ok {
				break
			}
			if id, ok := sel.X.(*ast.Ident); !ok || imports[id.Name] != "net/http" {
				break
			}
			if field := map[string]string{"Client": "Transport", "Transport": "DialContext"}[sel.Sel.Name]; field != "" && !hasField(n, field) {
				report(n.Pos(), "http."+sel.Sel.Name+" without "+field)
			}
		}
		return true
	})
	return found
}

func hasField(lit *ast.CompositeLit, name string) bool {
	return slices.ContainsFunc(lit.Elts, func(e ast.Expr) bool {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return false
		}
		id, ok := kv.Key.(*ast.Ident)
		return ok && id.Name == name
	})
}

func under(dir, parent string) bool { return dir == parent || strings.HasPrefix(dir, parent+"/") }
