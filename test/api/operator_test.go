package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/operator"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// What operators ask is for admins only: it shows everybody's data.
func TestOperatorsAreAdmins(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	ada := w.somebody("Ada").onboarded()
	for _, r := range []struct{ method, path string }{
		{http.MethodGet, "/api/users/" + ada.user},
		{http.MethodGet, "/api/events"},
		{http.MethodGet, "/api/events/clerk/msg_1"},
		{http.MethodPost, "/api/events/retry"},
		{http.MethodPost, "/api/events/replay"},
		{http.MethodGet, "/api/drift"},
		{http.MethodGet, "/api/drift/differences"},
		{http.MethodGet, "/api/drift/runs"},
		{http.MethodPost, "/api/drift/runs"},
		{http.MethodGet, "/api/sync/bulk"},
		{http.MethodPost, "/api/sync/bulk"},
		{http.MethodGet, "/api/sync/bulk/bulk_1"},
		{http.MethodGet, "/api/sync/bulk/bulk_1/failures"},
		{http.MethodPost, "/api/sync/bulk/bulk_1/pause"},
		{http.MethodPost, "/api/sync/bulk/bulk_1/resume"},
		{http.MethodPost, "/api/sync/bulk/bulk_1/cancel"},
	} {
		want(t, ada.asks(r.method, r.path, ""), http.StatusForbidden, "not_admin")
		want(t, w.ask(r.method, r.path, "", nil), http.StatusUnauthorized, "token_missing")
	}
	if n := w.Count(`SELECT count(*) FROM reconciliation_runs WHERE caller IS NOT NULL`); n != 0 {
		t.Errorf("%d comparisons were begun", n)
	}
}

// What an operator cannot mean is told apart from what is not there.
func TestOperatorsMistakes(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	admin := w.as(adminID)
	get := func(path string) reply { return admin.asks(http.MethodGet, path, "") }
	post := func(path, body string) reply { return admin.asks(http.MethodPost, path, body) }
	for name, c := range map[string]struct {
		got    reply
		status int
		code   string
	}{
		"no such user":                  {get("/api/users/evt_none"), 404, "user_not_found"},
		"no such bulk sync":             {get("/api/sync/bulk/bulk_none"), 404, "bulk_not_found"},
		"no such bulk sync to pause":    {post("/api/sync/bulk/bulk_none/pause", ""), 404, "bulk_not_found"},
		"no such bulk sync to cancel":   {post("/api/sync/bulk/bulk_none/cancel", ""), 404, "bulk_not_found"},
		"a bulk sync of nobody":         {post("/api/sync/bulk", `{"ids":["ada"]}`), 400, "field_invalid"},
		"changes since a word":          {post("/api/sync/bulk", `{"since":"yesterday"}`), 400, "field_invalid"},
		"changes since long ago":        {post("/api/sync/bulk", `{"since":"2020-01-31T00:00:00Z"}`), 400, "field_invalid"},
		"no such event":                 {get("/api/events/stripe/evt_none"), 404, "event_not_found"},
		"no such source":                {get("/api/events?source=paypal"), 400, "field_invalid"},
		"no such status":                {get("/api/events?status=lost"), 400, "field_invalid"},
		"no user id":                    {get("/api/events?userId=ada"), 400, "field_invalid"},
		"no entity":                     {get("/api/events?entity=ada"), 400, "field_invalid"},
		"no time":                       {get("/api/events?since=yesterday"), 400, "field_invalid"},
		"a window that ends too early":  {get("/api/events?since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z"), 400, "field_invalid"},
		"no place":                      {get("/api/events?after=here"), 400, "field_invalid"},
		"a page that is too long":       {get("/api/events?limit=201"), 400, "field_invalid"},
		"an id that is no text":         {get("/api/events?id=%00"), 400, "field_invalid"},
		"a path that is no text":        {get("/api/events/stripe/%ff"), 400, "field_invalid"},
		"a list that is no text":        {post("/api/events/retry", `{"ids":["\u0000"]}`), 400, "field_invalid"},
		"no such class":                 {get("/api/drift/differences?class=odd"), 400, "field_invalid"},
		"everything replayed":           {post("/api/events/replay", ""), 400, "field_invalid"},
		"a replay of what goes on":      {post("/api/events/replay", `{"statuses":["waiting"]}`), 400, "field_invalid"},
		"a retry of what has ended":     {post("/api/events/retry", `{"statuses":["completed"]}`), 400, "field_invalid"},
		"a field that is misspelt":      {post("/api/events/retry", `{"dry_run":true}`), 400, "field_unknown"},
		"one id where a list is wanted": {post("/api/events/retry", `{"ids":"evt_1"}`), 400, "field_invalid"},
		"a repair of no such class":     {post("/api/drift/runs", `{"repair":["odd"]}`), 400, "field_invalid"},
		"a repair that needs a person":  {post("/api/drift/runs", `{"repair":["`+string(account.DriftDoubleSubscription)+`"]}`), 400, "field_invalid"},
		"a body that is no JSON":        {post("/api/drift/runs", `{`), 400, "body_not_json"},
	} {
		if c.got.status != c.status || c.got.code() != c.code {
			t.Errorf("%s: answered %s, want %d %s", name, c.got, c.status, c.code)
		}
	}
	if n := w.Count(`SELECT count(*) FROM reconciliation_runs WHERE caller IS NOT NULL`) + w.Count(`SELECT count(*) FROM bulk_runs`); n != 0 {
		t.Errorf("%d comparisons and bulk syncs were begun", n)
	}
}

