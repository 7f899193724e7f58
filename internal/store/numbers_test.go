package store_test

import (
	"context"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// margin is how far past the highest stored number the sequence is raised.
const margin = 1_000_000

// aRowEverywhere puts a row into each table that holds numbers.
const aRowEverywhere = `
	INSERT INTO person_user (clerk_user_id) VALUES ('user_1');
	INSERT INTO stripe_customers (stripe_customer_id) VALUES ('cus_1');
	INSERT INTO plans (plan_name, stripe_product_id) VALUES ('Pro', 'prod_1');
	INSERT INTO subscription_changes (stripe_subscription_id, user_id, status, quantity, collection_paused, read_seq)
		SELECT 'sub_1', id, 'active', 1, false, 1 FROM person_user;
	INSERT INTO webhook_events (source, event_id, type, status) VALUES ('stripe', 'evt_1', 'x', 'pending');
	INSERT INTO pokes (entity) VALUES ('user/user_1');
	INSERT INTO operations (id, request_hash, caller, action, clerk_user_id, entity, expires_at) VALUES ('op_1', '', 'user_1', 'sync', 'user_1', 'user/user_1', now());`

// numberColumns are the columns that the function looks through, as table.column.
func numberColumns(w *world) []string {
	source := one[string](w, `SELECT prosrc FROM pg_proc WHERE proname = 'raise_sync_seq'`)
	var columns []string
	for _, m := range regexp.MustCompile(`max\(-?(\w+)\) FROM \w+\.(\w+)`).FindAllStringSubmatch(source, -1) {
		columns = append(columns, m[2]+"."+m[1])
	}
	return columns
}

// Whatever column a number stands in, the sequence is raised past it, and by a program's check it
// is seen.
func TestSequenceIsRaisedPastEveryStoredNumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(aRowEverywhere)
	columns := numberColumns(w)
	if len(columns) < 10 {
		t.Fatalf("found only %v", columns)
	}
	for i, column := range columns {
		table, name, _ := strings.Cut(column, ".")
		high := int64(i+1) * 10 * margin
		value := high
		if name == "profile_version" {
			value = -high // what stands there instead of a version is a number of the sequence
		}
		w.exec(fmt.Sprintf(`UPDATE %s SET %s = %d`, table, name, value))
		if err := w.NumbersBehind(t.Context()); !store.IsBehind(err) || failure.Of(err) != failure.Operator {
			// Rarely enough looked through to be cheap: a store that has not looked yet does.
			fresh := worldOn(t, w.dsn, store.Options{MaxConns: 1})
			if err := fresh.NumbersBehind(t.Context()); !store.IsBehind(err) {
				t.Errorf("%s holds %d: the check says %v", column, value, err)
			}
		}
		reached, err := w.RaiseNumbers(t.Context(), 0)
		if err != nil || reached != high+margin {
			t.Errorf("%s holds %d: raised to %d (%v), want %d", column, value, reached, err, high+margin)
		}
		if read, err := w.NextRead(t.Context()); err != nil || read <= high {
			t.Errorf("%s holds %d: the next read has %d (%v)", column, value, read, err)
		}
		if err := w.NumbersBehind(t.Context()); err != nil {
			t.Errorf("%s: after the raise the check says %v", column, err)
		}
	}
}

// Each column of whole numbers is either known to hold something else, or the sequence is raised
// past it. Whoever adds one says which: a column of numbers belongs into raise_sync_seq, whose next
// version is a later migration's, and into storedAhead.
func TestEveryColumnOfNumbersIsKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := regexp.MustCompile(`(^|_)(id|version|amount|paid|refunded|quantity|count|counts|attempts|generation|replays|asked|total|done|failed|limit|offset|minor|cents|pages|users|missing|all)(_|$)|^id$|_amount$`)
	known := numberColumns(w)
	for _, column := range all[string](w, `SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'bigint'::regtype
		AND c.relname NOT IN ('clerk_stripe_sync_migrations', 'number_raises') ORDER BY 1`) {
		_, name, _ := strings.Cut(column, ".")
		if name == "whole_read_seq" || name == "kept_read_seq" || name == "repair_seq" {
			continue // none of them is ever above the read_seq of the customer, or of the user
		}
		if !slices.Contains(known, column) && !other.MatchString(name) {
			t.Errorf("%s: does it hold numbers of sync_seq?", column)
		}
	}
	for _, column := range all[string](w, `SELECT c.relname || '.' || a.attname FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
		JOIN pg_class c ON c.oid = a.attrelid WHERE pg_get_expr(d.adbin, d.adrelid) LIKE '%sync_seq%'`) {
		if !slices.Contains(known, column) {
			t.Errorf("%s is filled from the sequence, and the sequence is not raised past it", column)
		}
	}
}

