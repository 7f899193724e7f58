package dev_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds what may take long on a busy machine.
const patience = 3 * time.Minute

// process is a running bin/dev.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	dir  string
	done chan struct{}

	mu    sync.Mutex
	lines []string // of both outputs
	more  chan struct{}
}

// dataDir is a directory that PostgreSQL's own user can reach, too.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clerk-stripe-sync-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// environment is this one's without what would steer the program, with any free port for
// everything, and with the given variables.
func environment(dir string, variables ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		for _, prefix := range []string{"CLERK_", "STRIPE_", "TEMPORAL_", "DEV_", "DATABASE_", "HTTP_ADDR", "METRICS_ADDR", "LOG_", "DEBUG"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
	env = append(env, "DEV_DIR="+dir, "HTTP_ADDR=127.0.0.1:0")
	for _, which := range []string{"API_METRICS", "WORKER_METRICS", "POSTGRES", "TEMPORAL", "TEMPORAL_UI", "CLERK", "STRIPE"} {
		env = append(env, "DEV_"+which+"_PORT=0")
	}
	return append(env, variables...)
}

func start(t *testing.T, dir string, variables ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(program), dir: dir, done: make(chan struct{}), more: make(chan struct{})}
	p.cmd.Dir = "../.." // the tools are looked for from where the project is
	p.cmd.Env = environment(dir, variables...)
	output, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = input, input
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = input.Close() // the child has it
	go func() {
		defer close(p.done)
		for scanner := bufio.NewScanner(output); scanner.Scan(); {
			p.mu.Lock()
			p.lines = append(p.lines, scanner.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
		_ = output.Close()
		_ = p.cmd.Wait() // the test reads the state
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // unless it has ended
		<-p.done
		if t.Failed() {
			t.Logf("it said:\n%s", p.said())
			p.showLogs()
		}
	})
	return p
}

// showLogs shows how the logs end, before they are removed.
func (p *process) showLogs() {
	logs, _ := filepath.Glob(filepath.Join(p.dir, "logs", "*.log"))
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			p.t.Log(err)
			continue
		}
		p.t.Logf("%s ends with:\n%s", filepath.Base(log), text[max(0, len(text)-8<<10):])
	}
}

func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// line waits for a line that begins like this.
func (p *process) line(prefix string) string {
	p.t.Helper()
	timeout := time.After(patience)
	for {
		p.mu.Lock()
		more := p.more
		at := slices.IndexFunc(p.lines, func(l string) bool { return strings.HasPrefix(l, prefix) })
		var found string
		if at >= 0 {
			found = p.lines[at]
		}
		p.mu.Unlock()
		if at >= 0 {
			return found
		}
		select {
		case <-more:
		case <-p.done:
			p.t.Fatalf("it ended without saying %q", prefix)
		case <-timeout:
			p.t.Fatalf("it did not say %q in time", prefix)
		}
	}
}

// signal sends a signal.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the end and answers the exit code, -1 for an end by a signal.
func (p *process) end(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("it is still running after %s", within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// leavesNothing checks that no descendant is left, and no lock.
func (p *process) leavesNothing(descendants []int) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for _, pid := range descendants {
		for alive(pid) {
			if time.Now().After(deadline) {
				p.t.Fatalf("process %d is left", pid)
			}
			<-time.After(20 * time.Millisecond) // nothing tells of the end of somebody else's child
		}
	}
	for _, pattern := range []string{"*.lock", "postgres/postmaster.pid"} {
		if left, _ := filepath.Glob(filepath.Join(p.dir, pattern)); len(left) > 0 {
			p.t.Errorf("left: %q", left)
		}
	}
}

// alive tells whether a process runs; one that has ended and was not waited for does not.
func alive(pid int) bool {
	_, state, _, err := stat(pid)
	return err == nil && state != "Z"
}

// descendants lists all processes below this one.
func (p *process) descendants() []int {
	p.t.Helper()
	parents := map[int]int{}
	// The pattern is well formed, so there is no error to see.
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, err := strconv.Atoi(filepath.Base(entry))
		if err != nil {
			continue
		}
		if _, _, parent, err := stat(pid); err == nil {
			parents[pid] = parent
		}
	}
	var found []int
	for pid := range parents {
		for at := parents[pid]; at > 1; at = parents[at] {
			if at == p.cmd.Process.Pid {
				found = append(found, pid)
				break
			}
		}
	}
	if len(found) == 0 {
		p.t.Fatal("no child was found")
	}
	return found
}

// child finds the direct child of this name.
func (p *process) child(name string) int {
	p.t.Helper()
	for _, pid := range p.descendants() {
		if comm, _, parent, err := stat(pid); err == nil && comm == name && parent == p.cmd.Process.Pid {
			return pid
		}
	}
	p.t.Fatalf("there is no child %s", name)
	return 0
}

// stat is what the kernel says of a process.
func stat(pid int) (comm, state string, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", 0, err
	}
	// pid (comm) state ppid ...; a comm may hold anything, parentheses too.
	open, closed := strings.IndexByte(string(text), '('), strings.LastIndexByte(string(text), ')')
	if open < 0 || closed < open {
		return "", "", 0, errors.New("not a stat line")
	}
	fields := strings.Fields(string(text[closed+1:]))
	parent, err = strconv.Atoi(fields[1])
	return string(text[open+1 : closed]), fields[0], parent, err
}

// empty tells whether nothing was made in the directory.
func empty(t *testing.T, dir string) bool {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return len(entries) == 0
}
