package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// told is a payment fact with the event that told it.
type told struct {
	event   string
	at      time.Time
	payment account.Payment
}

// lives are what Stripe tells of one payment each, in the order in which it happened.
func lives() map[string][]told {
	invoice := func(event string, minute int, status string, attempts, paid int64, shape func(*account.Payment)) told {
		p := account.Payment{ID: "in_1", Kind: account.PaymentInvoice, CustomerID: "cus_1", SubscriptionID: "sub_1", InvoiceID: "in_1", Status: status,
			Reason: "subscription_cycle", Amount: 2000, AmountPaid: paid, Currency: "usd", Created: at(1), Attempts: attempts}
		if paid > 0 {
			p.PaidAt = at(2)
		}
		shape(&p)
		return told{event, at(2).Add(time.Duration(minute) * time.Minute), p}
	}
	// Payloads of older versions name the intent and the charge, newer ones do not.
	old := func(charge string) func(*account.Payment) {
		return func(p *account.Payment) { p.IntentID, p.ChargeID = "pi_1", charge }
	}
	recent := func(*account.Payment) {}
	intent := func(event string, minute int, status, reason, charge string, paid int64) told {
		return told{event, at(2).Add(time.Duration(minute) * time.Minute), account.Payment{ID: "pi_1", Kind: account.PaymentIntent, CustomerID: "cus_1", IntentID: "pi_1",
			ChargeID: charge, Status: status, Reason: reason, Amount: 2000, AmountPaid: paid, Currency: "usd", Created: at(1)}}
	}
	charge := func(event string, minute int, status string, refunded int64) told {
		return told{event, at(2).Add(time.Duration(minute) * time.Minute), account.Payment{ID: "ch_1", Kind: account.PaymentCharge, CustomerID: "cus_1", ChargeID: "ch_1",
			IntentID: "pi_1", Status: status, Amount: 2000, AmountPaid: 2000, AmountRefunded: refunded, Currency: "usd", Created: at(1)}}
	}
	refund := func(event string, minute int, status, reason string, failed int) told {
		p := account.Payment{ID: "re_1", Kind: account.PaymentRefund, CustomerID: "cus_1", ChargeID: "ch_1", IntentID: "pi_1", Status: status, Reason: reason, Amount: 500, Currency: "usd", Created: at(1)}
		if failed > 0 {
			p.FailedAt = at(2).Add(time.Duration(failed) * time.Minute)
		}
		return told{event, at(2).Add(time.Duration(minute) * time.Minute), p}
	}
	dispute := func(event string, minute int, status, customer string) told {
		return told{event, at(2).Add(time.Duration(minute) * time.Minute), account.Payment{ID: "dp_1", Kind: account.PaymentDispute, CustomerID: customer, ChargeID: "ch_1",
			Status: status, Reason: "fraudulent", Amount: 2000, Currency: "usd", Created: at(1)}}
	}
	return map[string][]told{
		"an invoice that is paid at the third attempt, told in two shapes": {
			invoice("evt_1", 1, "open", 1, 0, old("ch_1")), invoice("evt_2", 2, "open", 2, 0, recent), invoice("evt_3", 3, "paid", 3, 2000, old("ch_2")), invoice("evt_4", 3, "paid", 3, 2000, recent),
		},
		"an invoice that is given up": {
			invoice("evt_1", 1, "open", 1, 0, recent), invoice("evt_2", 2, "open", 4, 0, old("ch_2")), invoice("evt_3", 3, "uncollectible", 4, 0, recent),
		},
		"a card declined twice, then taken": {
			intent("evt_1", 1, "requires_payment_method", "insufficient_funds", "ch_1", 0),
			intent("evt_2", 2, "requires_payment_method", "expired_card", "ch_2", 0),
			intent("evt_3", 3, "succeeded", "", "ch_3", 2000),
		},
		"a card declined twice": {
			intent("evt_1", 1, "requires_payment_method", "insufficient_funds", "ch_1", 0),
			intent("evt_2", 2, "requires_payment_method", "expired_card", "", 0),
		},
		"declined twice in the same second": {
			intent("evt_1", 1, "requires_payment_method", "insufficient_funds", "ch_1", 0),
			intent("evt_2", 1, "requires_payment_method", "expired_card", "ch_2", 0),
		},
		"a charge refunded in parts": {
			charge("evt_1", 1, "partially_refunded", 500), charge("evt_2", 2, "partially_refunded", 1500), charge("evt_3", 3, "refunded", 2000),
		},
		"a refund that fails after it succeeded": {
			refund("evt_1", 1, "pending", "", 0), refund("evt_2", 2, "succeeded", "", 0), refund("evt_3", 9, "failed", "expired_or_canceled_card", 9), refund("evt_4", 9, "failed", "expired_or_canceled_card", 9),
		},
		"a dispute that is prevented": {
			dispute("evt_1", 1, "warning_needs_response", ""), dispute("evt_2", 2, "needs_response", ""), dispute("evt_3", 3, "prevented", "cus_1"),
		},
		"an invoice that is voided": {
			invoice("evt_1", 1, "open", 0, 0, recent), invoice("evt_2", 2, "open", 2, 0, recent), invoice("evt_3", 3, "uncollectible", 2, 0, recent), invoice("evt_4", 4, "void", 2, 0, recent),
		},
		"a payment intent that is given up": {
			intent("evt_1", 1, "requires_payment_method", "insufficient_funds", "ch_1", 0), intent("evt_2", 2, "canceled", "", "ch_1", 0),
		},
		"a dispute that is won, its customer known later": {
			dispute("evt_1", 1, "needs_response", ""), dispute("evt_2", 2, "under_review", ""), dispute("evt_3", 3, "won", "cus_1"),
		},
	}
}

