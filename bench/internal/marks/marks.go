// Package marks decides whether a change has made a measured ratio worse than it was at the commit
// whose figures were last accepted. Both are measured in one sitting on one machine; no figure of
// another sitting, and none that is not a ratio, is compared.
package marks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

// Marks says what is compared, and how.
type Marks struct {
	// Base is the commit that this tree is measured beside: the one whose figures were last accepted.
	Base string `json:"base"`
	// Runs is how often each ratio is measured, of the base and of this tree in turn. Medians are
	// compared.
	Runs int `json:"runs"`
	// Tolerance is by which part of the base's median a ratio may be worse: 0.1 for a tenth.
	Tolerance float64 `json:"tolerance"`
	// For is how long each measurement of deliveries takes.
	For Duration `json:"for"`
	// Connections are how many connections at a time deliver.
	Connections []int `json:"connections"`
	// Changes is how many changes are timed in each run, one after the other.
	Changes int `json:"changes"`
	// Ratios are what is compared, by name.
	Ratios map[Name]Better `json:"ratios"`
}

// Name is a ratio's name.
type Name string

// The ratios that can be measured.
const (
	// OursToInsert is how many deliveries a second the program answers, to those of a bare handler
	// that makes one insert each.
	OursToInsert Name = "ours to insert"
	// DrainingToOurs is how many it answers while it sends wake-ups to Temporal, to how many it
	// answers while it does not.
	DrainingToOurs Name = "draining to ours"
	// AgreementToBare is how long it takes from a delivery until all systems agree, to how long a bare
	// workflow takes.
	AgreementToBare Name = "agreement to the bare workflow"
)

// PerConnections reports whether a ratio is measured at each number of connections.
func (n Name) PerConnections() bool { return n != AgreementToBare }

// Better is the direction in which a ratio is better.
type Better string

// The directions.
const (
	Higher Better = "higher"
	Lower  Better = "lower"
)

