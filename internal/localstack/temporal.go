//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

// TemporalOptions says which development server to run.
type TemporalOptions struct {
	// Binary is the Temporal command line, from [TemporalBinary].
	Binary string
	// DBFile keeps the workflows from one start to the next. Empty means in
	// memory, and gone when the server stops.
	DBFile string
	// Unsynced never waits for the disk that DBFile is on. What was written survives
	// the end of the server, however it ends, but not that of the machine.
	Unsynced bool
	// Namespace is created if it is missing. Empty means "default".
	Namespace string
	// Port of 127.0.0.1 for clients; zero means any free one.
	Port int
	// UI turns on the Web UI, on UIPort of 127.0.0.1; zero means any free one.
	UI     bool
	UIPort int
	// LogFile is appended to. Empty means that the log is thrown away.
	LogFile string
	// Dynamic is the server's dynamic configuration, values in JSON.
	Dynamic map[string]string
}

// Temporal is a running development server.
type Temporal struct {
	process *process
	lock    *fileLock
	log     *serverLog
	remove  string // a throwaway log
	port    int
	uiPort  int
}

// StartTemporal runs the development server and waits until it serves its
// namespace and, if asked for, its Web UI. The context bounds the start only. A
// port that is asked for and taken is a [*PortTakenError].
func StartTemporal(ctx context.Context, opts TemporalOptions) (_ *Temporal, err error) {
	t := &Temporal{}
	defer func() {
		if err != nil {
			t.cleanUp()
			err = fmt.Errorf("start Temporal: %w", err)
		}
	}()
	if opts.Namespace == "" {
		opts.Namespace = "default"
	}
	if opts.DBFile != "" {
		if t.lock, err = tryLock(opts.DBFile + ".lock"); errors.Is(err, errLocked) {
			return nil, fmt.Errorf("the data in %s are in use by another running copy", opts.DBFile)
		} else if err != nil {
			return nil, err
		}
	}
	if opts.LogFile == "" {
		if t.remove, err = throwawayDir("", "clerk-stripe-sync-temporal-"); err != nil {
			return nil, err
		}
		opts.LogFile = filepath.Join(t.remove, "temporal.log")
	}
	if t.log, err = openLog(opts.LogFile); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const attempts = 5
	for attempt := 1; ; attempt++ {
		err := t.launch(ctx, opts)
		if err == nil {
			return t, nil
		}
		// A free port can be taken before the server has it: then try others.
		if attempt == attempts || !t.log.says("address already in use") {
			return nil, err
		}
	}
}

// Address is the host and port for clients.
func (t *Temporal) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.port)) }

// UIURL is the address of the Web UI, empty if it is off.
func (t *Temporal) UIURL() string {
	if t.uiPort == 0 {
		return ""
	}
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(t.uiPort))
}

// PID is the process id of the server.
func (t *Temporal) PID() int { return t.process.cmd.Process.Pid }

// Done is closed when the server has ended, asked to or not.
func (t *Temporal) Done() <-chan struct{} { return t.process.done }

// Stop shuts the server down and waits until ctx ends, eight seconds if ctx has no
// deadline; after that the server is killed, which its database file survives,
// and Stop answers an error. A second Stop does nothing.
func (t *Temporal) Stop(ctx context.Context) error {
	err := t.process.stop(ctx, syscall.SIGTERM, syscall.SIGKILL)
	t.cleanUp()
	return err
}

func (t *Temporal) cleanUp() {
	t.lock.release()
	t.lock = nil
	if t.log != nil {
		t.log.close()
		t.log = nil
	}
	if t.remove != "" {
		_ = os.RemoveAll(t.remove)
		t.remove = ""
	}
}

func (t *Temporal) launch(ctx context.Context, opts TemporalOptions) (err error) {
	if err := t.log.begin(); err != nil {
		return err
	}
	if t.port, err = choosePort(ctx, opts.Port); err != nil {
		return err
	}
	args := []string{
		"server", "start-dev", "--ip", "127.0.0.1", "--port", strconv.Itoa(t.port),
		"--namespace", opts.Namespace, "--log-level", "warn",
	}
	if opts.UI {
		if t.uiPort, err = choosePort(ctx, opts.UIPort); err != nil {
			return err
		}
		args = append(args, "--ui-ip", "127.0.0.1", "--ui-port", strconv.Itoa(t.uiPort))
	} else {
		args = append(args, "--headless")
	}
	if opts.DBFile != "" {
		args = append(args, "--db-filename", opts.DBFile)
		if opts.Unsynced {
			args = append(args, "--sqlite-pragma", "synchronous=off")
		}
	}
	for name, value := range opts.Dynamic {
		args = append(args, "--dynamic-config-value", name+"="+value)
	}
	cmd := exec.Command(opts.Binary, args...)
	cmd.Env = temporalEnv()
	cmd.Stdout, cmd.Stderr = t.log.file, t.log.file
	// The database file survives a kill, so an orphan need not be asked nicely.
	if t.process, err = startProcess("Temporal", cmd, syscall.SIGKILL); err != nil {
		return err
	}
	if err := t.awaitReady(ctx, opts.Namespace); err != nil {
		_ = t.process.stop(context.WithoutCancel(ctx), syscall.SIGTERM, syscall.SIGKILL)
		return fmt.Errorf("%w; %s ends with:\n%s", err, t.log.file.Name(), t.log.tail())
	}
	return nil
}

// awaitReady asks for the namespace, and opens the Web UI's port, until both answer.
func (t *Temporal) awaitReady(ctx context.Context, namespace string) error {
	c, err := client.NewLazyClient(client.Options{
		HostPort:  t.Address(),
		Namespace: namespace,
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer c.Close()
	return poll(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case <-t.process.done:
			return false, t.process.ended()
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		request := &workflowservice.DescribeNamespaceRequest{Namespace: namespace}
		if _, err := c.WorkflowService().DescribeNamespace(attempt, request); err != nil {
			return false, nil
		}
		if t.uiPort == 0 {
			return true, nil
		}
		conn, err := (&net.Dialer{}).DialContext(attempt, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(t.uiPort)))
		if err != nil {
			return false, nil
		}
		return true, conn.Close()
	})
}

// temporalEnv is this process's environment without the variables that steer
// clients, which the command line reads too.
func temporalEnv() []string {
	var env []string
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "TEMPORAL_") {
			env = append(env, entry)
		}
	}
	return env
}
