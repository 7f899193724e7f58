package stripesim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

const maxBody = 1 << 20

// call is one request on its way through a handler.
type call struct {
	params
	s  *Server
	v  version
	id string // the {id} of the route
	// path is the route's address with the id filled in, which lists repeat as their url.
	path string
}

// handler answers a resource (which is rendered), an object (as it is) or an error.
type handler func(*call) (any, *apiError)

// ServeHTTP answers /v1/... as Stripe does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Stripe takes an address with a slash at its end for the one without.
	if trimmed := strings.TrimRight(r.URL.Path, "/"); trimmed != r.URL.Path && trimmed != "" {
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = trimmed, ""
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.answer(w, r, s.requestID(), noRoute(r.Method, r.URL.Path).answer(""))
		return
	}
	s.mux.ServeHTTP(w, r)
}

// route makes a handler out of an entry of routes: who asks, what with, whether it was asked
// before.
func (s *Server) route(names string, h handler) http.HandlerFunc {
	known := accept(names + " expand.#")
	return func(w http.ResponseWriter, r *http.Request) {
		id := s.requestID()
		out := s.serve(r, id, known, h)
		s.flush()
		s.answer(w, r, id, out)
	}
}

func (s *Server) requestID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newID("req_")
}

func (s *Server) serve(r *http.Request, requestID string, known *accepted, h handler) kept {
	root, err := readParams(r)
	if err != nil {
		return badValue("", "", "Invalid request: the parameters could not be read").answer(requestID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.authorize(r); e != nil {
		return e.answer(requestID)
	}
	v, e := s.versionOf(r)
	if e != nil {
		return e.answer(requestID)
	}
	s.tick()
	key := r.Header.Get("Idempotency-Key")
	if r.Method != http.MethodPost {
		key = "" // the other methods are idempotent by themselves, and Stripe ignores it there
	}
	fingerprint := r.Method + " " + r.URL.Path + " " + root.fingerprint()
	if out, done := s.replay(key, fingerprint); done {
		return out
	}
	if e := known.check(root); e != nil {
		return e.answer(requestID)
	}
	s.begin(key, fingerprint, requestID)
	if err := s.waitWhileStalled(r.Context(), key); err != nil {
		s.abandon(key)
		return brokenInside().answer(requestID)
	}
	s.cause = cause{request: requestID, key: key}
	out := s.run(r, &call{params: params{root: root}, s: s, v: v, id: r.PathValue("id"), path: r.URL.Path}, h, requestID)
	s.cause = cause{}
	s.finish(key, out)
	return out
}

func (s *Server) run(r *http.Request, c *call, h handler, requestID string) kept {
	broken := s.breaks(r)
	if broken != nil && !broken.Done {
		return brokenInside().answer(requestID)
	}
	x, e := h(c)
	if e == nil {
		e = c.err
	}
	if broken != nil && (e == nil || !e.early) {
		return brokenInside().answer(requestID)
	}
	if e != nil {
		return e.answer(requestID)
	}
	out := s.renderer(c.v).resource(x)
	if e := s.expandAll(c, out); e != nil {
		return e.answer(requestID)
	}
	return kept{Status: http.StatusOK, Body: mustJSON(out)}
}

// waitWhileStalled holds a request with an idempotency key as Stall asks. The lock is free
// meanwhile.
func (s *Server) waitWhileStalled(ctx context.Context, key string) error {
	gate := s.stall
	if key == "" || gate == nil {
		return nil
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.tick()
	}()
	select {
	case <-gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) authorize(r *http.Request) *apiError {
	key, _, basic := r.BasicAuth()
	if !basic {
		key = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if key == "" || (s.opts.APIKey != "" && key != s.opts.APIKey) {
		return unauthorized(key)
	}
	return nil
}

func readParams(r *http.Request) (*field, error) {
	root := &field{}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxBody {
		return nil, errors.New("body too large")
	}
	if err := root.add(r.URL.RawQuery); err != nil {
		return nil, err
	}
	return root, root.add(string(body))
}

// kept is an answer: what a key keeps, and what is sent.
type kept struct {
	Status int
	Body   json.RawMessage
	early  bool   // refused before execution: no key keeps it
	origin string // the request that was answered first, for a replay
}

func (e *apiError) answer(requestID string) kept {
	return kept{Status: e.status, Body: mustJSON(e.body(requestID)), early: e.early}
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request, requestID string, out kept) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Request-Id", requestID)
	h.Set("Cache-Control", "no-cache, no-store")
	if v := r.Header.Get("Stripe-Version"); v != "" {
		h.Set("Stripe-Version", v)
	} else {
		s.mu.Lock()
		h.Set("Stripe-Version", s.opts.EventVersion)
		s.mu.Unlock()
	}
	if key := r.Header.Get("Idempotency-Key"); key != "" && r.Method == http.MethodPost {
		h.Set("Idempotency-Key", key)
		h.Set("Original-Request", requestID)
	}
	if out.origin != "" {
		h.Set("Idempotent-Replayed", "true")
		h.Set("Original-Request", out.origin)
	}
	if out.Status == http.StatusConflict {
		h.Set("Stripe-Should-Retry", "true")
	}
	h.Set("Content-Length", strconv.Itoa(len(out.Body)))
	w.WriteHeader(out.Status)
	_, _ = w.Write(out.Body) // a client that has gone away is its own affair
}
