//go:build unix

// Package devstack runs the whole system on one machine, for a person at a terminal.
//
// What stands where, from the start to the end:
//
//	settings   from the environment, with a default for everything; every fault and every taken
//	           port is told before anything is started
//	servers    PostgreSQL and Temporal, as children of this process, unless they are given
//	sandbox    a Clerk and a Stripe on loopback, where no keys are given
//	programs   starter-api and worker, as values in this process
//	story      a person who signs up, buys, changes their name, pays again and is deleted, with
//	           the state of the three systems after each step
//
// They are stopped from the bottom up, within ten seconds. A child that ends by itself ends
// everything, by name. The data stay below one directory and are there at the next start.
package devstack
