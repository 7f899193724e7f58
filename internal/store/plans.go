package store

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// LockPlan locks the plan of a Stripe product. Where there is none it adopts the product app's
// own plan of the same name, if no product has it yet, else makes one.
func (t *Tx) LockPlan(ctx context.Context, productID, name string) (planID int32, readSeq int64, err error) {
	name = fit(name)
	if err := t.tx.Later(ctx, "adopt a plan", `UPDATE plans SET stripe_product_id = $1 WHERE id = (
			SELECT id FROM plans WHERE plan_name = $2 AND stripe_product_id IS NULL ORDER BY id LIMIT 1 FOR UPDATE)
		AND NOT EXISTS (SELECT FROM plans WHERE stripe_product_id = $1)`, productID, name); err != nil {
		return 0, 0, err
	}
	if err := t.tx.Later(ctx, "create a plan", `INSERT INTO plans (plan_name, stripe_product_id) VALUES ($2, $1) ON CONFLICT (stripe_product_id) DO NOTHING`, productID, name); err != nil {
		return 0, 0, err
	}
	err = t.tx.QueryRow(ctx, `SELECT id, read_seq FROM plans WHERE stripe_product_id = $1 FOR UPDATE`, productID).Scan(&planID, &readSeq)
	return planID, readSeq, classify("lock a plan", err)
}

// PlanNumber locks the plan of a Stripe product, if there is one, and answers the number of the
// last read that was stored.
func (t *Tx) PlanNumber(ctx context.Context, productID string) (readSeq int64, err error) {
	err = t.tx.QueryRow(ctx, `SELECT read_seq FROM plans WHERE stripe_product_id = $1 FOR UPDATE`, productID).Scan(&readSeq)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, nil
	}
	return readSeq, classify("read a plan's number", err)
}

// SetPlan stores what a read of Stripe showed of a product and its prices. A price stays in the
// catalogue when it is archived: subscriptions go on at it.
func (t *Tx) SetPlan(ctx context.Context, planID int32, p account.Product, read int64) error {
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE plans SET plan_name = coalesce(nullif($2, ''), plan_name), active = $3, beside = $5, read_seq = $4,
			add_on = CASE WHEN $7 THEN add_on ELSE $6 END, updated_at = now() WHERE id = $1`,
		planID, fit(p.Name), p.Active && !p.Deleted, read, p.Beside, p.AddOn, p.Deleted)
	for _, price := range p.Prices {
		batch.Queue(`INSERT INTO plan_prices AS p (stripe_price_id, plan_id, active, unit_amount, currency, billing_interval, interval_count, lookup_key,
				usage_type)
			VALUES ($1,$2,$3,$4,$5,nullif($6,''),$7,nullif($8,''),nullif($9,''))
			ON CONFLICT (stripe_price_id) DO UPDATE SET plan_id = excluded.plan_id, active = excluded.active, unit_amount = excluded.unit_amount,
				currency = excluded.currency, billing_interval = excluded.billing_interval, interval_count = excluded.interval_count,
				lookup_key = excluded.lookup_key, usage_type = excluded.usage_type, updated_at = now()
			WHERE (p.plan_id, p.active, p.unit_amount, p.currency, p.billing_interval, p.interval_count, p.lookup_key, p.usage_type) IS DISTINCT FROM
			      (excluded.plan_id, excluded.active, excluded.unit_amount, excluded.currency, excluded.billing_interval, excluded.interval_count,
			       excluded.lookup_key, excluded.usage_type)`,
			price.ID, planID, price.Active, amountOf(price), price.Currency, price.Interval, max(price.IntervalCount, 1), price.LookupKey,
			price.UsageType)
	}
	return classify("store a plan", t.tx.SendAll(ctx, batch))
}

// mostPrices is how many prices one read of a product asks for by their ids.
const mostPrices = 200

// PricesWanted lists the prices of a product that were not among those listed, and that have to be
// read by themselves: those of items of subscriptions that the catalogue does not have, and those
// that the catalogue believes to be sold.
func (s *Store) PricesWanted(ctx context.Context, productID string, listed []string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT id FROM (SELECT stripe_price_id AS id, 0 AS n FROM subscriptions
				WHERE stripe_product_id = $1 AND NOT price_known AND stripe_price_id IS NOT NULL
			UNION SELECT item ->> 'price', 0 FROM subscriptions, jsonb_array_elements(items) AS item
				WHERE items @> jsonb_build_array(jsonb_build_object('product', $1::text, 'unknown', true)) AND item @> jsonb_build_object('product', $1::text, 'unknown', true)
			UNION SELECT stripe_price_id, 1 FROM plan_prices p JOIN plans ON plans.id = p.plan_id WHERE plans.stripe_product_id = $1 AND p.active) w
		WHERE id <> ALL($2) GROUP BY id ORDER BY min(n), id LIMIT $3`, productID, listed, mostPrices)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look for prices", err)
}