// It is never lowered, however often and by however many it is called while numbers are drawn, and
// no number is drawn twice.
func TestSequenceIsNeverLowered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, read_seq) VALUES ('cus_1', 5000)`)
	for _, c := range []struct{ at, want int64 }{
		{10, 5000 + margin}, {4000, 5000 + margin}, {5000, 5000 + margin}, {5000 + margin - 10, 5000 + margin},
		{5000 + margin, 5000 + margin}, {7 * margin, 7 * margin},
	} {
		w.exec(`SELECT setval('sync_seq', $1)`, c.at)
		if reached, err := w.RaiseNumbers(t.Context(), 0); err != nil || reached != c.want {
			t.Errorf("from %d it was raised to %d (%v), want %d", c.at, reached, err, c.want)
		}
		if reached, err := w.RaiseNumbers(t.Context(), 5000); err != nil || reached != c.want {
			t.Errorf("from %d it was raised once more, to %d (%v), want %d", c.at, reached, err, c.want)
		}
	}
	w.exec(`SELECT setval('sync_seq', 1)`)
	var group errgroup.Group
	for range 4 {
		group.Go(func() error {
			last := int64(0)
			for range 50 {
				read, err := w.NextRead(context.WithoutCancel(t.Context()))
				if err != nil {
					return err
				}
				if read <= last {
					return fmt.Errorf("%d was drawn after %d", read, last)
				}
				last = read
			}
			return nil
		})
		group.Go(func() error {
			for range 20 {
				if _, err := w.RaiseNumbers(context.WithoutCancel(t.Context()), 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// A program notices by itself that numbers come again that it has drawn.
func TestNextReadNoticesASequenceThatWasSetBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(`SELECT setval('sync_seq', 1000)`)
	before, err := w.NextRead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, read_seq) VALUES ('cus_1', 900)`)
	w.exec(`SELECT setval('sync_seq', 900)`)
	if err := w.NumbersBehind(t.Context()); !store.IsBehind(err) {
		t.Errorf("the check says %v", err)
	}
	if after, err := w.NextRead(t.Context()); err != nil || after <= before {
		t.Errorf("%d was drawn after %d: %v", after, before, err)
	}
	if err := w.NumbersBehind(t.Context()); err != nil {
		t.Errorf("the check says %v after the raise", err)
	}
}

