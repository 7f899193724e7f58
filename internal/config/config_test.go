package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

const (
	clerkHook  = "whsec_" + "c2VjcmV0IG9mIGNsZXJrIQ=="
	stripeHook = "whsec_" + "0123456789abcdef0123"
)

// complete is the least environment that starter-api starts with, changed by pairs of name and
// value.
func complete(pairs ...string) map[string]string {
	environ := map[string]string{
		"CLERK_SECRET_KEY":      "sk_test_clerk",
		"CLERK_WEBHOOK_SECRET":  clerkHook,
		"STRIPE_SECRET_KEY":     "sk_test_stripe",
		"STRIPE_WEBHOOK_SECRET": stripeHook,
		"DATABASE_URL":          "postgres://app:hunter2@db:5432/app",
	}
	for pair := range slices.Chunk(pairs, 2) {
		environ[pair[0]] = pair[1]
	}
	return environ
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	api, err := config.LoadAPI(complete())
	if err != nil {
		t.Fatal(err)
	}
	want := config.API{
		Logging:  config.Logging{LogLevel: slog.LevelInfo, LogFormat: config.FormatJSON},
		Database: config.Database{DatabaseURL: "postgres://app:hunter2@db:5432/app"},
		Process:  config.Process{ShutdownTimeout: 20 * time.Second},
		Providers: config.Providers{
			ClerkSecretKey: "sk_test_clerk", StripeSecretKey: "sk_test_stripe",
			ClerkAPIURL: "https://api.clerk.com/v1", StripeAPIURL: "https://api.stripe.com",
			ProviderTimeout: 10 * time.Second, ClerkRate: 8, StripeRate: 20,
		},
		Policy: config.Policy{
			OnUserDeleted: account.DeleteCancelAtPeriodEnd, MissingConfirmedAfter: 10 * time.Minute, CheckoutBeside: account.BesideRefuse, PastDueGrace: 72 * time.Hour,
			LinkByEmailAfter: 10 * time.Second,
			WaitingTTL:       720 * time.Hour, PayloadRetention: 720 * time.Hour,
			BoundaryDelay: time.Minute, PokeInterval: time.Second, RereadDelay: 5 * time.Second,
		},
		ClerkWebhookSecrets:  []config.Secret{clerkHook},
		StripeWebhookSecrets: []config.Secret{stripeHook},
		HTTPAddr:             ":8080", MetricsAddr: ":9464", ShutdownDelay: 5 * time.Second, CommandWait: 10 * time.Second, RoutineLooks: 32,
	}
	if got, want := fmt.Sprintf("%#v", api), fmt.Sprintf("%#v", want); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if api.DatabaseURL.Reveal() != want.DatabaseURL.Reveal() {
		t.Error("the database URL did not survive")
	}
	if api.StripeLivemode() || api.ClerkLivemode() {
		t.Error("test keys count as live")
	}

	worker, err := config.LoadWorker(complete("METRICS_ADDR", ""))
	if err != nil {
		t.Fatal(err)
	}
	if worker.MetricsAddr != ":9465" {
		t.Errorf("worker's metrics address is %q", worker.MetricsAddr)
	}
}

func TestEachProgramNeedsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	if _, err := config.LoadSetup(map[string]string{"DATABASE_URL": "host=db dbname=app"}); err != nil {
		t.Errorf("setup: %v", err)
	}
	environ := complete()
	delete(environ, "CLERK_WEBHOOK_SECRET")
	delete(environ, "STRIPE_WEBHOOK_SECRET")
	if _, err := config.LoadWorker(environ); err != nil {
		t.Errorf("worker: %v", err)
	}
	if got := faultsOf(t, environ); !slices.Equal(got, []string{"CLERK_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET"}) {
		t.Errorf("starter-api without webhook secrets: faults of %v", got)
	}
}

