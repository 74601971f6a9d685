// Package dht is a node of an OpenDHT-compatible distributed hash table.
//
// A [Node] joins the network over UDP; package proxy has a client that reaches
// the network through another node over HTTP. Both are a [Table]. A [Secure]
// wraps either and signs, verifies, encrypts and decrypts values.
//
//	node, err := dht.New(dht.Config{Bootstrap: []string{"bootstrap.example:4222"}})
//	go node.Run(ctx)
//	err = node.Put(ctx, dht.KeyOf("greeting"), &dht.Value{Data: []byte("hello")})
//	for v, err := range node.Get(ctx, dht.KeyOf("greeting"), dht.Query{}) { … }
//
// Node.Run owns all goroutines of a node and returns when each has ended. What
// the network protocol decides is in package kad, which does no I/O; how packets
// look is in package wire. The package stores nothing on disk by itself: see
// [Node.Export] and [Config.State].
package dht

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"github.com/kith-im/kith/dht/wire"
)

// The vocabulary of package wire, for callers that need nothing else of it.
type (
	Key     = wire.Key
	NodeID  = wire.NodeID
	Value   = wire.Value
	ValueID = wire.ValueID
	TypeID  = wire.TypeID
	Query   = wire.Query
)

// KeyOf returns the key of a name: the SHA-1 of its bytes.
func KeyOf(name string) Key { return wire.KeyOf([]byte(name)) }

// ParseKey reads 40 hex digits, or hashes any other text.
func ParseKey(text string) (Key, error) { return wire.ParseKey(text) }

// Errors that callers decide on.
var (
	// ErrNoNodes: no node of the network could be reached, so nothing was asked
	// of anybody. It can be tried again once the node is connected. A get at a node
	// that is the first of its network, and expects nobody, ends without it; a put
	// there does not, since nobody else keeps the value.
	ErrNoNodes = errors.New("no DHT node can be reached")
	// ErrNotStored: nodes were reached but none took the value.
	ErrNotStored = errors.New("no DHT node stored the value")
	// ErrRefused: the nodes refuse the value, and will again: its id is taken by
	// another value, its signature is wrong or its type forbids it.
	ErrRefused = errors.New("the DHT refuses the value")
	// ErrClosed: the node has ended.
	ErrClosed = errors.New("DHT node is closed")
)

// Table is the distributed hash table as a user sees it, whichever way it is
// reached. Implementations are safe for concurrent use.
type Table interface {
	// Get yields the values under key that match q, each once, as they are found,
	// and ends when the nodes nearest the key have answered. An error is yielded
	// last: values before it are good. Breaking off the loop or ending ctx cancels.
	// With q.Select the values have nothing but the selected fields, which costs
	// less traffic; a client of a proxy may give them whole.
	Get(ctx context.Context, key Key, q Query) iter.Seq2[*Value, error]

	// Put stores v under key for as long as its type lives, and returns once the
	// nodes nearest the key have acknowledged it. A zero v.ID is replaced by a
	// random one.
	Put(ctx context.Context, key Key, v *Value) error

	// Publish is Put and then keeps the value alive until the publication or the
	// table ends. ctx bounds only the first announcement: if that fails the value
	// is not published.
	Publish(ctx context.Context, key Key, v *Value) (Publication, error)

	// Listen yields the values under key that match q, those that exist and those
	// to come, and each one's end, until ctx ends or the loop breaks off. An error
	// is yielded last.
	Listen(ctx context.Context, key Key, q Query) iter.Seq2[Event, error]

	// Info tells the state of the table.
	Info(ctx context.Context) (Info, error)
}

// Event is something that happened to a value that is listened for.
type Event struct {
	Value   *Value
	Expired bool // the value is gone
}

// Publication is a value that is kept alive.
type Publication interface {
	// Key is where the value is published.
	Key() Key
	// Value is the value, with its id.
	Value() *Value
	// Cancel stops keeping it alive; copies out there end by their own expiry.
	Cancel()
}

// Status is how well a node is connected.
type Status uint8

// The states of connection.
const (
	Disconnected Status = iota
	Connecting
	Connected
)

// String returns the state in lower case.
func (s Status) String() string {
	return [...]string{"disconnected", "connecting", "connected"}[min(s, Connected)]
}

// MarshalText returns the state in lower case.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Info is the state of a table.
type Info struct {
	NodeID      NodeID       `json:"node_id"`
	Status      Status       `json:"status"`
	IPv4        FamilyInfo   `json:"ipv4"`
	IPv6        FamilyInfo   `json:"ipv6"`
	Storage     StorageInfo  `json:"storage"`
	PublicAddrs []netip.Addr `json:"public_addrs,omitempty"` // ours, as others see us
	Searches    int          `json:"searches"`
	Listens     int          `json:"listens"`    // of ours at others
	Publishing  int          `json:"publishing"` // values kept alive
	Listening   int          `json:"listening"`  // of others at us
	Requests    int          `json:"requests"`   // in flight
	Network     uint32       `json:"network"`
}

// FamilyInfo is the routing state of one address family.
type FamilyInfo struct {
	Status  Status `json:"status"`
	Good    int    `json:"good"`
	Dubious int    `json:"dubious"`

	Known    int            `json:"known"`    // all nodes that are remembered
	Depth    int            `json:"depth"`    // bits of the neighbourhood
	Estimate int            `json:"estimate"` // guessed size of the network
	Addr     netip.AddrPort `json:"addr"`     // bound
}

// StorageInfo is what a node stores for others and itself.
type StorageInfo struct {
	Keys   int   `json:"keys"`
	Values int   `json:"values"`
	Bytes  int64 `json:"bytes"`
	Limit  int64 `json:"limit"`
}
