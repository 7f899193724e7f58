//go:build unix

package localstack

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"
)

// temporalModule is the Temporal command line; tools/go.mod pins its version.
const temporalModule = "github.com/temporalio/cli"

var temporalRequirement = regexp.MustCompile(`(?m)^\s*(?:require\s+)?` + regexp.QuoteMeta(temporalModule) + ` (v\S+)`)

// ProjectRoot is the first directory from dir upwards that holds tools/go.mod.
func ProjectRoot(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the project: %w", err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "tools", "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("find the project: no tools/go.mod in or above %s", abs)
		}
	}
}

// TemporalBinary answers the path of a Temporal command line that works: the one
// on the PATH, else bin/temporal below root if it is of the pinned version, else
// that version, built there. Building takes about five minutes the first time; out
// is told so, and that it goes on. A nil out means nobody is told.
//
// Several processes may ask at once: one builds, the others wait for it.
func TemporalBinary(ctx context.Context, root string, out io.Writer) (string, error) {
	if path, err := exec.LookPath("temporal"); err == nil {
		if exec.CommandContext(ctx, path, "--version").Run() == nil {
			return path, nil
		}
	}
	return ownTemporal(ctx, root, out)
}

// ownTemporal is [TemporalBinary] without a look at the PATH.
func ownTemporal(ctx context.Context, root string, out io.Writer) (string, error) {
	pinned, err := pinnedTemporal(root)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(root, "bin", "temporal")
	if builtFrom(binary) == pinned {
		return binary, nil
	}
	if out == nil {
		out = io.Discard
	}
	lock, err := waitLock(ctx, binary+".lock", func() {
		fmt.Fprintln(out, "waiting for the Temporal CLI, which another process is building")
	})
	if err != nil {
		return "", fmt.Errorf("build the Temporal CLI: %w", err)
	}
	defer lock.release()
	if builtFrom(binary) == pinned {
		return binary, nil // while we waited
	}
	fmt.Fprintf(out, "building the Temporal CLI %s into %s: about five minutes, once\n", pinned, binary)
	if err := buildTemporal(ctx, root, binary, out); err != nil {
		return "", err
	}
	return binary, nil
}

// pinnedTemporal reads the version from tools/go.mod.
func pinnedTemporal(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "tools", "go.mod"))
	if err != nil {
		return "", fmt.Errorf("find the pinned Temporal CLI: %w", err)
	}
	found := temporalRequirement.FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("find the pinned Temporal CLI: tools/go.mod does not require %s", temporalModule)
	}
	return string(found[1]), nil
}

// builtFrom is the version of the Temporal module that a binary was built from, as
// Go wrote into it; empty if there is no such binary.
func builtFrom(binary string) string {
	info, err := buildinfo.ReadFile(binary)
	if err != nil || info.Main.Path != temporalModule {
		return ""
	}
	return info.Main.Version
}

func buildTemporal(ctx context.Context, root, binary string, out io.Writer) error {
	half := binary + ".new"
	// The linker's tables are left out, which halves the file.
	cmd := exec.CommandContext(ctx, "go", "-C", filepath.Join(root, "tools"), "build", "-trimpath", "-ldflags=-s -w",
		"-o", half, temporalModule+"/cmd/temporal")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	// Interrupted, go stops its compilers; killed, it would leave them running.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said

	alive := startProgress(out, "building the Temporal CLI")
	err := cmd.Run()
	alive.stop()
	if err != nil {
		_ = os.Remove(half)
		if ctx.Err() != nil {
			return fmt.Errorf("build the Temporal CLI: %w", ctx.Err())
		}
		return fmt.Errorf("build the Temporal CLI: %w\n%s", err, lastLines(said.String(), 8))
	}
	if err := os.Rename(half, binary); err != nil {
		return fmt.Errorf("build the Temporal CLI: %w", err)
	}
	return nil
}
