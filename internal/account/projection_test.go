package account_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// cases makes cases up; its seed makes the same ones again.
type cases struct {
	*rand.Rand
	seed uint64
}

// random runs a property on made-up cases, each from a seed of its own.
func random(t *testing.T, property func(r *cases)) {
	t.Helper()
	for range 3000 {
		seed := rand.Uint64()
		property(&cases{rand.New(rand.NewPCG(seed, 1)), seed})
		if t.Failed() {
			t.Logf("seed %d", seed)
			return
		}
	}
}

// subscription makes one up, with few values for each field so that ties are common.
func (r *cases) subscription(n int) account.Held {
	moment := func() time.Time {
		if r.IntN(4) == 0 {
			return time.Time{}
		}
		return noon().Add(time.Duration(r.IntN(200)-100) * time.Hour)
	}
	return account.Held{
		Subscription: account.Subscription{
			ID: fmt.Sprintf("sub_%d", n), CustomerID: fmt.Sprintf("cus_%d", r.IntN(3)), Status: statuses()[r.IntN(len(statuses()))],
			CurrentPeriodStart: moment(), CurrentPeriodEnd: moment(), TrialEnd: moment(), CancelAt: moment(), PastDueSince: moment(),
			CollectionPaused: r.IntN(5) == 0, CancelAtPeriodEnd: r.IntN(3) == 0, Created: noon().Add(-time.Duration(r.IntN(3)) * time.Hour),
		},
		Plan: fmt.Sprintf("Plan %d", n), PriceID: fmt.Sprintf("price_%d", n), Type: "monthly",
	}
}

// Whatever the order in which the rows are read, the same one leads and the projection is the same.
func TestOrderDoesNotMatter(t *testing.T) {
	t.Parallel()
	random(t, func(r *cases) {
		policy := account.AccessPolicy{PastDueGrace: 50 * time.Hour, WhilePaused: r.IntN(2) == 0}
		list := make([]account.Held, 1+r.IntN(6))
		for i := range list {
			list[i] = r.subscription(i)
		}
		customers := []string{"cus_0", "cus_1", "cus_2"}
		lead, ok := account.Leading(list, policy, noon())
		projection := account.Project(list, customers, policy, noon())
		shuffled := slices.Clone(list)
		r.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again, _ := account.Leading(shuffled, policy, noon()); !ok || again.ID != lead.ID {
			t.Errorf("seed %d: %s leads, shuffled %s", r.seed, lead.ID, again.ID)
		}
		if again := account.Project(shuffled, customers, policy, noon()); again != projection {
			t.Errorf("seed %d: %+v, shuffled %+v", r.seed, projection, again)
		}
		// Who has access is said to have it, and it is the leading one that grants it.
		grants := slices.ContainsFunc(list, func(h account.Held) bool { return policy.Grants(h.Subscription, noon()) })
		if projection.SubscriptionActive != grants || policy.Grants(lead.Subscription, noon()) != grants {
			t.Errorf("seed %d: some grant: %t, projection %t, the leading one %t", r.seed, grants, projection.SubscriptionActive, policy.Grants(lead.Subscription, noon()))
		}
	})
}

// Who leads of two.
func TestLeading(t *testing.T) {
	t.Parallel()
	held := func(id string, status account.Status, created int, change ...func(*account.Subscription)) account.Held {
		s := account.Subscription{ID: id, Status: status, Created: noon().Add(time.Duration(created) * time.Hour)}
		for _, c := range change {
			c(&s)
		}
		return account.Held{Subscription: s}
	}
	graced := func(s *account.Subscription) { s.PastDueSince = noon() }
	paused := func(s *account.Subscription) { s.CollectionPaused = true }
	for _, c := range []struct {
		name           string
		leader, second account.Held
	}{
		{"granting before newer", held("a", account.StatusActive, 1), held("b", account.StatusCanceled, 2)},
		{"granting before a better status", held("a", account.StatusPastDue, 1, graced), held("b", account.StatusActive, 2, paused)},
		{"active before trialing", held("a", account.StatusActive, 1), held("b", account.StatusTrialing, 2)},
		{"trialing before past due", held("a", account.StatusTrialing, 1), held("b", account.StatusPastDue, 2, graced)},
		{"past due before the rest", held("a", account.StatusPastDue, 1), held("b", account.StatusUnpaid, 2)},
		{"the rest by age", held("a", account.StatusCanceled, 2), held("b", account.StatusUnpaid, 1)},
		{"the newest", held("a", account.StatusActive, 2), held("b", account.StatusActive, 1)},
		{"of the same age the higher id", held("b", account.StatusActive, 1), held("a", account.StatusActive, 1)},
	} {
		for _, list := range [][]account.Held{{c.leader, c.second}, {c.second, c.leader}} {
			if lead, ok := account.Leading(list, account.AccessPolicy{PastDueGrace: time.Hour}, noon()); !ok || lead.ID != c.leader.ID {
				t.Errorf("%s: %s leads", c.name, lead.ID)
			}
		}
	}
	if _, ok := account.Leading(nil, account.AccessPolicy{}, noon()); ok {
		t.Error("one of none leads")
	}
}

