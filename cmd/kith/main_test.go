package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/internal/netx"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kith": main})
}

// noExitSleep in GORACE keeps programs with the race detector from sleeping for a
// second each before they end.
const noExitSleep = "atexit_sleep_ms=0"

// TestScripts runs testdata/*.txtar, in which kith is this program, and KEYS is a
// folder of throwaway identities.
func TestScripts(t *testing.T) {
	keys, err := filepath.Abs("../../identity/identitytest/testdata")
	if err != nil {
		t.Fatal(err)
	}
	type own struct{} // the key of a script's programs
	command := func(f func(p processes, ts *testscript.TestScript, name string, args ...string)) func(*testscript.TestScript, bool, []string) {
		return func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 {
				ts.Fatalf("a name is missing, or ! is too much")
			}
			f(ts.Value(own{}).(processes), ts, args[0], args[1:]...)
		}
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[own{}] = make(processes)
			env.Setenv("KEYS", keys)
			env.Setenv("GORACE", noExitSleep)
			env.Setenv("KITH_HOME", filepath.Join(env.WorkDir, "home"))
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "ipv6" {
				return false, fmt.Errorf("no condition %s", name)
			}
			c, err := net.ListenPacket("udp6", "[::1]:0")
			if err != nil {
				return false, nil
			}
			return true, c.Close()
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start":     command(func(p processes, ts *testscript.TestScript, name string, args ...string) { p.start(ts, name, args...) }),
			"serve":     command(processes.serve),
			"interrupt": command(processes.interrupt),
			"url":       url,
			"expand": func(ts *testscript.TestScript, _ bool, args []string) { // puts variables into a file
				text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
			},
		},
	})
}

func kith(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs,
		Getenv: func(string) string { return "" },
	}, args)
	return code, out.String(), errs.String()
}

func TestCommandsRunInProcess(t *testing.T) {
	code, out, errs := kith(t, "version")
	if code != 0 || !strings.HasPrefix(out, "kith ") || errs != "" {
		t.Errorf("exit code %d, output %q, %q", code, out, errs)
	}
}

