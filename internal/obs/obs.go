// Package obs makes a running node observable: structured logs whose level can
// be changed per package while the program runs, and metrics in the Prometheus
// text format.
//
// Nothing here is global. A program makes one logger with [NewLogger] and one
// [Registry] for each node, and hands them down in config structs; many nodes
// live in one process without meeting each other's figures.
//
// The package starts no goroutine and opens no file or socket: it writes where
// the caller says. It keeps no history, sends nothing anywhere, and does not
// decide what is worth logging.
package obs
