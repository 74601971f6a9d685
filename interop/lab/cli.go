//go:build linux

package lab

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// DhtnodeCLI drives a dhtnode by its interactive commands. It does what the
// Python bindings cannot: signed, encrypted and permanent puts, and the roles of
// proxy server and proxy client (see [NodeConfig]; the command `stt`, which should
// make a running node a proxy client, ignores its address in 2.4.12). Its figures of time are dhtnode's own texts and
// not read here. Methods are for one goroutine.
type DhtnodeCLI struct {
	*Node
	// KeyID is the id of the node's public key, 40 hex digits; empty without identity.
	KeyID string

	out *lineBuffer
}

// StartCLI starts a dhtnode to be driven.
func (l *Lab) StartCLI(ctx context.Context, c NodeConfig) (*DhtnodeCLI, error) {
	out := newLineBuffer()
	n, err := l.startNode(ctx, Dhtnode{}, c, out)
	if err != nil {
		return nil, err
	}
	d := &DhtnodeCLI{Node: n, out: out}
	if c.Identity {
		m, err := d.wait(ctx, 0, regexp.MustCompile(`Public key ID ([0-9a-f]{40})`))
		if err != nil {
			n.Kill()
			return nil, err
		}
		d.KeyID = m[1]
	}
	return d, nil
}

// CLIValue is a value as dhtnode prints it.
type CLIValue struct {
	ID        uint64
	Signed    bool   // carries an owner's signature, which dhtnode has checked
	Encrypted bool   // still is, or was when it came: see Data
	Text      string // the whole line
	Data      string // text as it is, anything else in hex; empty if it can't be read
}

var (
	valueLine = regexp.MustCompile(`Value\[id:([0-9a-f]+) (.*)\]$`)
	textData  = regexp.MustCompile(`data\([^)]*\):"(.*)"`)
	hexData   = regexp.MustCompile(`data(?:\([^)]*\))?:([0-9a-f]+)`)
)

// parseValue reads a line such as: Value[id:2a signed (v0) data(text/plain):"hi"]
func parseValue(line string) (CLIValue, bool) {
	m := valueLine.FindStringSubmatch(line)
	if m == nil {
		return CLIValue{}, false
	}
	id, err := strconv.ParseUint(m[1], 16, 64)
	if err != nil {
		return CLIValue{}, false
	}
	v := CLIValue{ID: id, Text: m[0]}
	v.Signed = strings.Contains(m[2], "signed")
	v.Encrypted = strings.Contains(m[2], "crypted")
	if d := textData.FindStringSubmatch(m[2]); d != nil {
		v.Data = d[1]
	} else if d := hexData.FindStringSubmatch(m[2]); d != nil {
		v.Data = d[1]
	}
	return v, true
}

// Do sends a command line and waits for a line of output that matches. It
// returns the submatches and where in the output that line stands.
func (d *DhtnodeCLI) Do(ctx context.Context, command, until string) ([]string, int, error) {
	re, err := regexp.Compile(until)
	if err != nil {
		return nil, 0, err
	}
	from := d.out.len()
	if strings.ContainsAny(command, "\r\n") {
		return nil, from, fmt.Errorf("dhtnode command of several lines: %q", command)
	}
	if _, err := fmt.Fprintln(d.Stdin, command); err != nil {
		return nil, from, fmt.Errorf("dhtnode %q: %w", command, err)
	}
	m, err := d.wait(ctx, from, re)
	if err != nil {
		return nil, from, fmt.Errorf("dhtnode %q: %w", command, err)
	}
	return m, from, nil
}

