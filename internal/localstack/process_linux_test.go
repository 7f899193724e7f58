package localstack

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// processesIn lists the processes that work in a directory, as all of
// PostgreSQL's do in that of its data.
func processesIn(t *testing.T, dir string) []int {
	t.Helper()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == real {
			pid, err := strconv.Atoi(strings.Split(link, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func awaitGone(t *testing.T, what string, gone func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := poll(ctx, 20*time.Millisecond, func() (bool, error) { return gone(), nil }); err != nil {
		t.Errorf("%s: still there: %v", what, err)
	}
}

func TestNoProcessIsLeftAfterStop(t *testing.T) {
	t.Parallel()
	dir := keptDir(t)
	p := startPostgres(t, PostgresOptions{Dir: dir})
	if len(processesIn(t, dir)) < 2 {
		t.Fatal("the server and its children were not found, so this test would prove nothing")
	}
	stop(t, p)
	if left := processesIn(t, dir); len(left) != 0 {
		t.Errorf("left of PostgreSQL: %v", left)
	}
}

func TestNoProcessIsLeftAfterTheParentIsKilled(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(keptDir(t))
	data := filepath.Join(dir, "postgres")
	program, postgres, temporal := startProgram(t, dir)
	if commandLine(postgres) == "" || commandLine(temporal) == "" || len(processesIn(t, data)) < 2 {
		t.Fatal("the servers were not found, so this test would prove nothing")
	}
	if err := program.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitGone(t, "Temporal", func() bool { return commandLine(temporal) == "" })
	awaitGone(t, "PostgreSQL", func() bool { return commandLine(postgres) == "" })
	awaitGone(t, "PostgreSQL's children", func() bool { return len(processesIn(t, data)) == 0 })

	// It was shut down in order, not killed, and nobody holds the data.
	log, err := os.ReadFile(data + ".log")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "database system is shut down") {
		t.Errorf("PostgreSQL's log has no orderly shutdown:\n%s", log)
	}
	startPostgres(t, PostgresOptions{Dir: data})
}
