package account

import (
	"cmp"
	"slices"
	"time"
)

// Invoice is what our rows know of one invoice of a subscription.
type Invoice struct {
	ID      string
	Status  string // Stripe's: draft, open, paid, void, uncollectible
	Created time.Time
	// DueAt is until when an invoice that was sent is to be paid; zero for one that is charged by
	// itself.
	DueAt time.Time
	// FirstFailedAt is the first failure to collect it that we were told of.
	FirstFailedAt time.Time
	// FirstFailedAttempt is which attempt that was of, 0 where it is not known.
	FirstFailedAttempt int64
	FinalizedAt        time.Time
	// PaidAt is when it was paid, zero where it was not, or where that is not known.
	PaidAt   time.Time
	Attempts int64
}

// Due is when the invoice was to have been paid: its due date; else when it first could not be
// collected, since a bank may take a week to say so; else when it was opened.
func (i Invoice) Due() time.Time {
	for _, moment := range []time.Time{i.DueAt, i.FirstFailedAt, i.FinalizedAt} {
		if !moment.IsZero() {
			return moment
		}
	}
	return i.Created
}

// InvoicesWith are invoices as they are with what else was told of them: a status is only ever
// overtaken by one that is more final.
func InvoicesWith(known []Invoice, told []Payment) []Invoice {
	all := slices.Clone(known)
	for _, p := range told {
		if p.Kind != PaymentInvoice {
			continue
		}
		i := Invoice{ID: p.ID, Status: p.Status, Created: p.Created, DueAt: p.DueAt, FirstFailedAt: p.FailedAt, FinalizedAt: p.FinalizedAt, PaidAt: p.PaidAt, Attempts: p.Attempts}
		at := slices.IndexFunc(all, func(k Invoice) bool { return k.ID == i.ID })
		switch {
		case at < 0:
			all = append(all, i)
		case p.Rank() > (Payment{Kind: PaymentInvoice, Status: all[at].Status}).Rank():
			all[at].Status, all[at].PaidAt = i.Status, i.PaidAt
		}
	}
	return all
}

// Delinquency is since when a past_due subscription owes, and the invoice that says so. The invoice
// is "" where none did: Stripe leaves a subscription past_due whose open invoices were all voided.
type Delinquency struct {
	Since     time.Time
	InvoiceID string
}

// PastDueSince answers since when a subscription that is past_due owes: the earliest due moment
// among its open invoices of this delinquency, which are those made after its last paid one. An
// invoice left open before that is another matter, and one that is void, uncollectible or a draft
// is owed no more, or not yet. It is zero where no open invoice says so.
//
// was is what was found before: the moment never moves later while the delinquency lasts, however
// many of the invoices are voided or paid meanwhile. One thing can correct it: the first failure of
// the very invoice that it comes from, told after it was taken from when that invoice was opened.
// And it is of another delinquency where the latest invoice of its time was paid since, upon which
// Stripe makes a subscription active: nobody need have looked while it was.
//
// cycle is about how long a billing period is, zero where that is not known. It stands in for the
// paid invoices where none is known, as in a fresh database: two open invoices more than a period
// and a half apart had one between them that is not open, so the older one is no part of this
// delinquency.
func PastDueSince(invoices []Invoice, was Delinquency, cycle time.Duration) Delinquency {
	var paid time.Time
	var open []Invoice
	if settled(invoices, was) {
		// As long as nothing is open since, the read is one of before.
		if anew := PastDueSince(invoices, Delinquency{}, cycle); !anew.Since.IsZero() {
			return anew
		}
	}
	now := was
	for _, i := range invoices {
		switch {
		case i.Status == "paid" && i.Created.After(paid):
			paid = i.Created
		case i.Status == "open":
			open = append(open, i)
		}
		if i.ID == was.InvoiceID && i.DueAt.IsZero() && cmp.Or(i.FirstFailedAttempt, i.Attempts) <= 1 && i.Due().After(was.Since) {
			now.Since = i.Due()
		}
	}
	open = slices.DeleteFunc(open, func(i Invoice) bool { return !i.Created.After(paid) })
	slices.SortFunc(open, func(a, b Invoice) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID)) })
	for n, i := range open {
		if n > 0 && paid.IsZero() && cycle > 0 && open[n-1].Created.Sub(i.Created) > cycle*3/2 {
			break
		}
		if due := i.Due(); now.Since.IsZero() || due.Before(now.Since) {
			now = Delinquency{Since: due, InvoiceID: i.ID}
		}
	}
	return now
}

// KnowsOwed tells whether invoices, and what was found before, say since when a subscription that
// is past_due owes. They do not where what was found is of a delinquency that has ended.
func KnowsOwed(invoices []Invoice, was Delinquency) bool {
	if settled(invoices, was) {
		was = Delinquency{}
	}
	return !PastDueSince(invoices, was, 0).Since.IsZero()
}

// settled tells whether a delinquency has ended: an invoice that is no older than the one that it
// comes from was paid while there was none after it.
func settled(invoices []Invoice, was Delinquency) bool {
	began := was.Since
	for _, i := range invoices {
		if i.ID == was.InvoiceID {
			began = i.Created
		}
	}
	return !was.Since.IsZero() && slices.ContainsFunc(invoices, func(p Invoice) bool {
		return p.Status == "paid" && p.PaidAt.After(was.Since) && !p.Created.Before(began) &&
			!slices.ContainsFunc(invoices, func(i Invoice) bool {
				return i.Status != "draft" && i.Created.After(p.Created) && !i.Created.After(p.PaidAt)
			})
	})
}

// Cycle is about how long the longest billing period among items is, zero where none recurs.
func Cycle(items []Item) time.Duration {
	const day = 24 * time.Hour
	lengths := map[string]time.Duration{"day": day, "week": 7 * day, "month": 31 * day, "year": 366 * day}
	var longest time.Duration
	for _, i := range items {
		longest = max(longest, lengths[i.Interval]*time.Duration(max(i.IntervalCount, 1)))
	}
	return longest
}
