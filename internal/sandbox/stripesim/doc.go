// Package stripesim is a Stripe that runs on loopback: customers, products, subscriptions,
// invoices, payments, checkout and events, kept in memory, spoken to in Stripe's own wire format,
// with a clock that can be moved forward.
//
// # One lock, one order
//
// A request, a call of a Go method and each thing that becomes due is one step under one lock, so
// that every read sees whole steps. A step appends the events it causes to a queue; after the lock
// is free they are given to Options.Emit in the order of their creation. Emit may call the server
// back. When one goroutine is emitting, another returns from its own step without waiting for its
// events; Settled waits for them.
//
// # Time
//
// The clock starts at Options.Now and flows with real time (unless Options.Frozen). Advance moves
// it and performs, in the order of simulated time, what becomes due on the way: ends of trials,
// renewals, retried payments, scheduled cancellations, expiries. Requests do the same for the time
// that has flowed since the last one.
//
// # Shapes
//
// Objects are rendered for an API version: a request's Stripe-Version header decides for its
// answer, Options.EventVersion for events. The versions differ as Stripe's do in what a
// subscription sync cares about: where the billing period is, how an invoice names its
// subscription, and which links between payments and invoices are gone.
package stripesim
