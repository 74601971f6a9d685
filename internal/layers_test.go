package internal_test

import (
	"fmt"
	"path"
	"strings"
	"testing"
)

// room is a folder of packages that belong together. Imports go to lower layers;
// within a layer they stay inside the room.
type room struct {
	prefix string
	layer  int
	role   string
}

// rooms lists every folder that may hold code; the longest prefix counts. A new
// room needs a line here, which is the moment to think about where it belongs.
var rooms = []room{
	{"cmd/kith", 7, "the commands: wiring only"},
	{"internal/tui", 7, "the terminal client"},
	{"web", 7, "the web client"},
	{"internal/daemon", 6, "serves the local API"},
	{"client", 6, "talks to a running node"},
	{"internal/pluginhost", 6, "runs plugins"},
	{".", 5, "composition of a node, no protocol logic"},
	{"api", 5, "the local API as types"},
	{"plugin", 5, "what a plugin sees"},
	{"internal/account", 4, "one account as an actor"},
	{"internal/call", 4, "call state; decides, touches no socket"},
	{"internal/conversation", 3, "conversation rules and history"},
	{"internal/devsync", 3, "sync among own devices"},
	{"internal/transfer", 3, "files over channels"},
	{"internal/sip", 3, "SIP"},
	{"internal/media", 3, "codecs and RTP"},
	{"internal/names", 3, "the name directory"},
	{"internal/jams", 3, "the account management server"},
	{"dht/proxy", 3, "the DHT over HTTP"},
	{"peer", 2, "channels between devices"},
	{"internal/ice", 2, "ICE behind our types"},
	{"dht", 1, "the DHT node, its wire format and its core"},
	{"identity", 1, "keys, certificates, ids"},
	{"internal/nat", 1, "port mapping"},
	{"internal/netx", 0, "the one door to the network"},
	{"internal/store", 0, "durable state"},
	{"internal/msgpack", 0, "the msgpack codec"},
	{"internal/event", 0, "the event stream"},
	{"internal/obs", 0, "logs and metrics"},
	// Not part of the program: both see everything, nothing may import them.
	{"interop", 8, "tests against other implementations"},
	{"internal", 8, "the tests of the house"},
}

// sideways are the imports allowed between rooms of one layer.
var sideways = map[[2]string]string{
	{"dht", "identity"}:        "values are signed and encrypted by identities",
	{"peer", "internal/ice"}:   "channels run over the paths that ICE finds",
	{".", "api"}:               "a node speaks in the types of the API",
	{"plugin", "api"}:          "a plugin sees the types of the API",
	{"internal/tui", "client"}: "the terminal client is a client",
}

// outside lists the folders that may use a module which is not ours. What is not
// listed is allowed in tests only. golang.org/x is allowed everywhere.
var outside = map[string][]string{
	"github.com/alecthomas/kong": {"cmd/kith"},
}

// within are imports forbidden inside one room.
var within = map[[2]string]string{
	{"dht/wire", "dht/kad"}: "the wire format must not know who uses it",
	{"dht/wire", "dht"}:     "the wire format must not know who uses it",
	{"dht/kad", "dht"}:      "the core must not know its shell",
}

func TestImportsGoDownward(t *testing.T) { eachFile(t, layerProblems) }