// Facts end the same whatever the order in which they come, also twice, and never go backwards.
func TestPaymentsInAnyOrder(t *testing.T) {
	t.Parallel()
	for name, life := range lives() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			record := func(e told) {
				w.update(func(ctx context.Context, tx *store.Tx) error { return tx.RecordPayment(ctx, e.payment, e.event, e.at) })
			}
			state := func() string {
				return one[string](w, `SELECT (to_jsonb(p) - 'recorded_at' - 'updated_at' - CASE WHEN charge_id IS NULL THEN 'charge_told_at' ELSE '' END)::text FROM payments p`)
			}
			var want string
			permutations(len(life), func(order []int) {
				w.exec(`DELETE FROM payments`)
				rank, paid, refunded := 0, int64(0), int64(0)
				for _, i := range order {
					record(life[i])
					var r int
					var p, f int64
					must(t, w.conn.QueryRow(t.Context(), `SELECT status_rank, amount_paid, amount_refunded FROM payments`).Scan(&r, &p, &f))
					if r < rank || p < paid || f < refunded {
						t.Errorf("order %v: went back at %s", order, life[i].event)
					}
					rank, paid, refunded = r, p, f
				}
				got := state()
				if want == "" {
					want = got // the first is the order in which it happened
				}
				if got != want {
					t.Fatalf("order %v ends as\n%s\nthe order of events as\n%s", order, got, want)
				}
				written := one[string](w, `SELECT xmin::text FROM payments`)
				for _, e := range life {
					record(e)
				}
				if state() != want || one[string](w, `SELECT xmin::text FROM payments`) != written {
					t.Fatalf("order %v: told again, the fact was written again", order)
				}
			})
			last := life[len(life)-1].payment
			if got := one[string](w, `SELECT concat_ws(' ', status, amount_paid, amount_refunded, attempts) FROM payments`); got != fmt.Sprint(last.Status, " ", last.AmountPaid, " ", last.AmountRefunded, " ", last.Attempts) {
				t.Errorf("ended as %s", got)
			}
			if got := one[string](w, `SELECT coalesce(reason, '') FROM payments`); got != last.Reason {
				t.Errorf("the reason is %q, want the last one's %q", got, last.Reason)
			}
		})
	}
}

