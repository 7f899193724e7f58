package activities

import (
	"slices"
	"strconv"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// outdated reports whether a look that seems to show a command as done is known to be older than
// something else that says it is not: an event whose change the look does not show, or a row of
// ours that has changed within the last minute. Stripe does not promise that a read shows a change
// at once. standing is the subscription as that says it stands.
func (s *step) outdated(c committed) (standing account.Subscription, behind bool) {
	standing = s.standing
	if s.op.Action == store.ActionCancelNow || standing.ScheduleID != "" {
		return standing, false // what has ended has ended; how a schedule ends is in no event of its subscription
	}
	told := false
	for _, change := range c.told {
		if !change.Stale(s.standing) {
			continue
		}
		switch change.Field {
		case "cancel_at_period_end":
			standing.CancelAtPeriodEnd, told = change.After == "true", true
		case "cancel_at":
			standing.CancelAt, told = time.Time{}, true
			if at, err := strconv.ParseInt(change.After, 10, 64); err == nil {
				standing.CancelAt = time.Unix(at, 0).UTC()
			}
		}
	}
	if i := slices.IndexFunc(c.rows, func(row store.Subscription) bool { return row.StripeID == s.op.SubscriptionID }); i >= 0 && !told {
		if row := c.rows[i]; row.UpdatedAt != nil && c.now.Sub(*row.UpdatedAt) < account.ReadsBehind {
			held := row.Held()
			standing.CancelAtPeriodEnd, standing.CancelAt = held.CancelAtPeriodEnd, held.CancelAt
		}
	}
	return standing, !account.Decide(s.op.Action.Command(), standing, false).Satisfied
}
