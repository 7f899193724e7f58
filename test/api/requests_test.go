package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const single = "/api/sync/clerk-stripe"

// What is wrong with a request is said, with the right status, and nothing is begun for it.
func TestMistakes(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada, eve := w.subscriber("Ada"), w.somebody("Eve").onboarded()
	own := "/api/subscriptions/" + ada.subscription
	act := func(p *person, body string) reply { return p.asks(http.MethodPost, single, body) }
	w.Rest()
	before := w.Count(`SELECT count(*) FROM operations`)
	w.Sandbox.StripeFaults.Reset()
	for name, c := range map[string]struct {
		r      reply
		status int
		code   string
	}{
		"another's, cancel":            {eve.asks(http.MethodPost, own+"/cancel", ""), 404, "subscription_not_found"},
		"another's, cancel now":        {eve.asks(http.MethodPost, own+"/cancel", `{"at":"now"}`), 404, "subscription_not_found"},
		"another's, reactivate":        {eve.asks(http.MethodPost, own+"/reactivate", ""), 404, "subscription_not_found"},
		"another's, single address":    {act(eve, `{"action":"cancel-subscription","subscriptionId":"`+ada.subscription+`"}`), 404, "subscription_not_found"},
		"unknown id":                   {ada.asks(http.MethodPost, "/api/subscriptions/sub_unknown/cancel", ""), 404, "subscription_not_found"},
		"malformed id":                 {ada.asks(http.MethodPost, "/api/subscriptions/cus_1/cancel", ""), 400, "field_invalid"},
		"id that climbs":               {ada.asks(http.MethodPost, "/api/subscriptions/sub_1%2F..%2Fx/cancel", ""), 404, "route_not_found"},
		"id in JSON, malformed":        {act(ada, `{"action":"cancel-subscription","subscriptionId":"../customers/cus_1"}`), 400, "field_invalid"},
		"another user, not an admin":   {ada.asks(http.MethodPost, own+"/cancel?userId="+eve.user, ""), 403, "not_admin"},
		"another user, single address": {act(ada, `{"action":"sync-user","targetUserId":"`+eve.user+`"}`), 403, "not_admin"},
		"another user's data":          {ada.asks(http.MethodGet, single+"?targetUserId="+eve.user, ""), 403, "not_admin"},
		"another user's subscriptions": {ada.asks(http.MethodGet, "/api/subscriptions?userId="+eve.user, ""), 403, "not_admin"},
		"another user's audit":         {ada.asks(http.MethodGet, "/api/audit?userId="+eve.user, ""), 403, "not_admin"},
		"everybody's audit":            {ada.asks(http.MethodGet, "/api/audit?all=true", ""), 403, "not_admin"},
		"no action":                    {act(ada, `{}`), 400, "field_missing"},
		"unknown action":               {act(ada, `{"action":"delete-user"}`), 400, "action_invalid"},
		"missing subscriptionId":       {act(ada, `{"action":"cancel-subscription"}`), 400, "field_missing"},
		"missing reactivation id":      {act(ada, `{"action":"reactivate-subscription","subscriptionId":"sub_1"}`), 400, "field_missing"},
		"not JSON":                     {act(ada, `{"action":`), 400, "body_not_json"},
		"no object":                    {act(ada, `["action"]`), 400, "body_not_json"},
		"null":                         {act(ada, `null`), 400, "body_not_json"},
		"empty":                        {act(ada, ``), 400, "body_not_json"},
		"two documents":                {act(ada, `{"action":"sync-user"}{}`), 400, "body_not_json"},
		"wrong type":                   {act(ada, `{"action":"cancel-subscription","subscriptionId":7}`), 400, "field_invalid"},
		"unknown moment":               {act(ada, `{"action":"cancel-subscription","subscriptionId":"`+ada.subscription+`","at":"noon"}`), 400, "field_invalid"},
		"resource: not JSON":           {ada.asks(http.MethodPost, own+"/cancel", `at=now`), 400, "body_not_json"},
		"resource: wrong type":         {ada.asks(http.MethodPost, own+"/cancel", `{"at":true}`), 400, "field_invalid"},
		"resource: unknown moment":     {ada.asks(http.MethodPost, own+"/cancel", `{"at":"soon"}`), 400, "field_invalid"},
		"resource: misspelt field":     {ada.asks(http.MethodPost, own+"/cancel", `{"when":"now"}`), 400, "field_unknown"},
		"resource: field of another":   {ada.asks(http.MethodPost, own+"/reactivate", `{"at":"now"}`), 400, "field_unknown"},
		"too large":                    {ada.asks(http.MethodPost, own+"/cancel", `{"at":"`+strings.Repeat("x", 1<<20)+`"}`), 413, "body_too_large"},
		"key with blanks":              {ada.asksWith("a key", http.MethodPost, own+"/cancel", ""), 400, "idempotency_key_invalid"},
		"key as long as a book":        {ada.asksWith(strings.Repeat("k", 300), http.MethodPost, own+"/cancel", ""), 400, "idempotency_key_invalid"},
		"wrong method":                 {ada.asks(http.MethodDelete, own+"/cancel", ""), 405, "method_not_allowed"},
		"no such address":              {ada.asks(http.MethodGet, "/api/subscription", ""), 404, "route_not_found"},
		"operation of nobody":          {ada.asks(http.MethodGet, "/api/operations/op_unknown", ""), 404, "operation_not_found"},
		"page that is no number":       {ada.asks(http.MethodGet, "/api/audit?before=last", ""), 400, "field_invalid"},
		"page too long":                {ada.asks(http.MethodGet, "/api/audit?limit=201", ""), 400, "field_invalid"},
		"truth value that is none":     {ada.asks(http.MethodGet, "/api/audit?all=1", ""), 400, "field_invalid"},
		"checkout of no price":         {ada.asks(http.MethodPost, "/api/checkout", `{"successUrl":"`+party+`","cancelUrl":"`+party+`"}`), 400, "field_missing"},
		"checkout of an unknown price": {ada.asks(http.MethodPost, "/api/checkout", checkout("price_unknown", 1)), 400, "price_not_sold"},
		"checkout of nothing":          {ada.asks(http.MethodPost, "/api/checkout", checkout(w.price, -1)), 400, "field_invalid"},
		"checkout back to somewhere":   {ada.asks(http.MethodPost, "/api/checkout", `{"priceId":"`+w.price+`","successUrl":"https://evil.example/","cancelUrl":"`+party+`"}`), 400, "field_invalid"},
		"checkout back to a script":    {ada.asks(http.MethodPost, "/api/checkout", `{"priceId":"`+w.price+`","successUrl":"javascript:alert(1)","cancelUrl":"`+party+`"}`), 400, "field_invalid"},
		"portal back to somewhere":     {ada.asks(http.MethodPost, "/api/portal", `{"returnUrl":"https://app.example.com.evil.example"}`), 400, "field_invalid"},
		"return without a session":     {ada.asks(http.MethodPost, "/api/checkout/return", `{}`), 400, "field_missing"},
		"return with something else":   {ada.asks(http.MethodPost, "/api/checkout/return", `{"sessionId":"sub_1"}`), 400, "field_invalid"},
	} {
		if c.r.status != c.status || c.r.code() != c.code {
			t.Errorf("%s: answered %s, want %d %s", name, c.r, c.status, c.code)
		}
	}
	if n := w.Count(`SELECT count(*) FROM operations`) - before; n != 0 {
		t.Errorf("%d operations were begun for mistakes", n)
	}
	// Whose something is, is decided before any provider is asked.
	for request, n := range w.Sandbox.StripeFaults.Requests() {
		if request != "GET /v1/account" {
			t.Errorf("Stripe was asked %s %d times for mistakes", request, n)
		}
	}
	ada.is("active")
}

