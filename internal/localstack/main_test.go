//go:build unix

package localstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// helperVariable makes this test binary play a program that starts both servers
// and is then killed; its value is the directory for their data.
const helperVariable = "LOCALSTACK_TEST_HELPER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperVariable); dir != "" {
		if err := playProgram(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// playProgram starts both servers, prints their process ids and lasts until its
// standard input ends.
func playProgram(dir string) error {
	ctx := context.Background()
	binary, err := temporalForTests(ctx)
	if err != nil {
		return err
	}
	postgres, err := StartPostgres(ctx, PostgresOptions{Dir: dir + "/postgres"})
	if err != nil {
		return err
	}
	temporal, err := StartTemporal(ctx, TemporalOptions{Binary: binary, DBFile: dir + "/temporal.db", LogFile: dir + "/temporal.log"})
	if err != nil {
		return err
	}
	fmt.Println(postgres.PID(), temporal.PID())
	_, err = bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

func temporalForTests(ctx context.Context) (string, error) {
	root, err := ProjectRoot(".")
	if err != nil {
		return "", err
	}
	return TemporalBinary(ctx, root, os.Stderr)
}

// startProgram starts the program of playProgram in another process and answers it
// and the ids of its servers.
func startProgram(t *testing.T, dir string) (program *exec.Cmd, postgres, temporal int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program = exec.Command(self)
	program.Env = append(os.Environ(), helperVariable+"="+dir)
	program.Stderr = os.Stderr
	stdin, err := program.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = program.Process.Kill()
		_ = program.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the program did not start its servers: %v", err)
	}
	if _, err := fmt.Sscan(line, &postgres, &temporal); err != nil {
		t.Fatalf("the program said %q: %v", line, err)
	}
	return program, postgres, temporal
}

// output collects what is said, from several goroutines.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