// into decodes an answer.
func into[T any](t *testing.T, r reply) (document T) {
	t.Helper()
	if r.status/100 != 2 {
		t.Fatalf("answered %s", r)
	}
	if err := json.Unmarshal(r.body, &document); err != nil {
		t.Fatal(err)
	}
	return document
}

// An admin sees a user in the three systems, whichever id leads there, and their events page by
// page.
func TestOperatorsSee(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]string{"TEMPORAL_UI_URL": "http://temporal.example"})
	admin, ada := w.as(adminID), w.subscriber("Ada")

	type page struct {
		Events []store.Event `json:"events"`
		Next   string        `json:"next"`
	}
	all := into[page](t, admin.asks(http.MethodGet, "/api/events?userId="+ada.user+"&limit=200", "")).Events
	var paged []store.Event
	for after, pages := "", 0; ; pages++ {
		p := into[page](t, admin.asks(http.MethodGet, "/api/events?limit=3&userId="+ada.user+"&after="+url.QueryEscape(after), ""))
		paged = append(paged, p.Events...)
		if after = p.Next; after == "" || pages > len(all) {
			break
		}
	}
	ids := func(events []store.Event) (ids []string) {
		for _, e := range events {
			ids = append(ids, e.EventID)
		}
		return ids
	}
	if len(all) < 5 || !slices.Equal(ids(paged), ids(all)) {
		t.Errorf("page by page there are %d events, at once %d", len(paged), len(all))
	}
	var bought store.Event
	for _, e := range all {
		if e.Type == "customer.subscription.created" {
			bought = e
		}
	}
	shown := into[struct {
		Event   store.Event     `json:"event"`
		Payload json.RawMessage `json:"payload"`
	}](t, admin.asks(http.MethodGet, "/api/events/stripe/"+bought.EventID, ""))
	if shown.Event.EventID != bought.EventID || !strings.Contains(string(shown.Payload), ada.subscription) {
		t.Errorf("the event is shown as %+v", shown)
	}

	for _, id := range []string{ada.user, ada.customer, ada.subscription, bought.EventID} {
		view := into[operator.Inspection](t, admin.asks(http.MethodGet, "/api/users/"+id, ""))
		if view.UserID != ada.user || view.Postgres == nil || len(view.Stripe) != 1 || view.Stripe[0].CustomerID != ada.customer ||
			len(view.Stripe[0].Subscriptions) != 1 || !view.Clerk.Known || len(view.Findings) != 0 {
			t.Errorf("%s leads to %+v", id, view)
		}
		if len(view.Runs) == 0 || !strings.HasPrefix(view.Runs[0].Link, "http://temporal.example/namespaces/") {
			t.Errorf("the runs are %+v", view.Runs)
		}
	}
	stranger := into[operator.Inspection](t, admin.asks(http.MethodGet, "/api/users/user_nobody", ""))
	if len(stranger.Findings) != 1 {
		t.Errorf("of a user whom nobody knows the findings are %v", stranger.Findings)
	}
}

