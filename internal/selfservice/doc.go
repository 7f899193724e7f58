// Package selfservice is what people may ask for: to see their subscriptions, to have themselves
// synced, to cancel and reactivate, to buy, and to see what was changed.
//
// Whose something is, is decided from our own rows before any provider is asked; what is somebody
// else's is not there. A request that changes anything is committed as an operation first. Its end
// is waited for as long as the caller has patience; after that it goes on without them, and the
// operation tells what came of it. So an answer is always true: done, refused, undone, or still
// being settled.
//
//	cancel, reactivate   an update of the customer's workflow, started if it does not run; where that
//	                     cannot be reached, the workflow finds the operation when it is poked
//	sync, return         pokes; over when reads that began after the request were stored and published
//	checkout             Stripe is asked from here, under a lease, so that two cannot be opened at once
package selfservice
