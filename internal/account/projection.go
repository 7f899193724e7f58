package account

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Projection is what Clerk's public_metadata.stripe holds of a user's subscriptions: a small copy
// for front ends. What has no value is absent, since Clerk's merge removes nulls; false is a value.
type Projection struct {
	CustomerID         string `json:"customerId,omitempty"`
	SubscriptionID     string `json:"subscriptionId,omitempty"`
	Status             Status `json:"status,omitempty"`
	SubscriptionActive bool   `json:"subscriptionActive"`
	SubscriptionType   string `json:"subscriptionType,omitempty"`
	Plan               string `json:"plan,omitempty"`
	PriceID            string `json:"priceId,omitempty"`
	CurrentPeriodStart string `json:"currentPeriodStart,omitempty"`
	CurrentPeriodEnd   string `json:"currentPeriodEnd,omitempty"`
	// CancelAtPeriodEnd says something where there is a subscription, and is there then, true or
	// false: see [Projection.MarshalJSON].
	CancelAtPeriodEnd bool   `json:"cancelAtPeriodEnd"`
	CancelAt          string `json:"cancelAt,omitempty"`
	CanceledAt        string `json:"canceledAt,omitempty"`
	TrialStart        string `json:"trialStart,omitempty"`
	TrialEnd          string `json:"trialEnd,omitempty"`
	// Version rises by one with each change of the content.
	Version int64 `json:"version"`
}

// ProjectionFields names every field that a projection can have, in their order. A write to
// Clerk sends null for those that are absent.
func ProjectionFields() []string {
	return []string{
		"customerId", "subscriptionId", "status", "subscriptionActive", "subscriptionType", "plan", "priceId",
		"currentPeriodStart", "currentPeriodEnd", "cancelAtPeriodEnd", "cancelAt", "canceledAt",
		"trialStart", "trialEnd", "version",
	}
}

// MarshalJSON implements [json.Marshaler]: where there is no subscription, nothing is said of its
// end.
func (p Projection) MarshalJSON() ([]byte, error) {
	type fields Projection
	document := struct {
		fields
		CancelAtPeriodEnd *bool `json:"cancelAtPeriodEnd,omitempty"`
	}{fields: fields(p)}
	if p.SubscriptionID != "" {
		document.CancelAtPeriodEnd = &p.CancelAtPeriodEnd
	}
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encoding a projection: %w", err)
	}
	return raw, nil
}

// SameContent tells whether two projections say the same, whatever their versions.
func (p Projection) SameContent(q Projection) bool {
	p.Version, q.Version = 0, 0
	return p == q
}

// MergePatch is the value for Clerk's metadata merge that leaves exactly this projection:
// every field that is absent, and every other key in held, is set to null.
func (p Projection) MergePatch(held json.RawMessage) (json.RawMessage, error) {
	fields, err := p.fields()
	if err != nil {
		return nil, err
	}
	patch := make(map[string]any, len(ProjectionFields()))
	for _, name := range ProjectionFields() {
		patch[name] = nil
	}
	var extra map[string]json.RawMessage
	if json.Unmarshal(held, &extra) == nil {
		for name := range extra {
			patch[name] = nil
		}
	}
	maps.Copy(patch, fields)
	raw, err := json.Marshal(patch)
	if err != nil {
		return nil, fmt.Errorf("encoding the projection's merge patch: %w", err)
	}
	return raw, nil
}

// Equals tells whether what Clerk holds under the key "stripe" is exactly this projection.
// Nulls in it are dropped first: Clerk removes them, but not at once everywhere.
func (p Projection) Equals(held json.RawMessage) bool {
	var have map[string]any
	if json.Unmarshal(held, &have) != nil {
		return false
	}
	for name, value := range have {
		if value == nil {
			delete(have, name)
		}
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return false
	}
	var want map[string]any
	if json.Unmarshal(raw, &want) != nil || len(want) != len(have) {
		return false
	}
	for name, value := range want {
		if have[name] != value {
			return false
		}
	}
	return true
}

