package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/nepfy/clerk-stripe-sync/internal/selfservice"
)

// Callers tells who asks.
type Callers interface {
	// Caller answers whose session token it is. Its errors are refusals.
	Caller(ctx context.Context, token string) (selfservice.Caller, error)
}

// sessionCookie is where Clerk keeps the session token in a browser.
const sessionCookie = "__session"

// authenticate answers who makes a request: by a bearer token, else by the cookie. A request that
// changes something and has only the cookie must come from the product's own pages, since a browser
// sends cookies with requests of anybody's pages.
func (a *API) authenticate(r *http.Request) (selfservice.Caller, error) {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, token, _ := strings.Cut(header, " ")
		if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" {
			return selfservice.Caller{}, selfservice.NotAuthenticated("the Authorization header is not of the form Bearer TOKEN")
		}
		return a.o.Callers.Caller(r.Context(), token)
	}
	cookie, err := r.Cookie(sessionCookie)
	if err != nil || cookie.Value == "" {
		return selfservice.Caller{}, &selfservice.Refusal{
			Kind: selfservice.Unauthenticated, Code: "token_missing",
			Detail: "There is no session token: send it as bearer token, or as the cookie __session.",
		}
	}
	if err := a.origins.Check(r); err != nil {
		return selfservice.Caller{}, &selfservice.Refusal{
			Kind: selfservice.Forbidden, Code: "cross_origin",
			Detail: "Requests of other origins have to send the session token as bearer token.",
		}
	}
	return a.o.Callers.Caller(r.Context(), cookie.Value)
}

// newOrigins protects requests that have only the cookie. Parties are origins that are the
// product's own.
func newOrigins(parties []string) (*http.CrossOriginProtection, error) {
	origins := http.NewCrossOriginProtection()
	var faults []error
	for _, party := range parties {
		faults = append(faults, origins.AddTrustedOrigin(party))
	}
	return origins, errors.Join(faults...)
}
