package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with the environment.
type Fault struct {
	// Variable is the environment variable at fault.
	Variable string
	// Problem says what is wrong, without the value: it may be a secret put in the wrong place.
	Problem string
	// Remedy says what to do.
	Remedy string
}

// String is the fault as one sentence.
func (f Fault) String() string { return fmt.Sprintf("%s %s: %s", f.Variable, f.Problem, f.Remedy) }

// Faults is everything wrong with the environment, in the order of the configuration's fields.
type Faults []Fault

// Error lists the faults, one a line.
func (f Faults) Error() string {
	var b strings.Builder
	b.WriteString("the configuration has a fault:")
	if len(f) > 1 {
		b.Reset()
		fmt.Fprintf(&b, "the configuration has %d faults:", len(f))
	}
	for _, fault := range f {
		b.WriteString("\n  ")
		b.WriteString(fault.String())
	}
	return b.String()
}

// checker gathers faults, the first for each variable: what follows from it would only distract.
type checker struct {
	order  map[string]int // place of each variable among the fields
	faults map[string]Fault
}

// add notes that variable is at fault.
func (c *checker) add(variable, problem, remedy string) {
	if _, known := c.faults[variable]; !known {
		c.faults[variable] = Fault{Variable: variable, Problem: problem, Remedy: remedy}
	}
}

// err returns the faults in the order of the fields, or nil.
func (c *checker) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	all := make(Faults, 0, len(c.faults))
	for _, fault := range c.faults {
		all = append(all, fault)
	}
	slices.SortFunc(all, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(c.order[a.Variable], c.order[b.Variable]), strings.Compare(a.Variable, b.Variable))
	})
	return all
}
