//go:build linux

package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec describes a child process.
type Spec struct {
	Name   string    // for the log file's name and for errors
	Path   string    // executable, looked up in PATH
	Args   []string  // without the program's name
	Env    []string  // added to the environment
	Host   *Host     // where it runs; nil is the program's own network
	CPUs   []int     // cores it may use; none means all
	Stdout io.Writer // besides the log file; written to by one goroutine
}

// Process is a running child. Its methods are safe for concurrent use.
type Process struct {
	// Stdin stays open until Stop: dhtnode quits at the end of its input.
	Stdin io.WriteCloser

	spec Spec
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // set before done is closed
}

// Lab owns child processes and the folder of their logs. The zero value is not
// usable; see [Open] and [ForTest].
type Lab struct {
	dir  string
	temp bool

	mu     sync.Mutex
	procs  []*Process
	serial int
	closed bool
}

// Open makes a lab. Logs go to dir; an empty dir means a temporary folder that
// Close removes.
func Open(dir string) (*Lab, error) {
	l := &Lab{dir: dir}
	if dir == "" {
		removeStale(os.TempDir())
		d, err := os.MkdirTemp("", fmt.Sprintf("%s%d-", tempPrefix, os.Getpid()))
		if err != nil {
			return nil, fmt.Errorf("make the lab's folder: %w", err)
		}
		l.dir, l.temp = d, true
	}
	return l, nil
}

// tempPrefix begins the names of temporary folders; the process id follows.
const tempPrefix = "kith-dhtlab-"

// removeStale removes folders of labs whose program was killed.
func removeStale(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return // the pattern is constant, and an unreadable folder gives no names
	}
	for _, name := range old {
		text, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), tempPrefix), "-")
		pid, err := strconv.Atoi(text)
		if err == nil && pid > 0 && errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			os.RemoveAll(name)
		}
	}
}

// ForTest makes a lab that lasts as long as the test.
func ForTest(t TB) *Lab {
	t.Helper()
	l, err := Open(t.TempDir())
	if err != nil {
		t.Fatalf("open lab: %v", err)
	}
	t.Cleanup(l.Close)
	return l
}

// Close kills every process, waits for them, and removes a temporary folder.
func (l *Lab) Close() {
	l.mu.Lock()
	procs := l.procs
	l.procs, l.closed = nil, true
	l.mu.Unlock()
	for _, p := range procs {
		p.signal(unix.SIGKILL)
	}
	for _, p := range procs {
		<-p.done
	}
	if l.temp {
		os.RemoveAll(l.dir)
	}
}

// Start runs a process.
func (l *Lab) Start(spec Spec) (*Process, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("start %s: the lab is closed", spec.Name)
	}
	l.serial++
	log := filepath.Join(l.dir, fmt.Sprintf("%03d-%s.log", l.serial, spec.Name))
	p, err := start(spec, log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	l.procs = append(l.procs, p)
	return p, nil
}

func start(spec Spec, log string) (*Process, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Dir = filepath.Dir(log)
	cmd.Stderr = file
	cmd.Stdout = file
	if spec.Stdout != nil {
		cmd.Stdout = io.MultiWriter(file, spec.Stdout)
	}
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		file.Close()
		return nil, err
	}
	// The parent-death signal follows the thread that forks. Go ends a thread only
	// when a goroutine dies locked to it, which nothing here does.
	err = spec.Host.Do(func() error { return onCPUs(spec.CPUs, cmd.Start) })
	if err != nil {
		file.Close()
		return nil, err
	}
	p := &Process{Stdin: stdin, spec: spec, cmd: cmd, log: log, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		file.Close()
		close(p.done)
	}()
	return p, nil
}

// onCPUs calls f on a thread that may run on the given cores only; a child that
// f starts inherits that.
func onCPUs(cpus []int, f func() error) error {
	if len(cpus) == 0 {
		return f()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("read CPU affinity: %w", err)
	}
	for _, c := range cpus {
		set.Set(c)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("set CPU affinity to %v: %w", cpus, err)
	}
	err := f()
	return errors.Join(err, unix.SchedSetaffinity(0, &old))
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the process ended; nil means exit code 0. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Kill ends the process at once, as kill -9 does, and waits for it.
func (p *Process) Kill() {
	p.signal(unix.SIGKILL)
	<-p.done
}

// Stop closes the process's input, asks it to terminate, and kills it when it
// has not ended within the grace time.
func (p *Process) Stop(grace time.Duration) {
	p.Stdin.Close()
	p.signal(unix.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

func (p *Process) signal(sig syscall.Signal) {
	select {
	case <-p.done: // the pid may be another's by now
	default:
		p.cmd.Process.Signal(sig)
	}
}

// Tail gives the last part of the log, for error messages.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return strings.TrimSpace(string(b))
}

// RestrictSelf makes all threads of this program, and those to come, run on the
// given cores only. Children that name no cores inherit that.
func RestrictSelf(cpus []int) error {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("restrict to cores %v: %w", cpus, err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("restrict to cores %v: %w", cpus, err)
		}
	}
	return nil
}
