package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// api is an API that notes what it is asked, and answers what the test wants.
type api struct {
	*httptest.Server
	asked  []string
	status int
	answer string
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		a.asked = append(a.asked, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Header.Get("Authorization"), r.Method, r.URL, body)))
		kind := "application/json"
		switch {
		case strings.HasPrefix(a.answer, "<"):
			kind = "text/html"
		case a.status >= http.StatusBadRequest:
			kind = "application/problem+json"
		}
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.answer)
	}))
	t.Cleanup(a.Close)
	return a
}

// What an operator asks of the API reaches it, with their token, and what it answers is told.
func TestAskingTheAPI(t *testing.T) {
	t.Parallel()
	const done = `{"success":true,"message":"The subscription is set to end.","operation":"/api/operations/op_1"}`
	for name, c := range map[string]struct {
		args   []string
		status int
		answer string
		asked  string
		told   []string
		failed string
	}{
		"cancel":      {[]string{"cancel", "sub_1"}, 200, done, `POST /api/subscriptions/sub_1/cancel {"at":"period_end"}`, []string{"set to end", "op_1"}, ""},
		"cancel now":  {[]string{"cancel", "sub_1", "--now", "--user", "user_1"}, 202, done, `POST /api/subscriptions/sub_1/cancel?userId=user_1 {"at":"now"}`, []string{"op_1"}, ""},
		"reactivate":  {[]string{"reactivate", "sub_1"}, 409, `{"title":"Conflict","status":409,"code":"subscription_ended","detail":"It has ended."}`, `POST /api/subscriptions/sub_1/reactivate`, nil, "409 subscription_ended: It has ended."},
		"sync":        {[]string{"sync", "user_1"}, 200, done, `POST /api/users/me/sync?userId=user_1`, []string{"op_1"}, ""},
		"sync myself": {[]string{"sync"}, 502, `<html>`, `POST /api/users/me/sync`, nil, "502 unknown"},
		"operation":   {[]string{"operation", "op_1"}, 200, `{"id":"op_1","action":"cancel","status":"superseded","reason":"changed_since","settled":true,"createdAt":"2026-01-01T00:00:00Z","expiresAt":"2026-01-02T00:00:00Z"}`, `GET /api/operations/op_1`, []string{"cancel: superseded changed_since"}, ""},
		"subscriptions": {[]string{"subscriptions"}, 200, `{"subscriptions":[{"id":"sub_1","customerId":"cus_1","status":"active","active":true,"plan":"Pro","quantity":1,"cancelAtPeriodEnd":true,"paused":false,"currentPeriodEnd":"2026-02-01T00:00:00Z"},
			{"id":"sub_2","customerId":"cus_1","status":"canceled","active":false,"quantity":1,"cancelAtPeriodEnd":false,"paused":false}]}`,
			`GET /api/subscriptions`, []string{"sub_1", "with its period", "2026-02-01T00:00:00Z", "sub_2", "canceled"}, ""},
		"subscriptions of a newcomer": {[]string{"subscriptions"}, 202, done, `GET /api/subscriptions`, []string{"ask again"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAPI(t)
			a.status, a.answer = c.status, c.answer
			out, err := call(t, map[string]string{"SYNC_API_URL": a.URL, "SYNC_API_TOKEN": "secret"}, c.args...)
			if (err == nil) != (c.failed == "") || err != nil && !strings.Contains(err.Error(), c.failed) {
				t.Errorf("failed with %v, want %q", err, c.failed)
			}
			for _, want := range c.told {
				if !strings.Contains(out, want) {
					t.Errorf("printed %q, without %q", out, want)
				}
			}
			if len(a.asked) != 1 || a.asked[0] != "Bearer secret "+c.asked {
				t.Errorf("asked %q, want %q", a.asked, c.asked)
			}
		})
	}
	if _, err := call(t, nil, "cancel", "sub_1"); err == nil || !strings.Contains(err.Error(), "SYNC_API_TOKEN") {
		t.Errorf("without a token it failed with %v", err)
	}
	if _, err := call(t, map[string]string{"SYNC_API_URL": "http://127.0.0.1:1", "SYNC_API_TOKEN": "secret"}, "sync"); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("without an API it failed with %v", err)
	}
}
