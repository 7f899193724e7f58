package stripeevent

import "time"

// Listed is an event as Stripe's own list shows it.
type Listed struct {
	ID, Type string
	// Created is when the event was made, in whole seconds.
	Created time.Time
	// Body is the event whole: what a delivery of it would carry.
	Body []byte
}
