package workflows

import (
	"errors"

	"go.temporal.io/sdk/temporal"
)

// failureType is the class of an activity's failure, as the activities name it.
func failureType(err error) string {
	if application, ok := errors.AsType[*temporal.ApplicationError](err); ok {
		return application.Type()
	}
	return "unexpected"
}