func TestLayerRulesCatch(t *testing.T) {
	for _, c := range []struct{ file, imports, want string }{
		{"dht/node.go", "dht/kad", ""},
		{"dht/node.go", "identity", ""},
		{"dht/node.go", "internal/netx", ""},
		{"dht/proxy/client.go", "dht", ""},
		{"cmd/kith/main.go", "internal/obs", ""},
		{"kith.go", "internal/account", ""},
		{"dht/node.go", "dht/proxy", "layer 1"},
		{"identity/id.go", "dht", "same layer"},
		{"internal/obs/log.go", "internal/netx", "same layer"},
		{"internal/call/call.go", "internal/account", "same layer"},
		{"internal/netx/system.go", "cmd/kith", "layer 0"},
		{"dht/kad/core.go", "dht", "its shell"},
		{"internal/netx/simnet/host.go", "internal/netx", ""},
		{"dht/wire/value.go", "dht/kad", "must not know"},
		{"internal/stuff/x.go", "internal/obs", "no room"},
		{"dht/node.go", "interop", "nothing may import"},
		{"interop/lab/lab.go", "interop/raw", ""},
	} {
		text := fmt.Sprintf("package p\n\nimport _ %q\n", module+"/"+c.imports)
		checkRule(t, layerProblems, c.file, text, c.want)
	}
	kong := "package p\n\nimport _ \"github.com/alecthomas/kong\"\n"
	checkRule(t, layerProblems, "cmd/kith/cli.go", kong, "")
	checkRule(t, layerProblems, "dht/node.go", kong, "module")
	checkRule(t, layerProblems, "dht/node_test.go", kong, "")
	checkRule(t, layerProblems, "dht/node.go", "package p\n\nimport . \"fmt\"\n", "dot import")
	checkRule(t, layerProblems, "dht/node.go", "package p\n\nimport _ \"golang.org/x/net/ipv4\"\n", "")
}

func layerProblems(s *source) []problem {
	if s.test {
		return nil // tests may build what they like from above and below
	}
	var found []problem
	report := func(format string, args ...any) {
		found = append(found, problem{s.path, fmt.Sprintf(format, args...)})
	}
	from, ok := roomOf(s.dir)
	if !ok || from.prefix == "internal" {
		report("folder %s has no room in the house: add it to the table in internal/layers_test.go", s.dir)
		return found
	}
	for _, spec := range s.file.Imports {
		p := importPath(spec)
		if spec.Name != nil && spec.Name.Name == "." {
			report("dot import of %s: the reader must see where a name comes from", p)
			continue
		}
		if p != module && !strings.HasPrefix(p, module+"/") {
			if why := foreign(s.dir, p); why != "" {
				report("%s", why)
			}
			continue
		}
		to := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
		if to == "" {
			to = "."
		}
		if why := upward(s.dir, from, to); why != "" {
			report("%s imports %s: %s", s.dir, to, why)
		}
	}
	return found
}

// upward says why the package in folder dir may not import the one in folder to.
func upward(dir string, from room, to string) string {
	target, ok := roomOf(to)
	switch {
	case !ok:
		return "the imported folder has no room in the house: add it to internal/layers_test.go"
	case target.layer == 8 && target.prefix != from.prefix:
		return "nothing may import tests"
	case target.layer < from.layer:
		return ""
	case target.layer > from.layer:
		return fmt.Sprintf("%s (%s) is layer %d and may not know %s (%s) in layer %d; "+
			"declare the interface you need where you need it, and let the caller hand it in",
			from.prefix, from.role, from.layer, target.prefix, target.role, target.layer)
	case target.prefix != from.prefix:
		if sideways[[2]string{from.prefix, target.prefix}] != "" {
			return ""
		}
		return fmt.Sprintf("%s (%s) and %s (%s) are in the same layer and meet only above it",
			from.prefix, from.role, target.prefix, target.role)
	}
	return within[[2]string{dir, to}]
}

func foreign(dir, p string) string {
	first, _, _ := strings.Cut(p, "/")
	if !strings.Contains(first, ".") || first == "golang.org" {
		return "" // the standard library and its workshop
	}
	for mod, users := range outside {
		if p != mod && !strings.HasPrefix(p, mod+"/") {
			continue
		}
		for _, user := range users {
			if dir == user {
				return ""
			}
		}
	}
	return fmt.Sprintf("%s uses the module of %s, which internal/layers_test.go does not list for it: "+
		"each module is code that we must trust, so it gets a line there or stays in tests", dir, p)
}

func roomOf(dir string) (room, bool) {
	for d := dir; ; d = path.Dir(d) {
		for _, r := range rooms {
			if r.prefix == d {
				// The root and internal are rooms of their own files only.
				return r, d == dir || d != "." && d != "internal"
			}
		}
		if d == "." {
			return room{}, false
		}
	}
}