// A failed refund is no refund: what was refunded of its charge goes back, whatever the order in
// which that is told.
func TestAmountsGoBackWhereARefundFails(t *testing.T) {
	t.Parallel()
	minute := func(n int) time.Time { return at(2).Add(time.Duration(n) * time.Minute) }
	charge := func(event string, n int, refunded int64) told {
		status := "partially_refunded"
		if refunded == 2000 {
			status = "refunded"
		}
		return told{event, minute(n), account.Payment{ID: "ch_1", Kind: account.PaymentCharge, CustomerID: "cus_1", ChargeID: "ch_1", IntentID: "pi_1",
			Status: status, Amount: 2000, AmountPaid: 2000, AmountRefunded: refunded, Currency: "usd", Created: at(1)}}
	}
	refund := func(event, id string, created, n int, status string, amount int64) told {
		p := account.Payment{ID: id, Kind: account.PaymentRefund, CustomerID: "cus_1", ChargeID: "ch_1", IntentID: "pi_1", Status: status, Amount: amount, Currency: "usd", Created: minute(created)}
		if status == "failed" || status == "canceled" {
			p.FailedAt = minute(n)
		}
		return told{event, minute(n), p}
	}
	byIntent := func(e told) told { e.payment.ChargeID = ""; return e }
	for name, c := range map[string]struct {
		life []told
		want string
	}{
		"one that succeeds": {[]told{charge("evt_1", 1, 500), refund("evt_2", "re_1", 1, 1, "pending", 500), refund("evt_3", "re_1", 1, 2, "succeeded", 500)}, "partially_refunded 500"},
		"one that fails":    {[]told{charge("evt_1", 1, 2000), refund("evt_2", "re_1", 1, 1, "succeeded", 2000), refund("evt_3", "re_1", 1, 9, "failed", 2000)}, "succeeded 0"},
		"one of two that fails": {
			[]told{charge("evt_1", 1, 500), charge("evt_2", 2, 2000), refund("evt_3", "re_1", 1, 9, "failed", 500), refund("evt_4", "re_2", 2, 2, "succeeded", 1500)}, "partially_refunded 1500",
		},
		"one that fails, and another after it": {
			[]told{charge("evt_1", 1, 500), refund("evt_2", "re_1", 1, 5, "failed", 500), charge("evt_3", 7, 500), refund("evt_4", "re_2", 7, 7, "succeeded", 500)}, "partially_refunded 500",
		},
		"all in one second": {
			[]told{charge("evt_1", 1, 500), refund("evt_2", "re_1", 1, 1, "failed", 500), charge("evt_3", 1, 500), refund("evt_4", "re_2", 1, 1, "succeeded", 500)}, "partially_refunded 500",
		},
		"one that is canceled, and names no charge": {[]told{charge("evt_1", 1, 500), byIntent(refund("evt_2", "re_1", 1, 3, "canceled", 500))}, "succeeded 0"},
		"one that began after the charge told":      {[]told{charge("evt_1", 1, 500), refund("evt_2", "re_2", 4, 4, "pending", 700)}, "partially_refunded 1200"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			permutations(len(c.life), func(order []int) {
				w.exec(`DELETE FROM payments`)
				for range 2 {
					for _, i := range order {
						w.update(func(ctx context.Context, tx *store.Tx) error {
							return tx.RecordPayment(ctx, c.life[i].payment, c.life[i].event, c.life[i].at)
						})
					}
				}
				if got := one[string](w, `SELECT concat_ws(' ', status, amount_refunded) FROM payments WHERE kind = 'charge'`); got != c.want {
					t.Errorf("order %v: %s, want %s", order, got, c.want)
				}
			})
		})
	}
}

// permutations calls fn with every order of n things, beginning with their own.
func permutations(n int, fn func(order []int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var rest func(k int)
	rest = func(k int) {
		if k == n {
			fn(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			rest(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	rest(0)
}

// A dispute finds its customer by the charge of what was paid.
func TestCustomerOfCharge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.update(func(ctx context.Context, tx *store.Tx) error {
		for i, p := range []account.Payment{
			{ID: "dp_1", Kind: account.PaymentDispute, ChargeID: "ch_1", Status: "needs_response", Currency: "usd"},
			{ID: "pi_1", Kind: account.PaymentIntent, CustomerID: "cus_1", ChargeID: "ch_1", Status: "succeeded", Currency: "usd"},
			{ID: "in_3", Kind: account.PaymentInvoice, CustomerID: "cus_3", IntentID: "pi_3", Status: "paid", Currency: "usd"},
			{ID: "pi_2", Kind: account.PaymentIntent, ChargeID: "ch_2", Status: "succeeded", Currency: "usd"},
		} {
			if err := tx.RecordPayment(ctx, p, fmt.Sprintf("evt_%d", i), at(1)); err != nil {
				return err
			}
		}
		return nil
	})
	for charge, want := range map[string]string{"ch_1": "cus_1", "ch_2": "", "ch_3": "", "pi_3": "cus_3", "pi_4": ""} {
		if got, err := w.CustomerOfCharge(t.Context(), charge); got != want || err != nil {
			t.Errorf("%s belongs to %q, %v, want %q", charge, got, err, want)
		}
	}
}
