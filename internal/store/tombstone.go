package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// EraseCustomer removes personal data that was kept of a customer before it was known to belong to
// a user who is erased: from its row, and from the payloads of its events that were taken. The
// others lose theirs when they are. [Tx.Erase] does the same for the customers known by then.
func (t *Tx) EraseCustomer(ctx context.Context, c *Customer) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE stripe_customers SET email = NULL, name = NULL WHERE stripe_customer_id = $1`, c.ID)
	batch.Queue(dropTaken, []string{string(account.CustomerEntity(c.ID))})
	return classify("erase a customer's data", t.tx.SendAll(ctx, batch))
}

// dropTaken drops the payloads of the events of some users and customers whose facts are stored:
// those that have ended, and those that wait, which may never end otherwise than by being given up.
// The facts of the others are in their payloads and nowhere else.
const dropTaken = `UPDATE webhook_events SET payload = NULL WHERE entity = ANY($1) AND status IN ('completed', 'ignored', 'waiting') AND payload IS NOT NULL`

// ofDeleted is the condition that an entity is a user who is being deleted, or is, or a customer of
// theirs.
func ofDeleted(entity string) string {
	return `(starts_with(` + entity + `, 'user/') AND EXISTS (SELECT FROM person_user
			WHERE clerk_user_id = substr(` + entity + `, 6) AND deletion_requested_at IS NOT NULL)
		OR starts_with(` + entity + `, 'customer/') AND EXISTS (SELECT FROM stripe_customers c JOIN person_user u ON u.id = c.user_id
			WHERE c.stripe_customer_id = substr(` + entity + `, 10) AND u.deletion_requested_at IS NOT NULL))`
}
