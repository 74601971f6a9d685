package identity

import (
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Identity is a private key and the certificate of its public key. Both are set
// and match in every Identity that this package returns.
type Identity struct {
	Key  *PrivateKey
	Cert *Certificate // with the issuers above it
}

// NodeID returns the DHT node id that belongs to the identity: SHA-1 over "node:"
// and the short key id in hexadecimal. Nothing lets another node check it.
func (i *Identity) NodeID() [20]byte {
	return sha1.Sum([]byte("node:" + i.Key.public.id.String()))
}

// Load reads an identity from a certificate chain and a private key, as
// [ParseChain] and [ParsePrivateKey] do. A key that does not belong to the
// certificate is an error. Errors from opening a file wrap those of package os.
func Load(certFile, keyFile string, password []byte) (*Identity, error) {
	chain, err := readFile(certFile, maxChainSize)
	if err != nil {
		return nil, fmt.Errorf("loading identity: %w", err)
	}
	cert, err := ParseChain(chain)
	if err != nil {
		return nil, fmt.Errorf("loading identity from %s: %w", certFile, err)
	}
	secret, err := readFile(keyFile, maxPrivateKeySize)
	if err != nil {
		return nil, fmt.Errorf("loading identity: %w", err)
	}
	key, err := ParsePrivateKey(secret, password)
	if err != nil {
		return nil, fmt.Errorf("loading identity from %s: %w", keyFile, err)
	}
	if !cert.SameKey(key.Public()) {
		return nil, fmt.Errorf("loading identity: the key in %s is not the one that %s certifies", keyFile, certFile)
	}
	return &Identity{Key: key, Cert: cert}, nil
}

// readFile reads at most limit bytes, and one more so that the parser sees, and
// refuses, a file that is too long.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// Save writes the key to prefix.pem, as plain PKCS#8, and the certificate chain
// to prefix.crt, both readable by their owner only. Files of those names are
// replaced. Everything is on disk before either name changes, so after a crash
// there are the old files, the new files or, in the instant between two renames,
// one of each, which [Load] notices.
func (i *Identity) Save(prefix string) error {
	key, err := i.Key.PEM(nil)
	if err != nil {
		return fmt.Errorf("saving identity: %w", err)
	}
	keyTmp, err := writeTemp(prefix+".pem", key)
	if err != nil {
		return fmt.Errorf("saving identity: %w", err)
	}
	defer os.Remove(keyTmp) // fails once it is renamed
	certTmp, err := writeTemp(prefix+".crt", i.Cert.PEM())
	if err != nil {
		return fmt.Errorf("saving identity: %w", err)
	}
	defer os.Remove(certTmp)
	err = os.Rename(keyTmp, prefix+".pem")
	if err == nil {
		err = os.Rename(certTmp, prefix+".crt")
	}
	if err == nil {
		err = syncDir(filepath.Dir(prefix))
	}
	if err != nil {
		return fmt.Errorf("saving identity: %w", err)
	}
	return nil
}

// writeTemp writes b to a new file beside name, flushes it to disk and returns
// its name. os.CreateTemp gives it mode 0600.
func writeTemp(name string, b []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.tmp")
	if err != nil {
		return "", err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

// syncDir makes renames in dir last. Windows neither needs nor allows it.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