func TestEmptyEnvironmentNamesAllThatIsMissing(t *testing.T) {
	t.Parallel()
	want := []string{"DATABASE_URL", "CLERK_SECRET_KEY", "STRIPE_SECRET_KEY", "CLERK_WEBHOOK_SECRET", "STRIPE_WEBHOOK_SECRET"}
	for name, environ := range map[string]map[string]string{"nil": nil, "blank": {"DATABASE_URL": " \n", "CLERK_SECRET_KEY": ""}} {
		if got := faultsOf(t, environ); !slices.Equal(got, want) {
			t.Errorf("%s: faults of %v, want %v", name, got, want)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	api, err := config.LoadAPI(complete(
		"STRIPE_SECRET_KEY", " rk_live_abc\n",
		"CLERK_SECRET_KEY", "sk_live_abc",
		"CLERK_WEBHOOK_SECRET", clerkHook+" , "+clerkHook,
		"CLERK_API_URL", "http://127.0.0.1:4010/v1/",
		"STRIPE_API_URL", "http://localhost:4011/",
		"CLERK_AUTHORIZED_PARTIES", "https://app.example.com,http://localhost:3000",
		"CLERK_ISSUER", "https://clerk.example.com",
		"ADMIN_USER_IDS", "user_1a,user_2b",
		"METRICS_ADDR", "off",
		"NODE_ENV", "development",
		"LOG_LEVEL", "WARN",
		"ON_USER_DELETED", "keep",
		"CHECKOUT_BESIDE", "allow",
		"PAST_DUE_GRACE", "0s",
		"ACCESS_WHILE_PAUSED", "true",
		"CLERK_RATE", "2.5",
		"TEMPORAL_UI_URL", "http://localhost:8233/",
		"DEBUG", "express:*,clerk-stripe-sync:webhook clerk-stripe-sync:store",
	))
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]bool{
		"livemode":          api.StripeLivemode() && api.ClerkLivemode(),
		"two secrets":       len(api.ClerkWebhookSecrets) == 2 && api.ClerkWebhookSecrets[1].Reveal() == clerkHook,
		"clerk url":         api.ClerkAPIURL == "http://127.0.0.1:4010/v1",
		"stripe url":        api.StripeAPIURL == "http://localhost:4011",
		"parties":           slices.Equal(api.ClerkAuthorizedParties, []string{"https://app.example.com", "http://localhost:3000"}),
		"admins":            slices.Equal(api.AdminUserIDs, []string{"user_1a", "user_2b"}),
		"metrics off":       api.MetricsAddr == "",
		"text in dev":       api.LogFormat == config.FormatText,
		"level":             api.LogLevel == slog.LevelWarn,
		"policy":            api.OnUserDeleted == account.DeleteKeep && api.CheckoutBeside == account.BesideAllow && api.AccessWhilePaused && api.PastDueGrace == 0,
		"rates":             api.ClerkRate == 2.5 && api.StripeRate == 80,
		"ui url":            api.TemporalUIURL == "http://localhost:8233",
		"scopes":            slices.Equal(api.DebugScopes(), []string{"webhook", "store"}),
		"no warnings":       len(api.Warnings()) == 0,
		"key without blank": api.StripeSecretKey.Reveal() == "rk_live_abc",
	}
	for name, ok := range checks {
		if !ok {
			t.Errorf("%s: wrong", name)
		}
	}
}

func TestDebugScopes(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]string{
		"":                        nil,
		"clerk-stripe-sync:*":     {"*"},
		"*":                       {"*"},
		"express:router":          nil,
		"clerk-stripe-sync:clerk": {"clerk"},
	} {
		if got := (config.Logging{Debug: value}).DebugScopes(); !slices.Equal(got, want) {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	api, err := config.LoadAPI(complete("STRIPE_SECRET_KEY", "sk_live_x"))
	if err != nil {
		t.Fatal(err)
	}
	if got := api.Warnings(); len(got) != 3 {
		t.Errorf("got %d warnings, want issuer, parties and mixed modes: %q", len(got), got)
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ variable, value string }{
		{"CLERK_SECRET_KEY", "pk_test_publishable"},
		{"CLERK_SECRET_KEY", "rk_test_clerk"},
		{"CLERK_SECRET_KEY", "sk_test_with space"},
		{"STRIPE_SECRET_KEY", "pk_live_x"},
		{"STRIPE_SECRET_KEY", "sk_prod_x"},
		{"STRIPE_SECRET_KEY", "sk_test_"},
		{"CLERK_WEBHOOK_SECRET", ","},
		{"CLERK_WEBHOOK_SECRET", clerkHook + ","},
		{"CLERK_WEBHOOK_SECRET", clerkHook + ",," + clerkHook},
		{"CLERK_WEBHOOK_SECRET", "whsec_"},
		{"CLERK_WEBHOOK_SECRET", "whsec_not*base64*not*base64"},
		{"CLERK_WEBHOOK_SECRET", "c2VjcmV0IG9mIGNsZXJrIQ=="},
		{"STRIPE_WEBHOOK_SECRET", "whsec_"},
		{"STRIPE_WEBHOOK_SECRET", "whsec_......................"},
		{"STRIPE_WEBHOOK_SECRET", "whsec_short"},
		{"STRIPE_WEBHOOK_SECRET", stripeHook + ", ," + stripeHook},
		{"DATABASE_URL", "mysql://db/app"},
		{"DATABASE_URL", "postgres://app:p%ss@db/app"},
		{"DATABASE_URL", "db"},
		{"DATABASE_MAX_CONNS", "-1"},
		{"DATABASE_MAX_CONNS", "many"},
		{"CLERK_JWT_KEY", "nonsense"},
		{"CLERK_JWT_KEY", `-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----`},
		{"CLERK_JWT_KEY", ecdsaPEM(t)},
		{"CLERK_ISSUER", "clerk.example.com"},
		{"CLERK_AUTHORIZED_PARTIES", "app.example.com"},
		{"CLERK_AUTHORIZED_PARTIES", "https://app.example.com/"},
		{"CLERK_AUTHORIZED_PARTIES", "https://app.example.com,"},
		{"CLERK_API_URL", "https://api.clerk.com"},
		{"CLERK_API_URL", "api.clerk.com/v1"},
		{"STRIPE_API_URL", "https://api.stripe.com/v1"},
		{"STRIPE_API_URL", "https://user@api.stripe.com"},
		{"HTTP_ADDR", "8080"},
		{"HTTP_ADDR", ":99999"},
		{"METRICS_ADDR", "none"},
		{"ADMIN_USER_IDS", "user_1, admin"},
		{"ROUTINE_LOOKS", "0"},
		{"ROUTINE_LOOKS", "many"},
		{"COMMAND_WAIT", "10"},
		{"COMMAND_WAIT", "0s"},
		{"COMMAND_WAIT", "2m"},
		{"SHUTDOWN_TIMEOUT", "-1s"},
		{"SHUTDOWN_DELAY", "-1s"},
		{"PROVIDER_TIMEOUT", "0s"},
		{"PAST_DUE_GRACE", "-1h"},
		{"WAITING_TTL", "30d"},
		{"PAYLOAD_RETENTION", "0s"},
		{"MISSING_CONFIRMED_AFTER", "0s"},
		{"BOUNDARY_DELAY", "0s"},
		{"POKE_INTERVAL", "0s"},
		{"REREAD_DELAY", "0s"},
		{"STRIPE_RATE", "fast"},
		{"STRIPE_RATE", "-1"},
		{"CLERK_RATE", "NaN"},
		{"ON_USER_DELETED", "delete"},
		{"CHECKOUT_BESIDE", "sometimes"},
		{"ACCESS_WHILE_PAUSED", "maybe"},
		{"LINK_BY_EMAIL", "2"},
		{"LINK_BY_EMAIL_AFTER", "-1m"},
		{"TRUST_CLIENT_REFERENCE", "sometimes"},
		{"TEMPORAL_UI_URL", "localhost:8233"},
		{"LOG_LEVEL", "loud"},
		{"LOG_FORMAT", "xml"},
		{"DEBUG", "clerk-stripe-sync:wehbook"},
	} {
		t.Run(c.variable+"="+c.value, func(t *testing.T) {
			t.Parallel()
			_, err := config.LoadAPI(complete(c.variable, c.value))
			faults, ok := errors.AsType[config.Faults](err)
			if !ok || len(faults) != 1 || faults[0].Variable != c.variable {
				t.Fatalf("got %v, want one fault of %s", err, c.variable)
			}
			if faults[0].Problem == "" || faults[0].Remedy == "" {
				t.Errorf("a fault without what is wrong or what to do: %+v", faults[0])
			}
		})
	}
}

// A worker's version has two parts, and both or neither are set.
func TestWorkerVersion(t *testing.T) {
	t.Parallel()
	for _, each := range []struct{ name, build, fault string }{
		{"", "", ""},
		{"clerk-stripe-sync", "1.4.0", ""},
		{"clerk-stripe-sync", "", "TEMPORAL_BUILD_ID"},
		{"", "1.4.0", "TEMPORAL_DEPLOYMENT_NAME"},
		{"clerk.stripe", "1.4.0", "TEMPORAL_DEPLOYMENT_NAME"},
		{"clerk-stripe-sync", "1:4", "TEMPORAL_BUILD_ID"},
	} {
		_, err := config.LoadWorker(complete("TEMPORAL_DEPLOYMENT_NAME", each.name, "TEMPORAL_BUILD_ID", each.build))
		var faults config.Faults
		switch {
		case each.fault == "" && err != nil:
			t.Errorf("%+v: %v", each, err)
		case each.fault != "" && (!errors.As(err, &faults) || len(faults) != 1 || faults[0].Variable != each.fault):
			t.Errorf("%+v: %v", each, err)
		}
	}
}

func TestLiveKeyTravelsEncrypted(t *testing.T) {
	t.Parallel()
	environ := complete("STRIPE_SECRET_KEY", "sk_live_x", "STRIPE_API_URL", "http://proxy.example.com")
	if got := faultsOf(t, environ); !slices.Equal(got, []string{"STRIPE_API_URL"}) {
		t.Errorf("faults of %v", got)
	}
	if _, err := config.LoadAPI(complete("STRIPE_API_URL", "http://proxy.example.com")); err != nil {
		t.Errorf("with a test key: %v", err)
	}
}

func TestPublicKeyOnOneLine(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	want := publicPEM(t, &key.PublicKey)
	api, err := config.LoadAPI(complete("CLERK_JWT_KEY", strings.ReplaceAll(want, "\n", `\n`)))
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode([]byte(api.ClerkJWTKey)); block == nil || strings.Contains(api.ClerkJWTKey, `\n`) {
		t.Errorf("the key was not given real line ends: %q", api.ClerkJWTKey)
	}
}

func TestFaultsShowNoValues(t *testing.T) {
	t.Parallel()
	const marker = "hunter2"
	environ := complete()
	for name := range maps.Keys(environ) {
		environ[name] = marker + "%zz://" + marker
	}
	for _, name := range []string{
		"CLERK_JWT_KEY", "COMMAND_WAIT", "DATABASE_MAX_CONNS", "LINK_BY_EMAIL", "STRIPE_RATE", "LOG_LEVEL",
		"ON_USER_DELETED", "CLERK_API_URL", "STRIPE_API_URL", "CLERK_AUTHORIZED_PARTIES", "HTTP_ADDR",
	} {
		environ[name] = marker
	}
	_, err := config.LoadAPI(environ)
	faults, ok := errors.AsType[config.Faults](err)
	if !ok || len(faults) != 16 {
		t.Fatalf("got %d faults, want all 16: %v", len(faults), err)
	}
	if strings.Contains(err.Error(), marker) {
		t.Errorf("a value is in the text: %v", err)
	}
}

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	api, err := config.LoadAPI(complete())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", api, "key", api.ClerkSecretKey)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", api, "key", api.ClerkSecretKey)
	encoded, err := json.Marshal(api)
	if err != nil {
		t.Fatal(err)
	}
	printed := log.String() + string(encoded)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		printed += fmt.Sprintf(verb, api) + fmt.Sprintf(verb, api.DatabaseURL)
	}
	for _, secret := range []string{"hunter2", "sk_test", "whsec_", "68756e74657232"} {
		if strings.Contains(printed, secret) {
			t.Errorf("%q was printed", secret)
		}
	}
	if config.Secret("").String() != "" {
		t.Error("an absent secret looks present")
	}
}

// faultsOf loads starter-api's configuration and returns the variables at fault, in order.
func faultsOf(t *testing.T, environ map[string]string) []string {
	t.Helper()
	_, err := config.LoadAPI(environ)
	faults, ok := errors.AsType[config.Faults](err)
	if !ok {
		t.Fatalf("got %v, want faults", err)
	}
	var names []string
	for _, fault := range faults {
		names = append(names, fault.Variable)
	}
	return names
}

func ecdsaPEM(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return publicPEM(t, &key.PublicKey)
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
