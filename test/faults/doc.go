// Package faults has the fault suite: the real programs, two copies of each, a real PostgreSQL, a
// real Temporal and the sandbox's Clerk and Stripe, all on one machine and under a steady load,
// while everything that can break is broken at random moments. It is built with the tag faults
// only:
//
//	make test-faults
//
// docs/reliability.md tells what is broken, what is checked, and what came of it.
package faults
