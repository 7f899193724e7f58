package marks_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/bench/internal/marks"
)

func accepted() marks.Marks {
	return marks.Marks{
		Base: "0123456789abcdef", Runs: 5, Tolerance: 0.1, For: marks.Duration(time.Second), Connections: []int{1, 64}, Changes: 20,
		Ratios: map[marks.Name]marks.Better{marks.OursToInsert: marks.Higher, marks.DrainingToOurs: marks.Higher, marks.AgreementToBare: marks.Lower},
	}
}

// level is a sitting in which both came to the same everywhere.
func level(m marks.Marks) marks.Sitting {
	s := marks.NewSitting()
	for _, key := range m.Keys() {
		s.Base[key] = []float64{0.9, 1.1, 1, 0.8, 1.2}
		s.This[key] = []float64{1, 0.8, 1.2, 1.1, 0.9}
	}
	return s
}

var (
	insert    = marks.Key{Name: marks.OursToInsert, Connections: 64}
	draining  = marks.Key{Name: marks.DrainingToOurs, Connections: 1}
	agreement = marks.Key{Name: marks.AgreementToBare}
)

// What is worse by more than is tolerated fails, in the direction in which worse lies, and only
// that.
func TestWhatHasBecomeWorseFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		key   marks.Key
		this  []float64 // beside a base whose median is 1
		worse bool
	}{
		"as before":                                 {insert, []float64{1, 1, 1, 1, 1}, false},
		"fewer answers by eleven per cent":          {insert, []float64{0.89, 0.89, 0.89, 0.89, 0.89}, true},
		"fewer answers by ten per cent":             {insert, []float64{0.9, 0.9, 0.9, 0.9, 0.9}, false},
		"more answers by half":                      {insert, []float64{1.5, 1.5, 1.5, 1.5, 1.5}, false},
		"fewer answers while draining":              {draining, []float64{0.5, 0.5, 0.5, 0.5, 0.5}, true},
		"later agreement by eleven per cent":        {agreement, []float64{1.11, 1.11, 1.11, 1.11, 1.11}, true},
		"later agreement by ten per cent":           {agreement, []float64{1.1, 1.1, 1.1, 1.1, 1.1}, false},
		"earlier agreement by half":                 {agreement, []float64{0.5, 0.5, 0.5, 0.5, 0.5}, false},
		"two bad runs of five are not the middle":   {insert, []float64{0.1, 1, 1, 1, 0.1}, false},
		"three bad runs of five are":                {insert, []float64{0.1, 1, 0.1, 1, 0.1}, true},
		"one very good run does not make up for it": {insert, []float64{0.8, 0.8, 0.8, 0.8, 100}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := accepted()
			s := level(m)
			s.This[c.key] = c.this
			lines, err := m.Compare(s)
			if err != nil {
				t.Fatal(err)
			}
			failure := m.Failure(lines)
			if (failure != nil) != c.worse {
				t.Errorf("failed with %v, want a failure: %t\n%s", failure, c.worse, marks.Table(lines))
			}
			if c.worse && !strings.Contains(failure.Error(), c.key.String()) {
				t.Errorf("%v does not name %s", failure, c.key)
			}
			for _, line := range lines {
				if line.Worse != (c.worse && line.Key == c.key) {
					t.Errorf("%s is worse: %t", line.Key, line.Worse)
				}
			}
			if table := marks.Table(lines); strings.Contains(table, "WORSE") != c.worse || strings.Count(table, "\n") != 2+len(m.Keys()) {
				t.Errorf("the table is\n%s", table)
			}
		})
	}
}

// Another machine, or another load, changes both by as much: that decides nothing.
func TestOnlyTheBaseOfTheSameSittingDecides(t *testing.T) {
	t.Parallel()
	m := accepted()
	s := level(m)
	for _, key := range m.Keys() {
		for i := range m.Runs {
			s.Base[key][i] *= 0.01
			s.This[key][i] *= 0.01
		}
	}
	lines, err := m.Compare(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Failure(lines); err != nil {
		t.Error(err)
	}
}

// What was not measured, or came to nothing, does not pass.
func TestWhatIsNotMeasuredDoesNotPass(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(marks.Sitting){
		"a ratio of this tree is missing": func(s marks.Sitting) { delete(s.This, insert) },
		"a ratio of the base is missing":  func(s marks.Sitting) { delete(s.Base, agreement) },
		"a run is missing":                func(s marks.Sitting) { s.This[draining] = s.This[draining][1:] },
		"nothing was answered":            func(s marks.Sitting) { s.This[insert][0] = 0 },
		"no number":                       func(s marks.Sitting) { s.Base[insert][0] = math.NaN() },
		"divided by nothing":              func(s marks.Sitting) { s.This[agreement][0] = math.Inf(1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := accepted()
			s := level(m)
			spoil(s)
			if _, err := m.Compare(s); err == nil {
				t.Error("it was compared")
			}
		})
	}
}

// The marks of this project can be read; a misspelt field, a missing ratio or an even number of
// runs cannot.
func TestMarksAreChecked(t *testing.T) {
	t.Parallel()
	m, err := marks.Read("../../marks.json")
	if err != nil {
		t.Fatal(err)
	}
	if m.Runs != 5 || m.Tolerance != 0.1 || m.Ratios[marks.OursToInsert] != marks.Higher || m.Ratios[marks.AgreementToBare] != marks.Lower {
		t.Errorf("the marks are %+v", m)
	}
	good, err := os.ReadFile("../../marks.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a field is misspelt":       {`"tolerance"`, `"tolerances"`},
		"a ratio is missing":        {`"ours to insert"`, `"ours to verify"`},
		"no direction is known":     {`"lower"`, `"smaller"`},
		"an even number of runs":    {`"runs": 5`, `"runs": 4`},
		"everything is tolerated":   {`"tolerance": 0.1`, `"tolerance": 1`},
		"no base":                   {m.Base, ""},
		"a duration without a unit": {`"for": "4s"`, `"for": "4"`},
		"what follows is not JSON":  {`{`, `[`},
		"connections are none":      {`"connections": [`, `"connections": [0, `},
		"nothing is timed":          {`"changes": `, `"changes": -`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(string(good), change[0], change[1], 1)
			if bad == string(good) {
				t.Fatal("nothing was changed")
			}
			path := filepath.Join(t.TempDir(), "marks.json")
			if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := marks.Read(path); err == nil {
				t.Error("they were read")
			}
		})
	}
}
