package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// backstop ends what hangs; nothing that passes waits for it.
const backstop = time.Minute

// processes are the programs that a script started and that go on running, by name.
// The command serve starts a server, start any command, and interrupt ends them.
type processes map[string]*background

// background is a kith that a script started.
type background struct {
	cmd    *exec.Cmd
	stdout *bufio.Reader
	stderr strings.Builder
}

// start runs kith and waits for its first line, which goes to NAME.line as well:
// "start NAME ARGS…".
func (p processes) start(ts *testscript.TestScript, name string, args ...string) (line string) {
	cmd := exec.Command("kith", args...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "KITH_HOME="+ts.Getenv("KITH_HOME"), "GORACE="+noExitSleep)
	b := &background{cmd: cmd}
	cmd.Stderr = &b.stderr
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			ts.Logf("log of %s:\n%s", name, b.stderr.String())
		}
	})
	watch := time.AfterFunc(backstop, func() { _ = cmd.Process.Kill() })
	defer watch.Stop()
	b.stdout = bufio.NewReader(out)
	if line, err = b.stdout.ReadString('\n'); err != nil {
		_ = cmd.Wait()
		ts.Fatalf("%s ended before it was ready: %s", name, b.stderr.String())
	}
	p[name] = b
	ts.Check(os.WriteFile(ts.MkAbs(name+".line"), []byte(line), 0o600))
	return line
}

// serve runs kith serve dht on loopback: "serve NAME [ARGS…]". Once its ready line
// is there, NAME is its address, and NAME_node, NAME_key_id, NAME_http, NAME_proxy
// and NAME_proxy_tls are what the line says.
func (p processes) serve(ts *testscript.TestScript, name string, args ...string) {
	line := p.start(ts, name, append([]string{"serve", "dht", "--json", "--bind", "127.0.0.1", "--port", "0"}, args...)...)
	var doc struct {
		Ready    bool     `json:"ready"`
		Node     string   `json:"node"`
		KeyID    string   `json:"key_id"`
		Addrs    []string `json:"addrs"`
		HTTP     string   `json:"http"`
		Proxy    []string `json:"proxy"`
		ProxyTLS []string `json:"proxy_tls"`
	}
	ts.Check(json.Unmarshal([]byte(line), &doc))
	if !doc.Ready || len(doc.Node) != 40 || len(doc.Addrs) != 1 {
		ts.Fatalf("%s is not ready: %s", name, line)
	}
	for key, value := range map[string]string{
		"": doc.Addrs[0], "_node": doc.Node, "_key_id": doc.KeyID, "_http": doc.HTTP,
		"_proxy": strings.Join(doc.Proxy, " "), "_proxy_tls": strings.Join(doc.ProxyTLS, " "),
	} {
		ts.Setenv(name+key, value)
	}
}

// interrupt ends a program by SIGINT, which it must obey with exit code 0, and
// writes the rest of what it printed and logged to NAME.log: "interrupt NAME".
func (p processes) interrupt(ts *testscript.TestScript, name string, _ ...string) {
	b := p[name]
	if b == nil {
		ts.Fatalf("%s does not run", name)
	}
	delete(p, name)
	watch := time.AfterFunc(backstop, func() { _ = b.cmd.Process.Kill() })
	defer watch.Stop()
	ts.Check(b.cmd.Process.Signal(os.Interrupt))
	rest, err := io.ReadAll(b.stdout)
	ts.Check(err)
	if err := b.cmd.Wait(); err != nil {
		ts.Fatalf("%s ended with %v: %s", name, err, b.stderr.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs(name+".log"), []byte(string(rest)+b.stderr.String()), 0o600))
}

// url writes what a URL answers to a file, status first: "url FILE METHOD URL [BODY]".
func url(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: url FILE METHOD URL [BODY]")
	}
	// The certificate of a node names no host.
	client := http.Client{Timeout: backstop, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequest(args[1], args[2], strings.NewReader(strings.Join(args[3:], " ")))
	ts.Check(err)
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(resp.Status+"\n"+string(body)), 0o600))
}
