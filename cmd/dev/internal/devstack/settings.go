//go:build unix

package devstack

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
)

// settings is what this start is to do, decided before anything happens.
type settings struct {
	environ map[string]string // as given, without blanks
	dir     string            // where data and logs live
	story   bool
	// sandbox is set where no keys are given.
	sandbox bool
	// ownPostgres and ownTemporal are set where no server is given.
	ownPostgres, ownTemporal bool

	// liveKeys is set where a key is one of a provider's live mode.
	liveKeys bool

	httpAddr                       string
	api, apiMetrics, workerMetrics port
	metricsAreOff                  bool
	postgres, temporal, temporalUI port
	clerk, stripe                  port
}

// port is a port of this machine and the variable that changes it. Number 0 is any free one.
type port struct {
	what, variable string
	number         int
}

func (p port) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.number)) }

// loadSettings reads the environment. The error says everything that is wrong with it.
func loadSettings(environ map[string]string) (settings, error) {
	s := settings{environ: map[string]string{}}
	for name, value := range environ {
		if value = strings.TrimSpace(value); value != "" {
			s.environ[name] = value
		}
	}
	s.dir = cmp.Or(s.environ["DEV_DIR"], ".dev")
	s.ownPostgres, s.ownTemporal = s.environ["DATABASE_URL"] == "", s.environ["TEMPORAL_ADDRESS"] == ""
	err := errors.Join(s.readStory(), s.readKeys(), s.readPorts())
	if err != nil {
		return s, err
	}
	return s, s.checkPrograms()
}

func (s *settings) readStory() error {
	switch value := cmp.Or(s.environ["DEV_STORY"], "on"); value {
	case "on", "off":
		s.story = value == "on"
		return nil
	default:
		return fmt.Errorf("DEV_STORY is on or off, not %q", value)
	}
}

func (s *settings) readKeys() error {
	clerk, stripe := s.environ["CLERK_SECRET_KEY"], s.environ["STRIPE_SECRET_KEY"]
	s.sandbox = clerk == "" && stripe == ""
	set, missing := "CLERK_SECRET_KEY", "STRIPE_SECRET_KEY"
	if clerk == "" {
		set, missing = missing, set
	}
	if !s.sandbox && (clerk == "" || stripe == "") {
		return fmt.Errorf("%s is set and %s is not: set both to work with your own accounts, or neither to work with the sandbox", set, missing)
	}
	return nil
}

