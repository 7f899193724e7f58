package refusals_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// ended waits for a program that should not start and answers its exit code and what it said.
func ended(t *testing.T, s *system.System, name string, overrides map[string]string) (int, string) {
	t.Helper()
	p := s.SpawnProcess(name, overrides)
	ctx, cancel := context.WithTimeout(t.Context(), system.Patience())
	defer cancel()
	code, err := p.Wait(ctx)
	if err != nil {
		t.Fatalf("%s went on: %v", name, err)
	}
	return code, p.Logs()
}

// A program whose environment is at fault says all that is wrong, and ends before it does anything.
func TestFaultyConfiguration(t *testing.T) {
	t.Parallel()
	w := &world{System: system.Start(t, servers, system.Options{Stopped: true}), t: t}
	blank := map[string]string{"DATABASE_URL": "", "CLERK_SECRET_KEY": "", "CLERK_WEBHOOK_SECRET": "", "STRIPE_SECRET_KEY": "", "STRIPE_WEBHOOK_SECRET": ""}
	const live = "sk_live_notforlogs00"
	clerkSecret, stripeSecret := w.Environ["CLERK_WEBHOOK_SECRET"], w.Environ["STRIPE_WEBHOOK_SECRET"]
	for name, each := range map[string]struct {
		program   string
		overrides map[string]string
		says      []string
		silent    []string // what must not be said: values
	}{
		"starter-api, nothing is set": {system.ProgramAPI, blank,
			[]string{"5 faults", "DATABASE_URL is not set", "CLERK_SECRET_KEY is not set", "CLERK_WEBHOOK_SECRET is not set", "STRIPE_SECRET_KEY is not set", "STRIPE_WEBHOOK_SECRET is not set"}, nil},
		"worker, nothing is set": {system.ProgramWorker, blank,
			[]string{"3 faults", "DATABASE_URL is not set", "CLERK_SECRET_KEY is not set", "STRIPE_SECRET_KEY is not set"}, []string{"WEBHOOK_SECRET"}},
		"starter-api, an empty secret of Clerk's":                     {system.ProgramAPI, map[string]string{"CLERK_WEBHOOK_SECRET": ""}, []string{"a fault", "CLERK_WEBHOOK_SECRET is not set"}, []string{stripeSecret}},
		"starter-api, an empty secret of Stripe's":                    {system.ProgramAPI, map[string]string{"STRIPE_WEBHOOK_SECRET": " "}, []string{"a fault", "STRIPE_WEBHOOK_SECRET is not set"}, []string{clerkSecret}},
		"starter-api, a secret of Clerk's that is nothing but prefix": {system.ProgramAPI, map[string]string{"CLERK_WEBHOOK_SECRET": "whsec_"}, []string{"a fault", "CLERK_WEBHOOK_SECRET is"}, nil},
		"starter-api, one of two secrets of Clerk's is empty":         {system.ProgramAPI, map[string]string{"CLERK_WEBHOOK_SECRET": clerkSecret + ","}, []string{"a fault", "CLERK_WEBHOOK_SECRET has an element (number 2) that is empty"}, []string{clerkSecret}},
		"starter-api, one of two secrets of Stripe's is empty":        {system.ProgramAPI, map[string]string{"STRIPE_WEBHOOK_SECRET": "," + stripeSecret}, []string{"a fault", "STRIPE_WEBHOOK_SECRET has an element (number 1) that is empty"}, []string{stripeSecret}},
		"worker, keys in the wrong place and values of no form": {system.ProgramWorker,
			map[string]string{"CLERK_SECRET_KEY": "pk_test_notforlogs00", "STRIPE_SECRET_KEY": live, "STRIPE_API_URL": "http://stripe.example.com", "PAST_DUE_GRACE": "three days", "ON_USER_DELETED": "shrug"},
			[]string{"4 faults", "CLERK_SECRET_KEY is a publishable key", "STRIPE_API_URL", "PAST_DUE_GRACE", "ON_USER_DELETED"}, []string{live, "pk_test_notforlogs00", "three days", "shrug"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := w.on(t)
			number := w.number()
			before := w.state(number)
			code, said := ended(t, w.System, each.program, each.overrides)
			if code != 1 {
				t.Errorf("ended with %d, want 1", code)
			}
			for _, text := range each.says {
				if !strings.Contains(said, text) {
					t.Errorf("does not say %q:\n%s", text, said)
				}
			}
			for _, text := range each.silent {
				if strings.Contains(said, text) {
					t.Errorf("says %q:\n%s", text, said)
				}
			}
			before.unchanged(t, w.state(number))
		})
	}
}