// Duration is a time.Duration that is written as Go writes it.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Read reads marks from a file, and returns an error that names all that is wrong with them.
func Read(path string) (Marks, error) {
	var m Marks
	text, err := os.ReadFile(path)
	if err != nil {
		return m, fmt.Errorf("reading the marks: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields() // a misspelt tolerance would be none
	if err := decoder.Decode(&m); err != nil {
		return m, fmt.Errorf("reading the marks in %s: %w", path, err)
	}
	if err := m.Check(); err != nil {
		return m, fmt.Errorf("the marks in %s: %w", path, err)
	}
	return m, nil
}

// Check returns an error that names all that is wrong with marks.
func (m Marks) Check() error {
	var wrong []error
	if m.Base == "" {
		wrong = append(wrong, errors.New("base names no commit"))
	}
	if m.Runs < 1 || m.Runs%2 == 0 {
		wrong = append(wrong, fmt.Errorf("runs is %d, and only an odd number has a middle one", m.Runs))
	}
	if m.Tolerance <= 0 || m.Tolerance >= 1 {
		wrong = append(wrong, fmt.Errorf("tolerance is %g, and is to be a part between 0 and 1", m.Tolerance))
	}
	if m.For <= 0 || m.Changes < 1 {
		wrong = append(wrong, errors.New("for and changes are to be positive"))
	}
	if len(m.Connections) == 0 || slices.Min(m.Connections) < 1 {
		wrong = append(wrong, fmt.Errorf("connections are %v, and are to be positive numbers", m.Connections))
	}
	for _, name := range []Name{OursToInsert, DrainingToOurs, AgreementToBare} {
		if better := m.Ratios[name]; better != Higher && better != Lower {
			wrong = append(wrong, fmt.Errorf("ratio %q is better %q, and is to be better %q or %q", name, better, Higher, Lower))
		}
	}
	if len(m.Ratios) > 3 {
		wrong = append(wrong, errors.New("ratios has a name that is not measured"))
	}
	return errors.Join(wrong...)
}

// Key is a ratio at so many connections, 0 for one that does not depend on them.
type Key struct {
	Name        Name
	Connections int
}

func (k Key) String() string {
	if k.Connections == 0 {
		return string(k.Name)
	}
	return fmt.Sprintf("%s, %d connections", k.Name, k.Connections)
}

// Keys are all that has to be measured, in the order in which it is shown.
func (m Marks) Keys() (all []Key) {
	for _, name := range []Name{OursToInsert, DrainingToOurs, AgreementToBare} {
		if !name.PerConnections() {
			all = append(all, Key{Name: name})
			continue
		}
		for _, n := range m.Connections {
			all = append(all, Key{Name: name, Connections: n})
		}
	}
	return all
}

// Sitting has what each run came to, of the base and of this tree.
type Sitting struct{ Base, This map[Key][]float64 }

// NewSitting is one in which nothing is measured yet.
func NewSitting() Sitting { return Sitting{Base: map[Key][]float64{}, This: map[Key][]float64{}} }

// Line is what one ratio came to.
type Line struct {
	Key  Key
	Wins Better
	// Base and This are the medians.
	Base, This float64
	// BaseRuns and ThisRuns are what the runs came to, lowest first.
	BaseRuns, ThisRuns []float64
	// WorseBy is by which part of the base's median this tree's is worse; negative where it is better.
	WorseBy float64
	// Worse is set where that is more than is tolerated.
	Worse bool
}

// Compare compares the medians of each ratio. It returns an error where a ratio was not measured as
// often as the marks say, or came to something that is no ratio: what is not known to be as good is
// not passed.
func (m Marks) Compare(s Sitting) ([]Line, error) {
	var lines []Line
	var wrong []error
	for _, key := range m.Keys() {
		line := Line{Key: key, Wins: m.Ratios[key.Name], BaseRuns: slices.Sorted(slices.Values(s.Base[key])), ThisRuns: slices.Sorted(slices.Values(s.This[key]))}
		ok := true
		for whose, runs := range map[string][]float64{"the base": line.BaseRuns, "this tree": line.ThisRuns} {
			if len(runs) != m.Runs {
				wrong, ok = append(wrong, fmt.Errorf("%s of %s was measured %d times, not %d", key, whose, len(runs), m.Runs)), false
			}
			for _, value := range runs {
				if !(value > 0) || math.IsInf(value, 1) {
					wrong, ok = append(wrong, fmt.Errorf("%s of %s came to %g", key, whose, value)), false
				}
			}
		}
		if !ok {
			continue
		}
		line.Base, line.This = line.BaseRuns[m.Runs/2], line.ThisRuns[m.Runs/2]
		line.WorseBy = line.This/line.Base - 1
		if line.Wins == Higher {
			line.WorseBy = -line.WorseBy
		}
		// Ten per cent is not over ten per cent, whatever the division leaves behind the comma.
		line.Worse = line.WorseBy > m.Tolerance+1e-9
		lines = append(lines, line)
	}
	return lines, errors.Join(wrong...)
}

// Table shows lines in Markdown, with the lowest and the highest run behind each median.
func Table(lines []Line) string {
	var b strings.Builder
	b.WriteString("| ratio | better | base | this tree | worse by | |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, l := range lines {
		verdict := "ok"
		if l.Worse {
			verdict = "WORSE"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %+.1f %% | %s |\n", l.Key, l.Wins, spread(l.Base, l.BaseRuns), spread(l.This, l.ThisRuns), 100*l.WorseBy, verdict)
	}
	return b.String()
}

func spread(median float64, runs []float64) string {
	return fmt.Sprintf("%.3f (%.3f to %.3f)", median, runs[0], runs[len(runs)-1])
}

// Failure is an error that names each ratio that has become worse by more than is tolerated; nil if
// none has.
func (m Marks) Failure(lines []Line) error {
	var all []string
	for _, l := range lines {
		if l.Worse {
			all = append(all, fmt.Sprintf("%s is %.3f and was %.3f at the base: %.1f %% worse", l.Key, l.This, l.Base, 100*l.WorseBy))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return fmt.Errorf("over %g %% worse than at %.12s, at the median of %d:\n  %s", 100*m.Tolerance, m.Base, m.Runs, strings.Join(all, "\n  "))
}
