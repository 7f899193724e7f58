// Package config turns environment variables into typed values, once, at the start of a program.
//
// Each program has its own loader, which asks for what that program needs and nothing more. A
// loader reports every fault at once, each with the variable, what is wrong with it and what to do,
// so that nobody mends a deployment one restart at a time. No fault and no printed value ever shows
// a secret. Variables that are set but blank count as not set, because compose files and CI systems
// pass on what they do not have as an empty string.
//
// Temporal's own variables are not here: the Temporal SDK's configuration package reads them.
package config

import (
	"log/slog"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// API is what starter-api needs: the front door, the inbox and the dispatcher.
type API struct {
	Logging
	Database
	Providers
	Policy
	Process

	// ClerkWebhookSecrets verify deliveries from Clerk; several while one is being rolled.
	ClerkWebhookSecrets []Secret `env:"CLERK_WEBHOOK_SECRET"`
	// StripeWebhookSecrets verify deliveries from Stripe; several while one is being rolled.
	StripeWebhookSecrets []Secret `env:"STRIPE_WEBHOOK_SECRET"`

	// ClerkJWTKey is the instance's public key in PEM form, with real line ends, with which session
	// tokens are verified without a request. Empty: the keys are fetched from Clerk's JWKS.
	ClerkJWTKey string `env:"CLERK_JWT_KEY"`
	// ClerkIssuer is the exact `iss` of acceptable session tokens. Empty: not compared.
	ClerkIssuer string `env:"CLERK_ISSUER"`
	// ClerkAuthorizedParties are the exact `azp` values of acceptable session tokens, origins such
	// as https://app.example.com. Empty: not compared; otherwise a token without azp is refused.
	ClerkAuthorizedParties []string `env:"CLERK_AUTHORIZED_PARTIES"`
	// AdminUserIDs are the Clerk user ids that may name another user in a request.
	AdminUserIDs []string `env:"ADMIN_USER_IDS"`

	// HTTPAddr is the address the public API listens on, host:port, the host may be empty.
	HTTPAddr string `env:"HTTP_ADDR" envDefault:":8080"`
	// MetricsAddr is where /metrics is served, host:port. Empty (the variable says `off`): nowhere.
	MetricsAddr string `env:"METRICS_ADDR" envDefault:":9464"`
	// ShutdownDelay is how long a stopping program takes requests still, while its health says that it
	// is about to go.
	ShutdownDelay time.Duration `env:"SHUTDOWN_DELAY" envDefault:"5s"`
	// CommandWait is how long a caller of a command waits for its end before the answer is 202.
	CommandWait time.Duration `env:"COMMAND_WAIT" envDefault:"10s"`
	// RoutineLooks is how many customers are looked at at a time for what nobody waits for, and how
	// many others, over all programs together; an eighth of it while somebody waits.
	RoutineLooks int `env:"ROUTINE_LOOKS" envDefault:"32"`
	// TemporalUIURL is the address of Temporal's Web UI that pages link to, without a slash at its
	// end. Empty: no links.
	TemporalUIURL string `env:"TEMPORAL_UI_URL"`
}

// Worker is what the worker needs: workflows and activities.
type Worker struct {
	Logging
	Database
	Providers
	Policy
	Process
	Schedules

	// MetricsAddr is where /metrics, /healthz and /readyz are served, host:port. Empty (the variable
	// says `off`): nowhere.
	MetricsAddr string `env:"METRICS_ADDR" envDefault:":9465"`

	// DeploymentName and BuildID say which version of which deployment a worker is, to Temporal's
	// worker versioning. Both empty: the worker takes part in none.
	DeploymentName string `env:"TEMPORAL_DEPLOYMENT_NAME"`
	BuildID        string `env:"TEMPORAL_BUILD_ID"`

	// UrgentQueues has what is urgent handed to task queues of its own: for servers of Temporal
	// without priorities.
	UrgentQueues bool `env:"URGENT_QUEUES" envDefault:"false"`

	// ReconcileRepair lists the classes of differences that a scheduled comparison repairs by itself.
	// Empty: none, it only tells of them.
	ReconcileRepair []account.Drift `env:"RECONCILE_REPAIR"`
	// ReconcileMaxChanges is the most entities that one comparison has repaired.
	ReconcileMaxChanges int `env:"RECONCILE_MAX_CHANGES" envDefault:"1000"`
	// ReconcileSettle is how long what differs is left to the events that may be on their way, before
	// it is looked at once more and told of.
	ReconcileSettle time.Duration `env:"RECONCILE_SETTLE" envDefault:"1m"`
}

// Setup is what preparing an environment needs: a database to migrate and what is to be done
// regularly, beside Temporal.
type Setup struct {
	Logging
	Database
	Schedules
}

// Console is what an operator's command line needs to look into the inbox and at differences: the
// database, beside Temporal.
type Console struct {
	Logging
	Database
}

// Inspector is what it needs to show a user in all three systems.
type Inspector struct {
	Console
	Providers

	// TemporalUIURL is the address of Temporal's Web UI that links lead to. Empty: no links.
	TemporalUIURL string `env:"TEMPORAL_UI_URL"`
}

// Schedules says how often what is done regularly is done.
type Schedules struct {
	// RecoveryInterval is the time between two looks for events that never came.
	RecoveryInterval Interval `env:"RECOVERY_INTERVAL" envDefault:"10m"`
	// ReconcileInterval is the time between two comparisons of all three systems.
	ReconcileInterval Interval `env:"RECONCILE_INTERVAL" envDefault:"24h"`
}

// Logging says what is logged and how.
type Logging struct {
	// LogLevel is the least level that is logged.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"info"`
	// LogFormat is FormatJSON or FormatText.
	LogFormat LogFormat `env:"LOG_FORMAT"`
	// Debug is the DEBUG variable as given; DebugScopes is what it means here.
	Debug string `env:"DEBUG"`
	// NodeEnv names the environment as the product's front ends do. `development` makes text the
	// default log format; it changes nothing else.
	NodeEnv string `env:"NODE_ENV"`
}

// Database says where the product's own copy is kept.
type Database struct {
	// DatabaseURL is a PostgreSQL connection string, a URL or keywords. It usually holds a password.
	DatabaseURL Secret `env:"DATABASE_URL"`
	// DatabaseMaxConns is the most connections this process opens. 0: the driver's own default.
	DatabaseMaxConns int32 `env:"DATABASE_MAX_CONNS" envDefault:"0"`
}

// Providers says how Clerk and Stripe are reached.
type Providers struct {
	// ClerkSecretKey is the backend key of one Clerk instance.
	ClerkSecretKey Secret `env:"CLERK_SECRET_KEY"`
	// StripeSecretKey is the key of one Stripe account, a secret or a restricted one.
	StripeSecretKey Secret `env:"STRIPE_SECRET_KEY"`
	// ClerkAPIURL is the base of Clerk's backend API and ends with /v1: the SDK adds only the path.
	ClerkAPIURL string `env:"CLERK_API_URL" envDefault:"https://api.clerk.com/v1"`
	// StripeAPIURL is the base of Stripe's API, without /v1: the SDK's paths begin with it.
	StripeAPIURL string `env:"STRIPE_API_URL" envDefault:"https://api.stripe.com"`
	// ProviderTimeout bounds one request to a provider.
	ProviderTimeout time.Duration `env:"PROVIDER_TIMEOUT" envDefault:"10s"`
	// ClerkRate is the most calls a second to Clerk, over all workers. Clerk allows an instance 1000
	// calls in 10 s in production and 100 in development; unset, it is 80 or 8.
	ClerkRate float64 `env:"CLERK_RATE"`
	// StripeRate is the most calls a second to Stripe, over all workers. Stripe allows an account
	// 100 a second live and 25 in test mode; unset, it is 80 or 20.
	StripeRate float64 `env:"STRIPE_RATE"`
}

// Policy holds the product's choices about access, deletion, linking and patience.
type Policy struct {
	// OnUserDeleted is what happens to the subscriptions of a deleted user.
	OnUserDeleted account.DeletionPolicy `env:"ON_USER_DELETED" envDefault:"cancel_at_period_end"`
	// MissingConfirmedAfter is how long after Stripe has first said that it does not have something of
	// a deleted user the same answer confirms that nobody is billed for it, and after Clerk has first
	// said that it does not have a user whose deletion the product has noted that they are deleted.
	MissingConfirmedAfter time.Duration `env:"MISSING_CONFIRMED_AFTER" envDefault:"10m"`
	// PastDueGrace is how long a past_due subscription still grants access. 0: not at all.
	PastDueGrace time.Duration `env:"PAST_DUE_GRACE" envDefault:"72h"`
	// AccessWhilePaused says whether a subscription whose collection is paused grants access.
	AccessWhilePaused bool `env:"ACCESS_WHILE_PAUSED" envDefault:"false"`
	// LinkByEmail lets a customer without other evidence, or that names only users whom Clerk does not
	// have, be linked to the one user who has its email as verified primary address.
	LinkByEmail bool `env:"LINK_BY_EMAIL" envDefault:"false"`
	// LinkByEmailAfter is how long after a customer was first seen it is linked so: until then what
	// says more may come. Clerk has to have said twice, so far apart, that it does not have whoever is
	// named.
	LinkByEmailAfter time.Duration `env:"LINK_BY_EMAIL_AFTER" envDefault:"10s"`
	// TrustClientReference has the client_reference_id of a checkout session say whose its customer
	// is, also where the session's metadata do not: for those whose own server opens every session.
	TrustClientReference bool `env:"TRUST_CLIENT_REFERENCE" envDefault:"false"`
	// CheckoutBeside says whether a subscription may be bought beside one of another product.
	CheckoutBeside account.BesidePolicy `env:"CHECKOUT_BESIDE" envDefault:"refuse"`
	// WaitingTTL is how long an event waits for its user before it is ignored.
	WaitingTTL time.Duration `env:"WAITING_TTL" envDefault:"720h"`
	// PayloadRetention is how long the payload of a settled event is kept.
	PayloadRetention time.Duration `env:"PAYLOAD_RETENTION" envDefault:"720h"`
	// BoundaryDelay is how long after a known boundary (end of trial, period or grace) a
	// subscription is read again, so that Stripe has acted by then.
	BoundaryDelay time.Duration `env:"BOUNDARY_DELAY" envDefault:"1m"`
	// PokeInterval is the least time between two pokes of one entity: a burst of events costs one
	// sync at its start and one after the interval, however many they are.
	PokeInterval time.Duration `env:"POKE_INTERVAL" envDefault:"1s"`
	// RereadDelay is the pause before Stripe or Clerk is read again when a read does not yet show what
	// a young event told, or what an earlier read has shown.
	RereadDelay time.Duration `env:"REREAD_DELAY" envDefault:"5s"`
}

// Process says how a long-running program behaves.
type Process struct {
	// ShutdownTimeout is how long a stopping program waits for work in progress.
	ShutdownTimeout time.Duration `env:"SHUTDOWN_TIMEOUT" envDefault:"20s"`
}

// LoadAPI reads what starter-api needs from environ. The error, if any, is a Faults.
func LoadAPI(environ map[string]string) (API, error) {
	return load(environ, func(cfg *API, c *checker) {
		cfg.Logging.check(c)
		cfg.Database.check(c)
		cfg.Providers.check(c)
		cfg.Policy.check(c)
		cfg.Process.check(c)
		cfg.check(c)
	})
}

// LoadWorker reads what the worker needs from environ. The error, if any, is a Faults.
func LoadWorker(environ map[string]string) (Worker, error) {
	return load(environ, func(cfg *Worker, c *checker) {
		cfg.Logging.check(c)
		cfg.Database.check(c)
		cfg.Providers.check(c)
		cfg.Policy.check(c)
		cfg.Process.check(c)
		cfg.Schedules.check(c)
		cfg.check(c)
	})
}

// LoadSetup reads what preparing an environment needs from environ. The error, if any, is a Faults.
func LoadSetup(environ map[string]string) (Setup, error) {
	return load(environ, func(cfg *Setup, c *checker) {
		cfg.Logging.check(c)
		cfg.Database.check(c)
		cfg.Schedules.check(c)
	})
}

// LoadConsole reads what looking into the inbox needs from environ. The error, if any, is a Faults.
func LoadConsole(environ map[string]string) (Console, error) {
	return load(environ, func(cfg *Console, c *checker) { cfg.check(c) })
}

// LoadInspector reads what showing a user needs from environ. The error, if any, is a Faults.
func LoadInspector(environ map[string]string) (Inspector, error) {
	return load(environ, func(cfg *Inspector, c *checker) {
		cfg.Console.check(c)
		cfg.Providers.check(c)
		cfg.TemporalUIURL = c.uiURL(cfg.TemporalUIURL)
	})
}

// StripeLivemode reports whether the Stripe key is a live one: only events whose livemode equals it
// are ours.
func (p Providers) StripeLivemode() bool { return isLive(p.StripeSecretKey) }

// ClerkLivemode reports whether the Clerk key is that of a production instance.
func (p Providers) ClerkLivemode() bool { return isLive(p.ClerkSecretKey) }

// Warnings lists, for the log at start, what is legal but weaker than it could be.
func (a API) Warnings() []string {
	var warnings []string
	if a.ClerkIssuer == "" {
		warnings = append(warnings, "CLERK_ISSUER is not set: the issuer of session tokens is not compared")
	}
	if len(a.ClerkAuthorizedParties) == 0 {
		warnings = append(warnings, "CLERK_AUTHORIZED_PARTIES is not set: session tokens made for any origin are accepted")
	}
	if a.StripeLivemode() != a.ClerkLivemode() {
		warnings = append(warnings, "one of STRIPE_SECRET_KEY and CLERK_SECRET_KEY is live and the other is not")
	}
	return warnings
}
