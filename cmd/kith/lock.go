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
// The flag is the one by which the user names another file. A file system that knows
// no locks is no reason not to run: only a lock that another process has is an error.
func lock(name, flag string) (*os.File, error) {
	f, err := os.OpenFile(name+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, Fail(kindOf(err), fmt.Errorf("%s could not be saved: %w", name, err), "name a folder that exists and can be written to with "+flag)
	}
	if err := tryLock(f); errors.Is(err, errLocked) {
		f.Close()
		return nil, Fail(KindUnavailable, fmt.Errorf("%s is %w", name, err), "name another with "+flag)
	}
	return f, nil
}