func checkout(price string, quantity int) string {
	return fmt.Sprintf(`{"priceId":%q,"quantity":%d,"successUrl":"%s/thanks?session={CHECKOUT_SESSION_ID}","cancelUrl":"%s/plans"}`, price, quantity, party, party)
}

// What PostgreSQL and Clerk say of a user, as documented.
func TestSubscriptionData(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada, eve := w.subscriber("Ada"), w.somebody("Eve").onboarded()
	var data struct {
		Success bool
		Data    struct {
			Clerk, Database map[string]any
			User            map[string]any
			InSync          *bool
		}
	}
	read := func(r reply) {
		t.Helper()
		want(t, r, http.StatusOK, "")
		data.Data.Clerk, data.Data.Database, data.Data.InSync = nil, nil, nil
		if err := json.Unmarshal(r.body, &data); err != nil || !data.Success {
			t.Fatalf("answered %s", r)
		}
	}
	for _, r := range []reply{ada.asks(http.MethodGet, single, ""), ada.asks(http.MethodPost, single, `{"action":"get-subscription-data","unknown":1}`)} {
		read(r)
		d := data.Data
		if d.InSync == nil || !*d.InSync || d.Database["status"] != "active" || d.Clerk["plan"] != "Pro" || d.Database["subscriptionId"] != ada.subscription {
			t.Errorf("the data are %s", r.body)
		}
		if d.User["id"] != ada.user || d.User["email"] != "ada@example.com" || d.User["firstName"] != "Ada" || d.User["lastName"] != "Lovelace" {
			t.Errorf("the user is %v", d.User)
		}
	}
	eve.agrees()
	read(eve.asks(http.MethodGet, single, ""))
	if data.Data.Database != nil || data.Data.Clerk["customerId"] != eve.customer || !*data.Data.InSync {
		t.Errorf("of somebody without a subscription the data are %+v", data.Data)
	}
	// Somebody else's writing shows.
	w.Sandbox.ClerkWebhooks.Hold()
	if err := w.Sandbox.Clerk.SetPublicMetadata(ada.user, map[string]any{"stripe": map[string]any{"status": "active", "plan": "Enterprise"}}); err != nil {
		t.Fatal(err)
	}
	read(ada.asks(http.MethodGet, single, ""))
	if data.Data.InSync == nil || *data.Data.InSync || data.Data.Clerk["plan"] != "Enterprise" || data.Data.Database["plan"] != "Pro" {
		t.Errorf("with another plan at Clerk the data are %+v", data.Data)
	}
	list, err := ada.api.ListSubscriptionsWithResponse(t.Context(), nil)
	if err != nil || list.JSON200 == nil || len(list.JSON200.Subscriptions) != 1 {
		t.Fatalf("the subscriptions are %v, %v", list, err)
	}
	if s := list.JSON200.Subscriptions[0]; s.Id != ada.subscription || !s.Active || s.Status != "active" || *s.Plan != "Pro" || *s.Type != "monthly" || s.Quantity != 1 {
		t.Errorf("the subscription is %+v", s)
	}
}

