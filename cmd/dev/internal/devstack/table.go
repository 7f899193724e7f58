//go:build unix

package devstack

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// table shows the three systems one below the other, so that what agrees stands in one column.
func (s state) table(plans map[string]string) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range [][]string{
		{"system", "who", "status", "plan", "access", "period", "more"},
		s.clerkRow(), s.stripeRow(plans), s.postgresRow(),
	} {
		for i, cell := range row {
			row[i] = cmp.Or(cell, "-")
		}
		fmt.Fprintln(w, "   "+strings.Join(row, "\t"))
	}
	_ = w.Flush() // into memory
	return strings.TrimRight(text.String(), "\n")
}

func (s state) clerkRow() []string {
	row := []string{"Clerk", "", "", "", "", "", ""}
	if !s.clerk.exists {
		row[1], row[6] = "(deleted)", "no such user"
		return row
	}
	row[1] = s.clerk.name
	var p account.Projection
	if json.Unmarshal(s.clerk.projected, &p) != nil || p.Version == 0 {
		row[6] = "no metadata"
		return row
	}
	end, _ := time.Parse(time.RFC3339, p.CurrentPeriodEnd) // absent where there is no subscription
	cancelAt, _ := time.Parse(time.RFC3339, p.CancelAt)
	row[2], row[3], row[4] = string(p.Status), p.Plan, yesNo(p.SubscriptionActive)
	row[5] = period(end, p.CancelAtPeriodEnd, cancelAt, p.Status)
	row[6] = fmt.Sprintf("metadata version %d", p.Version)
	return row
}

// stripeRow shows the newest subscription. Stripe knows nothing of access.
func (s state) stripeRow(plans map[string]string) []string {
	row := []string{"Stripe", "", "", "", "", "", "no customer"}
	if len(s.stripe.customers) == 0 {
		return row
	}
	c := s.stripe.customers[0]
	row[1], row[6] = c.Name, c.ID
	if len(s.stripe.subscriptions) == 0 {
		return row
	}
	x := s.stripe.subscriptions[0]
	row[2], row[3] = x.Status, cmp.Or(plans[x.priceID()], x.priceID())
	row[5] = period(time.Unix(x.CurrentPeriodEnd, 0), x.CancelAtPeriodEnd, orZero(x.CancelAt), account.Status(x.Status))
	row[6] += ", " + x.ID
	return row
}

func (s state) postgresRow() []string {
	row := []string{"PostgreSQL", "", "", "", "", "", "no row"}
	user := s.rows.user
	if user == nil {
		return row
	}
	row[1] = rowName(user)
	if user.ErasedAt != nil {
		row[1] = "(erased)"
	}
	row[6] = fmt.Sprintf("events: %d completed, %d due; payments: %d", s.rows.completed, s.rows.due, s.rows.payments)
	projection, err := user.Projection()
	if err != nil || projection.SubscriptionID == "" {
		row[4] = yesNo(false)
		return row
	}
	for _, r := range s.rows.subscriptions {
		if r.StripeID != projection.SubscriptionID {
			continue
		}
		h := r.Held()
		row[2], row[3], row[4] = r.Status, h.Plan, yesNo(projection.SubscriptionActive)
		row[5] = period(h.CurrentPeriodEnd, h.CancelAtPeriodEnd, h.CancelAt, h.Status)
	}
	return row
}

// period says how far a subscription reaches and what comes then.
func period(end time.Time, atPeriodEnd bool, cancelAt time.Time, status account.Status) string {
	const layout = "2006-01-02 15:04:05"
	switch {
	case end.IsZero():
		return ""
	case status.Terminal():
		return "over"
	case !cancelAt.IsZero():
		return "ends " + cancelAt.UTC().Format(layout)
	case atPeriodEnd:
		return "ends " + end.UTC().Format(layout)
	default:
		return "renews " + end.UTC().Format(layout)
	}
}

func orZero(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
