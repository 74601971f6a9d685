package main

import (
	"errors"
	"fmt"
	"os"
)

// errLocked: another process has the lock.
var errLocked = errors.New("in use by another node")

// lock keeps other nodes from what a file name stands for, until the lock is closed
// or the process ends, however that happens. The lock file name+".lock" stays: taking
// it away would let two processes have locks on two files of one name.
//
// A file system that knows no locks is no reason not to run: only a lock that
// another process has is an error.
func lock(name, next string) (*os.File, error) {
	f, err := os.OpenFile(name+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if err := tryLock(f); errors.Is(err, errLocked) {
		f.Close()
		return nil, Fail(KindUnavailable, fmt.Errorf("%s is %w", name, err), next)
	}
	return f, nil
}