// A key of another account, or of the other mode, than the one whose data the database holds does
// not start: it would mix two products. The other account is not touched either.
func TestKeyOfAnotherAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, system.Options{})
	w.StopWorker()
	w.StopAPI()
	const account, liveKey = "acct_1AnotherAccount", "sk_live_sandboxstripe00"
	other := anotherSandbox(t, sandbox.Options{StripeAccountID: account, ClerkInstanceID: "ins_2AnotherInstance"})
	live := anotherSandbox(t, sandbox.Options{StripeAccountID: w.Sandbox.Stripe.AccountID(), StripeLivemode: true, StripeSecretKey: liveKey})
	for name, each := range map[string]struct {
		overrides map[string]string
		says      []string
	}{
		"another Stripe account": {map[string]string{"STRIPE_API_URL": other.StripeURL()},
			[]string{"the database belongs to another account", "STRIPE_SECRET_KEY is of account " + account, w.Sandbox.Stripe.AccountID()}},
		"Stripe's live mode": {map[string]string{"STRIPE_API_URL": live.StripeURL(), "STRIPE_SECRET_KEY": liveKey},
			[]string{"the database belongs to another account", "STRIPE_SECRET_KEY", "live: true", "live: false"}},
		"another Clerk instance": {map[string]string{"CLERK_API_URL": other.ClerkURL()},
			[]string{"the database belongs to another account", "CLERK_SECRET_KEY is of instance ins_2AnotherInstance", w.Sandbox.Clerk.InstanceID()}},
	} {
		for _, program := range []string{system.ProgramAPI, system.ProgramWorker} {
			t.Run(program+", "+name, func(t *testing.T) {
				w := w.on(t)
				number := w.number()
				before := w.state(number)
				code, said := ended(t, w.System, program, each.overrides)
				if code != 1 {
					t.Errorf("ended with %d, want 1", code)
				}
				for _, text := range each.says {
					if !strings.Contains(said, text) {
						t.Errorf("does not say %q:\n%s", text, said)
					}
				}
				if key := w.Environ["STRIPE_SECRET_KEY"]; strings.Contains(said, key) || strings.Contains(said, liveKey) {
					t.Errorf("says a key:\n%s", said)
				}
				before.unchanged(t, w.state(number))
			})
		}
	}
	for _, sb := range []*sandbox.Sandbox{other, live} {
		if n := sb.Stripe.Counts()["customer"]; n != 0 {
			t.Errorf("%d customers were made in another account", n)
		}
	}
	// With the right keys it goes on.
	w.StartProcess(system.ProgramAPI, nil)
	w.StartProcess(system.ProgramWorker, nil)
	w.Rest()
	w.Agree(w.user, policy())
}

// A program starts while a provider does not answer, but it does not work for an account that it
// has not seen to be ours: Stripe is slow to say whose key it is, and quick with everything else.
func TestNothingIsDoneForAnAccountNotYetKnown(t *testing.T) {
	t.Parallel()
	w := &world{System: system.Start(t, servers, system.Options{}), t: t}
	w.signUp(clerksim.UserSpec{FirstName: "Ada", Emails: []clerksim.EmailSpec{{Address: "ada@example.com", Verified: true}}})
	w.StopWorker()
	other := anotherSandbox(t, sandbox.Options{StripeAccountID: "acct_1AnotherAccount"})
	answer := make(chan struct{})
	other.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/account", Hold: answer})
	p := w.StartProcess(system.ProgramWorker, map[string]string{"STRIPE_API_URL": other.StripeURL(), "PROVIDER_TIMEOUT": "2s"})
	user := w.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: "Grace", Emails: []clerksim.EmailSpec{{Address: "grace@example.com", Verified: true}}})
	w.Until("the new user is recorded", func(context.Context) error {
		if w.Count(`SELECT count(*) FROM person_user WHERE clerk_user_id = $1`, user) != 1 {
			return errors.New("not yet")
		}
		return nil
	})
	// Everything is there for the customer to be made; the worker has to see whose key it has first.
	w.Until("Stripe was asked a second time whose key it is", func(context.Context) error {
		if n := other.StripeFaults.Requests()["GET /v1/account"]; n < 2 {
			return fmt.Errorf("asked %d times", n)
		}
		return nil
	})
	close(answer)
	ctx, cancel := context.WithTimeout(t.Context(), system.Patience())
	defer cancel()
	if code, err := p.Wait(ctx); err != nil || code != 1 {
		t.Errorf("ended with %d (%v), want 1", code, err)
	}
	for route, n := range other.StripeFaults.Requests() {
		if route != "GET /v1/account" {
			t.Errorf("%s was asked of another account %d times", route, n)
		}
	}
	w.StartWorker()
	w.Until("the user has a customer, in our account", func(context.Context) error { return w.isCustomer(user, "grace@example.com", "Grace") })
}

// anotherSandbox runs providers that are not ours.
func anotherSandbox(t *testing.T, o sandbox.Options) *sandbox.Sandbox {
	t.Helper()
	sb, err := sandbox.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sb.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return sb
}