func (d *DhtnodeCLI) wait(ctx context.Context, from int, re *regexp.Regexp) ([]string, error) {
	for {
		lines, changed := d.out.since(from)
		for _, line := range lines {
			if m := re.FindStringSubmatch(line); m != nil {
				return m, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no line like %q: %w; its log ends:\n%s", re, ctx.Err(), d.Tail())
		case <-d.Done():
			return nil, fmt.Errorf("no line like %q: dhtnode has ended: %v", re, d.Err())
		}
	}
}

// Put stores text and returns the value's id. A key is 40 hex digits, or text
// that dhtnode hashes. Keys and texts are single words here and everywhere:
// dhtnode drops what follows a space.
func (d *DhtnodeCLI) Put(ctx context.Context, key, text string) (uint64, error) {
	return d.put(ctx, "p", key, text)
}

// PutPermanent stores text and keeps it alive until CancelPut.
func (d *DhtnodeCLI) PutPermanent(ctx context.Context, key, text string) (uint64, error) {
	return d.put(ctx, "pp", key, text)
}

func (d *DhtnodeCLI) put(ctx context.Context, command, key, text string) (uint64, error) {
	m, _, err := d.Do(ctx, command+" "+key+" "+text, `Put: (success|failure).*Value ID: ([0-9a-f]+)`)
	if err != nil {
		return 0, err
	}
	if m[1] != "success" {
		return 0, fmt.Errorf("dhtnode could not put at %s", key)
	}
	return strconv.ParseUint(m[2], 16, 64)
}

// CancelPut ends a permanent put.
func (d *DhtnodeCLI) CancelPut(key string, id uint64) error {
	_, err := fmt.Fprintf(d.Stdin, "cpp %s %x\n", key, id)
	return err
}

// PutSigned stores text signed with the node's key.
func (d *DhtnodeCLI) PutSigned(ctx context.Context, key, text string) error {
	return d.putSecure(ctx, "s "+key+" "+text, `Put signed: (success|failure)`)
}

// PutEncrypted stores text encrypted for the holder of the key id dest, whose
// certificate dhtnode looks up first.
func (d *DhtnodeCLI) PutEncrypted(ctx context.Context, key, dest, text string) error {
	return d.putSecure(ctx, "e "+key+" "+dest+" "+text, `Put encrypted: (success|failure)`)
}

func (d *DhtnodeCLI) putSecure(ctx context.Context, command, until string) error {
	m, _, err := d.Do(ctx, command, until)
	if err != nil {
		return err
	}
	if m[1] != "success" {
		return fmt.Errorf("dhtnode %q: it reports failure", command)
	}
	return nil
}

// Get returns the values under key.
func (d *DhtnodeCLI) Get(ctx context.Context, key string) ([]CLIValue, error) {
	m, from, err := d.Do(ctx, "g "+key, `Get: (completed|failure)`)
	if err != nil {
		return nil, err
	}
	if m[1] != "completed" {
		return nil, fmt.Errorf("dhtnode could not get %s", key)
	}
	return d.Values(from), nil
}

// Listen subscribes to key. Values that come are printed, and so found by
// WaitValue from the returned mark on.
func (d *DhtnodeCLI) Listen(ctx context.Context, key string) (mark int, err error) {
	_, mark, err = d.Do(ctx, "l "+key, `Listening, token: \d+`)
	return mark, err
}

// Values are the values printed since a mark.
func (d *DhtnodeCLI) Values(mark int) []CLIValue {
	var out []CLIValue
	lines, _ := d.out.since(mark)
	for _, line := range lines {
		if v, ok := parseValue(line); ok {
			out = append(out, v)
		}
	}
	return out
}

// WaitValue waits until a value with the given data is printed after a mark.
func (d *DhtnodeCLI) WaitValue(ctx context.Context, mark int, data string) (CLIValue, error) {
	m, err := d.wait(ctx, mark, regexp.MustCompile(`.*Value\[id:.*`+regexp.QuoteMeta(data)+`.*\]$`))
	if err != nil {
		return CLIValue{}, err
	}
	v, ok := parseValue(m[0])
	if !ok {
		return CLIValue{}, fmt.Errorf("dhtnode printed a value that the lab can't read: %q", m[0])
	}
	return v, nil
}

// sync waits until dhtnode has read all commands so far.
func (d *DhtnodeCLI) sync(ctx context.Context) error {
	_, _, err := d.Do(ctx, "h", `OpenDHT command line interface`)
	return err
}

// ConnectivityChanged tells the node that its network may have changed.
func (d *DhtnodeCLI) ConnectivityChanged(ctx context.Context) error {
	if _, err := fmt.Fprintln(d.Stdin, "cc"); err != nil {
		return fmt.Errorf("dhtnode: connectivity changed: %w", err)
	}
	return d.sync(ctx)
}

// maxLines bounds what is kept of a node's output.
const maxLines = 100_000

// lineBuffer keeps the lines written to it and wakes those who wait for more.
type lineBuffer struct {
	mu      sync.Mutex
	lines   []string
	rest    string
	changed chan struct{} // closed and replaced at each new line
}

func newLineBuffer() *lineBuffer { return &lineBuffer{changed: make(chan struct{})} }

// Write implements io.Writer; it never fails.
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rest += string(p)
	for {
		line, rest, ok := strings.Cut(b.rest, "\n")
		if !ok {
			break
		}
		b.rest = rest
		if len(b.lines) < maxLines {
			for strings.HasPrefix(line, ">> ") { // the prompt has no line of its own
				line = line[3:]
			}
			b.lines = append(b.lines, strings.TrimRight(line, "\r"))
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
	return len(p), nil
}

func (b *lineBuffer) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// since gives the lines from an index on, and a channel that closes at the next.
func (b *lineBuffer) since(from int) ([]string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lines[min(from, len(b.lines)):], b.changed
}
