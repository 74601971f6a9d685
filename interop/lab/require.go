//go:build linux

package lab

import (
	"fmt"
	"os"
	"os/exec"
)

// Python is the interpreter that has Debian's OpenDHT bindings.
const Python = "/usr/bin/python3"

// TB is the part of testing.TB that the lab uses, so that commands can use the
// lab without linking the testing package.
type TB interface {
	Helper()
	Cleanup(func())
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
	TempDir() string
}

// Require skips the test unless the named tools are usable here: "dhtnode",
// "python3-opendht" or "netns" (the right to make network namespaces and TUN
// devices). With KITH_REQUIRE_PEERS=1 in the environment a missing tool fails
// the test instead, so that a build machine cannot skip by accident.
func Require(t TB, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		err := Check(tool)
		switch {
		case err == nil:
		case os.Getenv("KITH_REQUIRE_PEERS") == "1":
			t.Fatalf("KITH_REQUIRE_PEERS=1, but %v", err)
		default:
			t.Skipf("%v", err)
		}
	}
}

// Check says whether a tool is usable, and in the error what to do if it is not.
func Check(tool string) error {
	switch tool {
	case "dhtnode":
		if _, err := exec.LookPath("dhtnode"); err != nil {
			return fmt.Errorf("no dhtnode: apt-get install dhtnode: %w", err)
		}
	case "python3-opendht":
		if out, err := exec.Command(Python, "-c", "import opendht").CombinedOutput(); err != nil {
			return fmt.Errorf("no OpenDHT bindings for %s: apt-get install python3-opendht: %w: %s", Python, err, out)
		}
	case "netns":
		h, err := NewIsland()
		if err != nil {
			return fmt.Errorf("no network namespaces: run as root: %w", err)
		}
		defer h.Close()
		if h.tun, err = h.openTUN(); err != nil {
			return fmt.Errorf("no TUN device: run as root with /dev/net/tun present: %w", err)
		}
	default:
		return fmt.Errorf("the lab knows no tool %q", tool)
	}
	return nil
}
