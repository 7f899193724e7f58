package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// The real programs.
const (
	ProgramAPI    = "starter-api"
	ProgramWorker = "worker"
)

// Programs are the real programs, built once for the tests of one process.
type Programs struct {
	// Replaced are files of the project, by their paths in it, and the files from which they are built
	// instead, by their paths from the test: programs of an earlier version. A file that did not exist
	// then is replaced by "".
	Replaced map[string]string

	once sync.Once
	dir  string
	err  error
}

// path answers where a program is. The first call builds them.
func (p *Programs) path(name string) (string, error) {
	p.once.Do(func() { p.err = p.build() })
	return filepath.Join(p.dir, name), p.err
}

func (p *Programs) build() error {
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		return err
	}
	if p.dir, err = os.MkdirTemp("", "clerk-stripe-sync-programs-"); err != nil {
		return fmt.Errorf("making room for the programs: %w", err)
	}
	overlay, err := p.overlay(root)
	if err != nil {
		return err
	}
	// Without what only debuggers read: nothing keeps linked programs, and to write it takes as long
	// as all else.
	build := exec.Command("go", "build", "-ldflags=-s -w", "-overlay", overlay, "-o", p.dir+string(filepath.Separator), "./cmd/"+ProgramAPI, "./cmd/"+ProgramWorker)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building the programs: %w\n%s", err, out)
	}
	return nil
}

// overlay writes down, as go build wants it, what is built from other files, and answers where.
func (p *Programs) overlay(root string) (string, error) {
	replace := make(map[string]string, len(p.Replaced))
	for file, by := range p.Replaced {
		if by == "" {
			replace[filepath.Join(root, file)] = ""
			continue
		}
		by, err := filepath.Abs(by)
		if err != nil {
			return "", fmt.Errorf("finding %s: %w", by, err)
		}
		replace[filepath.Join(root, file)] = by
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	path := filepath.Join(p.dir, "overlay.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("writing the overlay: %w", err)
	}
	return path, nil
}

// Around answers a runner that removes the programs after the tests.
func (p *Programs) Around(m Runner) Runner { return cleaning{m, p} }

type cleaning struct {
	tests    Runner
	programs *Programs
}

// Run implements Runner.
func (c cleaning) Run() int {
	code := c.tests.Run()
	if c.programs.dir != "" {
		_ = os.RemoveAll(c.programs.dir) // what is left of it the operating system clears away
	}
	return code
}

// Process is a real program that runs, or ran, as a process of its own. It ends with the test at
// the latest, and with this process whatever happens.
type Process struct {
	Name string
	// Addr is where starter-api listens, once it serves.
	Addr string

	cmd  *exec.Cmd
	logs *logBuffer
	done chan struct{}
	err  error // how it ended; to be read once done is closed
}

// StartProcess starts a program in the environment of both programs, changed by overrides, waits
// until it serves, and, for starter-api, points the sandbox's webhooks at it. Its log is shown when
// the test fails.
func (s *System) StartProcess(name string, overrides map[string]string) *Process {
	s.t.Helper()
	p := s.StartProgram(s.servers.Programs, name, overrides)
	if name == ProgramAPI {
		s.PointWebhooks(p.Addr)
	}
	return p
}

// StartProgram starts one of these programs as StartProcess does, and leaves the webhooks where
// they go.
func (s *System) StartProgram(programs *Programs, name string, overrides map[string]string) *Process {
	s.t.Helper()
	p := s.spawn(programs, name, overrides)
	serves := regexp.MustCompile(`worker polls`)
	if name == ProgramAPI {
		serves = regexp.MustCompile(`starter-api listens.* address=(\S+)`)
	}
	var found []string
	s.Until(name+" serves", func(context.Context) error {
		if found = serves.FindStringSubmatch(p.Logs()); found != nil || p.Ended() {
			return nil
		}
		return errors.New("it does not say so")
	})
	if found == nil {
		s.t.Fatalf("%s ended at once: %v\n%s", name, p.err, p.Logs())
	}
	if name == ProgramAPI {
		p.Addr = found[1]
	}
	return p
}

// PointWebhooks has both providers deliver to a starter-api at this address.
func (s *System) PointWebhooks(addr string) {
	s.mu.Lock()
	s.addr = addr
	s.mu.Unlock()
	s.Sandbox.ClerkWebhooks.SetURL("http://" + addr + "/api/webhooks/clerk")
	s.Sandbox.StripeWebhooks.SetURL("http://" + addr + "/api/webhooks/stripe")
}

// SpawnProcess starts a program and waits for nothing: for one that is not meant to serve.
func (s *System) SpawnProcess(name string, overrides map[string]string) *Process {
	s.t.Helper()
	return s.spawn(s.servers.Programs, name, overrides)
}

func (s *System) spawn(programs *Programs, name string, overrides map[string]string) *Process {
	s.t.Helper()
	path, err := programs.path(name)
	s.must(err, "preparing the programs")
	environ := maps.Clone(s.Environ)
	maps.Copy(environ, overrides)
	p := &Process{Name: name, cmd: exec.Command(path), logs: &logBuffer{}, done: make(chan struct{})}
	p.cmd.Env = []string{"HOME=" + os.TempDir()}
	for _, variable := range slices.Sorted(maps.Keys(environ)) {
		p.cmd.Env = append(p.cmd.Env, variable+"="+environ[variable])
	}
	p.cmd.Stdout, p.cmd.Stderr = p.logs, p.logs
	// Signals of the terminal are for the tests; nothing outlives them.
	p.cmd.SysProcAttr = ownGroup()
	started := make(chan error)
	go func() {
		// Linux takes the thread that started a process for its parent.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
			close(p.done)
		}
	}()
	s.must(<-started, "starting "+name)
	s.t.Cleanup(func() {
		p.Kill()
		if s.t.Failed() {
			s.t.Logf("log of %s, process %d:\n%s", name, p.cmd.Process.Pid, p.Logs())
		}
	})
	return p
}

// Kill ends a process with SIGKILL, so that it can tell nobody, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// Pause has the process stand still until [Process.Resume]; its connections stay open.
func (p *Process) Pause() { _ = p.cmd.Process.Signal(syscall.SIGSTOP) } // an error means that it has ended

// Resume has the process go on, and does nothing to one that runs.
func (p *Process) Resume() { _ = p.cmd.Process.Signal(syscall.SIGCONT) } // an error means that it has ended

// Stop asks a process to end with SIGTERM, waits for it, and answers its exit code, -1 if it did
// not end of its own accord.
func (p *Process) Stop(ctx context.Context) (code int, err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
	return p.Wait(ctx)
}

// Wait waits until a process has ended and answers its exit code, -1 if a signal ended it.
func (p *Process) Wait(ctx context.Context) (code int, err error) {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return -1, fmt.Errorf("%s has not ended: %w", p.Name, ctx.Err())
	}
}

// Ended tells whether a process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Logs is what a process has written so far, to both outputs.
func (p *Process) Logs() string { return p.logs.String() }

// Lines are those lines of a process's log that hold a text.
func (p *Process) Lines(text string) (lines []string) {
	for line := range strings.Lines(p.Logs()) {
		if strings.Contains(line, text) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// PeakMemory is the most memory in bytes that the process has held at once, [errors.ErrUnsupported]
// where the system does not tell.
func (p *Process) PeakMemory() (int64, error) { return peakMemory(p.cmd.Process.Pid) }