// done is what came of an order.
type done struct {
	DryRun  bool           `json:"dryRun"`
	Events  int            `json:"events"`
	ByType  map[string]int `json:"byType"`
	Skipped map[string]int `json:"skipped"`
	Next    string         `json:"next"`
}

// A replay is audited, and changes nothing where everything is right; of what has lost its payload
// it says so.
func TestOperatorsReplay(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	admin, ada := w.as(adminID), w.subscriber("Ada")
	state := w.stateOf(ada)
	selected := `"userId":"` + ada.user + `"`

	dry := into[done](t, admin.asks(http.MethodPost, "/api/events/replay", `{"dryRun":true,`+selected+`}`))
	if !dry.DryRun || dry.Events < 5 || w.Count(`SELECT count(*) FROM webhook_events WHERE replays > 0`) != 0 {
		t.Errorf("the dry run came to %+v", dry)
	}
	replayed := into[done](t, admin.asks(http.MethodPost, "/api/events/replay", `{`+selected+`}`))
	if replayed.Events != dry.Events || fmt.Sprint(replayed.ByType) != fmt.Sprint(dry.ByType) {
		t.Errorf("the replay came to %+v, the dry run to %+v", replayed, dry)
	}
	w.Quiet(true)
	ada.agrees()
	if after := w.stateOf(ada); after != state {
		t.Errorf("after the replay there is %s, before there was %s", after, state)
	}
	if n := w.Count(`SELECT count(*) FROM webhook_events WHERE replays = 1 AND status = 'completed'`); n != replayed.Events {
		t.Errorf("%d of %d events that were replayed are completed", n, replayed.Events)
	}
	if n := w.Count(`SELECT count(*) FROM audit_log WHERE action = 'events.replayed' AND caller = $1`, adminID); n == 0 {
		t.Error("nobody is known to have replayed anything")
	}

	var forgotten string
	if err := w.Row(t.Context(), `UPDATE webhook_events SET payload = NULL WHERE type = 'user.created' RETURNING event_id`, nil, &forgotten); err != nil {
		t.Fatal(err)
	}
	again := into[done](t, admin.asks(http.MethodPost, "/api/events/replay", `{"type":"user.created","statuses":["completed"],`+selected+`}`))
	if again.Events != 0 || again.Skipped["its payload is not kept"] != 1 {
		t.Errorf("without a payload the replay came to %+v", again)
	}
}

// stateOf is what is stored of somebody, versions and all.
func (w *world) stateOf(p *person) string {
	w.t.Helper()
	var state string
	if err := w.Row(w.t.Context(), `SELECT concat_ws(' ', u.projection_version, u.published_version, u.profile_version, u.projection, s.*)
		FROM person_user u JOIN subscriptions s ON s.stripe_subscription_id = $2 WHERE u.clerk_user_id = $1`, []any{p.user, p.subscription}, &state); err != nil {
		w.t.Fatal(err)
	}
	return state
}

// An admin has everything compared, sees what differs, and has it repaired.
func TestOperatorsRepair(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]string{"RECONCILE_SETTLE": "1s"})
	admin, ada := w.as(adminID), w.subscriber("Ada")
	w.Quiet(false) // nobody looks by themselves at what is lost
	w.Sandbox.StripeWebhooks.SetFaults(delivery.Faults{Lose: 1})
	if err := w.Sandbox.Stripe.CancelAtPeriodEnd(ada.subscription); err != nil {
		t.Fatal(err)
	}
	w.compares(admin, "")
	type classes struct {
		Classes []operator.ClassOfDrift `json:"classes"`
	}
	found := into[classes](t, admin.asks(http.MethodGet, "/api/drift", "")).Classes
	if len(found) != 1 || found[0].Open != 1 || found[0].Repair != account.RepairAlone {
		t.Fatalf("the differences are %+v", found)
	}
	class := string(found[0].Class)
	type differences struct {
		Differences []store.OpenDifference `json:"differences"`
	}
	listed := into[differences](t, admin.asks(http.MethodGet, "/api/drift/differences?class="+class, "")).Differences
	if len(listed) != 1 || listed[0].Entity != account.CustomerEntity(ada.customer) {
		t.Errorf("the difference is %+v", listed)
	}
	view := into[operator.Inspection](t, admin.asks(http.MethodGet, "/api/users/"+ada.user, ""))
	if len(view.Differences) != 1 || len(view.Findings) == 0 {
		t.Errorf("of the user there is %+v", view)
	}

	run := w.compares(admin, `{"repair":["`+class+`"]}`)
	if run.Caller == nil || *run.Caller != adminID || run.Repaired[class] != 1 {
		t.Errorf("the repair came to %+v", run)
	}
	ada.agrees()
	if left := into[classes](t, admin.asks(http.MethodGet, "/api/drift", "")).Classes; len(left) != 0 {
		t.Errorf("after the repair there is %+v", left)
	}
}

