package config

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

const (
	// minSecret is the fewest characters after whsec_ that can be a real secret and not a placeholder.
	minSecret = 16
	// maxCommandWait keeps an answer within the time for which proxies commonly hold a request open.
	maxCommandWait = time.Minute

	webhookSecretPrefix = "whsec_"
)

var (
	clerkKeyForm    = regexp.MustCompile(`^sk_(test|live)_[A-Za-z0-9_-]+$`)
	stripeKeyForm   = regexp.MustCompile(`^(sk|rk)_(test|live)_[A-Za-z0-9_-]+$`)
	stripeHookForm  = regexp.MustCompile(`^[A-Za-z0-9+/=_-]+$`)
	clerkUserIDForm = regexp.MustCompile(`^user_[A-Za-z0-9]+$`)
)

func (l *Logging) check(c *checker) {
	if l.LogFormat == "" {
		l.LogFormat = FormatJSON
		if l.NodeEnv == "development" {
			l.LogFormat = FormatText
		}
	}
	oneOf(c, "LOG_FORMAT", l.LogFormat, FormatJSON, FormatText)
	scopes := []string{"*", "webhook", "dispatch", "stripe", "clerk", "store"}
	for _, scope := range l.DebugScopes() {
		if !slices.Contains(scopes, scope) {
			c.add("DEBUG", "names a scope that does not exist",
				"use "+debugNamespace+":* or, after the colon, "+strings.Join(scopes[1:], ", "))
		}
	}
}

func (d *Database) check(c *checker) {
	const remedy = "use a connection string such as postgres://user:password@host:5432/database"
	text := d.DatabaseURL.Reveal()
	switch {
	case text == "":
		c.add("DATABASE_URL", "is not set", remedy)
	case strings.Contains(text, "://"):
		u, err := url.Parse(text)
		if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
			c.add("DATABASE_URL", "is not a PostgreSQL URL", remedy+"; escape special characters of the password")
		}
	case !strings.Contains(text, "="):
		c.add("DATABASE_URL", "is neither a URL nor a list of keywords", remedy)
	}
	if d.DatabaseMaxConns < 0 {
		c.add("DATABASE_MAX_CONNS", "is negative", "use the most connections to open, or 0 for the driver's default")
	}
}

func (p *Providers) check(c *checker) {
	c.key("CLERK_SECRET_KEY", p.ClerkSecretKey, clerkKeyForm,
		"copy the secret key (sk_test_... or sk_live_...) of the instance from Clerk's dashboard")
	c.key("STRIPE_SECRET_KEY", p.StripeSecretKey, stripeKeyForm,
		"copy a secret or restricted key (sk_test_..., sk_live_..., rk_test_... or rk_live_...) from Stripe's dashboard")

	const clerkURL = "use https://api.clerk.com/v1, or leave it out"
	p.ClerkAPIURL = c.baseURL("CLERK_API_URL", p.ClerkAPIURL, isLive(p.ClerkSecretKey), clerkURL)
	if !strings.HasSuffix(p.ClerkAPIURL, "/v1") {
		c.add("CLERK_API_URL", "does not end with /v1", clerkURL)
	}
	const stripeURL = "use https://api.stripe.com, or leave it out"
	p.StripeAPIURL = c.baseURL("STRIPE_API_URL", p.StripeAPIURL, isLive(p.StripeSecretKey), stripeURL)
	if u, err := url.Parse(p.StripeAPIURL); err == nil && u.Path != "" {
		c.add("STRIPE_API_URL", "has a path", stripeURL)
	}

	c.positive("PROVIDER_TIMEOUT", p.ProviderTimeout)
	p.ClerkRate = c.rate("CLERK_RATE", p.ClerkRate, p.ClerkLivemode(), 80, 8)
	p.StripeRate = c.rate("STRIPE_RATE", p.StripeRate, p.StripeLivemode(), 80, 20)
}

func (p *Policy) check(c *checker) {
	oneOf(c, "ON_USER_DELETED", p.OnUserDeleted,
		account.DeleteCancelAtPeriodEnd, account.DeleteCancelNow, account.DeleteKeep)
	oneOf(c, "CHECKOUT_BESIDE", p.CheckoutBeside, account.BesideRefuse, account.BesideAllow)
	if p.PastDueGrace < 0 {
		c.add("PAST_DUE_GRACE", "is negative", "use a duration such as 72h, or 0s for no grace")
	}
	if p.LinkByEmailAfter < 0 {
		c.add("LINK_BY_EMAIL_AFTER", "is negative", "use a duration such as 10s, or 0s for at once")
	}
	c.positive("WAITING_TTL", p.WaitingTTL)
	c.positive("PAYLOAD_RETENTION", p.PayloadRetention)
	c.positive("MISSING_CONFIRMED_AFTER", p.MissingConfirmedAfter)
	c.positive("BOUNDARY_DELAY", p.BoundaryDelay)
	c.positive("POKE_INTERVAL", p.PokeInterval)
	c.positive("REREAD_DELAY", p.RereadDelay)
}

