package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// stripe asks Stripe past the programs.
func (w *world) stripe(method, path string, form url.Values) (body string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.Sandbox.StripeURL()+path, strings.NewReader(form.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+w.Sandbox.StripeSecretKey)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	answer, err := w.http.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	raw, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		w.t.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, raw)
	}
	return string(raw)
}

// A schedule that Stripe has not released yet, or does not release at all, is not told as one that
// was taken off.
func TestAScheduleThatManagesOnIsNotToldAsReleased(t *testing.T) {
	t.Parallel()
	w := start(t, map[string]string{"COMMAND_WAIT": "4s"})
	ada := w.subscriber("Ada")
	dear := w.addPrice(w.product, 9900)
	var made struct {
		ID     string
		Phases []struct {
			Start int64 `json:"start_date"`
			End   int64 `json:"end_date"`
		}
	}
	if err := json.Unmarshal([]byte(w.stripe(http.MethodPost, "/v1/subscription_schedules", url.Values{"from_subscription": {ada.subscription}})), &made); err != nil {
		t.Fatal(err)
	}
	schedule := made.ID
	w.stripe(http.MethodPost, "/v1/subscription_schedules/"+schedule, url.Values{"end_behavior": {"release"},
		"phases[0][items][0][price]": {w.price}, "phases[0][items][0][quantity]": {"1"},
		"phases[0][start_date]": {strconv.FormatInt(made.Phases[0].Start, 10)}, "phases[0][end_date]": {strconv.FormatInt(made.Phases[0].End, 10)},
		"phases[1][items][0][price]": {dear}, "phases[1][items][0][quantity]": {"1"}, "phases[1][iterations]": {"1"}})
	w.Quiet(true)
	w.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathContains: "/release", Status: 503})
	update := w.Sandbox.StripeFaults.Add(faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/subscription_schedules/", Status: 400})
	told := func(when string, r reply) {
		t.Helper()
		var now struct{ Status string }
		if err := json.Unmarshal([]byte(w.stripe(http.MethodGet, "/v1/subscription_schedules/"+schedule, nil)), &now); err != nil {
			t.Fatal(err)
		}
		if now.Status != "active" {
			t.Fatalf("the schedule is %s", now.Status)
		}
		if r.text("releasedSchedule") != "" {
			t.Errorf("%s: told that the schedule was taken off and its later phases are gone, and it is active: %s", when, r)
		}
	}
	first := ada.asks(http.MethodPost, "/api/subscriptions/"+ada.subscription+"/cancel", `{}`)
	if first.status != http.StatusAccepted {
		t.Fatalf("answered %s", first)
	}
	address := first.text("operation")
	w.Until("the release was asked for", func(context.Context) error {
		if w.Sandbox.StripeFaults.Requests()["POST /v1/subscription_schedules/{id}/release"] == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	told("while it is pending", ada.asks(http.MethodGet, address, ""))
	// Meanwhile somebody ends it in the dashboard, through the schedule.
	update()
	w.stripe(http.MethodPost, "/v1/subscription_schedules/"+schedule, url.Values{"end_behavior": {"cancel"},
		"phases[0][items][0][price]": {w.price}, "phases[0][items][0][quantity]": {"1"},
		"phases[0][start_date]": {strconv.FormatInt(made.Phases[0].Start, 10)}, "phases[0][end_date]": {strconv.FormatInt(made.Phases[0].End, 10)}})
	w.Until("it has ended", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM operations WHERE action = 'cancel' AND status = 'done'`) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	told("when it has ended", ada.asks(http.MethodGet, address, ""))
}
