package main

import (
	"context"
	"fmt"

	"github.com/kith-im/kith/dht"
)

type dhtGetCmd struct {
	Key keyArg `arg:"" help:"40 hex digits, or a text that is hashed."`
	clientFlags
	filterFlags
	identityFlag
}

// Help implements kong.HelpProvider.
func (*dhtGetCmd) Help() string {
	return "Values whose signature is wrong are left out, and so are encrypted ones, unless --identity opens them. " +
		"Finding nothing is no failure.\n\n" +
		"With --json, each value is a line {\"id\",\"type\",\"data\",\"data_base64\",…}: data is the text, or null where the bytes " +
		"are not UTF-8; user_type, owner and seq (of signed values) and to (of encrypted ones) are there when the value has them.\n\n" +
		"Examples:\n\n" +
		"  kith dht get greeting --bootstrap 127.0.0.1:4222\n" +
		"  kith dht get greeting --bootstrap 127.0.0.1:4222 --where user_type=text/plain --json"
}

// Run executes the command.
func (c *dhtGetCmd) Run(ctx context.Context, app *App) error {
	c.Key.note(app)
	query, err := c.query()
	if err != nil {
		return err
	}
	id, err := c.load()
	if err != nil {
		return err
	}
	return c.join(ctx, app, func(ctx context.Context, node *dht.Node) error {
		ctx, cancel := c.deadline(ctx)
		defer cancel()
		found := 0
		for v, err := range dht.NewSecure(node, id).Get(ctx, c.Key.Key, query) {
			if err != nil {
				return fmt.Errorf("get %v: %w", c.Key.Key, err)
			}
			d := newValueDoc("", v)
			if err := app.Print(d, d.String()); err != nil {
				return err
			}
			found++
		}
		if found == 0 {
			app.Note("no values under %v", c.Key.Key)
		}
		return nil
	})
}
