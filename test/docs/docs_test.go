// Package docs_test checks that what the pages name is there.
package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

const root = "../.."

var (
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	target     = regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)")
	variable   = regexp.MustCompile("`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
	defined    = regexp.MustCompile(`(?m)^([a-z-]+):`)
	test       = regexp.MustCompile(`\b((?:Test|Fuzz)[A-Z]\w+)`)
	metric     = regexp.MustCompile("`([a-z]+(?:_[a-z]+)+)(?:\\{[^`]*\\})?`")
	lesson     = regexp.MustCompile(`TestLesson\w+`)
	precaution = regexp.MustCompile(`(?m)^#ifn?def ([A-Z_]+)`)
)

// pages are README and everything below docs, by path from the root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	paths := []string{filepath.Join(root, "README.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		found[path] = read(t, path)
	}
	if len(found) < 8 {
		t.Fatalf("only %d pages were found", len(found))
	}
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sources is all Go code of the project, with its models and the files that ship it.
func sources(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && slices.Contains([]string{".git", ".dev", "bin"}, entry.Name()) && filepath.Dir(path) == root {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".go") || strings.HasSuffix(path, ".pml") || strings.HasSuffix(path, "compose.temporal.yml") {
			all.WriteString(read(t, path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

func TestLinksResolve(t *testing.T) {
	t.Parallel()
	checked := 0
	for path, text := range pages(t) {
		for _, match := range link.FindAllStringSubmatch(text, -1) {
			to, _, _ := strings.Cut(match[1], "#")
			if to == "" || strings.Contains(to, "://") {
				continue
			}
			checked++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), to)); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if checked == 0 {
		t.Error("there was nothing to check")
	}
}

// The page of lessons tells of each test of them, in their order.
func TestLessonsAreTold(t *testing.T) {
	t.Parallel()
	told, made := lesson.FindAllString(read(t, filepath.Join(root, "docs", "lessons.md")), -1),
		lesson.FindAllString(read(t, filepath.Join(root, "test", "lessons", "lessons_test.go")), -1)
	if len(made) == 0 || !slices.Equal(told, made) {
		t.Errorf("docs/lessons.md tells of %v, there are %v", told, made)
	}
}

// Every precaution that a model can do without is told of in words.
func TestModelsAreDescribed(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(root, "docs", "model", "README.md"))
	models, err := filepath.Glob(filepath.Join(root, "docs", "model", "*.pml"))
	if err != nil || len(models) == 0 {
		t.Fatal("there was nothing to check:", err)
	}
	for _, path := range models {
		for _, match := range precaution.FindAllStringSubmatch(read(t, path), -1) {
			if !strings.Contains(page, "`"+match[1]+"`") {
				t.Errorf("docs/model/README.md does not tell what %s of %s takes away", match[1], filepath.Base(path))
			}
		}
	}
}

func TestMakeTargetsExist(t *testing.T) {
	t.Parallel()
	var targets []string
	for _, match := range defined.FindAllStringSubmatch(read(t, filepath.Join(root, "Makefile")), -1) {
		targets = append(targets, match[1])
	}
	checked := 0
	for path, text := range pages(t) {
		for _, match := range target.FindAllStringSubmatch(text, -1) {
			checked++
			if !slices.Contains(targets, match[1]) {
				t.Errorf("%s names make %s", path, match[1])
			}
		}
	}
	if checked == 0 {
		t.Error("there was nothing to check")
	}
}

// Variables, tests and metrics that a page names stand in the code.
func TestWhatIsNamedExists(t *testing.T) {
	t.Parallel()
	code := sources(t)
	// Read by libraries, or by make.
	elsewhere := []string{"TEMPORAL_NAMESPACE", "TEMPORAL_API_KEY", "TEMPORAL_CONFIG_FILE", "TEMPORAL_TLS"}
	for path, text := range pages(t) {
		for _, match := range variable.FindAllStringSubmatch(text, -1) {
			if name := match[1]; !slices.Contains(elsewhere, name) && !strings.Contains(code, name) {
				t.Errorf("%s names the variable %s", path, name)
			}
		}
		for _, match := range test.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(code, "func "+match[1]+"(") {
				t.Errorf("%s names the test %s", path, match[1])
			}
		}
		if filepath.Base(path) != "operating.md" {
			continue
		}
		for _, match := range metric.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(code, match[1]) {
				t.Errorf("%s names %s", path, match[1])
			}
		}
	}
}

// The page about what slipped through explains every class of differences, as the programs do.
func TestDriftClassesAreExplained(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(root, "docs", "recovery.md"))
	for _, class := range account.DriftClasses() {
		repair := map[account.Repair]string{account.RepairAlone: "", account.RepairOnRequest: "on request only: ", account.RepairByPerson: "by a person: "}[class.Repair()]
		if row := "| `" + string(class) + "` | " + class.Means() + " | " + repair + class.Remedy() + " |"; !strings.Contains(page, row) {
			t.Errorf("docs/recovery.md lacks the line\n%s", row)
		}
	}
}