func (s *settings) readPorts() error {
	read := func(what, variable string, fallback int) (port, error) {
		p := port{what, variable, fallback}
		value, ok := s.environ[variable]
		if !ok {
			return p, nil
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > 65535 {
			return p, fmt.Errorf("%s is a port from 1 to 65535, or 0 for any free one, not %q", variable, value)
		}
		p.number = n
		return p, nil
	}
	var faults []error
	for _, each := range []struct {
		to             *port
		what, variable string
		fallback       int
	}{
		{&s.apiMetrics, "the API's metrics", "DEV_API_METRICS_PORT", 9464},
		{&s.workerMetrics, "the worker's metrics and health", "DEV_WORKER_METRICS_PORT", 9465},
		{&s.postgres, "PostgreSQL", "DEV_POSTGRES_PORT", 54329},
		{&s.temporal, "Temporal", "DEV_TEMPORAL_PORT", 7233},
		{&s.temporalUI, "Temporal's Web UI", "DEV_TEMPORAL_UI_PORT", 8233},
		{&s.clerk, "the sandbox's Clerk", "DEV_CLERK_PORT", 8090},
		{&s.stripe, "the sandbox's Stripe", "DEV_STRIPE_PORT", 8091},
	} {
		var err error
		if *each.to, err = read(each.what, each.variable, each.fallback); err != nil {
			faults = append(faults, err)
		}
	}
	s.httpAddr = cmp.Or(s.environ["HTTP_ADDR"], "127.0.0.1:8080")
	_, number, err := net.SplitHostPort(s.httpAddr)
	n, notNumber := strconv.Atoi(number)
	if err != nil || notNumber != nil {
		faults = append(faults, fmt.Errorf("HTTP_ADDR is an address such as 127.0.0.1:8080, not %q", s.httpAddr))
	}
	s.api = port{"the API", "HTTP_ADDR", n}
	switch s.environ["METRICS_ADDR"] {
	case "":
	case "off":
		s.metricsAreOff = true
	default:
		faults = append(faults, errors.New("METRICS_ADDR names one address and two programs run here: unset it and use DEV_API_METRICS_PORT and DEV_WORKER_METRICS_PORT, or set it to off"))
	}
	return errors.Join(faults...)
}

// ports are those that this start needs.
func (s *settings) ports() []port {
	needed := []port{s.api}
	if !s.metricsAreOff {
		needed = append(needed, s.apiMetrics, s.workerMetrics)
	}
	if s.ownPostgres {
		needed = append(needed, s.postgres)
	}
	if s.ownTemporal {
		needed = append(needed, s.temporal, s.temporalUI)
	}
	if s.sandbox {
		needed = append(needed, s.clerk, s.stripe)
	}
	return needed
}

// path is a file or directory of this stack.
func (s *settings) path(elements ...string) string {
	return filepath.Join(append([]string{s.dir}, elements...)...)
}

// names keeps what the sandbox's people did apart from what belongs to real keys: neither a
// database nor a namespace holds both.
func (s *settings) names() (database, namespace string) {
	if s.sandbox {
		return "sandbox", "sandbox"
	}
	return "clerk_stripe_sync", "default"
}

// places is where things are once they run.
type places struct {
	databaseURL, temporalAddress, temporalUI string
	clerkURL, stripeURL                      string
	clerkWebhookSecret, stripeWebhookSecret  string
	clerkKey, stripeKey                      string
}

// variables is the environment of the two programs; each gets its own METRICS_ADDR beside it.
func (s *settings) variables(at places) map[string]string {
	v := maps.Clone(s.environ)
	v["HTTP_ADDR"] = s.httpAddr
	v["DATABASE_URL"] = at.databaseURL
	v["NODE_ENV"] = cmp.Or(v["NODE_ENV"], "development")
	v["SHUTDOWN_TIMEOUT"], v["SHUTDOWN_DELAY"] = programsPatience.String(), "0s" // nobody else sends requests here
	if s.ownTemporal {
		// Whatever else is said of Temporal is about another server.
		maps.DeleteFunc(v, func(name, _ string) bool { return strings.HasPrefix(name, "TEMPORAL_") })
		v["TEMPORAL_ADDRESS"], v["TEMPORAL_UI_URL"] = at.temporalAddress, at.temporalUI
		_, v["TEMPORAL_NAMESPACE"] = s.names()
	}
	if s.sandbox {
		// What is said of a real instance's tokens does not hold for the sandbox's.
		maps.DeleteFunc(v, func(name, _ string) bool { return strings.HasPrefix(name, "CLERK_") && name != "CLERK_RATE" })
		v["CLERK_SECRET_KEY"], v["CLERK_WEBHOOK_SECRET"], v["CLERK_API_URL"] = at.clerkKey, at.clerkWebhookSecret, at.clerkURL
		v["STRIPE_SECRET_KEY"], v["STRIPE_WEBHOOK_SECRET"], v["STRIPE_API_URL"] = at.stripeKey, at.stripeWebhookSecret, at.stripeURL
		// The sandbox has no limits to keep below.
		v["CLERK_RATE"], v["STRIPE_RATE"] = cmp.Or(v["CLERK_RATE"], "100"), cmp.Or(v["STRIPE_RATE"], "100")
	}
	return v
}

// environmentFile holds the variables of the programs for a shell.
const environmentFile = "environment"

// writeEnvironment keeps the variables with which an operator's command line reaches what runs
// here, for a shell to read. They hold keys, so only their owner may.
func (s *settings) writeEnvironment(variables map[string]string) error {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		for _, prefix := range []string{"DATABASE_", "TEMPORAL_", "CLERK_", "STRIPE_"} {
			if strings.HasPrefix(name, prefix) {
				fmt.Fprintf(&text, "export %s='%s'\n", name, strings.ReplaceAll(variables[name], "'", `'\''`))
			}
		}
	}
	if err := os.WriteFile(s.path(environmentFile), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("keep the variables for a shell: %w", err)
	}
	return nil
}

// checkPrograms has the programs' own checks look at what they will be given.
func (s *settings) checkPrograms() error {
	at := places{databaseURL: s.environ["DATABASE_URL"], temporalAddress: s.temporal.addr(), temporalUI: "http://" + s.temporalUI.addr()}
	if s.ownPostgres {
		at.databaseURL = "postgres://127.0.0.1/not-started-yet"
	}
	if s.sandbox {
		at.clerkURL, at.stripeURL = "http://127.0.0.1/v1", "http://127.0.0.1"
		at.clerkKey, at.clerkWebhookSecret = sandbox.DefaultClerkSecretKey, sandbox.DefaultClerkWebhookSecret
		at.stripeKey, at.stripeWebhookSecret = sandbox.DefaultStripeSecretKey, sandbox.DefaultStripeWebhookSecret
	}
	variables := s.variables(at)
	delete(variables, "METRICS_ADDR")
	api, err := config.LoadAPI(variables)
	if err != nil && !s.sandbox && (s.environ["CLERK_WEBHOOK_SECRET"] == "" || s.environ["STRIPE_WEBHOOK_SECRET"] == "") {
		return fmt.Errorf("%w\n%s", err, s.forwarding())
	}
	s.liveKeys = api.StripeLivemode() || api.ClerkLivemode()
	return err
}

// forwarding says how the webhooks of real accounts reach this machine.
func (s *settings) forwarding() string {
	base := "http://" + s.reachable()
	return fmt.Sprintf(`how webhooks reach this machine:
  Stripe   stripe listen --forward-to %[1]s/api/webhooks/stripe
           it prints the signing secret for STRIPE_WEBHOOK_SECRET
  Clerk    open a tunnel to %[1]s and add <its address>/api/webhooks/clerk as an endpoint in Clerk's
           dashboard, for user.created, user.updated and user.deleted; the dashboard shows the signing
           secret for CLERK_WEBHOOK_SECRET`, base)
}

// reachable is the API's address as one from this machine writes it.
func (s *settings) reachable() string {
	host, number, err := net.SplitHostPort(s.httpAddr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", number)
	}
	return s.httpAddr
}
