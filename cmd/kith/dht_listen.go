package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kith-im/kith/dht"
)

type dhtListenCmd struct {
	Key keyArg `arg:"" help:"40 hex digits, or a text that is hashed."`
	clientFlags
	filterFlags
	identityFlag
	For   time.Duration `placeholder:"TIME" help:"End after this time (default: Ctrl-C ends it)."`
	Count int           `placeholder:"N" help:"End after this many events."`
}

// Help implements kong.HelpProvider.
func (*dhtListenCmd) Help() string {
	return "Values that exist come first. It ends with exit code 0 by --for, --count, Ctrl-C or SIGTERM.\n\n" +
		"With --json, each event is a line {\"event\",\"id\",\"type\",\"data\",…}: event is added or expired, the rest is as in kith dht get.\n\n" +
		"Examples:\n\n" +
		"  kith dht listen greeting --bootstrap 127.0.0.1:4222\n" +
		"  kith dht listen greeting --bootstrap 127.0.0.1:4222 --count 1 --for 1m --json"
}

// Run executes the command.
func (c *dhtListenCmd) Run(ctx context.Context, app *App) error {
	if c.For < 0 || c.Count < 0 {
		return Fail(KindUsage, errors.New("--for and --count are not negative"), "leave them out to listen for ever")
	}
	c.Key.note(app)
	query, err := c.query()
	if err != nil {
		return err
	}
	id, err := c.load()
	if err != nil {
		return err
	}
	err = c.join(ctx, app, func(ctx context.Context, node *dht.Node) error {
		outer := ctx
		if c.For > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, c.For)
			defer cancel()
		}
		seen := 0
		for e, err := range dht.NewSecure(node, id).Listen(ctx, c.Key.Key, query) {
			if err != nil && ctx.Err() != nil && outer.Err() == nil {
				return nil // its time is over
			}
			if err != nil {
				return fmt.Errorf("listen at %v: %w", c.Key.Key, err)
			}
			d := newEventDoc(e)
			if err := app.Print(d, d.String()); err != nil {
				return err
			}
			if seen++; seen == c.Count {
				return nil
			}
		}
		return nil
	})
	if ctx.Err() != nil {
		return nil // the way to end it
	}
	return err
}

func newEventDoc(e dht.Event) valueDoc {
	if e.Expired {
		return newValueDoc("expired", e.Value)
	}
	return newValueDoc("added", e.Value)
}
