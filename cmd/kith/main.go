// Kith is the one binary of the platform: the node, the servers that it can be,
// and the commands that talk to it.
//
// There is one file for each command. They are wiring: they turn arguments into
// config structs, call a package, and print what it returns. A command runs on the
// goroutine of [Main] and starts others only by way of the packages that it calls;
// nothing of a command outlives its return.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/kith-im/kith/internal/netx"
)

// Env is the world as a command sees it. Tests and simulations hand in their own
// and run commands in their process.
type Env struct {
	Stdin  io.Reader
	Stdout io.Writer // results only
	Stderr io.Writer // logs and errors
	Net    netx.Network
	Getenv func(name string) string // "" when unset
}

func main() {
	// The first signal asks the command to end; after it, the second one kills,
	// because stop gives the signals back to the system.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(Main(ctx, Env{
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		Net:    new(netx.System),
		Getenv: os.Getenv,
	}, os.Args[1:]))
}
