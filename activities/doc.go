// Package activities does what the workflows decide: it is the only code that talks to Clerk,
// to Stripe or to the database on a workflow's behalf.
//
// Activities are grouped by what they achieve, not by the vendor that they call. Each is a
// promise that may be asked for any number of times: a comment at each says why doing it twice
// is harmless. What crosses into a workflow's history are ids, statuses and times; names and
// email addresses are read, compared and written inside one call.
//
// Two fences keep late attempts harmless. An attempt that timed out may still be running when
// its successor has long committed. So each read of a provider takes a number before it begins,
// and its rows are dropped if a higher number has been committed (the read fence). And each
// transaction that touches a user's subscriptions locks the user's row first and computes the
// projection from fresh reads (the projection fence).
package activities