// amountOf is what is stored as a price's amount, nil where it has none.
func amountOf(p account.Price) *int64 {
	if p.Unpriced {
		return nil
	}
	return &p.UnitAmount
}

// CustomersAffectedByPlan lists the customers whose projection may say something else now: those
// with an item at a price of this product that was unknown and is not any more, or, where its name
// or what it is has changed, with any item of it. A subscription that has ended counts too: a user
// who has no other is still told its plan.
func (t *Tx) CustomersAffectedByPlan(ctx context.Context, productID string, changed bool) ([]string, error) {
	holding := func(item map[string]any) string {
		item["product"] = productID
		raw, _ := json.Marshal([]any{item}) // strings and flags
		return string(raw)
	}
	rows, _ := t.tx.Query(ctx, `SELECT stripe_customer_id FROM subscriptions s
			WHERE stripe_product_id = $1 AND NOT price_known AND stripe_customer_id IS NOT NULL
				AND EXISTS (SELECT FROM plan_prices p WHERE p.stripe_price_id = s.stripe_price_id)
		UNION SELECT stripe_customer_id FROM subscriptions
			WHERE items @> $3::jsonb AND stripe_customer_id IS NOT NULL AND EXISTS (SELECT FROM jsonb_array_elements(items) AS item
				JOIN plan_prices p ON p.stripe_price_id = item ->> 'price' WHERE jsonb_build_array(item) @> $3::jsonb)
		UNION SELECT stripe_customer_id FROM subscriptions
			WHERE $2 AND items @> $4::jsonb AND stripe_customer_id IS NOT NULL
		UNION SELECT s.stripe_customer_id FROM subscriptions s JOIN plans p ON p.id = s.plan_id
			WHERE $2 AND p.stripe_product_id = $1 AND s.stripe_customer_id IS NOT NULL
		ORDER BY 1`, productID, changed, holding(map[string]any{"unknown": true}), holding(map[string]any{}))
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("list a plan's customers", err)
}

// PlanName is the stored name of a product's plan, or "".
func (t *Tx) PlanName(ctx context.Context, planID int32) (name string, err error) {
	name, _, err = t.PlanTold(ctx, planID)
	return name, err
}

// PlanTold is what a plan is, as far as a customer's projection depends on it: its stored name, and
// whether it is an add-on.
func (t *Tx) PlanTold(ctx context.Context, planID int32) (name string, addOn bool, err error) {
	err = t.tx.QueryRow(ctx, `SELECT plan_name, add_on FROM plans WHERE id = $1`, planID).Scan(&name, &addOn)
	return name, addOn, classify("read a plan", err)
}

// CataloguePrice is a price of the catalogue.
type CataloguePrice struct {
	ID        string `db:"stripe_price_id"`
	ProductID string `db:"stripe_product_id"`
	// Sold tells whether anybody new can get it: an archived price or product is kept by who has it.
	Sold      bool `db:"sold"`
	Recurring bool `db:"recurring"`
	// Metered is set where no quantity is bought, but what is used is counted.
	Metered  bool   `db:"metered"`
	Currency string `db:"currency"`
	// Beside tells whether the product says that it may be bought beside others.
	Beside bool `db:"beside"`
}

// CataloguePrice looks a price up in the catalogue, and answers nil where it is not there.
func (s *Store) CataloguePrice(ctx context.Context, priceID string) (*CataloguePrice, error) {
	rows, _ := s.pool.Query(ctx, `SELECT stripe_price_id, coalesce(stripe_product_id, '') AS stripe_product_id, p.active AND plans.active AS sold,
		billing_interval IS NOT NULL AS recurring, coalesce(usage_type, '') = 'metered' AS metered, currency, beside FROM plan_prices p JOIN plans ON plans.id = plan_id WHERE stripe_price_id = $1`, priceID)
	price, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[CataloguePrice])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return price, classify("look a price up", err)
}

// ProductsBeside lists those of these products that say that they may be bought beside others.
func (s *Store) ProductsBeside(ctx context.Context, productIDs []string) ([]string, error) {
	rows, _ := s.pool.Query(ctx, `SELECT stripe_product_id FROM plans WHERE stripe_product_id = ANY($1) AND beside`, productIDs)
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return ids, classify("look what may be bought beside others", err)
}