// compares has an admin compare everything, and waits for the end.
func (w *world) compares(admin *person, body string) store.Reconciliation {
	w.t.Helper()
	type started struct {
		RunID string `json:"runId"`
		Begun bool   `json:"begun"`
	}
	var begun started
	// The workflow of the comparison before ends a moment after it has said what it found.
	w.Until("no other comparison is under way", func(context.Context) error {
		if begun = into[started](w.t, admin.asks(http.MethodPost, "/api/drift/runs", body)); !begun.Begun {
			return errors.New("not yet")
		}
		return nil
	})
	var run store.Reconciliation
	w.Until("the comparison has ended", func(context.Context) error {
		for _, each := range into[struct {
			Runs []store.Reconciliation `json:"runs"`
		}](w.t, admin.asks(http.MethodGet, "/api/drift/runs", "")).Runs {
			if each.ID == begun.RunID && each.FinishedAt != nil {
				run = each
				return nil
			}
		}
		return errors.New("not yet")
	})
	if !run.Complete || run.Failure != nil {
		w.t.Fatalf("the comparison came to %+v", run)
	}
	return run
}

// An admin has everything brought in, one at a time, and follows it to its end.
func TestOperatorsBringEverythingIn(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	admin, ada := w.as(adminID), w.subscriber("Ada")
	release := w.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/users/count", Latency: time.Second})
	r := admin.asks(http.MethodPost, "/api/sync/bulk", "")
	begun := into[store.BulkRun](t, r)
	if address := r.header.Get("Location"); r.status != http.StatusAccepted || address != "/api/sync/bulk/"+begun.ID || begun.Caller != adminID {
		t.Errorf("answered %s, at %q", r, address)
	}
	want(t, admin.asks(http.MethodPost, "/api/sync/bulk", ""), http.StatusConflict, "bulk_under_way")
	release()
	var run store.BulkRun
	w.Until("it has ended", func(context.Context) error {
		if run = into[store.BulkRun](t, admin.asks(http.MethodGet, "/api/sync/bulk/"+begun.ID, "")); run.FinishedAt == nil {
			return errors.New("it goes on")
		}
		return nil
	})
	if run.Failure != nil || run.Failed != 0 || run.Seen["subscriptions"] != 1 {
		t.Errorf("it came to %+v", run)
	}
	ada.agrees()
	type list struct {
		Runs []store.BulkRun `json:"runs"`
	}
	if runs := into[list](t, admin.asks(http.MethodGet, "/api/sync/bulk", "")).Runs; len(runs) != 1 || runs[0].ID != begun.ID {
		t.Errorf("the list is %+v", runs)
	}
	want(t, admin.asks(http.MethodGet, "/api/sync/bulk/"+begun.ID+"/failures", ""), http.StatusOK, "")
	want(t, admin.asks(http.MethodPost, "/api/sync/bulk/"+begun.ID+"/resume", ""), http.StatusOK, "")
}

// Temporal cannot be reached: what an operator asks for may have been done all the same, and nobody
// tells them that it was not.
func TestOperatorsAreNotToldThatNothingWasDone(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true, Environ: map[string]string{"CLERK_AUTHORIZED_PARTIES": party, "ADMIN_USER_IDS": adminID}})
	s.StartAPI()
	s.StartWorker()
	w := furnish(t, s)
	w.StopAPI()
	w.Environ["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
	w.StartAPI()
	admin := w.as(adminID)
	for _, address := range []string{"/api/sync/bulk", "/api/sync/bulk/bulk_1/cancel", "/api/drift/runs"} {
		want(t, admin.asks(http.MethodPost, address, ""), http.StatusServiceUnavailable, "outcome_unknown")
	}
}