// The subscription that leads comes first, those that are over last.
func TestSubscriptionsInOrder(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	first := ada.subscription
	if err := w.Sandbox.Stripe.CancelNow(first); err != nil {
		t.Fatal(err)
	}
	ada.buys(stripesim.CheckoutSpec{PriceID: w.price, TrialDays: 7})
	trial := ada.subscription
	ada.buys(stripesim.CheckoutSpec{PriceID: w.price})
	list, err := ada.api.ListSubscriptionsWithResponse(t.Context(), nil)
	if err != nil || list.JSON200 == nil {
		t.Fatal(err, list)
	}
	var got []string
	for _, s := range list.JSON200.Subscriptions {
		got = append(got, fmt.Sprint(s.Id, s.Status, s.Active))
	}
	if want := []string{fmt.Sprint(ada.subscription, "active", true), fmt.Sprint(trial, "trialing", true), fmt.Sprint(first, "canceled", false)}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the subscriptions are %v, want %v", got, want)
	}
}

// A sync reads both providers after it was asked for, in both forms; what nobody told of is there
// then.
func TestSync(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	for _, sync := range []func() reply{
		func() reply { return ada.asks(http.MethodPost, "/api/users/me/sync", "") },
		func() reply { return ada.asks(http.MethodPost, single, `{"action":"sync-user"}`) },
		func() reply {
			return ada.asks(http.MethodPost, single, `{"action":"sync-user","targetUserId":"`+ada.user+`"}`)
		},
	} {
		w.Sandbox.ClerkWebhooks.Hold()
		w.Sandbox.StripeWebhooks.Hold()
		name := "Augusta" + fmt.Sprint(w.Count(`SELECT count(*) FROM operations`))
		if err := w.Sandbox.Clerk.UpdateUser(ada.user, clerksim.UserChange{FirstName: &name}); err != nil {
			t.Fatal(err)
		}
		if err := w.Sandbox.Stripe.SetQuantity(ada.subscription, int64(2+w.Count(`SELECT count(*) FROM operations`))); err != nil {
			t.Fatal(err)
		}
		r := sync()
		want(t, r, http.StatusOK, "")
		if n := w.Count(`SELECT count(*) FROM person_user WHERE first_name = $1`, name); n != 1 {
			t.Error("the answer came before the name was there")
		}
		ada.is("active")
		if raw, _ := w.Sandbox.Stripe.Customer(ada.customer); !strings.Contains(string(raw), name) {
			t.Errorf("the answer came before Stripe had the name: %s", raw)
		}
		w.Sandbox.ClerkWebhooks.Release()
		w.Sandbox.StripeWebhooks.Release()
	}
}

