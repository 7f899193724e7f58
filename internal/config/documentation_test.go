package config

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentation compares docs/configuration.md with the fields: each variable is documented for
// just the programs that read it, with its default, and nothing else is.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	type entry struct{ programs, fallback string }
	documented := map[string]entry{}
	row := regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\| ([a-z, -]+) \\| ([^|]+) \\|")
	for _, match := range row.FindAllStringSubmatch(string(page), -1) {
		name, programs, fallback := match[1], match[2], strings.Trim(match[3], "` ")
		for program := range strings.SplitSeq(programs, ", ") {
			key := program + " " + name
			if _, twice := documented[key]; twice {
				t.Errorf("%s is documented twice", key)
			}
			documented[key] = entry{programs: programs, fallback: fallback}
		}
	}

	for program, kind := range map[string]reflect.Type{
		"starter-api": reflect.TypeFor[API](), "worker": reflect.TypeFor[Worker](), "setup": reflect.TypeFor[Setup](),
	} {
		for _, v := range variablesOf(kind) {
			got, ok := documented[program+" "+v.name]
			if !ok {
				t.Errorf("%s of %s is not documented", v.name, program)
				continue
			}
			delete(documented, program+" "+v.name)
			if v.fallback != "" && got.fallback != v.fallback {
				t.Errorf("%s of %s: documented default %q, real default %q", v.name, program, got.fallback, v.fallback)
			}
		}
	}
	for key := range documented {
		t.Errorf("%s is documented and does not exist", key)
	}
}
