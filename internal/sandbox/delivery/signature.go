package delivery

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v76/webhook"
	svix "github.com/svix/svix-webhooks/go"
)

// errEmptySecret keeps a signer from making what anybody could forge.
var errEmptySecret = errors.New("webhook secret is empty")

// SignAsClerk signs as Clerk does, by way of Svix: the secret is "whsec_" and the key in base64,
// and the signature covers id, time and body.
func SignAsClerk(secret string) (Signer, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return nil, errors.New("clerk webhook secret is not whsec_ and base64") // the cause would quote it
	}
	if len(key) == 0 {
		return nil, fmt.Errorf("clerk: %w", errEmptySecret)
	}
	hook, err := svix.NewWebhookRaw(key)
	if err != nil {
		return nil, fmt.Errorf("make clerk webhook signer: %w", err)
	}
	return func(id string, at time.Time, body []byte) http.Header {
		h := http.Header{}
		h.Set("Svix-Id", id)
		h.Set("Svix-Timestamp", strconv.FormatInt(at.Unix(), 10))
		if signature, err := hook.Sign(id, at, body); err == nil {
			h.Set("Svix-Signature", signature)
		}
		h.Set("User-Agent", "Svix-Webhooks/sandbox")
		h.Set("Content-Type", "application/json")
		return h
	}, nil
}

// SignAsStripe signs as Stripe does: the secret is used as it stands, prefix included, and the
// signature covers time and body.
func SignAsStripe(secret string) (Signer, error) {
	if secret == "" {
		return nil, fmt.Errorf("stripe: %w", errEmptySecret)
	}
	return func(_ string, at time.Time, body []byte) http.Header {
		signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at})
		h := http.Header{}
		h.Set("Stripe-Signature", signed.Header)
		h.Set("User-Agent", "Stripe/1.0 (sandbox)")
		h.Set("Content-Type", "application/json; charset=utf-8")
		return h
	}, nil
}
