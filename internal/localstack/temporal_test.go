//go:build unix

package localstack

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
)

func startTemporal(t *testing.T, opts TemporalOptions) *Temporal {
	t.Helper()
	var err error
	if opts.Binary, err = temporalForTests(t.Context()); err != nil {
		t.Fatal(err)
	}
	server, err := StartTemporal(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return server
}

func temporalClient(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := client.DialContext(t.Context(), client.Options{
		HostPort:  address,
		Namespace: "kept",
		Logger:    log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A server that does not wait for the disk loses nothing when it is killed: what it wrote is the
// operating system's.
func TestUnsyncedTemporalIsKilledAndKeepsItsData(t *testing.T) {
	t.Parallel()
	opts := TemporalOptions{DBFile: filepath.Join(t.TempDir(), "temporal.db"), Namespace: "kept", Unsynced: true}
	first := startTemporal(t, opts)
	if command := commandLine(first.PID()); command != "" && !strings.Contains(command, "synchronous=off") {
		t.Errorf("it runs as %s", command)
	}
	if _, err := temporalClient(t, first.Address()).ExecuteWorkflow(t.Context(),
		client.StartWorkflowOptions{ID: "kept", TaskQueue: "nobody"}, "Kept"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-first.Done()
	stop(t, first)
	second := startTemporal(t, opts)
	if _, err := temporalClient(t, second.Address()).DescribeWorkflowExecution(t.Context(), "kept", ""); err != nil {
		t.Error("after the kill:", err)
	}
}

func TestTemporalKeepsItsDataAndServesItsUI(t *testing.T) {
	t.Parallel()
	opts := TemporalOptions{DBFile: filepath.Join(t.TempDir(), "temporal.db"), Namespace: "kept", UI: true}
	first := startTemporal(t, opts)
	started, err := temporalClient(t, first.Address()).ExecuteWorkflow(t.Context(),
		client.StartWorkflowOptions{ID: "kept", TaskQueue: "nobody"}, "Kept")
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(first.UIURL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if page, err := io.ReadAll(response.Body); err != nil || !strings.Contains(string(page), "<html") {
		t.Errorf("the Web UI answered %d, %v", response.StatusCode, err)
	}
	http.DefaultClient.CloseIdleConnections()

	opts.Binary = "never run"
	if _, err := StartTemporal(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "in use by another running copy") {
		t.Errorf("a second server on the same data: %v", err)
	}

	stop(t, first)
	<-first.Done()
	if commandLine(first.PID()) != "" {
		t.Error("it still runs")
	}
	stop(t, first) // a second time does nothing

	opts.UI = false
	second := startTemporal(t, opts)
	if second.UIURL() != "" {
		t.Errorf("a headless server has a Web UI at %s", second.UIURL())
	}
	found, err := temporalClient(t, second.Address()).DescribeWorkflowExecution(t.Context(), "kept", started.GetRunID())
	if err != nil || found.GetWorkflowExecutionInfo().GetExecution().GetWorkflowId() != "kept" {
		t.Errorf("the workflow is gone: %v", err)
	}
}

func TestTemporalNamesATakenPort(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	port := listener.Addr().(*net.TCPAddr).Port
	for name, opts := range map[string]TemporalOptions{
		"clients": {Port: port},
		"Web UI":  {UI: true, UIPort: port},
	} {
		_, err := StartTemporal(t.Context(), opts)
		var taken *PortTakenError
		if !errors.As(err, &taken) || taken.Port != port {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// A free port can be taken before the server has it. The server says so, and a long stack after it.
func TestTemporalTakesAnotherPort(t *testing.T) {
	t.Parallel()
	binary, err := temporalForTests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, then := range map[string]struct{ command, wrong string }{
		"and serves":             {`exec "` + binary + `" "$@"`, ""},
		"and fails for a reason": {`echo no such flag; exit 1`, "no such flag"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script := filepath.Join(dir, "temporal")
			text := `#!/bin/sh
echo start >> "` + dir + `/starts"
if [ "$(wc -l < "` + dir + `/starts")" -eq 1 ]; then
	echo 'level=ERROR msg="Failed to start gRPC listener" error="listen tcp 127.0.0.1:1: bind: address already in use"'
	echo 'panic: runtime error: invalid memory address or nil pointer dereference'
	for i in $(seq 200); do echo "	some/package/file.go:$i and what else there is to say of it"; done
	exit 2
fi
` + then.command + "\n"
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			server, err := StartTemporal(t.Context(), TemporalOptions{Binary: script})
			if err == nil {
				stop(t, server)
			}
			switch {
			case then.wrong == "" && err != nil:
				t.Error(err)
			case then.wrong != "" && (err == nil || !strings.Contains(err.Error(), then.wrong)):
				t.Errorf("it does not say %q: %v", then.wrong, err)
			}
			if starts, err := os.ReadFile(filepath.Join(dir, "starts")); err != nil || strings.Count(string(starts), "\n") != 2 {
				t.Errorf("it was started %d times, %v", strings.Count(string(starts), "\n"), err)
			}
		})
	}
}

func TestTemporalSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	binary, err := temporalForTests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartTemporal(t.Context(), TemporalOptions{Binary: binary, Dynamic: map[string]string{"a": "not json"}})
	if err == nil || !strings.Contains(err.Error(), "invalid dynamic config") {
		t.Errorf("got %v", err)
	}
}

// smallProject is a project whose pinned Temporal command line is a few lines
// that build at once.
func smallProject(t *testing.T, program string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"tools/go.mod":                "module tools\n\ngo 1.26.0\n\nrequire github.com/temporalio/cli v1.0.0\n\nreplace github.com/temporalio/cli => ./cli\n",
		"tools/cli/go.mod":            "module github.com/temporalio/cli\n\ngo 1.26.0\n",
		"tools/cli/cmd/temporal/m.go": program,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTemporalIsBuiltOnceForAll(t *testing.T) {
	t.Parallel()
	root := smallProject(t, "package main\n\nfunc main() {}\n")
	var said output
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			binary, err := ownTemporal(t.Context(), root, &said)
			if err != nil || binary != filepath.Join(root, "bin", "temporal") {
				t.Errorf("got %q, %v", binary, err)
			}
		})
	}
	all.Wait()
	if n := strings.Count(said.String(), "about five minutes"); n != 1 {
		t.Errorf("%d builds:\n%s", n, said.String())
	}
	entries, err := os.ReadDir(filepath.Join(root, "bin"))
	if err != nil || len(entries) != 1 {
		t.Errorf("bin holds %v, %v", entries, err)
	}

	// Another version is pinned: it is built again.
	mod := filepath.Join(root, "tools", "go.mod")
	text, err := os.ReadFile(mod)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(mod, []byte(strings.ReplaceAll(string(text), "v1.0.0", "v1.0.1")), 0o644); err != nil {
		t.Fatal(err)
	}
	binary, err := ownTemporal(t.Context(), root, nil)
	if err != nil || builtFrom(binary) != "v1.0.1" {
		t.Errorf("got %q of %q, %v", binary, builtFrom(binary), err)
	}
}

func TestTemporalBuildThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	root := smallProject(t, "package main\n\nfunc main() { notThere() }\n")
	if _, err := ownTemporal(t.Context(), root, nil); err == nil || !strings.Contains(err.Error(), "undefined: notThere") {
		t.Errorf("got %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ownTemporal(cancelled, root, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
