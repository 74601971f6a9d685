package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
)

// promptTimeout bounds a request of the prompt.
const promptTimeout = 30 * time.Second

// maxPromptLine bounds a command, in bytes: the largest value, and its key.
const maxPromptLine = wire.MaxValueSize + 4<<10

const promptHelp = `h, help                 this text
x, q, quit, exit        end the node
ll, info                the state of the node
ping HOST:PORT          ask whether a node answers
b, bootstrap HOST:PORT  join by a node
g, get KEY [FILTER]     print the values under a key
p, put KEY TEXT         store a text
s, sign KEY TEXT        store a text that we sign
e, encrypt KEY ID TEXT  store a text that only the owner of the key ID can read
l, listen KEY [FILTER]  print the values under a key, and those to come
cl, cancel NUMBER       end a listen
A KEY is 40 hex digits or a word that is hashed; a FILTER is like user_type=text/plain.
`

// prompt takes commands from standard input, as dhtnode does. One after the other
// is carried out; listens go on beside them. It ends with the input.
type prompt struct {
	app    *App
	node   *dht.Node
	secure *dht.Secure

	listens sync.WaitGroup
	cancels map[int]context.CancelFunc // by number, which are given in order
	given   int
}

// errQuit ends the prompt.
var errQuit = errors.New("quit")

// run returns at the end of the input, at quit, or when ctx ends. The goroutine
// that reads cannot be woken: it ends with the input, or with the program.
func (p *prompt) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer p.listens.Wait()
	defer cancel()
	p.cancels = make(map[int]context.CancelFunc)
	lines := make(chan string)
	readErr := make(chan error, 1)
	go func() {
		defer close(lines)
		scan := bufio.NewScanner(p.app.Stdin)
		scan.Buffer(make([]byte, 0, 4<<10), maxPromptLine)
		for scan.Scan() {
			select {
			case lines <- scan.Text():
			case <-ctx.Done():
				return
			}
		}
		readErr <- scan.Err()
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				if err := <-readErr; err != nil {
					return fmt.Errorf("read commands: %w", err)
				}
				return nil
			}
			switch err := p.do(ctx, line); {
			case errors.Is(err, errQuit), ctx.Err() != nil:
				return nil
			case err != nil:
				report(p.app.Stderr, err, p.app.JSON)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// do carries out one line.
func (p *prompt) do(ctx context.Context, line string) error {
	verb, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	rest = strings.TrimSpace(rest)
	if verb == "l" || verb == "listen" {
		return p.listen(ctx, rest)
	}
	ctx, cancel := context.WithTimeout(ctx, promptTimeout)
	defer cancel()
	switch verb {
	case "":
		return nil
	case "h", "help":
		return p.app.Print(map[string]string{"help": promptHelp}, promptHelp)
	case "x", "q", "quit", "exit":
		return errQuit
	case "ll", "info":
		info, err := p.node.Info(ctx)
		if err != nil {
			return err
		}
		return p.app.Print(info, infoText(info))
	case "ping":
		info, err := p.node.Info(ctx)
		if err != nil {
			return err
		}
		doc, err := ping(ctx, p.app, p.node, info.Network, rest)
		if err != nil {
			return err
		}
		return p.app.Print(doc, doc.String()+"\n")
	case "b", "bootstrap":
		return p.node.Bootstrap(ctx, rest)
	case "g", "get":
		return p.get(ctx, rest)
	case "p", "put", "s", "sign", "e", "encrypt":
		return p.put(ctx, verb[:1], rest)
	case "cl", "cancel":
		return p.cancel(rest)
	}
	return Fail(KindUsage, fmt.Errorf("no command %.80q", verb), "h lists them")
}

// target reads "KEY [FILTER]".
func target(text string) (dht.Key, dht.Query, error) {
	word, filter, _ := strings.Cut(text, " ")
	key, err := dht.ParseKey(word)
	if err != nil {
		return key, dht.Query{}, Fail(KindUsage, err, "h lists the commands")
	}
	q, err := (&filterFlags{Where: filter}).query()
	return key, q, err
}

func (p *prompt) get(ctx context.Context, text string) error {
	key, q, err := target(text)
	if err != nil {
		return err
	}
	for v, err := range p.secure.Get(ctx, key, q) {
		if err != nil {
			return fmt.Errorf("get %v: %w", key, err)
		}
		d := newValueDoc("", v)
		if err := p.app.Print(d, d.String()); err != nil {
			return err
		}
	}
	return p.app.Print(map[string]dht.Key{"done": key}, fmt.Sprintf("that is all under %v\n", key))
}

func (p *prompt) put(ctx context.Context, verb, text string) error {
	word, text, _ := strings.Cut(text, " ")
	c := dhtPutCmd{Sign: verb == "s"}
	if err := c.Key.UnmarshalText([]byte(word)); err != nil {
		return Fail(KindUsage, err, "h lists the commands")
	}
	if verb == "e" {
		c.EncryptTo, text, _ = strings.Cut(strings.TrimSpace(text), " ")
	}
	if verb != "p" && p.secure.KeyID().IsZero() {
		return Fail(KindUsage, errors.New("this node has no identity to sign with"), "start it with --identity")
	}
	c.Timeout = promptTimeout
	c.Key.note(p.app)
	doc, err := c.put(ctx, p.secure, &dht.Value{Data: []byte(text), UserType: textType})
	if errors.Is(err, dht.ErrNoNodes) && doc.ID != 0 {
		err = nil // this node serves it to those who come
	}
	if err != nil {
		return err
	}
	return p.app.Print(doc, doc.String())
}

// maxPromptListens bounds the listens of a prompt.
const maxPromptListens = 1000

func (p *prompt) listen(ctx context.Context, text string) error {
	key, q, err := target(text)
	if err != nil {
		return err
	}
	if len(p.cancels) >= maxPromptListens {
		return Fail(KindUsage, fmt.Errorf("there are %d listens already", maxPromptListens), "cancel one with cl NUMBER")
	}
	ctx, cancel := context.WithCancel(ctx)
	p.given++
	number := p.given
	p.cancels[number] = cancel
	p.listens.Go(func() {
		for e, err := range p.secure.Listen(ctx, key, q) {
			if err == nil {
				d := newEventDoc(e)
				err = p.app.Print(d, d.String())
			}
			if err != nil && ctx.Err() == nil {
				report(p.app.Stderr, fmt.Errorf("listen at %v: %w", key, err), p.app.JSON)
				return
			}
		}
	})
	return p.app.Print(map[string]any{"listen": number, "key": key}, fmt.Sprintf("listen %d at %v\n", number, key))
}

func (p *prompt) cancel(text string) error {
	number, err := strconv.Atoi(text)
	cancel := p.cancels[number]
	if err != nil || cancel == nil {
		return Fail(KindUsage, fmt.Errorf("no listen %.80q", text), "l KEY says the number of a listen")
	}
	cancel()
	delete(p.cancels, number)
	return nil
}