// The programs' own role may draw numbers and not set them: it raises the sequence through the
// owner's function, whose names it cannot put others behind.
func TestProgramsRaiseTheSequenceWithoutOwningIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	role := "app_" + one[string](w, `SELECT substr(md5(current_database()), 1, 12)`)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, read_seq) VALUES ('cus_1', 5000)`)
	w.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'app'`)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, _ = w.conn.Exec(ctx, `DROP OWNED BY `+role)
		_, _ = w.conn.Exec(ctx, `DROP ROLE `+role)
	})
	w.exec(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO ` + role)
	w.exec(`GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ` + role)
	address, err := url.Parse(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	address.User = url.UserPassword(role, "app")
	app := worldOn(t, address.String(), store.Options{MaxConns: 1})
	if _, err := app.conn.Exec(t.Context(), `SELECT setval('sync_seq', 1)`); err == nil {
		t.Fatal("the role may set the sequence, so the test shows nothing")
	}
	app.exec(`CREATE TEMP TABLE stripe_customers (read_seq bigint, profile_version bigint)`)
	app.exec(`INSERT INTO pg_temp.stripe_customers VALUES (9000000000, 0)`)
	if reached := one[int64](app, `SELECT raise_sync_seq()`); reached != 5000+margin {
		t.Errorf("raised to %d, want %d", reached, 5000+margin)
	}
	w.exec(`SELECT setval('sync_seq', 1)`)
	if reached, err := app.RaiseNumbers(t.Context(), 0); err != nil || reached != 5000+margin {
		t.Errorf("raised to %d (%v), want %d", reached, err, 5000+margin)
	}
	if err := app.NumbersBehind(t.Context()); err != nil {
		t.Errorf("the check says %v", err)
	}
	read, err := app.NextRead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Update(t.Context(), "test", store.Cause{}, func(ctx context.Context, tx *store.Tx) error { return tx.Reading(ctx, read, 5000) }); err != nil {
		t.Error(err)
	}
}

// Nothing is concluded from a number that the sequence has not handed out, be it stored or the
// read's own, nor from one that was left out when it was raised. Afterwards the sequence is past
// all of them.
func TestNothingIsConcludedFromNumbersThatWereNotHandedOut(t *testing.T) {
	t.Parallel()
	reading := func(w *world, read int64, stored ...int64) error {
		return w.Update(w.t.Context(), "test", store.Cause{}, func(ctx context.Context, tx *store.Tx) error { return tx.Reading(ctx, read, stored...) })
	}
	for name, c := range map[string]struct {
		read    int64
		stored  []int64
		refused bool
	}{
		"a read that is the latest":        {read: 100, stored: []int64{90, 0}},
		"one that a later read overtook":   {read: 80, stored: []int64{90}},
		"one that loses to what is ahead":  {read: 80, stored: []int64{0, 500}, refused: true},
		"one whose own number is ahead":    {read: 500, refused: true},
		"no read, and what is stored":      {stored: []int64{90}},
		"no read, and what is ahead":       {stored: []int64{500}, refused: true},
		"one that is as high as the other": {read: 90, stored: []int64{90}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.exec(`INSERT INTO stripe_customers (stripe_customer_id, read_seq) VALUES ('cus_1', 500)`)
			w.exec(`SELECT setval('sync_seq', 100)`)
			err := reading(w, c.read, c.stored...)
			if store.IsBehind(err) != c.refused || failure.Of(err) != map[bool]failure.Class{true: failure.Operator}[c.refused] {
				t.Fatalf("ended with %v", err)
			}
			if reached := one[int64](w, `SELECT last_value FROM sync_seq`); reached != map[bool]int64{true: 500 + margin, false: 100}[c.refused] {
				t.Errorf("the sequence stands at %d", reached)
			}
			if c.refused {
				// What was left out counts for nothing still: not as a read, and not as what a read from before
				// the raise has lost to.
				if err := reading(w, 300); !store.IsBehind(err) {
					t.Errorf("a read with a number that was left out ended with %v", err)
				}
				if err := reading(w, 100, 300); !store.IsBehind(err) {
					t.Errorf("a read that loses to such a number ended with %v", err)
				}
				if err := reading(w, 500+margin, 300); !store.IsBehind(err) {
					t.Errorf("the last number that was left out ended with %v", err)
				}
				next, err := w.NextRead(w.t.Context())
				if err != nil || reading(w, next, 500) != nil {
					t.Errorf("the next read, with %d, ended with %v", next, err)
				}
			}
		})
	}
}

// An event whose number the sequence has not reached is not overlooked.
func TestEventsAheadOfTheSequenceAreTakenByTheNextRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.add(stripeEvent("evt_1", "cus_1"))
	w.exec(`UPDATE webhook_events SET seq = 5000`)
	w.exec(`SELECT setval('sync_seq', 10)`)
	read, err := w.NextRead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = w.Update(t.Context(), "test", store.Cause{}, func(ctx context.Context, tx *store.Tx) error {
		_, err := tx.TakeEvents(ctx, "customer/cus_1", read)
		return err
	})
	if !store.IsBehind(err) {
		t.Errorf("the read ended with %v", err)
	}
	if taken := w.take("customer/cus_1"); !slices.Equal(taken, []string{"evt_1"}) {
		t.Errorf("the next read took %v", taken)
	}
}
