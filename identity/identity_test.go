package identity

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestSaveAndLoad(t *testing.T) {
	id := testIdentity(t, "n0")
	dir := t.TempDir()
	prefix := filepath.Join(dir, "node")
	for range 2 { // the second time over the files of the first
		if err := id.Save(prefix); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
	if got := strings.Join(names, " "); got != "node.crt node.pem" {
		t.Errorf("files are %s", got)
	}
	again, err := Load(prefix+".crt", prefix+".pem", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Key.Equal(id.Key) || string(again.Cert.PEM()) != string(id.Cert.PEM()) {
		t.Error("the identity does not read back")
	}
}

func TestSaveFails(t *testing.T) {
	id := testIdentity(t, "n0")
	if err := id.Save(filepath.Join(t.TempDir(), "missing", "node")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	// A name that cannot be replaced leaves no temporary file, least of all a key.
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "node.pem", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := id.Save(filepath.Join(dir, "node")); err == nil {
		t.Error("a folder was replaced")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestLoadWithPassword(t *testing.T) {
	id := testIdentity(t, "n0")
	sealed, err := id.Key.PEM([]byte(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "n0.pem")
	if err := os.WriteFile(keyFile, sealed, 0o600); err != nil {
		t.Fatal(err)
	}
	certFile := filepath.Join("testdata", "n0.crt")
	if again, err := Load(certFile, keyFile, []byte(testPassword)); err != nil || !again.Key.Equal(id.Key) {
		t.Errorf("got %v, %v", again, err)
	}
	if _, err := Load(certFile, keyFile, nil); !errors.Is(err, ErrPassword) {
		t.Errorf("without a password: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	in := func(name string) string { return filepath.Join("testdata", name) }
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cert, key string
		want      error // nil: any
	}{
		"another key":     {in("n0.crt"), in("n1.pem"), nil},
		"no certificate":  {in("none.crt"), in("n0.pem"), fs.ErrNotExist},
		"no key":          {in("n0.crt"), in("none.pem"), fs.ErrNotExist},
		"files exchanged": {in("n0.pem"), in("n0.crt"), nil},
		"big certificate": {big, in("n0.pem"), ErrTooLarge},
		"big key":         {in("n0.crt"), big, ErrTooLarge},
	} {
		id, err := Load(c.cert, c.key, nil)
		if err == nil || id != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, %v, want error %v", name, id, err, c.want)
		}
	}
}