// An admin, by the configuration or by their token's own claim, may name another user.
func TestAdmin(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	claim := w.somebody("Grace").onboarded()
	byClaim := map[string]string{"Authorization": "Bearer " + w.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{
		UserID: claim.user, AZP: party, Claims: map[string]any{"metadata": map[string]any{"role": "admin"}},
	})}
	byConfiguration := map[string]string{"Authorization": "Bearer " + w.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: adminID, AZP: party})}
	cancel := "/api/subscriptions/" + ada.subscription + "/cancel"
	want(t, w.ask(http.MethodPost, cancel, "", byClaim), http.StatusNotFound, "subscription_not_found") // whose it is has to be said
	want(t, w.ask(http.MethodPost, cancel+"?userId="+ada.user, "", byClaim), http.StatusOK, "")
	ada.is("active, ends with its period")
	want(t, w.ask(http.MethodPost, single, `{"action":"reactivate-subscription","reactivationSubscriptionId":"`+ada.subscription+`","targetUserId":"`+ada.user+`"}`, byConfiguration), http.StatusOK, "")
	ada.is("active")
	want(t, w.ask(http.MethodPost, single, `{"action":"sync-user","targetUserId":"`+ada.user+`"}`, byClaim), http.StatusOK, "")
	want(t, w.ask(http.MethodGet, single+"?targetUserId="+ada.user, "", byClaim), http.StatusOK, "")
	want(t, w.ask(http.MethodGet, "/api/subscriptions?userId="+ada.user, "", byConfiguration), http.StatusOK, "")
	for name, header := range map[string]map[string]string{"claim": byClaim, "configuration": byConfiguration} {
		want(t, w.ask(http.MethodPost, "/api/users/me/sync?userId=user_nobody", "", header), http.StatusNotFound, "user_not_found")
		want(t, w.ask(http.MethodGet, "/api/subscriptions?userId=user_nobody", "", header), http.StatusNotFound, "user_not_found")
		want(t, w.ask(http.MethodGet, "/api/subscriptions?userId=../x", "", header), http.StatusBadRequest, "field_invalid")
		if r := w.ask(http.MethodGet, "/api/audit?all=true&limit=1", "", header); r.status != http.StatusOK || !strings.Contains(string(r.body), `"next"`) {
			t.Errorf("%s: everybody's audit is %s", name, r)
		}
	}
	if n := w.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = 'user_nobody'`); n != 0 {
		t.Error("a user whom nobody knows was made")
	}
	// Who asked is written down.
	if n := w.Count(`SELECT count(*) FROM audit_log WHERE action = 'operation.cancel' AND caller = $1 AND clerk_user_id = $2`, claim.user, ada.user); n != 1 {
		t.Errorf("%d lines say who cancelled", n)
	}
}

// The audit log tells who asked for what, what was and what is, and only the user's own.
func TestAudit(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada, eve := w.subscriber("Ada"), w.subscriber("Eve")
	want(t, ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", ""), http.StatusOK, "")
	want(t, eve.asks(http.MethodPost, "/api/subscriptions/"+eve.subscription+"/cancel", ""), http.StatusOK, "")
	page, err := ada.api.ListAuditWithResponse(t.Context(), nil)
	if err != nil || page.JSON200 == nil {
		t.Fatal(err, page)
	}
	actions := map[string]int{}
	for _, e := range page.JSON200.Entries {
		actions[e.Action]++
		if e.UserId == nil || *e.UserId != ada.user {
			t.Errorf("a line of somebody else: %+v", e)
		}
		if e.Action == "operation.cancel" {
			before, after := *e.Before, *e.After
			if *e.Caller != ada.user || before["cancel_at_period_end"] != false || after["cancel_at_period_end"] != true || after["outcome"] == nil || e.OperationId == nil {
				t.Errorf("the line of the cancellation is %+v", e)
			}
		}
		if e.Action == "subscription.changed" && e.Caller != nil && *e.Caller == ada.user && e.OperationId == nil {
			t.Errorf("a change does not name its operation: %+v", e)
		}
	}
	if actions["operation.cancel"] != 1 || actions["subscription.changed"] < 2 || actions["projection.changed"] == 0 || actions["customer.linked"] != 1 {
		t.Errorf("the audit log has %v", actions)
	}
	if text := string(page.Body); strings.Contains(text, "Lovelace") || strings.Contains(text, "@") {
		t.Errorf("the audit log has personal values: %s", text)
	}
	// Page by page it is the same.
	var ids []int64
	for next := int64(0); ; {
		path := "/api/audit?limit=2"
		if next > 0 {
			path += fmt.Sprintf("&before=%d", next)
		}
		r := ada.asks(http.MethodGet, path, "")
		var p struct {
			Entries []struct{ ID int64 }
			Next    int64
		}
		if err := json.Unmarshal(r.body, &p); err != nil || r.status != http.StatusOK {
			t.Fatalf("answered %s", r)
		}
		for _, e := range p.Entries {
			ids = append(ids, e.ID)
		}
		if next = p.Next; next == 0 {
			break
		}
	}
	if len(ids) != len(page.JSON200.Entries) {
		t.Errorf("page by page there are %d lines, at once %d", len(ids), len(page.JSON200.Entries))
	}
}

// Somebody who is being deleted has nothing any more, whatever their token says.
func TestDeletedUser(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.subscriber("Ada")
	token := ada.token()
	header := map[string]string{"Authorization": "Bearer " + token}
	if err := w.Sandbox.Clerk.DeleteUser(ada.user); err != nil {
		t.Fatal(err)
	}
	w.Until("the deletion is known", func(ctx context.Context) error {
		var id string
		return w.Row(ctx, `SELECT id FROM person_user WHERE deletion_requested_at IS NOT NULL`, nil, &id)
	})
	want(t, w.ask(http.MethodGet, "/api/subscriptions", "", header), http.StatusNotFound, "user_not_found")
	want(t, w.ask(http.MethodGet, single, "", header), http.StatusNotFound, "user_not_found")
	want(t, w.ask(http.MethodPost, "/api/users/me/sync", "", header), http.StatusNotFound, "user_not_found")
	want(t, w.ask(http.MethodPost, "/api/checkout", checkout(w.price, 1), header), http.StatusNotFound, "user_not_found")
	want(t, w.ask(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/reactivate", "", header), http.StatusConflict, "user_being_deleted")
	w.Until("the subscription is set to end", func(context.Context) error {
		if got := ada.ends(); got != "active, ends with its period" {
			return fmt.Errorf("Stripe says %q", got)
		}
		return nil
	})
	w.Quiet(true)
}