func (p Projection) fields() (map[string]any, error) {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding the projection: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("decoding the projection: %w", err)
	}
	return fields, nil
}

// Held is a subscription together with what our catalogue says of it.
type Held struct {
	Subscription
	Plan    string // the plan's name; the last known one where the price is unknown
	PriceID string
	Type    string // see IntervalType
}

// Project computes a user's projection at the given time from all subscriptions over all their
// customers. customers are those that exist at Stripe, from the oldest to the newest; nil where
// that is not known, and then the leading subscription's is taken. The version is left zero.
//
// The primary customer is one of them: that of the subscription which leads among theirs, else the
// oldest. The subscription that leads among all stays the one that is shown, though its customer be
// deleted or missing: what it gives does not depend on where it could be paid.
func Project(subscriptions []Held, customers []string, policy AccessPolicy, now time.Time) Projection {
	var p Projection
	existing := slices.DeleteFunc(slices.Clone(subscriptions), func(s Held) bool { return customers != nil && !slices.Contains(customers, s.CustomerID) })
	if lead, ok := Leading(existing, policy, now); ok {
		p.CustomerID = lead.CustomerID
	} else if len(customers) > 0 {
		p.CustomerID = customers[0]
	}
	for _, s := range subscriptions {
		if policy.Grants(s.Subscription, now) {
			p.SubscriptionActive = true
		}
	}
	lead, ok := Leading(subscriptions, policy, now)
	if !ok {
		return p
	}
	p.SubscriptionID = lead.ID
	p.Status = lead.Status
	p.SubscriptionType = lead.Type
	p.Plan = shorten(lead.Plan)
	p.PriceID = lead.PriceID
	p.CurrentPeriodStart = rfc3339(lead.CurrentPeriodStart)
	p.CurrentPeriodEnd = rfc3339(lead.CurrentPeriodEnd)
	p.CancelAtPeriodEnd = lead.CancelAtPeriodEnd
	p.CancelAt = rfc3339(lead.Ending().At)
	p.CanceledAt = rfc3339(lead.CanceledAt)
	p.TrialStart = rfc3339(lead.TrialStart)
	p.TrialEnd = rfc3339(lead.TrialEnd)
	return p
}

// Leading answers the subscription that stands for the user: one that grants before one that
// does not, then active, trialing, past_due, then the newest, then the higher id so that the
// answer never depends on the order of the arguments.
func Leading(subscriptions []Held, policy AccessPolicy, now time.Time) (Held, bool) {
	if len(subscriptions) == 0 {
		return Held{}, false
	}
	return slices.MinFunc(subscriptions, func(a, b Held) int {
		return cmp.Or(
			-compareBool(policy.Grants(a.Subscription, now), policy.Grants(b.Subscription, now)),
			cmp.Compare(standing(a.Status), standing(b.Status)),
			b.Created.Compare(a.Created),
			cmp.Compare(b.ID, a.ID),
		)
	}), true
}

func standing(s Status) int {
	switch s {
	case StatusActive:
		return 0
	case StatusTrialing:
		return 1
	case StatusPastDue:
		return 2
	case StatusIncomplete, StatusIncompleteExpired, StatusUnpaid, StatusPaused, StatusCanceled:
		return 3
	default:
		return 3
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// planSize is how many bytes of JSON a plan's name may take. With it a projection stays below
// 1 KB, since session tokens, into which an app may put it, hold little more.
const planSize = 400

// shorten cuts a name at a character, where its JSON would be longer than planSize.
func shorten(name string) string {
	name = strings.ToValidUTF8(name, "\ufffd")
	size := 0
	for i, r := range name {
		switch {
		case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029':
			size += len(`\u0000`)
		case r == '"', r == '\\':
			size += len(`\"`)
		default:
			size += utf8.RuneLen(r)
		}
		if size > planSize {
			return name[:i]
		}
	}
	return name
}

func rfc3339(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
