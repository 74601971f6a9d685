//go:build linux

package lab

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// asVictim marks the process that TestNothingOutlivesTheProgram kills.
const asVictim = "KITH_LAB_VICTIM"

func TestNothingOutlivesTheProgram(t *testing.T) {
	Require(t, "dhtnode", "netns")
	if os.Getenv(asVictim) != "" {
		victim(t)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingOutlivesTheProgram$")
	cmd.Env = append(os.Environ(), asVictim+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	var pid int
	for lines := bufio.NewScanner(out); pid == 0; {
		if !lines.Scan() {
			t.Fatal("the victim gave no pid")
		}
		fmt.Sscanf(lines.Text(), "node %d", &pid)
	}
	if !isDhtnode(pid) {
		t.Fatalf("process %d is no dhtnode", pid)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for deadline := time.Now().Add(5 * time.Second); isDhtnode(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node has outlived the program that started it")
		}
	}
}

// victim starts a node in a namespace, says which, and waits for its end.
func victim(t *testing.T) {
	h, err := NewIsland()
	if err != nil {
		t.Fatal(err)
	}
	n, err := ForTest(t).StartNode(context.Background(), Dhtnode{}, NodeConfig{Host: h, Network: testNetwork})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("node", n.PID())
	time.Sleep(time.Minute)
	t.Fatal("nobody has killed the victim")
}

func TestRemoveStale(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stale := fmt.Sprintf("%s/%s%d-1", dir, tempPrefix, gone.Process.Pid)
	alive := fmt.Sprintf("%s/%s%d-1", dir, tempPrefix, os.Getpid())
	other := dir + "/" + tempPrefix + "x"
	for _, d := range []string{stale, alive, other} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	removeStale(dir)
	for d, want := range map[string]bool{stale: false, alive: true, other: true} {
		if _, err := os.Stat(d); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", d, err == nil, want)
		}
	}
}

func isDhtnode(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(b), "(dhtnode)") && !strings.Contains(string(b), ") Z ")
}
