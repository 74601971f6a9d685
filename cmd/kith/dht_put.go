package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/dht/wire"
	"github.com/kith-im/kith/identity"
)

// textType is the user type by which tools of OpenDHT know text.
const textType = "text/plain"

type dhtPutCmd struct {
	Key keyArg `arg:"" help:"40 hex digits, or a text that is hashed."`
	clientFlags
	Text      *string `xor:"content" placeholder:"T" help:"Store this text."`
	File      string  `xor:"content" placeholder:"FILE" help:"Store the bytes of this file (default: standard input)."`
	ID        valueID `name:"id" placeholder:"HEX" help:"Id of the value (default: a random one)."`
	Type      uint16  `default:"0" placeholder:"N" help:"Type of the value, which decides how long it lives: 0 for ten minutes."`
	UserType  *string `placeholder:"T" help:"User type (default: text/plain with --text, as dhtnode has it, else none)."`
	Permanent bool    `help:"Keep the value alive, until Ctrl-C."`
	Sign      bool    `help:"Sign the value."`
	EncryptTo string  `placeholder:"KEYID" help:"Sign the value and encrypt it to the key with this id (40 or 64 hex digits), which must be in the DHT."`
	identityFlag
}

// Help implements kong.HelpProvider.
func (*dhtPutCmd) Help() string {
	return "The value is at most 64 KiB. --sign and --encrypt-to use the identity in the node's folder (see --home), " +
		"which is made if there is none, unless --identity names another. Signing again under the same key and --id makes a new version.\n\n" +
		"With --json it prints {\"key\",\"id\",\"acknowledged\":true}, and owner, the key id of a signed value, once nodes have it. " +
		"With --permanent it then keeps running; Ctrl-C and SIGTERM end it with exit code 0.\n\n" +
		"Examples:\n\n" +
		"  kith dht put greeting --text hello --bootstrap 127.0.0.1:4222\n" +
		"  date | kith dht put now --user-type text/plain --permanent --bootstrap 127.0.0.1:4222\n" +
		"  kith dht put greeting --text hello --sign --id 2a --bootstrap 127.0.0.1:4222"
}

// putDoc is the result of kith dht put.
type putDoc struct {
	Key          dht.Key `json:"key"`
	ID           valueID `json:"id"`
	Owner        string  `json:"owner,omitempty"`
	Acknowledged bool    `json:"acknowledged"`
}

// String returns one line for people.
func (d putDoc) String() string {
	text := fmt.Sprintf("stored %v under %v", d.ID, d.Key)
	if d.Owner != "" {
		text += ", signed by " + d.Owner
	}
	if !d.Acknowledged {
		text += "; stored here only: no other node yet"
	}
	return text + "\n"
}

// Run executes the command.
func (c *dhtPutCmd) Run(ctx context.Context, app *App) error {
	if c.EncryptTo != "" && !isKeyID(c.EncryptTo) {
		return notKeyID(c.EncryptTo)
	}
	c.Key.note(app)
	data, err := c.content(ctx, app)
	if err != nil {
		return err
	}
	v := &dht.Value{ID: dht.ValueID(c.ID), Type: dht.TypeID(c.Type), Data: data}
	if c.Text != nil {
		v.UserType = textType
	}
	if c.UserType != nil {
		v.UserType = *c.UserType
	}
	if v.Size() > wire.MaxValueSize {
		return Fail(KindUsage, fmt.Errorf("the value has more than %d bytes", wire.MaxValueSize), "store less")
	}
	id, err := c.load()
	if err == nil && id == nil && (c.Sign || c.EncryptTo != "") {
		id, err = app.homeIdentity(c.PrivkeyPasswordFile, identity.Options{})
	}
	if err != nil {
		return err
	}
	return c.join(ctx, app, func(joined context.Context, node *dht.Node) error {
		doc, err := c.put(joined, dht.NewSecure(node, id), v)
		if err != nil {
			return err
		}
		if err := app.Print(doc, doc.String()); err != nil {
			return err
		}
		if c.Permanent {
			<-joined.Done()
			if ctx.Err() == nil {
				return dht.ErrClosed // the node's own error says more
			}
		}
		return nil
	})
}

