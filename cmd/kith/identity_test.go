package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kith-im/kith/identity"
)

func TestHomeIdentityIsKept(t *testing.T) {
	home := filepath.Join(t.TempDir(), "not", "there")
	app := &App{Env: Env{Stderr: io.Discard}, Globals: Globals{Home: home}}
	made, err := app.homeIdentity("", identity.Options{Bits: 2048})
	if err != nil {
		t.Fatal(err)
	}
	again, err := app.homeIdentity("", identity.Options{Bits: 2048})
	if err != nil || !again.Key.Equal(made.Key) {
		t.Fatalf("the second time there is another identity: %v", err)
	}
	if err := os.Remove(filepath.Join(home, identityPrefix+".crt")); err != nil {
		t.Fatal(err)
	}
	if _, err := app.homeIdentity("", identity.Options{Bits: 2048}); kindOf(err) != KindNotFound || !strings.Contains(err.Error(), "half an identity") {
		t.Errorf("a key without certificate: %v", err)
	}
	if _, err := os.Stat(filepath.Join(home, identityPrefix+".pem")); err != nil {
		t.Errorf("the key was not left alone: %v", err)
	}
}

func TestPasswordFiles(t *testing.T) {
	dir := t.TempDir()
	good, large := filepath.Join(dir, "good"), filepath.Join(dir, "large")
	for name, size := range map[string]int{good: 0, large: maxPassword + 1} {
		if err := os.WriteFile(name, append(make([]byte, size), " secret \r\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := readPassword(good); string(b) != " secret " || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := readPassword(""); b != nil || err != nil {
		t.Errorf("without a file: %q, %v", b, err)
	}
	if _, err := readPassword(large); kindOf(err) != KindUsage {
		t.Errorf("large file: %v", err)
	}
	if _, err := readPassword(filepath.Join(dir, "missing")); kindOf(err) != KindNotFound {
		t.Errorf("missing file: %v", err)
	}
}
