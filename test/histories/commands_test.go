package histories_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// commandBudget is the most events that a command costs: the update, its step, its publish, and the
// look that its echo causes.
const commandBudget = 40

// ask gives a command over real HTTP and answers the status.
func (p person) ask(t *testing.T, s *system.System, path string) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/api/subscriptions/"+path, http.NoBody)
	must(t, err)
	request.Header.Set("Authorization", "Bearer "+s.Sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: p.user}))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	must(t, err)
	defer func() { _ = answer.Body.Close() }()
	var document map[string]any
	must(t, json.NewDecoder(answer.Body).Decode(&document))
	t.Log(path, answer.StatusCode, document)
	return answer.StatusCode
}

// What people ask for stands in histories too: a cancellation and its taking back, and one that had
// to be undone because Clerk refused it.
func TestHistoriesOfCommands(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{})
	price := s.Sandbox.Stripe.AddPrice(s.Sandbox.Stripe.AddProduct(planName), 2000, "month")
	s.Quiet(false)
	p := signUp(t, s)
	bought, err := s.Sandbox.Stripe.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: p.customer, PriceID: price, ClientReferenceID: p.user})
	must(t, err)
	s.Agree(p.user, account.AccessPolicy{})
	rest(t, s)
	customer := workflows.CustomerWorkflowID(p.customer)

	least := 0
	for range 3 {
		for _, command := range []string{"/cancel", "/reactivate"} {
			before := eventsOf(t, s, customer)
			if status := p.ask(t, s, bought.SubscriptionID+command); status != http.StatusOK {
				t.Fatalf("%s was answered %d", command, status)
			}
			rest(t, s)
			if cost := eventsOf(t, s, customer) - before; least == 0 || cost < least {
				least = cost
			}
		}
	}
	t.Logf("a command costs %d of %d events", least, commandBudget)
	if least > commandBudget {
		t.Errorf("a command costs %d events, its budget is %d", least, commandBudget)
	}
	commanded := theRun(t, s, customer, "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if !has(history, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED) || !resting(history) {
			return errors.New("it has answered no update")
		}
		return nil
	})
	keep(t, "SubscriptionLifecycle-commanded", commanded)

	heal := s.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodPatch, Status: http.StatusUnprocessableEntity})
	if status := p.ask(t, s, bought.SubscriptionID+"/cancel"); status != http.StatusBadGateway {
		t.Fatalf("what Clerk refuses was answered %d", status)
	}
	heal()
	s.Until("Clerk is brought up to date", func(ctx context.Context) error {
		if err := s.Agreement(ctx, p.user, account.AccessPolicy{}); err != nil {
			// Sooner than the sweep.
			if status := p.ask(t, s, bought.SubscriptionID+"/reactivate"); status != http.StatusOK {
				return fmt.Errorf("answered %d", status)
			}
			return err
		}
		return nil
	})
	rest(t, s)
	undone := theRun(t, s, customer, "SubscriptionLifecycle", "open", func(history *historypb.History) error {
		if !asksFor(history, "UndoCommand") || !resting(history) {
			return errors.New("it has undone nothing")
		}
		return nil
	})
	keep(t, "SubscriptionLifecycle-undone", undone)
	for _, r := range allRuns(t, s) {
		inspect(t, r, fetch(t, s, r))
	}
}
