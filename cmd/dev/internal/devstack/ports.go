//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// checkPorts looks whether all ports are free. The error names each that is not, with the variable
// that chooses another.
func checkPorts(ctx context.Context, needed []port) error {
	var faults []error
	first := map[int]port{}
	for _, p := range needed {
		if p.number == 0 {
			continue
		}
		if other, twice := first[p.number]; twice {
			faults = append(faults, fmt.Errorf("port %d is meant for %s and for %s: change %s or %s", p.number, other.what, p.what, other.variable, p.variable))
			continue
		}
		first[p.number] = p
		err := localstack.CheckPort(ctx, p.number)
		if taken, ok := errors.AsType[*localstack.PortTakenError](err); ok {
			faults = append(faults, fmt.Errorf("%w, but is needed for %s: stop that, or choose another port with %s", taken, p.what, p.variable))
		} else if err != nil {
			faults = append(faults, fmt.Errorf("%s for %s: %w", p.variable, p.what, err))
		}
	}
	return errors.Join(faults...)
}
