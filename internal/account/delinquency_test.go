package account_test

import (
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// day is the n-th day at noon.
func day(n int) time.Time { return noon().AddDate(0, 0, n) }

func invoice(id, status string, created int, change ...func(*account.Invoice)) account.Invoice {
	i := account.Invoice{ID: id, Status: status, Created: day(created), FinalizedAt: day(created)}
	for _, c := range change {
		c(&i)
	}
	return i
}

func failedOn(n int) func(*account.Invoice) {
	return func(i *account.Invoice) { i.FirstFailedAt, i.Attempts = day(n), 1 }
}

func TestPastDueSince(t *testing.T) {
	t.Parallel()
	dueOn := func(n int) func(*account.Invoice) { return func(i *account.Invoice) { i.DueAt = day(n) } }
	paidOn := func(n int) func(*account.Invoice) { return func(i *account.Invoice) { i.PaidAt = day(n) } }
	retried := func(i *account.Invoice) { i.Attempts = 4 }
	twelvePaid := []account.Invoice{invoice("in_old", "open", -370, failedOn(-370))}
	for n := range 12 {
		twelvePaid = append(twelvePaid, invoice("in_paid", "paid", -31*(n+1)))
	}
	since := func(n int, id string) account.Delinquency { return account.Delinquency{Since: day(n), InvoiceID: id} }
	for name, c := range map[string]struct {
		invoices []account.Invoice
		was      account.Delinquency
		cycle    time.Duration
		want     account.Delinquency
	}{
		"nothing is known":                             {},
		"when it was opened":                           {invoices: []account.Invoice{invoice("in_1", "open", 1)}, want: since(1, "in_1")},
		"a bank that says after a week that it failed": {invoices: []account.Invoice{invoice("in_1", "open", 1, failedOn(8))}, want: since(8, "in_1")},
		"sent, with thirty days to pay it":             {invoices: []account.Invoice{invoice("in_1", "open", 1, dueOn(31), failedOn(3))}, want: since(31, "in_1")},
		"the earliest of several": {
			invoices: []account.Invoice{invoice("in_2", "open", 2, failedOn(2)), invoice("in_1", "open", 1, failedOn(1)), invoice("in_3", "open", 3, failedOn(3))},
			want:     since(1, "in_1"),
		},
		"what nobody owes, or not yet": {
			invoices: []account.Invoice{invoice("in_1", "void", 1), invoice("in_2", "uncollectible", 2), invoice("in_3", "draft", 3), invoice("in_4", "open", 4, failedOn(5))},
			want:     since(5, "in_4"),
		},
		"one open since last year, twelve paid since, this month's fails": {invoices: append(twelvePaid, invoice("in_now", "open", 0, failedOn(0))), want: since(0, "in_now")},
		"the same in a fresh database, which knows only what is open": {
			invoices: []account.Invoice{invoice("in_old", "open", -370), invoice("in_now", "open", 0)}, cycle: 31 * 24 * time.Hour, want: since(0, "in_now"),
		},
		"months unpaid, in a fresh database": {
			invoices: []account.Invoice{invoice("in_1", "open", -61), invoice("in_2", "open", -31), invoice("in_3", "open", 0)}, cycle: 31 * 24 * time.Hour, want: since(-61, "in_1"),
		},
		"a renewal while it lasts": {
			invoices: []account.Invoice{invoice("in_1", "open", 1, failedOn(1), retried), invoice("in_2", "open", 31, failedOn(31))}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"the first is voided while it lasts": {
			invoices: []account.Invoice{invoice("in_1", "void", 1, failedOn(1)), invoice("in_2", "open", 31, failedOn(31))}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"the first is paid while it lasts": {
			invoices: []account.Invoice{invoice("in_1", "paid", 1, failedOn(1)), invoice("in_2", "open", 31, failedOn(31))}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"all are voided while it lasts": {invoices: []account.Invoice{invoice("in_1", "void", 1)}, was: since(1, "in_1"), want: since(1, "in_1")},
		"an older one is told of late":  {invoices: []account.Invoice{invoice("in_1", "open", 1), invoice("in_2", "open", 2)}, was: since(2, "in_2"), want: since(1, "in_1")},
		"its first failure is told late": {
			invoices: []account.Invoice{invoice("in_1", "open", 1, failedOn(8))}, was: since(1, "in_1"), want: since(8, "in_1"),
		},
		"the first failure that was told is not its first": {
			invoices: []account.Invoice{invoice("in_1", "open", 1, failedOn(8), retried)}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"it was paid, nobody looked, and the next one fails": {
			invoices: []account.Invoice{invoice("in_1", "paid", 1, failedOn(1), paidOn(5)), invoice("in_2", "open", 31, failedOn(31))}, was: since(1, "in_1"), want: since(31, "in_2"),
		},
		"a later one was paid, nobody looked, and the one after that fails": {
			invoices: []account.Invoice{invoice("in_1", "open", 1, failedOn(1)), invoice("in_2", "paid", 2, paidOn(2)), invoice("in_3", "open", 3, failedOn(3))}, was: since(1, "in_1"), want: since(3, "in_3"),
		},
		"it was paid, which the subscription does not show yet": {
			invoices: []account.Invoice{invoice("in_1", "paid", 1, failedOn(8), paidOn(9))}, was: since(8, "in_1"), want: since(8, "in_1"),
		},
		"the first is paid after the next one had failed": {
			invoices: []account.Invoice{invoice("in_1", "paid", 1, failedOn(1), paidOn(33)), invoice("in_2", "open", 31, failedOn(31))}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"the first is paid after the next one had been voided": {
			invoices: []account.Invoice{invoice("in_1", "paid", 1, failedOn(1), paidOn(33)), invoice("in_2", "void", 31), invoice("in_3", "open", 61)}, was: since(1, "in_1"), want: since(1, "in_1"),
		},
		"the due date is put off":                 {invoices: []account.Invoice{invoice("in_1", "open", 1, dueOn(61))}, was: since(31, "in_1"), want: since(31, "in_1")},
		"what was known without an invoice stays": {invoices: []account.Invoice{invoice("in_2", "open", 9)}, was: since(1, ""), want: since(1, "")},
	} {
		if got := account.PastDueSince(c.invoices, c.was, c.cycle); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// However often Stripe invoices a subscription that it leaves past_due, the grace is given once.
func TestGraceIsGivenOnceHoweverOftenIsInvoiced(t *testing.T) {
	t.Parallel()
	policy := account.AccessPolicy{PastDueGrace: 72 * time.Hour}
	for _, every := range []int{1, 7, 30} {
		var invoices []account.Invoice
		var was account.Delinquency
		granted := 0
		for n := range 365 {
			if n%every == 0 {
				invoices = append(invoices, invoice("in", "open", n, failedOn(n)))
			}
			was = account.PastDueSince(invoices, was, time.Duration(every)*24*time.Hour)
			s := account.Subscription{Status: account.StatusPastDue, PastDueSince: was.Since, LatestInvoiceCreated: day(n), CurrentPeriodStart: day(n)}
			if policy.Grants(s, day(n).Add(time.Hour)) {
				granted++
			}
		}
		if granted != 3 {
			t.Errorf("invoiced every %d days: granted on %d of 365 days without a payment, want 3", every, granted)
		}
	}
}
