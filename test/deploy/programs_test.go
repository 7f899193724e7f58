package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestImageIsBuiltFromWhatTheProgramsNeed(t *testing.T) {
	t.Parallel()
	sent := map[string]bool{}
	lines := strings.Split(strings.TrimSpace(read(t, ".dockerignore")), "\n")
	for _, line := range lines {
		if kept, ok := strings.CutPrefix(line, "!"); ok {
			sent[kept] = true
			if _, err := os.Stat(filepath.Join(root, kept)); err != nil {
				t.Errorf("%s is sent to the build and does not exist", kept)
			}
		}
	}
	if !slices.Contains(lines, "*") {
		t.Error("what is not named is sent to the build too")
	}
	for _, dir := range packageDirs(t) {
		if top, _, _ := strings.Cut(dir, "/"); !sent[top] {
			t.Errorf("the programs need %s, which is not sent to the build", dir)
		}
	}
}

func TestImageHoldsNoStandIns(t *testing.T) {
	t.Parallel()
	for _, dir := range packageDirs(t) {
		for _, local := range []string{"internal/sandbox", "internal/localstack", "cmd/dev", "test"} {
			if dir == local || strings.HasPrefix(dir, local+"/") {
				t.Errorf("the programs of production are built from %s", dir)
			}
		}
	}
}

// packageDirs lists the directories of this module that the programs are built
// from. It fails for a program that does not exist.
func packageDirs(t *testing.T) []string {
	t.Helper()
	args := []string{"list", "-deps", "-f", "{{if .Module}}{{if .Module.Main}}{{.Dir}}{{end}}{{end}}"}
	for _, program := range builtPrograms(t) {
		args = append(args, "./cmd/"+program)
	}
	list := exec.CommandContext(t.Context(), "go", args...)
	list.Dir = root
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("list the programs' packages: %v", err)
	}
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for line := range strings.Lines(string(out)) {
		dir, err := filepath.Rel(base, strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, dir)
	}
	return dirs
}