func TestProject(t *testing.T) {
	t.Parallel()
	policy := account.AccessPolicy{}
	if got := account.Project(nil, nil, policy, noon()); got != (account.Projection{}) {
		t.Errorf("of nothing: %+v", got)
	}
	if got := account.Project(nil, []string{"cus_old", "cus_new"}, policy, noon()); got != (account.Projection{CustomerID: "cus_old"}) {
		t.Errorf("of customers alone: %+v", got)
	}
	zone := time.FixedZone("west", -3*3600)
	full := account.Held{Plan: "Pro", PriceID: "price_1", Type: "yearly", Subscription: account.Subscription{
		ID: "sub_1", CustomerID: "cus_2", Status: account.StatusActive, CurrentPeriodStart: noon().In(zone), CurrentPeriodEnd: noon().AddDate(1, 0, 0),
		TrialStart: noon().AddDate(0, 0, 1), TrialEnd: noon().AddDate(0, 0, 2), CancelAtPeriodEnd: true, CancelAt: noon().AddDate(0, 0, 3), CanceledAt: noon().AddDate(0, 0, 4),
		EndedAt: noon(), CollectionPaused: false, LatestInvoiceCreated: noon(), Created: noon(), Metadata: map[string]string{"email": "ada@example.com"},
	}}
	got := account.Project([]account.Held{full}, []string{"cus_1", "cus_2"}, policy, noon())
	want := account.Projection{
		CustomerID: "cus_2", SubscriptionID: "sub_1", Status: "active", SubscriptionActive: true, SubscriptionType: "yearly", Plan: "Pro", PriceID: "price_1",
		CurrentPeriodStart: "2026-03-10T12:00:00Z", CurrentPeriodEnd: "2027-03-10T12:00:00Z", CancelAtPeriodEnd: true, CancelAt: "2026-03-13T12:00:00Z",
		CanceledAt: "2026-03-14T12:00:00Z", TrialStart: "2026-03-11T12:00:00Z", TrialEnd: "2026-03-12T12:00:00Z",
	}
	if got != want {
		t.Errorf("projected\n%+v\nwant\n%+v", got, want)
	}
	// Two subscriptions: one leads, the other only grants.
	second := account.Held{Subscription: account.Subscription{ID: "sub_2", CustomerID: "cus_1", Status: account.StatusTrialing, Created: noon().AddDate(1, 0, 0)}}
	full.CollectionPaused = true
	if got := account.Project([]account.Held{full, second}, nil, policy, noon()); got.SubscriptionID != "sub_2" || !got.SubscriptionActive || got.CustomerID != "cus_1" {
		t.Errorf("with one that is paused: %+v", got)
	}
}

