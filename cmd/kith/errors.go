package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"

	"github.com/kith-im/kith/dht"
)

// Kind says what sort of failure ended a command, for scripts. Kinds and their
// exit codes do not change between versions.
type Kind string

// The kinds, with their exit codes.
const (
	KindInternal    Kind = "internal"    // 1: none of the others
	KindUsage       Kind = "usage"       // 2: the command line makes no sense
	KindNotFound    Kind = "not_found"   // 3: the thing asked for does not exist
	KindUnavailable Kind = "unavailable" // 4: a host, a node, an address, a file or room on a disk cannot be had
	KindTimeout     Kind = "timeout"     // 5: no answer in time
	KindDenied      Kind = "denied"      // 6: not allowed
	KindInterrupted Kind = "interrupted" // 130: stopped by a signal
)

// ExitCode returns the exit code of the program for k.
func (k Kind) ExitCode() int {
	switch k {
	case KindUsage:
		return 2
	case KindNotFound:
		return 3
	case KindUnavailable:
		return 4
	case KindTimeout:
		return 5
	case KindDenied:
		return 6
	case KindInterrupted:
		return 130
	default:
		return 1
	}
}

// Failure is an error with its kind and with what the user may do about it.
type Failure struct {
	Kind Kind
	Err  error
	Next string // what to do next, such as "correct --log"; may be empty
}

// Fail returns err as a *Failure.
func Fail(kind Kind, err error, next string) error {
	return &Failure{Kind: kind, Err: err, Next: next}
}

// Error implements error.
func (f *Failure) Error() string {
	if f.Next == "" {
		return f.Err.Error()
	}
	return f.Err.Error() + "; " + f.Next
}

// Unwrap returns the error below.
func (f *Failure) Unwrap() error { return f.Err }

// kindOf finds the kind of any error.
func kindOf(err error) Kind {
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Kind
	}
	// Errors of files are net.Errors as well: only these two are surely the network's.
	_, isOp := errors.AsType[*net.OpError](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	isNet := isOp || isDNS
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, context.Canceled):
		return KindInterrupted
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return KindTimeout
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, dht.ErrRefused):
		return KindDenied
	case errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return KindUsage
	case isNet, errors.Is(err, syscall.ENOSPC), errors.Is(err, dht.ErrNoNodes), errors.Is(err, dht.ErrNotStored):
		return KindUnavailable
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, dht.ErrNoCertificate):
		return KindNotFound
	default:
		return KindInternal
	}
}

// fileFailure says what to do about files that could not be written at the end; nil
// stays nil.
func fileFailure(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return Fail(kindOf(err), err, "make room on the disk")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrNotExist):
		return Fail(kindOf(err), err, "see whether the folder exists and can be written to")
	}
	return err
}

// cannotBind says what to do about an address that could not be bound, given by flags
// for the port and for the address.
func cannotBind(err error, port, address string) error {
	kind := kindOf(err)
	if kind == KindInternal {
		kind = KindUnavailable
	}
	next := "see which program has the port, or choose another address with " + port
	if port != address {
		next += " or " + address
	}
	switch {
	case errors.Is(err, fs.ErrPermission):
		next = "ports below 1024 need rights: choose a greater one with " + port
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		next = "this host does not have that address: choose another with " + address
	}
	return Fail(kind, err, next)
}

// report prints err and returns the exit code.
func report(w io.Writer, err error, asJSON bool) int {
	kind, text := kindOf(err), err.Error()
	if kind == KindInterrupted {
		text = "interrupted"
	}
	if asJSON {
		type body struct {
			Kind    Kind   `json:"kind"`
			Message string `json:"message"`
		}
		// Writing to stderr is the last resort; there is nowhere to report its failure.
		_ = json.NewEncoder(w).Encode(map[string]body{"error": {kind, text}})
	} else {
		_, _ = fmt.Fprintf(w, "kith: %s\n", text)
	}
	return kind.ExitCode()
}
