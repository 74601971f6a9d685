package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/kith-im/kith/identity"
)

const (
	// identityPrefix names the files of a node's identity in its folder.
	identityPrefix = "node"
	identityName   = "Kith node"
	// maxPassword bounds a password file, in bytes.
	maxPassword = 4 << 10
)

// homeIdentity loads the identity in the node's folder, or makes one there by o.
func (a *App) homeIdentity(passwordFile string, o identity.Options) (*identity.Identity, error) {
	prefix, err := a.homePrefix()
	if err != nil {
		return nil, err
	}
	return a.keptIdentity(prefix, passwordFile, o)
}

// homePrefix makes the node's folder, if need be, and returns how the names of its
// identity's files begin.
func (a *App) homePrefix() (string, error) {
	home, err := a.HomeDir(runtime.GOOS)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return "", Fail(kindOf(err), fmt.Errorf("make the node's folder: %w", err), "name another with --home DIR")
	}
	return filepath.Join(home, identityPrefix), nil
}

// keptIdentity loads the identity in PREFIX.crt and PREFIX.pem, or makes one there
// by o if neither exists. It never replaces a key. Making one takes some seconds.
func (a *App) keptIdentity(prefix, passwordFile string, o identity.Options) (*identity.Identity, error) {
	certFile, keyFile := prefix+".crt", prefix+".pem"
	_, errCert := os.Stat(certFile)
	_, errKey := os.Stat(keyFile)
	noCert, noKey := errors.Is(errCert, fs.ErrNotExist), errors.Is(errKey, fs.ErrNotExist)
	switch {
	case !noCert && !noKey:
		return loadIdentity(certFile, keyFile, passwordFile)
	case noCert != noKey:
		have, missing := certFile, keyFile
		if noCert {
			have, missing = keyFile, certFile
		}
		return nil, Fail(KindNotFound, fmt.Errorf("half an identity: there is %s, but no %s", have, missing),
			"put it back, or move the other away to make a new identity")
	}
	a.Note("making an identity in %s.crt and %s.pem, which takes some seconds", prefix, prefix)
	id, err := identity.New(identityName, o)
	if err != nil {
		return nil, fmt.Errorf("make an identity: %w", err)
	}
	if err := id.Save(prefix); err != nil {
		return nil, Fail(kindOf(err), fmt.Errorf("save the new identity: %w", err), "name a folder that exists and can be written to")
	}
	return id, nil
}

// loadIdentity reads an identity; passwordFile may be "".
func loadIdentity(certFile, keyFile, passwordFile string) (*identity.Identity, error) {
	password, err := readPassword(passwordFile)
	if err != nil {
		return nil, err
	}
	id, err := identity.Load(certFile, keyFile, password)
	if err == nil {
		return id, nil
	}
	next := "name a certificate chain and its private key, in PEM or DER form"
	kind := kindOf(err)
	switch {
	case errors.Is(err, identity.ErrPassword):
		kind, next = KindDenied, "give the key's password with --privkey-password-file FILE"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		next = "check the name and who may read it"
	case kind == KindInternal:
		kind = KindUsage
	}
	return nil, Fail(kind, fmt.Errorf("load identity from %s and %s: %w", certFile, keyFile, err), next)
}

// readPassword reads a password without the line end behind it; "" names no file
// and gives none.
func readPassword(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err != nil {
		return nil, fmt.Errorf("read the password: %w", err)
	}
	if len(b) > maxPassword {
		return nil, Fail(KindUsage, fmt.Errorf("%s has more than %d bytes", file, maxPassword), "name a file that holds a password only")
	}
	return bytes.TrimRight(b, "\r\n"), nil
}
