package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// EraseCustomer removes personal data that was kept of a customer before it was known to belong to
// a user who is erased: from its row, and from the payloads of its events that have ended. The
// others lose theirs as they end. [Tx.Erase] does the same for the customers known by then.
func (t *Tx) EraseCustomer(ctx context.Context, c *Customer) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE stripe_customers SET email = NULL, name = NULL WHERE stripe_customer_id = $1`, c.ID)
	batch.Queue(`UPDATE webhook_events SET payload = NULL WHERE entity = $1 AND status IN ('completed', 'ignored') AND payload IS NOT NULL`,
		string(account.CustomerEntity(c.ID)))
	return classify("erase a customer's data", t.tx.SendAll(ctx, batch))
}