// TestEveryCommandHasHelp walks the command tree, so that a new command cannot
// come without an example, and no flag without an explanation.
func TestEveryCommandHasHelp(t *testing.T) {
	parser, err := kong.New(new(grammar), kong.Name("kith"), kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	leaves := parser.Model.Leaves(false)
	if len(leaves) == 0 {
		t.Fatal("no commands")
	}
	for _, leaf := range leaves {
		if leaf.Help == "" || !strings.Contains(leaf.Detail, "Example") || !strings.Contains(leaf.Detail, "\n  kith ") {
			t.Errorf("%s: no help, or no example in it", leaf.FullPath())
		}
		for _, group := range leaf.AllFlags(false) {
			for _, flag := range group {
				if flag.Help == "" {
					t.Errorf("%s: --%s has no help", leaf.FullPath(), flag.Name)
				}
			}
		}
		args := append(strings.Fields(strings.TrimPrefix(leaf.Path(), " ")), "--help")
		code, out, errs := kith(t, args...)
		if code != 0 || errs != "" || !strings.Contains(out, "Example") {
			t.Errorf("kith %v: exit code %d, output %q, %q", args, code, out, errs)
		}
	}
}

// TestDocumentedCommandsParse takes the commands in README.md and in the help texts,
// so that none is documented that does not exist.
func TestDocumentedCommandsParse(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(new(grammar), kong.Name("kith"))
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(readme)}
	for _, leaf := range parser.Model.Leaves(false) {
		texts = append(texts, leaf.Detail)
	}
	command := regexp.MustCompile(`(?m)^\s*(?:[a-z]+ \| )?kith (.+?)(?: [>|] .*)?$`)
	found := 0
	for _, m := range command.FindAllStringSubmatch(strings.Join(texts, "\n"), -1) {
		found++
		parser, err := kong.New(new(grammar), kong.Name("kith"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(strings.Fields(m[1])); err != nil {
			t.Errorf("kith %s: %v", m[1], err)
		}
	}
	if found < 10 {
		t.Errorf("%d commands found", found)
	}
}

// TestInterruptedWhileReading has a put that waits for input that does not come.
func TestInterruptedWhileReading(t *testing.T) {
	in, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := Main(ctx, Env{Stdin: in, Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }},
		[]string{"dht", "put", "k", "-b", "127.0.0.1:1"})
	if code != 130 || errs.String() != "kith: interrupted\n" {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

// TestNoSuchHost asks for a name that no lookup finds: the error comes at once.
func TestNoSuchHost(t *testing.T) {
	var out, errs bytes.Buffer
	code := Main(t.Context(), Env{Stdout: &out, Stderr: &errs, Net: nameless{}, Getenv: func(string) string { return "" }},
		[]string{"dht", "get", "k", "-b", "nowhere.invalid", "--timeout", "1h"})
	if code != 4 || !strings.Contains(errs.String(), "no such host; check the name") {
		t.Errorf("exit code %d, %q", code, errs.String())
	}
}

// nameless is a network without names.
type nameless struct{ netx.Network }

func (nameless) Lookup(_ context.Context, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func TestJoined(t *testing.T) {
	addrs := []netip.AddrPort{netip.MustParseAddrPort("[::]:1"), netip.MustParseAddrPort("[::1]:2")}
	if got := joined(addrs); got != "[::]:1 and [::1]:2" {
		t.Errorf("got %s", got)
	}
}

func TestHints(t *testing.T) {
	full := &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}
	for _, c := range []struct {
		err  error
		kind Kind
		hint string
	}{
		{cannotBind(&net.OpError{Op: "listen", Err: syscall.EACCES}, "--port", "--bind"), KindDenied, "a greater one with --port"},
		{cannotBind(&net.OpError{Op: "listen", Err: syscall.EADDRINUSE}, "--port", "--bind"), KindUnavailable, "--port or --bind"},
		{cannotBind(&net.OpError{Op: "listen", Err: syscall.EADDRNOTAVAIL}, "--port", "--bind"), KindUnavailable, "choose another with --bind"},
		{fileFailure(fmt.Errorf("save: %w", full)), KindUnavailable, "make room"},
		{fileFailure(&fs.PathError{Op: "open", Path: "x", Err: syscall.EROFS}), KindDenied, "can be written to"},
		{&fs.PathError{Op: "read", Path: "x", Err: syscall.EISDIR}, KindUsage, ""},
	} {
		if kindOf(c.err) != c.kind || !strings.Contains(c.err.Error(), c.hint) {
			t.Errorf("%v is %s, want %s and %q", c.err, kindOf(c.err), c.kind, c.hint)
		}
	}
	if fileFailure(nil) != nil {
		t.Error("nothing failed")
	}
}

func TestErrorKinds(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: errors.New("refused")}
	for _, c := range []struct {
		err  error
		kind Kind
		code int
	}{
		{errors.New("x"), KindInternal, 1},
		{Fail(KindNotFound, errors.New("x"), "y"), KindNotFound, 3},
		{fmt.Errorf("open: %w", fs.ErrNotExist), KindNotFound, 3},
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, KindNotFound, 3},
		{fmt.Errorf("look up: %w", &net.DNSError{Err: "no such host"}), KindUnavailable, 4},
		{fmt.Errorf("get: %w", dht.ErrNoNodes), KindUnavailable, 4},
		{fmt.Errorf("put: %w", dht.ErrRefused), KindDenied, 6},
		{fmt.Errorf("dial: %w", refused), KindUnavailable, 4},
		{fmt.Errorf("get: %w", context.DeadlineExceeded), KindTimeout, 5},
		{&net.OpError{Op: "read", Err: context.DeadlineExceeded}, KindTimeout, 5},
		{&net.OpError{Op: "listen", Err: fs.ErrPermission}, KindDenied, 6},
		{fmt.Errorf("serve: %w", context.Canceled), KindInterrupted, 130},
	} {
		if kind := kindOf(c.err); kind != c.kind || kind.ExitCode() != c.code {
			t.Errorf("%v is %s with exit code %d, want %s with %d", c.err, kind, kind.ExitCode(), c.kind, c.code)
		}
	}
}

func TestHomeDir(t *testing.T) {
	unix := map[string]string{"HOME": "/home/a"}
	for _, c := range []struct {
		flag, goos string
		env        map[string]string
		want       string
	}{
		{"", "linux", unix, "/home/a/.local/share/kith"},
		{"", "linux", map[string]string{"HOME": "/home/a", "XDG_DATA_HOME": "/d"}, "/d/kith"},
		{"", "linux", map[string]string{"HOME": "/home/a", "XDG_DATA_HOME": "d"}, "/home/a/.local/share/kith"},
		{"", "darwin", unix, "/home/a/Library/Application Support/kith"},
		{"", "windows", map[string]string{"LocalAppData": "/c/local"}, "/c/local/kith"},
		{"", "linux", map[string]string{"KITH_HOME": "/k/", "HOME": "/home/a"}, "/k"},
		{"x/../y", "linux", map[string]string{"KITH_HOME": "/k"}, "y"},
		{"", "linux", nil, ""},
		{"", "windows", unix, ""},
	} {
		app := &App{Env: Env{Getenv: func(name string) string { return c.env[name] }}, Globals: Globals{Home: c.flag}}
		got, err := app.HomeDir(c.goos)
		if got != filepath.FromSlash(c.want) || (err != nil) != (c.want == "") {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
		if err != nil && kindOf(err) != KindUsage {
			t.Errorf("%+v: error of kind %s", c, kindOf(err))
		}
	}
}
