// Package proxy reaches a DHT over HTTP: a [Server] answers for a [dht.Table] as
// OpenDHT's proxy server does, and a [Client] is a [dht.Table] behind such a
// server, for machines that cannot afford to be a node. [Switch] lets a program
// change between a node and a client while it runs.
//
// Server.Run, Client.Run and Switch.Run own the goroutines of theirs and return
// when each has ended; goroutines of a request end with that request. Neither
// side listens on sockets: a Server is an [http.Handler] for the caller's
// [http.Server], and everything outgoing goes through a [netx.Network].
//
// The package does not sign, verify or decrypt values and it does not trust what
// it reads: a proxy server sees and can leave out or forge every unsigned value,
// so callers check signatures as they do behind a node.
// The protocol is described in docs/protocol/opendht.md, section 6.
package proxy
