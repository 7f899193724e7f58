package stripesim

import (
	"net/http"
	"slices"
)

// version is an API version. They begin with a date, so that they compare as strings.
type version string

const (
	v20231016 version = "2023-10-16"
	vBasil    version = "2025-03-31.basil"
	vClover   version = "2025-09-30.clover"
	vDahlia   version = "2026-03-25.dahlia"
)

// basil moved the billing period to the items and cut the links between invoices and payments.
func (v version) basil() bool { return v >= vBasil }

// clover made flexible billing the default and renders customer accounts.
func (v version) clover() bool { return v >= vClover }

// dahlia is the newest release line.
func (v version) dahlia() bool { return v >= vDahlia }

// versionOf reads a request's Stripe-Version header; without one the account's default applies.
func (s *Server) versionOf(r *http.Request) (version, *apiError) {
	h := r.Header.Get("Stripe-Version")
	if h == "" {
		return s.eventVersion(), nil
	}
	if v := version(h); slices.Contains([]version{v20231016, vBasil, vClover, vDahlia}, v) {
		return v, nil
	}
	e := invalid("", "", "Invalid Stripe API version: %s", h)
	e.early = true
	return "", e
}

func (s *Server) eventVersion() version { return version(s.opts.EventVersion) }
