// Package deploy checks the files that ship the programs, which no test machine
// can run: that they are what their formats allow, that what they name exists,
// and that they keep the rules this project has for them.
package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"go.yaml.in/yaml/v3"
)

// root is the project's directory as seen from this package.
const root = "../.."

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// composeFile is what the tests look at; the schema looks at everything.
type composeFile struct {
	Services map[string]service
	Volumes  map[string]any
	Configs  map[string]struct{ Content string }
}

type service struct {
	Image       string
	Build       any
	Command     []string
	Restart     string
	Environment map[string]*string
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck *struct{ Test []string }
	Volumes     []string
	Configs     []struct{ Source string }
	Ports       []string
}

func compose(t *testing.T) composeFile {
	t.Helper()
	var file composeFile
	if err := yaml.Unmarshal([]byte(read(t, "docker-compose.temporal.yml")), &file); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestComposeFileFitsTheSpecification(t *testing.T) {
	t.Parallel()
	text := read(t, "docker-compose.temporal.yml")
	parse := func(text string) map[string]any {
		var file map[string]any
		if err := yaml.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if err := schema.Validate(parse(text)); err != nil {
		t.Error(err)
	}
	for what, broken := range map[string]string{
		"a misspelled key":      strings.Replace(text, "depends_on:", "depend_on:", 1),
		"an unknown condition":  strings.Replace(text, "service_healthy", "service_is_healthy", 1),
		"an unknown top level":  strings.Replace(text, "\nservices:", "\nservice:", 1),
		"a number for an image": strings.Replace(text, "image: postgres:17.7-bookworm", "image: 17", 1),
	} {
		if broken == text {
			t.Errorf("%s: the file was not changed", what)
		}
		if err := schema.Validate(parse(broken)); err == nil {
			t.Errorf("%s is accepted, so the schema proves nothing", what)
		}
	}
}

func TestComposeServicesWaitForWhatTheyNeed(t *testing.T) {
	t.Parallel()
	file := compose(t)
	for name, s := range file.Services {
		for needed, how := range s.DependsOn {
			other, ok := file.Services[needed]
			switch {
			case !ok:
				t.Errorf("%s depends on %s, which is no service", name, needed)
			case how.Condition == "service_healthy" && other.Healthcheck == nil:
				t.Errorf("%s waits for the health of %s, which has no check", name, needed)
			case how.Condition == "service_completed_successfully" && !strings.HasPrefix(other.Restart, "on-failure"):
				t.Errorf("%s waits for the end of %s, which restarts %q", name, needed, other.Restart)
			case how.Condition != "service_healthy" && how.Condition != "service_completed_successfully":
				t.Errorf("%s waits for %s only to have been started", name, needed)
			}
		}
		if s.Restart == "" {
			t.Errorf("%s has no restart policy", name)
		}
		for _, volume := range s.Volumes {
			if source, _, _ := strings.Cut(volume, ":"); !hasKey(file.Volumes, source) {
				t.Errorf("%s mounts %s, which is no volume", name, source)
			}
		}
		for _, config := range s.Configs {
			if !hasKey(file.Configs, config.Source) {
				t.Errorf("%s is given %s, which is no config", name, config.Source)
			}
		}
	}
	// In the order in which a new host has to come up.
	order := []string{"postgres", "temporal-schema", "temporal", "temporal-namespace", "setup"}
	for _, last := range []string{"worker", "starter-api"} {
		if chain := append(slices.Clone(order), last); !waits(file, chain) {
			t.Errorf("%s does not come up in the order %v", last, chain)
		}
	}
}

// waits tells whether each of the services depends on the one before it.
func waits(file composeFile, chain []string) bool {
	for i := 1; i < len(chain); i++ {
		if !hasKey(file.Services[chain[i]].DependsOn, chain[i-1]) {
			return false
		}
	}
	return true
}

func hasKey[V any](m map[string]V, key string) bool {
	_, ok := m[key]
	return ok
}

// pinned is an image with a version of at least two numbers.
var pinned = regexp.MustCompile(`^[a-z0-9/-]+:\d+\.\d+[\w.-]*$`)

func TestComposeImagesArePinned(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		if s.Build == nil && !pinned.MatchString(s.Image) {
			t.Errorf("%s: %q is not pinned", name, s.Image)
		}
		if strings.Contains(s.Image, "auto-setup") {
			t.Errorf("%s: %q gets no updates any more", name, s.Image)
		}
	}
}

var (
	secretName = regexp.MustCompile(`(?i)(password|passwd|pwd|secret|token|api_key)`)
	given      = regexp.MustCompile(`^\$\{[A-Z_]+:\?[^}]+\}$`)
	urlSecret  = regexp.MustCompile(`://[^:/@]+:([^@]+)@`)
)

func TestComposeFileHoldsNoSecret(t *testing.T) {
	t.Parallel()
	checked := 0
	for name, s := range compose(t).Services {
		for variable, value := range s.Environment {
			if value == nil {
				continue
			}
			if secretName.MatchString(variable) {
				checked++
				if !given.MatchString(*value) {
					t.Errorf("%s: %s must be given from outside, and asked for when it is not", name, variable)
				}
			}
			if in := urlSecret.FindStringSubmatch(*value); in != nil {
				checked++
				if !given.MatchString(in[1]) {
					t.Errorf("%s: %s has a password in it", name, variable)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d secrets were found, so this test proves little", checked)
	}
}

func TestComposeListensOnThisHostOnly(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		for _, port := range s.Ports {
			if !strings.HasPrefix(port, "127.0.0.1:") {
				t.Errorf("%s publishes %s beyond this host", name, port)
			}
		}
	}
}

// documented finds the variables of a table row, with the programs that read them.
var documented = regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([a-z, -]+) \\|")

func TestComposePassesEveryVariableOfThePrograms(t *testing.T) {
	t.Parallel()
	readers := map[string]map[string]bool{}
	for _, row := range documented.FindAllStringSubmatch(read(t, "docs/configuration.md"), -1) {
		for program := range strings.SplitSeq(row[2], ", ") {
			if readers[program] == nil {
				readers[program] = map[string]bool{}
			}
			readers[program][row[1]] = true
		}
	}
	// Not for production: the providers are the real ones, and so is the environment.
	standIns := map[string]bool{"CLERK_API_URL": true, "STRIPE_API_URL": true, "NODE_ENV": true}
	file := compose(t)
	for _, program := range []string{"starter-api", "worker"} {
		if len(readers[program]) < 10 {
			t.Fatalf("found only %d variables of %s", len(readers[program]), program)
		}
		environment := file.Services[program].Environment
		for variable := range readers[program] {
			if !hasKey(environment, variable) && !standIns[variable] {
				t.Errorf("%s is not given %s", program, variable)
			}
		}
		for variable := range environment {
			if !readers[program][variable] && !strings.HasPrefix(variable, "TEMPORAL_") {
				t.Errorf("%s is given %s, which it does not read", program, variable)
			}
		}
	}
	// What several read they are given alike.
	shared := file.Services["setup"].Environment
	for _, variable := range slices.Sorted(maps.Keys(shared)) {
		for _, program := range []string{"starter-api", "worker"} {
			read := readers[program][variable] || strings.HasPrefix(variable, "TEMPORAL_")
			if read && !equal(file.Services[program].Environment[variable], shared[variable]) {
				t.Errorf("%s is given another %s", program, variable)
			}
		}
	}
}

func equal(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}