func (p *Process) check(c *checker) { c.positive("SHUTDOWN_TIMEOUT", p.ShutdownTimeout) }

// shortestInterval keeps what is done regularly from being done all the time.
const shortestInterval = Interval(time.Second)

func (s *Schedules) check(c *checker) {
	for variable, interval := range map[string]Interval{"RECOVERY_INTERVAL": s.RecoveryInterval, "RECONCILE_INTERVAL": s.ReconcileInterval} {
		if interval != 0 && interval < shortestInterval {
			c.add(variable, "is too short", "use at least "+time.Duration(shortestInterval).String()+", or off")
		}
	}
}

func (w *Worker) check(c *checker) {
	w.MetricsAddr = c.metricsAddress(w.MetricsAddr)
	c.version("TEMPORAL_DEPLOYMENT_NAME", w.DeploymentName, w.BuildID, deploymentName, "such as clerk-stripe-sync")
	c.version("TEMPORAL_BUILD_ID", w.BuildID, w.DeploymentName, buildID, "such as 1.4.0 or a commit")
	var repairable []string
	for _, class := range account.DriftClasses() {
		if class.Repair() == account.RepairAlone {
			repairable = append(repairable, string(class))
		}
	}
	for i, class := range w.ReconcileRepair {
		if class.Repair() != account.RepairAlone {
			c.add("RECONCILE_REPAIR", fmt.Sprintf("has an element (number %d) that is no class of differences that can be repaired by itself", i+1),
				"use some of "+strings.Join(repairable, ", ")+", separated by commas")
		}
	}
	if w.ReconcileMaxChanges < 1 {
		c.add("RECONCILE_MAX_CHANGES", "is not more than zero", "use the most entities that one comparison may have repaired, such as 1000")
	}
	c.positive("RECONCILE_SETTLE", w.ReconcileSettle)
}