// put returns with [dht.ErrNoNodes] what only this node has, if it has an id.
func (c *dhtPutCmd) put(ctx context.Context, s *dht.Secure, v *dht.Value) (putDoc, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	to, err := recipient(ctx, s, c.EncryptTo)
	if err != nil {
		return putDoc{}, err
	}
	key := c.Key.Key
	switch {
	case to != nil && c.Permanent:
		_, err = s.PublishEncrypted(ctx, key, to, v)
	case to != nil:
		err = s.PutEncrypted(ctx, key, to, v)
	case c.Sign && c.Permanent:
		_, err = s.PublishSigned(ctx, key, v)
	case c.Sign:
		err = s.PutSigned(ctx, key, v)
	case c.Permanent:
		_, err = s.Publish(ctx, key, v)
	default:
		err = s.Put(ctx, key, v)
	}
	doc := putDoc{Key: key, ID: valueID(v.ID), Acknowledged: err == nil}
	if v.Signed() {
		doc.Owner = v.OwnerID().String()
	}
	return doc, refused(err)
}

// refused says what to do about a value that the network does not take.
func refused(err error) error {
	if errors.Is(err, dht.ErrRefused) {
		return Fail(KindDenied, err, "another value may have that id, or the type may have rules: choose another --id or --type")
	}
	return err
}

// recipient looks for the key with a short or long id; "" gives none.
func recipient(ctx context.Context, s *dht.Secure, text string) (*identity.PublicKey, error) {
	if text == "" {
		return nil, nil
	}
	var cert *identity.Certificate
	if short, err := identity.ParseKeyID(text); err == nil {
		cert, err = s.FindCertificate(ctx, short)
		if err != nil {
			return nil, notPublished(err)
		}
	} else if long, err := identity.ParseLongKeyID(text); err == nil {
		cert, err = s.FindCertificateLong(ctx, long)
		if err != nil {
			return nil, notPublished(err)
		}
	} else {
		return nil, notKeyID(text)
	}
	return cert.PublicKey(), nil
}

func isKeyID(text string) bool {
	_, short := identity.ParseKeyID(text)
	_, long := identity.ParseLongKeyID(text)
	return short == nil || long == nil
}

func notKeyID(text string) error {
	return Fail(KindUsage, fmt.Errorf("%.80q is no key id", text), "write 40 or 64 hex digits")
}

func notPublished(err error) error {
	if errors.Is(err, dht.ErrNoCertificate) {
		return Fail(KindNotFound, err, "its owner's node has to run, with an identity")
	}
	return err
}

// content reads what is to be stored, and a byte more than a value may have.
func (c *dhtPutCmd) content(ctx context.Context, app *App) ([]byte, error) {
	switch {
	case c.Text != nil:
		return []byte(*c.Text), nil
	case c.File != "":
		f, err := os.Open(c.File)
		if err != nil {
			return nil, Fail(kindOf(err), fmt.Errorf("read the value: %w", err), "check --file")
		}
		defer f.Close()
		return readValue(f)
	}
	if isTerminal(app.Stdin) {
		app.Note("Reading the value from standard input; end with Ctrl-D.")
	}
	var b []byte
	var err error
	done := make(chan struct{})
	// A read cannot be woken: the goroutine ends with the input, or with the program.
	go func() {
		defer close(done)
		b, err = readValue(app.Stdin)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err == nil && len(b) == 0 {
		err = Fail(KindUsage, errors.New("standard input is empty"), `store an empty value with --text ""`)
	}
	return b, err
}

func readValue(in io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(in, wire.MaxValueSize+1))
	if err != nil {
		return nil, Fail(kindOf(err), fmt.Errorf("read the value: %w", err), "name a file that can be read with --file")
	}
	return b, nil
}

// isTerminal tells whether somebody types the input.
func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
