package dht_test

import (
	"context"
	"fmt"
	"log"
	"net/netip"

	"github.com/kith-im/kith/dht"
	"github.com/kith-im/kith/identity/identitytest"
)

// network runs a network of two nodes on loopback until the context ends.
func network(ctx context.Context) (a, b *dht.Node) {
	loopback := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:0")}
	a, err := dht.New(dht.Config{Addrs: loopback})
	if err != nil {
		log.Fatal(err)
	}
	b, err = dht.New(dht.Config{Addrs: loopback, Bootstrap: []string{a.Addrs()[0].String()}})
	if err != nil {
		log.Fatal(err)
	}
	for _, n := range []*dht.Node{a, b} {
		go n.Run(ctx)
	}
	for _, n := range []*dht.Node{a, b} {
		if err := n.WaitConnected(ctx); err != nil {
			log.Fatal(err)
		}
	}
	return a, b
}

// One node stores a value, another finds it.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, b := network(ctx)

	key := dht.KeyOf("greeting")
	if err := a.Put(ctx, key, &dht.Value{Data: []byte("hello")}); err != nil {
		log.Fatal(err)
	}
	for v, err := range b.Get(ctx, key, dht.Query{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", v.Data)
	}
	// Output: hello
}

// A listen tells of what is there and of what comes, until the loop is left.
func ExampleNode_Listen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, b := network(ctx)

	key := dht.KeyOf("news")
	pub, err := a.Publish(ctx, key, &dht.Value{Data: []byte("first")}) // is kept alive
	if err != nil {
		log.Fatal(err)
	}
	defer pub.Cancel()
	for e, err := range b.Listen(ctx, key, dht.Query{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", e.Value.Data)
		if string(e.Value.Data) == "second" {
			break
		}
		if err := a.Put(ctx, key, &dht.Value{Data: []byte("second")}); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// first
	// second
}

// Values can be signed, so that nobody else can change them, and encrypted, so that
// nobody else can read them.
func ExampleSecure() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, b := network(ctx)
	alice := dht.NewSecure(a, identitytest.Identity(0))
	bob := dht.NewSecure(b, identitytest.Identity(1))

	key := dht.KeyOf("letterbox of bob")
	letter := &dht.Value{Data: []byte("Dear Bob")}
	if err := alice.PutEncrypted(ctx, key, identitytest.Key(1).Public(), letter); err != nil {
		log.Fatal(err)
	}
	for v, err := range bob.Get(ctx, key, dht.Query{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s, signed by %t\n", v.Data, v.OwnerID() == alice.KeyID())
	}
	// Output: Dear Bob, signed by true
}
