// Package lab runs real OpenDHT peers for tests and benchmarks: Debian's dhtnode,
// python3-opendht clients, and any other node that is an executable with
// arguments ([NodeKind]), on loopback or on private networks whose delay, loss
// and rate are chosen ([Switch]).
//
// Everything started here dies with the program, even when that is killed: child
// processes get a parent-death signal, and network namespaces have no name, so
// the kernel drops them with the last process inside. A [Lab] owns its processes
// and one goroutine for each; [Lab.Close] ends them all. The package is for
// Linux, and it speaks to loopback and its own namespaces only.
package lab