// The primary customer exists at Stripe: that of the subscription which leads among theirs, else
// the oldest. What is shown of the subscription that leads among all does not depend on whether its
// customer does.
func TestProjectNamesACustomerThatExists(t *testing.T) {
	t.Parallel()
	of := func(id, customer string, status account.Status, age int) account.Held {
		return account.Held{Subscription: account.Subscription{ID: id, CustomerID: customer, Status: status, Created: noon().AddDate(0, 0, -age)}}
	}
	past, paid := of("sub_past", "cus_gone", account.StatusCanceled, 1), of("sub_paid", "cus_gone", account.StatusActive, 1)
	for name, c := range map[string]struct {
		held      []account.Held
		customers []string
		customer  string
		lead      string
		active    bool
	}{
		"of a past one that is gone, with another":    {[]account.Held{past}, []string{"cus_new"}, "cus_new", "sub_past", false},
		"of a past one that is gone, with none":       {[]account.Held{past}, []string{}, "", "sub_past", false},
		"of a running one that is missing":            {[]account.Held{paid}, []string{"cus_new"}, "cus_new", "sub_paid", true},
		"of a running one that is missing, with none": {[]account.Held{paid}, []string{}, "", "sub_paid", true},
		"the one with a subscription before the oldest": {
			[]account.Held{past, of("sub_old", "cus_b", account.StatusCanceled, 9)}, []string{"cus_a", "cus_b"}, "cus_b", "sub_past", false},
	} {
		got := account.Project(c.held, c.customers, account.AccessPolicy{}, noon())
		if got.CustomerID != c.customer || got.SubscriptionID != c.lead || got.SubscriptionActive != c.active {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// Clerk's session tokens hold little: whatever a product is called, the projection stays small.
func TestProjectionIsSmall(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]string{
		"latin": strings.Repeat("W", 255), "asian": strings.Repeat("界", 255), "emoji": strings.Repeat("😀", 255),
		"escaped": strings.Repeat("<&>", 85), "quotes": strings.Repeat(`"\`, 127), "control": strings.Repeat("\x01", 255), "no text": strings.Repeat("\xff", 255),
	} {
		h := account.Held{Plan: plan, PriceID: "price_" + strings.Repeat("x", 40), Type: "12-month", Subscription: account.Subscription{
			ID: "sub_" + strings.Repeat("x", 40), CustomerID: "cus_" + strings.Repeat("x", 40), Status: account.StatusIncompleteExpired,
			CurrentPeriodStart: noon(), CurrentPeriodEnd: noon(), TrialStart: noon(), TrialEnd: noon(), CancelAtPeriodEnd: true, CancelAt: noon(), CanceledAt: noon(),
		}}
		p := account.Project([]account.Held{h}, nil, account.AccessPolicy{}, noon())
		p.Version = 1_000_000_000_000
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) >= 1024 {
			t.Errorf("%s: %d bytes", name, len(raw))
		}
		if p.Plan == "" || !utf8.ValidString(p.Plan) || !strings.HasPrefix(strings.ToValidUTF8(plan, "\ufffd"), p.Plan) {
			t.Errorf("%s: the plan is called %q", name, p.Plan)
		}
		// What is stored is what is compared with.
		var stored account.Projection
		if err := json.Unmarshal(raw, &stored); err != nil || !stored.SameContent(p) || !p.Equals(raw) {
			t.Errorf("%s: stored, it is not the same any more", name)
		}
	}
	h := account.Held{Plan: strings.Repeat("Pro plan ", 10)}
	if p := account.Project([]account.Held{h}, nil, account.AccessPolicy{}, noon()); p.Plan != h.Plan {
		t.Errorf("an ordinary name was cut: %q", p.Plan)
	}
}

// merge is what Clerk does with a patch of metadata: nulls remove, objects are merged.
func merge(held, patch map[string]any) map[string]any {
	merged := map[string]any{}
	maps.Copy(merged, held)
	for name, value := range patch {
		if value == nil {
			delete(merged, name)
			continue
		}
		merged[name] = value
	}
	return merged
}

func object(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Whatever Clerk holds, after the patch it holds the projection and nothing else; and only then is
// it said to be equal.
func TestMergePatch(t *testing.T) {
	t.Parallel()
	whole := account.Project([]account.Held{{Plan: "Pro", PriceID: "price_1", Type: "monthly", Subscription: account.Subscription{ID: "sub_1", CustomerID: "cus_1", Status: account.StatusTrialing,
		CurrentPeriodStart: noon(), CurrentPeriodEnd: noon(), TrialStart: noon(), TrialEnd: noon(), CancelAtPeriodEnd: true, CancelAt: noon(), CanceledAt: noon()}}}, nil, account.AccessPolicy{}, noon())
	whole.Version = 7
	projections := []account.Projection{{}, {CustomerID: "cus_1", Version: 1}, whole}
	helds := []string{``, `null`, `"a string"`, `[1]`, `{}`, `{"plan":"Old","trialEnd":"2020-01-01T00:00:00Z","foreign":{"deep":[1,2]},"other":null}`}
	for _, p := range projections {
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		helds = append(helds, string(raw))
	}
	for i, p := range projections {
		for _, held := range helds {
			patch, err := p.MergePatch(json.RawMessage(held))
			if err != nil {
				t.Fatal(err)
			}
			before := map[string]any{}
			if strings.HasPrefix(held, "{") {
				before = object(t, []byte(held))
			}
			after, err := json.Marshal(merge(before, object(t, patch)))
			if err != nil {
				t.Fatal(err)
			}
			if !p.Equals(after) {
				t.Errorf("projection %d over %s: Clerk holds %s", i, held, after)
			}
		}
	}
	// Every field has its null: a field forgotten in the list would stay for ever.
	patch, err := account.Projection{}.MergePatch(nil)
	if err != nil {
		t.Fatal(err)
	}
	fields := reflect.TypeFor[account.Projection]()
	names := object(t, patch)
	for field := range fields.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		if _, ok := names[name]; !ok || !slices.Contains(account.ProjectionFields(), name) {
			t.Errorf("%s is not in an empty patch", name)
		}
	}
	if len(names) != fields.NumField() || len(account.ProjectionFields()) != fields.NumField() {
		t.Errorf("the patch has %d fields, the list %d, the projection %d", len(names), len(account.ProjectionFields()), fields.NumField())
	}
}

func TestEquals(t *testing.T) {
	t.Parallel()
	p := account.Projection{CustomerID: "cus_1", Status: "active", SubscriptionActive: true, Version: 3}
	for held, want := range map[string]bool{
		`{"customerId":"cus_1","status":"active","subscriptionActive":true,"version":3}`:                      true,
		`{"version":3,"status":"active","customerId":"cus_1","subscriptionActive":true,"plan":null,"x":null}`: true,
		`{"customerId":"cus_1","status":"active","subscriptionActive":true,"version":4}`:                      false,
		`{"customerId":"cus_1","status":"active","subscriptionActive":true,"version":"3"}`:                    false,
		`{"customerId":"cus_1","status":"active","subscriptionActive":true,"version":3,"plan":"Pro"}`:         false,
		`{"customerId":"cus_1","status":"active","subscriptionActive":true,"version":3,"foreign":1}`:          false,
		`{"customerId":"cus_1","status":"active","subscriptionActive":false,"version":3}`:                     false,
		`{"customerId":{"a":[1]},"status":"active","subscriptionActive":true,"version":3}`:                    false,
		`{"customerId":"cus_1","subscriptionActive":true,"version":3}`:                                        false,
		`{}`: false, `null`: false, ``: false, `[]`: false, `"x"`: false, `{`: false,
	} {
		if got := p.Equals(json.RawMessage(held)); got != want {
			t.Errorf("%s: %t, want %t", held, got, want)
		}
	}
	if (account.Projection{}).Equals(nil) || (account.Projection{}).Equals(json.RawMessage(`{}`)) {
		t.Error("nothing is the projection of nothing, which says that no subscription is active")
	}
	if !p.SameContent(account.Projection{CustomerID: "cus_1", Status: "active", SubscriptionActive: true, Version: 9}) || p.SameContent(account.Projection{Version: 3}) {
		t.Error("contents are compared wrongly")
	}
}

// False is a value: where there is a subscription a projection says whether it ends with its period
// and whether it grants, true or false; where there is none it says only that none does. What Clerk
// holds in another form is not the same.
func TestFalseIsAValue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		projection account.Projection
		want       map[string]any
	}{
		"runs": {account.Projection{SubscriptionID: "sub_1", SubscriptionActive: true, Version: 2},
			map[string]any{"subscriptionId": "sub_1", "subscriptionActive": true, "cancelAtPeriodEnd": false, "version": 2.0}},
		"ends": {account.Projection{SubscriptionID: "sub_1", CancelAtPeriodEnd: true, Version: 2},
			map[string]any{"subscriptionId": "sub_1", "subscriptionActive": false, "cancelAtPeriodEnd": true, "version": 2.0}},
		"none": {account.Projection{CustomerID: "cus_1", Version: 2}, map[string]any{"customerId": "cus_1", "subscriptionActive": false, "version": 2.0}},
	} {
		for _, value := range []any{c.projection, &c.projection} {
			raw, err := json.Marshal(value)
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(raw, &got); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s: %s, want %v", name, raw, c.want)
			}
			if !c.projection.Equals(raw) {
				t.Errorf("%s: %s is not the same as itself", name, raw)
			}
			var back account.Projection
			if err := json.Unmarshal(raw, &back); err != nil || back != c.projection {
				t.Errorf("%s: read back as %+v", name, back)
			}
		}
		patch, err := c.projection.MergePatch(nil)
		if err != nil {
			t.Fatal(err)
		}
		var sent map[string]any
		if err := json.Unmarshal(patch, &sent); err != nil || len(sent) != len(account.ProjectionFields()) || sent["cancelAtPeriodEnd"] != c.want["cancelAtPeriodEnd"] {
			t.Errorf("%s: Clerk is sent %s", name, patch)
		}
	}
	runs := account.Projection{SubscriptionID: "sub_1", Version: 2}
	if runs.Equals(json.RawMessage(`{"subscriptionId":"sub_1","subscriptionActive":false,"version":2}`)) {
		t.Error("what leaves false out is taken for the same")
	}
}
