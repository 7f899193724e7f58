package app_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// refusal answers why neither program starts with an environment.
func refusals(t *testing.T, environ map[string]string) map[string]error {
	t.Helper()
	api, apiErr := app.NewAPI(t.Context(), environ, io.Discard)
	if apiErr == nil {
		api.Close()
	}
	worker, workerErr := app.NewWorker(t.Context(), environ, io.Discard)
	if workerErr == nil {
		worker.Close()
	}
	return map[string]error{"starter-api": apiErr, "worker": workerErr}
}

// A program that lacks its configuration names all of it at once.
func TestMissingConfiguration(t *testing.T) {
	t.Parallel()
	for program, err := range refusals(t, nil) {
		names := []string{"DATABASE_URL", "CLERK_SECRET_KEY", "STRIPE_SECRET_KEY"}
		if program == "starter-api" {
			names = append(names, "CLERK_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET")
		}
		for _, name := range names {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s without %s: %v", program, name, err)
			}
		}
	}
	if err := app.Setup(t.Context(), nil, io.Discard); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("setup without a database: %v", err)
	}
}

// An empty secret would let anyone in: it is refused, beside all else that is wrong.
func TestEmptySecrets(t *testing.T) {
	t.Parallel()
	valid := map[string]string{
		"DATABASE_URL": "postgres://app:hunter2@127.0.0.1:1/app", "CLERK_SECRET_KEY": sandbox.DefaultClerkSecretKey, "STRIPE_SECRET_KEY": sandbox.DefaultStripeSecretKey,
		"CLERK_WEBHOOK_SECRET": sandbox.DefaultClerkWebhookSecret, "STRIPE_WEBHOOK_SECRET": sandbox.DefaultStripeWebhookSecret,
		"HTTP_ADDR": "127.0.0.1:0", "METRICS_ADDR": "127.0.0.1:0",
	}
	for _, empty := range []string{"", " ", ",", "whsec_", " , whsec_"} {
		environ := maps.Clone(valid)
		environ["CLERK_WEBHOOK_SECRET"], environ["STRIPE_WEBHOOK_SECRET"], environ["PAST_DUE_GRACE"] = empty, empty, "soon"
		err := refusals(t, environ)["starter-api"]
		for _, name := range []string{"CLERK_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET", "PAST_DUE_GRACE"} {
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("with %q as secrets, %s is not named: %v", empty, name, err)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

// A port that is taken is named at once.
func TestTakenPort(t *testing.T) {
	t.Parallel()
	var config net.ListenConfig
	taken, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	s := system.Start(t, servers, system.Options{Stopped: true})
	for variable, programs := range map[string][]string{"HTTP_ADDR": {"starter-api"}, "METRICS_ADDR": {"starter-api", "worker"}} {
		environ := maps.Clone(s.Environ)
		environ[variable] = taken.Addr().String()
		errs := refusals(t, environ)
		for _, program := range programs {
			if err := errs[program]; err == nil || !strings.Contains(err.Error(), variable) || !strings.Contains(err.Error(), taken.Addr().String()) {
				t.Errorf("%s with a taken %s: %v", program, variable, err)
			}
		}
	}
}

// other is the environment of the same database with another provider's keys.
func other(t *testing.T, environ map[string]string, o sandbox.Options) map[string]string {
	t.Helper()
	sb, err := sandbox.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Stop(t.Context()) })
	changed := maps.Clone(environ)
	changed["STRIPE_API_URL"], changed["STRIPE_SECRET_KEY"] = sb.StripeURL(), sb.StripeSecretKey
	changed["CLERK_API_URL"], changed["CLERK_SECRET_KEY"] = sb.ClerkURL(), sb.ClerkSecretKey
	return changed
}

// A key of another account, of the other mode or of another instance does not start: not one
// program, not the other. The right key still does.
func TestKeyOfAnotherAccount(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true, Sandbox: sandbox.Options{StripeAccountID: "acct_mine", ClerkInstanceID: "ins_mine"}})
	for _, p := range both(t, s.Environ) {
		p.lacks()
	}
	for name, c := range map[string]struct {
		options  sandbox.Options
		variable string
	}{
		"another account":  {sandbox.Options{StripeAccountID: "acct_other", ClerkInstanceID: "ins_mine"}, "STRIPE_SECRET_KEY"},
		"the other mode":   {sandbox.Options{StripeAccountID: "acct_mine", ClerkInstanceID: "ins_mine", StripeLivemode: true, StripeSecretKey: "sk_live_sandbox"}, "STRIPE_SECRET_KEY"},
		"another instance": {sandbox.Options{StripeAccountID: "acct_mine", ClerkInstanceID: "ins_other"}, "CLERK_SECRET_KEY"},
	} {
		environ := other(t, s.Environ, c.options)
		for program, err := range refusals(t, environ) {
			if !errors.Is(err, store.ErrOtherAccount) || !strings.Contains(err.Error(), c.variable) {
				t.Errorf("%s with a key of %s: %v", program, name, err)
			}
			if err != nil && (strings.Contains(err.Error(), environ["STRIPE_SECRET_KEY"]) || strings.Contains(err.Error(), environ["CLERK_SECRET_KEY"])) {
				t.Errorf("%s shows the key: %v", program, err)
			}
		}
	}
	for program, err := range refusals(t, s.Environ) {
		if err != nil {
			t.Errorf("%s does not start again with the right keys: %v", program, err)
		}
	}
}

