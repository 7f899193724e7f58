// Package clerksim is a Clerk on loopback: the part of its Backend API that deals with users, kept
// in memory, in Clerk's wire format, with Clerk's rules for metadata, its errors, its webhooks and
// its session tokens. The real SDK talks to it and cannot tell.
//
// What a person does in a browser (sign up, verify an address, change a name) are Go methods here.
package clerksim

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure a Server. All may be left zero.
type Options struct {
	// Emit gets each webhook once, in the order of the changes, after the change is visible. It may
	// call back into the server.
	Emit func(id, typ string, body []byte)

	SecretKey  string           // of the Backend API; default "sk_test_sandbox". sk_live_... makes a production instance
	InstanceID string           // default "ins_" and characters made from the seed
	Issuer     string           // of session tokens; default "https://sandbox.clerk.accounts.dev"
	Seed       uint64           // the same seed and calls make the same ids
	Now        func() time.Time // default time.Now
}

// A Server holds one Clerk instance and serves its Backend API under /v1, and the public keys of
// its session tokens also at /.well-known/jwks.json, where no secret key is asked for. It is safe
// for concurrent use.
type Server struct {
	emit     func(id, typ string, body []byte)
	now      func() time.Time
	mux      *http.ServeMux
	instance string
	issuer   string
	keys     func() *signingKey // made on first use: it takes a moment

	mu       sync.Mutex
	secret   string
	dice     *rand.PCG // behind rand; its state is saved
	rand     *rand.Rand
	users    map[string]*user
	order    []string // ids in order of creation
	sessions map[string]*session
	events   []Event
	outbox   []Event // not yet emitted
	emitting bool
	drained  chan struct{} // closed when the outbox gets empty; nil while it is
	limit    limiter
}

// New returns an instance without users.
func New(o Options) *Server {
	dice := rand.NewPCG(o.Seed, 0x636c65726b)
	s := &Server{
		emit: o.Emit, now: o.Now, secret: o.SecretKey, instance: o.InstanceID, issuer: o.Issuer,
		dice: dice, rand: rand.New(dice),
		users: map[string]*user{}, sessions: map[string]*session{},
		keys: sync.OnceValue(newSigningKey),
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.secret == "" {
		s.secret = "sk_test_sandbox"
	}
	if s.instance == "" {
		s.instance = s.newID("ins")
	}
	if s.issuer == "" {
		s.issuer = "https://sandbox.clerk.accounts.dev"
	}
	s.mux = s.routes()
	return s
}

// routes is the part of the Backend API that exists here. Each handler runs with the lock held.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /v1/users":                 s.listUsers,
		"GET /v1/users/count":           s.countUsers,
		"POST /v1/users":                s.createUser,
		"GET /v1/users/{id}":            s.getUser,
		"PATCH /v1/users/{id}":          s.updateUser,
		"PATCH /v1/users/{id}/metadata": s.mergeMetadata,
		"DELETE /v1/users/{id}":         s.deleteUser,
		"GET /v1/sessions":              s.listSessions,
		"GET /v1/sessions/{id}":         s.getSession,
		"POST /v1/sessions/{id}/revoke": s.revokeSession,
		"GET /v1/instance":              s.getInstance,
	} {
		mux.Handle(pattern, s.guarded(h))
	}
	// Not limited, as with Clerk, and outside the lock, since making the keys takes a while.
	mux.Handle("GET /v1/jwks", s.authenticated(http.HandlerFunc(s.serveKeys)))
	mux.HandleFunc("GET /.well-known/jwks.json", s.serveKeys)
	mux.Handle("/", s.authenticated(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, notFound("The requested endpoint does not exist."))
	})))
	return mux
}

// ServeHTTP answers as api.clerk.com does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// handler answers one route: with a value for the body, or with an *apiError.
type handler func(r *http.Request) (any, error)

// guarded puts key, rate limit, lock and encoding around a handler, and emits what it changed.
func (s *Server) guarded(h handler) http.Handler {
	return s.authenticated(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := func() ([]byte, error) {
			// Read the body before taking the lock: its sender may be slow.
			if err := buffer(r); err != nil {
				return nil, err
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if err := s.limit.admit(r, s.now()); err != nil {
				return nil, err
			}
			v, err := h(r)
			if err != nil {
				return nil, err
			}
			return json.Marshal(v) // inside the lock: v may share what the next request changes
		}()
		s.flush()
		if err != nil {
			s.fail(w, err)
			return
		}
		s.reply(w, http.StatusOK, body)
	}))
}

func (s *Server) authenticated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		secret := s.secret
		s.mu.Unlock()
		switch {
		case !ok:
			s.fail(w, &apiError{status: http.StatusUnauthorized, code: "authorization_header_format_invalid",
				message: "Invalid Authorization header format",
				long:    `Invalid Authorization header format. Must be "Bearer <YOUR_API_KEY>"`})
		case subtle.ConstantTimeCompare([]byte(key), []byte(secret)) != 1:
			s.fail(w, &apiError{status: http.StatusUnauthorized, code: "clerk_key_invalid",
				message: "The provided Clerk Secret Key is invalid."})
		default:
			h.ServeHTTP(w, r)
		}
	})
}

func (s *Server) reply(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Clerk-Trace-Id", s.trace())
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that has gone
}

// getInstance answers GET /v1/instance.
func (s *Server) getInstance(*http.Request) (any, error) {
	environment := "development"
	if strings.HasPrefix(s.secret, "sk_live_") {
		environment = "production"
	}
	return map[string]any{"object": "instance", "id": s.instance, "environment_type": environment, "allowed_origins": nil}, nil
}

// SetKey replaces the secret key: the old one is refused from now on.
func (s *Server) SetKey(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret = key
}

// InstanceID returns the id of the instance, which each webhook carries.
func (s *Server) InstanceID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.instance
}

// Issuer returns the issuer of the session tokens.
func (s *Server) Issuer() string { return s.issuer }

// newID makes an id of Clerk's form. The caller holds the lock, or is New.
func (s *Server) newID(prefix string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	id := []byte(prefix + "_2")
	for range 26 {
		id = append(id, alphabet[s.rand.IntN(len(alphabet))])
	}
	return string(id)
}

func (s *Server) trace() string { return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64()) }

// millis is how Clerk writes times.
func millis(t time.Time) int64 { return t.UnixMilli() }
