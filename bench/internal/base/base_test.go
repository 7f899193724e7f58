package base_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/base"
)

// repository is one of a program in two commits: the first says hello, the second does not compile.
// What is not committed says something else.
func repository(t *testing.T) (root, good, bad string) {
	t.Helper()
	root = t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
			"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	git("init", "--quiet")
	write("go.mod", "module example.com/hello\n\ngo 1.24\n")
	write("cmd/hello/main.go", "package main\n\nfunc main() { println(\"hello\") }\n")
	git("add", ".")
	git("commit", "--quiet", "-m", "hello")
	good = git("rev-parse", "HEAD")
	write("cmd/hello/main.go", "package main\n\nfunc main() { nowhere() }\n")
	git("commit", "--quiet", "-a", "-m", "broken")
	bad = git("rev-parse", "HEAD")
	write("cmd/hello/main.go", "package main\n\nfunc main() { println(\"not committed\") }\n")
	return root, good, bad
}

// What is built is the commit's, whatever the working tree holds, and the working tree stays as it
// is.
func TestTheProgramsAreThoseOfTheCommit(t *testing.T) {
	t.Parallel()
	root, good, _ := repository(t)
	programs, err := base.Build(t.Context(), root, good, t.TempDir(), "./cmd/hello")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(programs, "hello")).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "hello" {
		t.Errorf("it says %q (%v)", out, err)
	}
	text, err := os.ReadFile(filepath.Join(root, "cmd/hello/main.go"))
	if err != nil || !strings.Contains(string(text), "not committed") {
		t.Errorf("the working tree holds %q (%v)", text, err)
	}
}

// A base that cannot be built is an error that names the commit and says what the compiler said.
func TestABaseThatCannotBeBuiltIsNamed(t *testing.T) {
	t.Parallel()
	root, _, bad := repository(t)
	_, err := base.Build(t.Context(), root, bad, t.TempDir(), "./cmd/hello")
	if err == nil || !strings.Contains(err.Error(), bad) || !strings.Contains(err.Error(), "cannot be built") || !strings.Contains(err.Error(), "undefined: nowhere") {
		t.Errorf("the error is %v", err)
	}
}

// A base that is not there, as in a shallow clone, is an error that says what to do.
func TestABaseThatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	root, good, _ := repository(t)
	missing := strings.Repeat("0", len(good)-1) + "1"
	for _, commit := range []string{missing, "--all", ""} {
		_, err := base.Build(t.Context(), root, commit, t.TempDir(), "./cmd/hello")
		if err == nil || !strings.Contains(err.Error(), "is not a commit of this repository") || !strings.Contains(err.Error(), "fetch") {
			t.Errorf("the error for %q is %v", commit, err)
		}
	}
}
