package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	stripewebhook "github.com/stripe/stripe-go/v76/webhook"
	svix "github.com/svix/svix-webhooks/go"
	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/config"
)

// Codes of the problems with a delivery.
const (
	codeSignatureMissing = "signature_missing"
	codeSignatureInvalid = "signature_invalid"
	codeTimestampStale   = "timestamp_stale"
	codeTimestampFuture  = "timestamp_future"
	codeBodyNotJSON      = "body_not_json"
	codeEventIDInvalid   = "event_id_invalid"
	codeNotStored        = "not_stored"
	codeOverloaded       = "overloaded"
)

// tolerance is how far a signature's time may be from ours, either way: what both providers advise.
const tolerance = 5 * time.Minute

// errNoSecret guards against the worst misconfiguration: with an empty secret the providers'
// libraries accept whatever anyone signs with it.
var errNoSecret = errors.New("a webhook secret is empty")

var (
	stripeEventForm = regexp.MustCompile(`^evt_[A-Za-z0-9_]{1,251}$`)
	svixMessageForm = regexp.MustCompile(`^[A-Za-z0-9_-]{1,255}$`)
)

// stripeVerifier knows Stripe's signatures: Stripe-Signature holds a time t and signatures v1 of
// "t.body".
type stripeVerifier struct{ secrets []string }

func newStripeVerifier(secrets []config.Secret) (stripeVerifier, error) {
	var v stripeVerifier
	for _, secret := range secrets {
		if strings.TrimPrefix(secret.Reveal(), "whsec_") == "" {
			return stripeVerifier{}, errNoSecret
		}
		v.secrets = append(v.secrets, secret.Reveal())
	}
	if len(v.secrets) == 0 {
		return stripeVerifier{}, errNoSecret
	}
	return v, nil
}

func (stripeVerifier) signed(header http.Header) bool { return header.Get("Stripe-Signature") != "" }

func (v stripeVerifier) verify(header http.Header, body []byte, now time.Time) (int, string) {
	signature := header.Get("Stripe-Signature")
	// The library refuses what is too old but takes what is from the future, with which a stolen
	// signature could be kept fresh; so the time is looked at here too.
	if code := checkTime(stripeTime(signature), now); code != "" {
		return 0, code
	}
	for i, secret := range v.secrets {
		// Not ConstructEvent: it decodes the whole event into maps, at four times the price of the
		// signature, and refuses every API version but its own.
		if stripewebhook.ValidatePayloadWithTolerance(body, signature, secret, tolerance) == nil {
			return i, ""
		}
	}
	return 0, codeSignatureInvalid
}

func (stripeVerifier) eventID(_ http.Header, body string) (string, string) {
	if !isObject(body) {
		return "", codeBodyNotJSON
	}
	id := gjson.Get(body, "id")
	if id.Type != gjson.String || !stripeEventForm.MatchString(id.Str) {
		return "", codeEventIDInvalid
	}
	return id.Str, ""
}

// stripeTime returns the t of a Stripe-Signature header; of several, the last, as the library does.
func stripeTime(signature string) string {
	var stamp string
	for element := range strings.SplitSeq(signature, ",") {
		if value, ok := strings.CutPrefix(element, "t="); ok {
			stamp = value
		}
	}
	return stamp
}

// clerkVerifier knows the signatures of Svix, which delivers for Clerk: svix-signature holds
// signatures v1 of "svix-id.svix-timestamp.body".
type clerkVerifier struct{ webhooks []*svix.Webhook }

func newClerkVerifier(secrets []config.Secret) (clerkVerifier, error) {
	var v clerkVerifier
	for i, secret := range secrets {
		if strings.TrimPrefix(secret.Reveal(), "whsec_") == "" {
			return clerkVerifier{}, errNoSecret
		}
		webhook, err := svix.NewWebhook(secret.Reveal())
		if err != nil {
			return clerkVerifier{}, fmt.Errorf("webhook secret number %d is not base64", i+1)
		}
		v.webhooks = append(v.webhooks, webhook)
	}
	if len(v.webhooks) == 0 {
		return clerkVerifier{}, errNoSecret
	}
	return v, nil
}

// signed insists on the svix- headers. Where one is missing the library would take the set that
// begins with webhook-, and the id would not be the one that was signed.
func (clerkVerifier) signed(header http.Header) bool {
	return header.Get("svix-id") != "" && header.Get("svix-timestamp") != "" && header.Get("svix-signature") != ""
}

func (v clerkVerifier) verify(header http.Header, body []byte, now time.Time) (int, string) {
	// The library checks the time too, but its errors do not tell which fault it found.
	if code := checkTime(header.Get("svix-timestamp"), now); code != "" {
		return 0, code
	}
	for i, webhook := range v.webhooks {
		if webhook.Verify(body, header) == nil {
			return i, ""
		}
	}
	return 0, codeSignatureInvalid
}

func (clerkVerifier) eventID(header http.Header, body string) (string, string) {
	if !isObject(body) {
		return "", codeBodyNotJSON
	}
	id := header.Get("svix-id")
	if !svixMessageForm.MatchString(id) {
		return "", codeEventIDInvalid
	}
	return id, ""
}

// checkTime compares a signature's time, in seconds since 1970, with now. The code is that of the
// problem, empty if there is none.
func checkTime(stamp string, now time.Time) string {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	switch {
	case err != nil:
		return codeSignatureInvalid
	case seconds < now.Add(-tolerance).Unix():
		return codeTimestampStale
	case seconds > now.Add(tolerance).Unix():
		return codeTimestampFuture
	default:
		return ""
	}
}

// isObject reports whether a body is a JSON object in UTF-8, as JSON has to be; other text could
// never be stored.
func isObject(body string) bool {
	return strings.HasPrefix(strings.TrimLeft(body, " \t\r\n"), "{") && utf8.ValidString(body) && gjson.Valid(body)
}
