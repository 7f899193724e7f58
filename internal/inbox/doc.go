// Package inbox takes deliveries once and sees to it that they are worked on.
//
// A delivery's life:
//
//	Intake     decides what it is about; the Writer commits it together with the others that
//	           came in the meantime, and only then is it answered 200.
//	Dispatcher woken by that commit, claims the entities that are due and pokes their
//	           workflows, one empty signal each. A claim is a lease: a dispatcher that dies
//	           leaves its claims to the next.
//	(workflow) takes every due event of its entity in the transaction that stores what it told.
//	Sweeper    pokes what is still due long after its poke, whatever became of that.
//
// When PostgreSQL is gone, deliveries are refused and the provider sends them again. When
// Temporal is gone, they are taken and wait. When a copy of the program is gone, another does
// its work.
package inbox
