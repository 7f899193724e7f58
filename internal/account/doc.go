// Package account holds what clerk-stripe-sync knows about users, customers and
// subscriptions, and every decision that is made about them: which subscription leads, what
// grants access, which user a customer belongs to, what a deletion stops, when to look again.
//
// It imports the standard library only and does no I/O. Each decision is a pure function of
// its arguments, time included, so that a workflow, an activity, a page and a test that are
// given the same facts come to the same answer.
package account
