package sandbox

import (
	"fmt"
	"net/http"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// fault is a faults.Rule as a person writes it.
type fault struct {
	Method       string   `json:"method,omitempty"`
	PathPrefix   string   `json:"path_prefix,omitempty"`
	PathContains string   `json:"path_contains,omitempty"`
	Latency      duration `json:"latency,omitempty"`
	LatencyAfter duration `json:"latency_after,omitempty"`
	Status       int      `json:"status,omitempty"`
	RetryAfter   duration `json:"retry_after,omitempty"`
	HTML         bool     `json:"html,omitempty"`
	Drop         string   `json:"drop,omitempty"` // before, after, midway
	Times        int      `json:"times,omitempty"`
	Probability  float64  `json:"probability,omitempty"`
}

func (f fault) rule() (faults.Rule, error) {
	r := faults.Rule{Method: f.Method, PathPrefix: f.PathPrefix, PathContains: f.PathContains, Latency: time.Duration(f.Latency),
		LatencyAfter: time.Duration(f.LatencyAfter), Status: f.Status, RetryAfter: time.Duration(f.RetryAfter), HTML: f.HTML,
		Times: f.Times, Probability: f.Probability}
	switch f.Drop {
	case "":
	case "before":
		r.DropBefore = true
	case "after":
		r.DropAfter = true
	case "midway":
		r.DropMidway = true
	default:
		return r, fmt.Errorf("drop is before, after or midway, not %q", f.Drop)
	}
	if f.Status != 0 && (f.Status < 200 || f.Status > 599) {
		return r, fmt.Errorf("%d is not a status to answer with", f.Status)
	}
	return r, nil
}

// deliveryFaults are delivery.Faults as a person writes them.
type deliveryFaults struct {
	Double  float64  `json:"double,omitempty"`
	Lose    float64  `json:"lose,omitempty"`
	Unheard float64  `json:"unheard,omitempty"`
	Reorder float64  `json:"reorder,omitempty"`
	Delay   duration `json:"delay,omitempty"`
}

// attempt is a delivery.Attempt as a person reads it.
type attempt struct {
	ID     string    `json:"id"`
	Status int       `json:"status,omitempty"`
	Error  string    `json:"error,omitempty"`
	At     time.Time `json:"at"`
}

// receiver is where a provider sends its webhooks.
type receiver struct {
	URL string `json:"url"`
}

// side is one of the two providers, by the name that paths use.
type side struct {
	faults   *faults.Injector
	webhooks *delivery.Sender
}

func (s *Sandbox) side(r *http.Request) (side, error) {
	switch r.PathValue("provider") {
	case "clerk":
		return side{s.ClerkFaults, s.ClerkWebhooks}, nil
	case "stripe":
		return side{s.StripeFaults, s.StripeWebhooks}, nil
	default:
		return side{}, fmt.Errorf("provider %q: %w", r.PathValue("provider"), errUnknown)
	}
}

// faultActions break the providers' APIs and webhooks, and show what happened on the wire.
func (s *Sandbox) faultActions() []action {
	return []action{
		{"POST /_sandbox/faults/{provider}", "break requests to clerk or stripe", fault{PathPrefix: "/v1/users", Status: 429, RetryAfter: duration(2 * time.Second), Times: 3},
			with(func(r *http.Request, in fault) (any, error) {
				at, err := s.side(r)
				if err != nil {
					return nil, err
				}
				rule, err := in.rule()
				if err != nil {
					return nil, err
				}
				at.faults.Add(rule)
				return nil, nil
			})},
		{"DELETE /_sandbox/faults/{provider}", "stop breaking them", nil, func(r *http.Request) (any, error) {
			at, err := s.side(r)
			if err == nil {
				at.faults.Clear()
			}
			return nil, err
		}},
		{"GET /_sandbox/requests/{provider}", "how often each route was asked", nil, func(r *http.Request) (any, error) {
			at, err := s.side(r)
			if err != nil {
				return nil, err
			}
			return at.faults.Requests(), nil
		}},
		{"PUT /_sandbox/deliveries/{provider}", "break webhooks: probabilities, and the longest delay; {} ends it", deliveryFaults{Double: 0.5, Delay: duration(2 * time.Second)},
			with(func(r *http.Request, in deliveryFaults) (any, error) {
				at, err := s.side(r)
				if err == nil {
					at.webhooks.SetFaults(delivery.Faults{Double: in.Double, Lose: in.Lose, Unheard: in.Unheard, Reorder: in.Reorder, Delay: time.Duration(in.Delay)})
				}
				return nil, err
			})},
		{"GET /_sandbox/deliveries/{provider}", "the attempts to deliver webhooks, oldest first", nil, func(r *http.Request) (any, error) {
			at, err := s.side(r)
			if err != nil {
				return nil, err
			}
			out := []attempt{}
			for _, a := range at.webhooks.Log() {
				shown := attempt{ID: a.ID, Status: a.Status, At: a.At}
				if a.Err != nil {
					shown.Error = a.Err.Error()
				}
				out = append(out, shown)
			}
			return out, nil
		}},
		{"PUT /_sandbox/receivers/{provider}", "where its webhooks go", receiver{"http://127.0.0.1:8080/api/webhooks/clerk"},
			with(func(r *http.Request, in receiver) (any, error) {
				at, err := s.side(r)
				if err == nil {
					at.webhooks.SetURL(in.URL)
				}
				return nil, err
			})},
	}
}