// The two parts of a worker's version. Temporal writes them with a dot or a colon between.
var (
	deploymentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$`)
	buildID        = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
)

// version checks one of the two parts, which are set together or not at all.
func (c *checker) version(variable, value, other string, form *regexp.Regexp, example string) {
	switch {
	case value == "" && other != "":
		c.add(variable, "is missing", "set it together with the other part of the worker's version, "+example)
	case value != "" && !form.MatchString(value):
		c.add(variable, "is not a part of a worker's version", "use letters, digits and dashes, at most 100, "+example)
	}
}

func (a *API) check(c *checker) {
	// Svix decodes what follows the prefix; Stripe uses the secret as it stands.
	c.webhookSecrets("CLERK_WEBHOOK_SECRET", a.ClerkWebhookSecrets,
		"copy the endpoint's signing secret (whsec_...) from the webhooks page of Clerk's dashboard",
		func(rest string) bool {
			_, err := base64.StdEncoding.DecodeString(rest)
			return err == nil
		})
	c.webhookSecrets("STRIPE_WEBHOOK_SECRET", a.StripeWebhookSecrets,
		"copy the endpoint's signing secret (whsec_...) from the webhooks page of Stripe's dashboard",
		stripeHookForm.MatchString)

	a.ClerkJWTKey = c.publicKey("CLERK_JWT_KEY", a.ClerkJWTKey)
	if a.ClerkIssuer != "" && !isHTTP(a.ClerkIssuer) {
		c.add("CLERK_ISSUER", "is not a URL", "use the instance's Frontend API URL, such as https://clerk.example.com")
	}
	for i, party := range a.ClerkAuthorizedParties {
		if u, err := url.Parse(party); err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != party {
			c.add("CLERK_AUTHORIZED_PARTIES", fmt.Sprintf("has an element (number %d) that is not an origin", i+1),
				"list origins such as https://app.example.com, separated by commas, without a path or a slash at the end")
		}
	}
	for i, id := range a.AdminUserIDs {
		if !clerkUserIDForm.MatchString(id) {
			c.add("ADMIN_USER_IDS", fmt.Sprintf("has an element (number %d) that is not a Clerk user id", i+1),
				"list ids such as user_2abc, separated by commas")
		}
	}
	c.address("HTTP_ADDR", a.HTTPAddr, "use host:port or :port, such as :8080")
	a.MetricsAddr = c.metricsAddress(a.MetricsAddr)
	if a.ShutdownDelay < 0 {
		c.add("SHUTDOWN_DELAY", "is negative", "use a duration such as 5s, or 0s for none")
	}
	c.positive("COMMAND_WAIT", a.CommandWait)
	if a.RoutineLooks < 1 {
		c.add("ROUTINE_LOOKS", "lets nobody be looked at", "use at least 1; the default is 32")
	}
	if a.CommandWait > maxCommandWait {
		c.add("COMMAND_WAIT", "is too long", "use at most "+maxCommandWait.String()+": proxies do not hold requests open for longer")
	}
	a.TemporalUIURL = c.uiURL(a.TemporalUIURL)
}

func (cfg *Console) check(c *checker) {
	cfg.Logging.check(c)
	cfg.Database.check(c)
}

// uiURL checks the address of Temporal's Web UI and returns it without a slash at its end.
func (c *checker) uiURL(text string) string {
	text = strings.TrimRight(text, "/")
	if text != "" && !isHTTP(text) {
		c.add("TEMPORAL_UI_URL", "is not a URL", "use the address of Temporal's Web UI, such as http://localhost:8233, or leave it out")
	}
	return text
}

// key checks the form of a provider's key.
func (c *checker) key(variable string, key Secret, form *regexp.Regexp, remedy string) {
	switch text := key.Reveal(); {
	case text == "":
		c.add(variable, "is not set", remedy)
	case strings.HasPrefix(text, "pk_"):
		c.add(variable, "is a publishable key", remedy)
	case !form.MatchString(text):
		c.add(variable, "does not have the form of a secret key", remedy)
	}
}

// webhookSecrets checks each of the secrets that a variable holds. An empty one is the worst of
// faults: the libraries would accept whatever an attacker signs with it.
func (c *checker) webhookSecrets(variable string, secrets []Secret, remedy string, formed func(string) bool) {
	if len(secrets) == 0 {
		c.add(variable, "is not set", remedy)
	}
	for i, secret := range secrets {
		which := "is"
		if len(secrets) > 1 {
			which = fmt.Sprintf("has an element (number %d) that is", i+1)
		}
		switch rest, prefixed := strings.CutPrefix(secret.Reveal(), webhookSecretPrefix); {
		case secret == "":
			c.add(variable, which+" empty", remedy+"; separate several with one comma each")
		case !prefixed || !formed(rest):
			c.add(variable, which+" not a webhook signing secret", remedy)
		case len(rest) < minSecret:
			c.add(variable, which+" too short to be a signing secret", remedy)
		}
	}
}

// publicKey checks that text is the PEM form of an RSA public key and returns it with real line
// ends: many platforms hold a variable on one line, with \n for the ends.
func (c *checker) publicKey(variable, text string) string {
	if text == "" {
		return ""
	}
	const remedy = "copy the JWKS public key (PEM) from the API keys page of Clerk's dashboard, or leave it out"
	text = strings.ReplaceAll(text, `\n`, "\n")
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		c.add(variable, "is not in PEM form", remedy)
		return ""
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		c.add(variable, "does not hold a public key", remedy)
		return ""
	}
	if _, ok := key.(*rsa.PublicKey); !ok {
		c.add(variable, "does not hold an RSA key", remedy)
	}
	return text
}

// baseURL checks the address of a provider and returns it without a slash at its end. A live key
// does not travel unencrypted, except within the machine.
func (c *checker) baseURL(variable, text string, live bool, remedy string) string {
	text = strings.TrimRight(text, "/")
	u, err := url.Parse(text)
	switch {
	case err != nil, !isHTTP(text), u.User != nil, u.RawQuery != "", u.Fragment != "":
		c.add(variable, "is not the URL of an API", remedy)
	case live && u.Scheme == "http" && !isLoopback(u.Hostname()):
		c.add(variable, "would carry a live key unencrypted", "use https")
	}
	return text
}

// rate checks calls per second; 0 stands for "not set" and gives way to the default of the mode.
func (c *checker) rate(variable string, rate float64, live bool, ifLive, ifTest float64) float64 {
	switch {
	case math.IsNaN(rate), math.IsInf(rate, 0), rate < 0:
		c.add(variable, "is not a rate", "use a number of calls per second greater than 0")
	case rate == 0 && live:
		return ifLive
	case rate == 0:
		return ifTest
	}
	return rate
}

// positive checks that a duration is more than nothing.
func (c *checker) positive(variable string, d time.Duration) {
	if d <= 0 {
		c.add(variable, "is not more than zero", "use a duration such as 5s, 10m or 72h")
	}
}

// metricsAddress checks the address for metrics and returns it, empty if they are switched off.
func (c *checker) metricsAddress(addr string) string {
	if strings.EqualFold(addr, off) {
		return ""
	}
	c.address("METRICS_ADDR", addr, "use host:port or :port, such as :9464, or off")
	return addr
}

// address checks that addr can be listened on.
func (c *checker) address(variable, addr, remedy string) {
	_, port, err := net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		c.add(variable, "is not an address to listen on", remedy)
	}
}

// oneOf checks that value is among the choices.
func oneOf[T ~string](c *checker, variable string, value T, choices ...T) {
	if slices.Contains(choices, value) {
		return
	}
	names := make([]string, len(choices))
	for i, choice := range choices {
		names[i] = string(choice)
	}
	c.add(variable, "is not one of the choices", "use "+strings.Join(names, ", "))
}

// isHTTP reports whether text is an absolute http or https URL.
func isHTTP(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}

// isLoopback reports whether host is this machine.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || (err == nil && addr.IsLoopback())
}
