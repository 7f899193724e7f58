package kill_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

// state is what the three systems hold after a story, without what differs between any two: ids,
// the numbers of reads, and the times at which something was noted.
type state map[string]string

// differsFrom fails the test for each part in which a story ended otherwise than the undisturbed
// one.
func (s state) differsFrom(t *testing.T, when string, undisturbed state) {
	t.Helper()
	for _, part := range slices.Sorted(maps.Keys(undisturbed)) {
		if s[part] != undisturbed[part] {
			t.Errorf("%s, %s:\n%s\nundisturbed:\n%s", when, part, s[part], undisturbed[part])
		}
	}
}

var (
	idForm   = regexp.MustCompile(`\b(user|cus|sub|price|prod|in|pi|ch|evt|msg|cs|si|pm|idn)_[A-Za-z0-9_]{10,}`)
	uuidForm = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
	// A customer is linked by the activity that made it or by its own first event, whichever comes
	// first.
	sourceForm = regexp.MustCompile(`"source": *"[^"]*"`)
	versionOf  = regexp.MustCompile(`"version": *[0-9]+,? *`)
)

func normal(text string) string {
	text = idForm.ReplaceAllString(text, "${1}_*")
	text = uuidForm.ReplaceAllString(text, "*")
	text = sourceForm.ReplaceAllString(text, `"source": *`)
	return versionOf.ReplaceAllString(text, "")
}

// state reads all of it. Lines are sorted: who came first is no part of it.
func (s *stage) state() state {
	s.t.Helper()
	now := state{}
	for part, sql := range map[string]string{
		"users": `SELECT concat_ws('|', clerk_user_id, first_name, last_name, email, email_verified, stripe_customer_id, deletion_requested_at IS NOT NULL, deleted_at IS NOT NULL,
			profile_version, projection, projection_version = published_version, publish_error) FROM person_user`,
		"customers": `SELECT concat_ws('|', stripe_customer_id, user_id, linked_at IS NOT NULL, email, name, deleted_in_stripe) FROM stripe_customers`,
		"claims":    `SELECT DISTINCT concat_ws('|', stripe_customer_id, clerk_user_id) FROM customer_claims`,
		"subscriptions": `SELECT concat_ws('|', stripe_customer_id, p.plan_name, status, subscription_type, current_period_start, current_period_end, cancel_at_period_end, cancel_at,
			canceled_at, ended_at, price_known, quantity, unit_amount, currency, metadata, missing_since) FROM subscriptions LEFT JOIN plans p ON p.id = plan_id`,
		"changes": `SELECT concat_ws('|', status_before, status, quantity, unit_amount, ends_at) FROM subscription_changes`,
		"payments": `SELECT concat_ws('|', kind, stripe_customer_id, stripe_subscription_id IS NOT NULL, charge_id IS NOT NULL, status, reason, amount, amount_paid,
			amount_refunded, currency, attempts, occurred_at, paid_at) FROM payments`,
		"audit log": `SELECT concat_ws('|', action, clerk_user_id, entity, subject, before, after) FROM audit_log`,
		"drift":     `SELECT concat_ws('|', class, entity, subject) FROM drift`,
		// How often Clerk is written to, and tells so, depends on how often a write had to be repeated.
		"events": `SELECT concat_ws('|', source, type, status, reason, CASE WHEN type = 'user.updated' THEN 'some' ELSE count(*)::text END, count(payload) > 0)
			FROM webhook_events GROUP BY source, type, status, reason`,
		"pokes": `SELECT entity FROM pokes WHERE due_at IS NOT NULL`,
	} {
		now[part] = s.lines(sql)
	}
	var stripe []string
	for _, raw := range s.Sandbox.Stripe.Customers() {
		var c struct{ ID, Name, Email string }
		if err := json.Unmarshal(raw, &c); err != nil {
			s.t.Fatal(err)
		}
		stripe = append(stripe, fmt.Sprintf("customer %s %s", c.Name, c.Email))
		for _, raw := range s.Sandbox.Stripe.Subscriptions(c.ID) {
			var sub struct {
				Status            string
				CurrentPeriodEnd  int64 `json:"current_period_end"`
				CancelAtPeriodEnd bool  `json:"cancel_at_period_end"`
			}
			if err := json.Unmarshal(raw, &sub); err != nil {
				s.t.Fatal(err)
			}
			stripe = append(stripe, fmt.Sprintf("subscription %+v", sub))
		}
	}
	counts := s.Sandbox.Stripe.Counts()
	delete(counts, "event") // those that are told are compared where they arrived
	now["Stripe"] = strings.Join(append(stripe, fmt.Sprint(counts)), "\n")
	clerk, err := json.Marshal(s.Sandbox.Clerk.PublicMetadata(s.user))
	if err != nil {
		s.t.Fatal(err)
	}
	now["Clerk"] = normal(string(clerk))
	return now
}

func (s *stage) lines(sql string) string {
	s.t.Helper()
	var text string
	if err := s.Row(s.t.Context(), `SELECT coalesce(string_agg(line, E'\n'), '') FROM (`+sql+`) AS lines (line)`, nil, &text); err != nil {
		s.t.Fatal(err)
	}
	lines := strings.Split(normal(text), "\n")
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