// A key that turns out to be of another account once its provider answers ends the program.
func TestKeyOfAnotherAccountLater(t *testing.T) {
	t.Parallel()
	g := newGated(t, system.Options{Sandbox: sandbox.Options{StripeAccountID: "acct_other"}})
	g.openAll()
	g.stripe.set(false)
	if err := g.Store.BindStripe(t.Context(), "acct_mine", false); err != nil {
		t.Fatal(err)
	}
	programs := both(t, g.Environ)
	for _, p := range programs {
		p.lacks("stripe")
	}
	g.stripe.set(true)
	for _, p := range programs {
		if err := p.ended(); !errors.Is(err, store.ErrOtherAccount) {
			t.Errorf("%s ended with: %v", p.name, err)
		}
	}
}

// With nothing there at all, both programs start, say what is missing, go on by themselves as it
// comes, and stop at once when they are told to.
func TestNothingThere(t *testing.T) {
	t.Parallel()
	g := newGated(t, system.Options{})
	programs := both(t, g.Environ)
	for _, p := range programs {
		p.lacks("postgres", "temporal", "stripe", "clerk")
	}
	for i, step := range []struct {
		gate *gate
		left []string
	}{{g.stripe, []string{"postgres", "temporal", "clerk"}}, {g.temporal, []string{"postgres", "clerk"}}, {g.postgres, []string{"clerk"}}, {g.clerk, nil}} {
		step.gate.set(true)
		for _, p := range programs {
			p.lacks(step.left...)
		}
		if t.Failed() {
			t.Fatalf("step %d", i)
		}
	}
	if id, err := g.Store.Identity(t.Context()); err != nil || id.StripeAccountID == "" || id.ClerkInstanceID == "" {
		t.Errorf("the database belongs to %+v, %v", id, err)
	}
}

// With one thing missing at the start, it and nothing else is named; so it is when it goes away
// later.
func TestOneThingMissing(t *testing.T) {
	t.Parallel()
	for name, gateOf := range map[string]func(g *gated) *gate{
		"postgres": func(g *gated) *gate { return g.postgres }, "temporal": func(g *gated) *gate { return g.temporal },
		"stripe": func(g *gated) *gate { return g.stripe }, "clerk": func(g *gated) *gate { return g.clerk },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGated(t, system.Options{})
			gate := gateOf(g)
			g.openAll()
			gate.set(false)
			programs := both(t, g.Environ)
			for _, p := range programs {
				for thing, reason := range p.lacks(name) {
					if !strings.Contains(reason, "not reachable") {
						t.Errorf("%s says of %s: %s", p.name, thing, reason)
					}
				}
			}
			gate.set(true)
			for _, p := range programs {
				p.lacks()
			}
			if name == "stripe" || name == "clerk" {
				return // asked after once a minute while they answer
			}
			gate.set(false)
			for _, p := range programs {
				p.lacks(name)
			}
			gate.set(true)
			for _, p := range programs {
				p.lacks()
			}
		})
	}
}

// A stop is quick also while nothing answers.
func TestStopWithNothingThere(t *testing.T) {
	t.Parallel()
	g := newGated(t, system.Options{})
	for _, p := range both(t, g.Environ) {
		started := time.Now()
		p.stop()
		if err := p.ended(); err != nil {
			t.Errorf("%s ended with: %v", p.name, err)
		}
		if took := time.Since(started); took > 30*time.Second {
			t.Errorf("%s took %s to stop", p.name, took)
		}
	}
}

// A key that is refused is named as that, and the programs go on when it is mended.
func TestRevokedKey(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true})
	s.Sandbox.Stripe.SetKey("sk_test_rolled")
	s.Sandbox.Clerk.SetKey("sk_test_rolled")
	programs := both(t, s.Environ)
	for _, p := range programs {
		for name, reason := range p.lacks("stripe", "clerk") {
			if !strings.Contains(reason, "refused") || !strings.Contains(reason, "key") {
				t.Errorf("%s says of %s: %s", p.name, name, reason)
			}
		}
		if logs := p.logs.String(); !strings.Contains(logs, "refuses our key") || strings.Contains(logs, s.Environ["STRIPE_SECRET_KEY"]) {
			t.Errorf("the log of %s says:\n%s", p.name, logs)
		}
	}
	s.Sandbox.Stripe.SetKey(s.Sandbox.StripeSecretKey)
	for _, p := range programs {
		p.lacks("clerk")
	}
	s.Sandbox.Clerk.SetKey(s.Sandbox.ClerkSecretKey)
	for _, p := range programs {
		p.lacks()
	}
}

// A key that is revoked while the programs work, and nothing happens, shows within a minute or so.
func TestKeyRevokedLater(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true})
	programs := both(t, s.Environ)
	for _, p := range programs {
		p.lacks()
	}
	s.Sandbox.Stripe.SetKey("sk_test_rolled")
	for _, p := range programs {
		p.patience *= 3
		p.lacks("stripe")
	}
}

// A database without our schema is one that somebody has to set up, and setting it up is enough.
func TestMissingMigrations(t *testing.T) {
	t.Parallel()
	s := system.Start(t, servers, system.Options{Stopped: true})
	if err := app.MigrateDown(t.Context(), s.Environ, io.Discard); err != nil {
		t.Fatal(err)
	}
	programs := both(t, s.Environ)
	for _, p := range programs {
		if reasons := p.lacks("migrations"); !strings.Contains(reasons["migrations"], "syncctl setup") {
			t.Errorf("%s says: %v", p.name, reasons)
		}
	}
	var out bytes.Buffer
	if err := app.Setup(t.Context(), s.Environ, &out); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs {
		p.lacks()
	}
}
