//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopPatience is how long a server may take to stop when the caller's context
// names no deadline. It leaves room under the ten seconds that `make dev` has.
const stopPatience = 8 * time.Second

// process is a server that this process started and answers for.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; to be read once done is closed
}

// startProcess starts cmd in a process group of its own, so that a terminal's
// Ctrl-C reaches this process alone and the servers stop in an order of our
// choosing. The child gets orphanSignal when this process dies.
func startProcess(name string, cmd *exec.Cmd, orphanSignal syscall.Signal) (*process, error) {
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	detach(cmd, orphanSignal)
	started := make(chan error)
	go func() {
		// Linux takes the thread that started the child for its parent, and would
		// send the signal as soon as Go's scheduler ended that thread.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop sends gentle and waits for the end. When ctx ends first it sends firm,
// waits a little longer, and reports that the first signal was not enough.
func (p *process) stop(ctx context.Context, gentle, firm syscall.Signal) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, stopPatience)
		defer cancel()
	}
	// An error means that it has ended already, which the wait finds out.
	_ = p.cmd.Process.Signal(gentle)
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
	}
	_ = p.cmd.Process.Signal(firm)
	select {
	case <-p.done:
		return fmt.Errorf("stop %s: it did not end at %v in time and was sent %v", p.name, gentle, firm)
	case <-time.After(3 * time.Second):
		return fmt.Errorf("stop %s: process %d is still running after %v and %v", p.name, p.cmd.Process.Pid, gentle, firm)
	}
}

// ended tells how a server that nobody stopped came to its end.
func (p *process) ended() error {
	if p.err != nil {
		return fmt.Errorf("it ended at once: %w", p.err)
	}
	return errors.New("it ended at once, without an error")
}

// poll calls check every interval until it answers true or an error, or ctx ends.
func poll(ctx context.Context, interval time.Duration, check func() (bool, error)) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if ok, err := check(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serverLog is the file that a server writes to.
type serverLog struct {
	file  *os.File
	start int64 // where this start's lines begin
}

// openLog opens path for appending, and creates its directory if need be.
func openLog(path string) (*serverLog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the log's directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	l := &serverLog{file: f}
	if err := l.begin(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

// begin is called before each start of the server.
func (l *serverLog) begin() error {
	info, err := l.file.Stat()
	if err != nil {
		return fmt.Errorf("look at the log: %w", err)
	}
	l.start = info.Size()
	return nil
}

// says tells whether a text is in what this start wrote. That may be far from the end: a server
// that cannot listen may go on to panic, and write a long stack.
func (l *serverLog) says(text string) bool {
	const most = 1 << 20
	written, err := io.ReadAll(io.NewSectionReader(l.file, l.start, most))
	return err == nil && strings.Contains(string(written), text)
}

// tail is the last few lines that this start wrote, for an error's text.
func (l *serverLog) tail() string {
	const most = 4 << 10
	info, err := l.file.Stat()
	if err != nil {
		return ""
	}
	from := max(l.start, info.Size()-most)
	text, err := io.ReadAll(io.NewSectionReader(l.file, from, most))
	if err != nil {
		return ""
	}
	return lastLines(string(text), 6)
}

// lastLines is the end of a text, for an error that must stay readable.
func lastLines(text string, most int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

func (l *serverLog) close() { _ = l.file.Close() }
