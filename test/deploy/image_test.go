package deploy

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one line of a Dockerfile, its continuations joined.
type instruction struct{ name, rest string }

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text := strings.ReplaceAll(read(t, "Dockerfile"), "\\\n", " ")
	var all []instruction
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		all = append(all, instruction{name, strings.TrimSpace(rest)})
	}
	return all
}

var (
	fromStage = regexp.MustCompile(`--from=(\S+)`)
	buildsCmd = regexp.MustCompile(`\./cmd/([a-z-]+)`)
	goImage   = regexp.MustCompile(`^golang:(\d+\.\d+)\.\d+-`)
	goVersion = regexp.MustCompile(`(?m)^go (\d+\.\d+)`)
)

// builtPrograms are the commands that the image holds.
func builtPrograms(t *testing.T) []string {
	t.Helper()
	var programs []string
	for _, step := range dockerfile(t) {
		if step.name == "RUN" {
			for _, match := range buildsCmd.FindAllStringSubmatch(step.rest, -1) {
				programs = append(programs, match[1])
			}
		}
	}
	if len(programs) == 0 {
		t.Fatal("the Dockerfile builds no program")
	}
	return programs
}

func TestImageStagesAndBases(t *testing.T) {
	t.Parallel()
	stages := map[string]bool{}
	var lastBase string
	var user string
	for _, step := range dockerfile(t) {
		switch step.name {
		case "FROM":
			words := strings.Fields(step.rest)
			lastBase, user = words[0], ""
			if len(words) == 3 && words[1] == "AS" {
				stages[words[2]] = true
			}
			if lastBase != "scratch" && !stages[lastBase] && !pinned.MatchString(lastBase) {
				t.Errorf("the base %q is not pinned", lastBase)
			}
			if built := goImage.FindStringSubmatch(lastBase); built != nil {
				wanted := goVersion.FindStringSubmatch(read(t, "go.mod"))
				if wanted == nil || wanted[1] != built[1] {
					t.Errorf("built with Go %s, go.mod says %v", built[1], wanted)
				}
			}
		case "COPY":
			if from := fromStage.FindStringSubmatch(step.rest); from != nil && !stages[from[1]] {
				t.Errorf("copies from %q, which is no stage", from[1])
			}
		case "RUN":
			if strings.Contains(step.rest, "go build") && !strings.Contains(step.rest, "CGO_ENABLED=0") {
				t.Error("a program with cgo does not run without a C library")
			}
		case "USER":
			user = step.rest
		}
	}
	if lastBase != "scratch" {
		t.Errorf("the image is based on %q, which holds more than the programs", lastBase)
	}
	if id, _, _ := strings.Cut(user, ":"); id == "" || strings.Trim(id, "0123456789") != "" || id == "0" {
		t.Errorf("the image runs as %q, not as a number that is not root's", user)
	}
}

func TestImageHoldsWhatIsStarted(t *testing.T) {
	t.Parallel()
	programs := builtPrograms(t)
	for _, step := range dockerfile(t) {
		if step.name == "CMD" && !slices.Contains(programs, strings.Trim(step.rest, `[]"`)) {
			t.Errorf("the image starts %s, which is not in it", step.rest)
		}
	}
	started := 0
	for name, s := range compose(t).Services {
		if s.Build == nil {
			continue
		}
		started++
		if len(s.Command) == 0 || !slices.Contains(programs, s.Command[0]) {
			t.Errorf("%s runs %v, which is not in the image", name, s.Command)
		}
		// There is no shell in the image, so a check is a program of it.
		if s.Healthcheck != nil && (s.Healthcheck.Test[0] != "CMD" || !slices.Contains(programs, s.Healthcheck.Test[1])) {
			t.Errorf("%s checks its health with %v", name, s.Healthcheck.Test)
		}
	}
	if started < 3 {
		t.Errorf("only %d services run this image", started)
	}
}
