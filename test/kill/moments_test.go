package kill_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/serviceerror"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// The moments at which something has happened outside of a program and the program does not know:
// each of them is met exactly, and the story ends as always.
//
// A condition looks at the database past the relays, after each answer that PostgreSQL gave a
// program, or before each statement.
func TestKilledAtTheWorstMoments(t *testing.T) {
	t.Parallel()
	type moment struct {
		program string
		is      func(s *stage, sql string) bool
		// before is set where PostgreSQL must not get the statement.
		before bool
	}
	for name, moment := range map[string]moment{
		"delivery read, not committed": {program: system.ProgramAPI, before: true, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, storing) && len(s.Sandbox.Clerk.Users()) == 1
		}},
		"poke signalled, not noted": {program: system.ProgramAPI, before: true, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, clearing) && s.true(`SELECT EXISTS (SELECT FROM pokes WHERE entity LIKE 'user/%' AND attempts = 1)`) && !s.neverPoked()
		}},
		"delivery committed, not answered": {program: system.ProgramAPI, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, storing) && s.true(`SELECT EXISTS (SELECT FROM webhook_events WHERE type = 'user.created')`)
		}},
		"burst half committed": {program: system.ProgramAPI, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, storing) && s.true(`SELECT EXISTS (SELECT FROM webhook_events WHERE type = 'payment_intent.succeeded')
				AND NOT EXISTS (SELECT FROM webhook_events WHERE type = 'checkout.session.completed')`)
		}},
		"poke claimed, not signalled": {program: system.ProgramAPI, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, claiming) &&
				s.true(`SELECT EXISTS (SELECT FROM pokes WHERE entity LIKE 'user/%' AND attempts = 1 AND due_at > now() + interval '5 seconds')`) && s.neverPoked()
		}},
		"customer made, not linked": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return sql == "begin" && s.Sandbox.Stripe.Counts()["customer"] == 1 && s.true(`SELECT NOT EXISTS (SELECT FROM stripe_customers WHERE user_id IS NOT NULL)`)
		}},
		"customer linked, not reported": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return sql == "commit" && s.true(`SELECT EXISTS (SELECT FROM stripe_customers WHERE user_id IS NOT NULL)`)
		}},
		"subscription recorded, not reported": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return sql == "commit" && s.true(`SELECT EXISTS (SELECT FROM subscriptions)`)
		}},
		"published and noted, not reported": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return strings.Contains(sql, "published_version") && s.true(`SELECT EXISTS (SELECT FROM person_user u JOIN subscriptions ON user_id = u.id
				WHERE projection_version = published_version)`)
		}},
		"deletion asked for, not begun": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return sql == "commit" && s.true(`SELECT EXISTS (SELECT FROM person_user WHERE deletion_requested_at IS NOT NULL)`)
		}},
		"erased, not reported": {program: system.ProgramWorker, is: func(s *stage, sql string) bool {
			return sql == "commit" && s.true(`SELECT EXISTS (SELECT FROM person_user WHERE deleted_at IS NOT NULL)`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := reference.story(t)
			s := newStage(t)
			a := newAssassin(s, moment.program)
			if moment.before {
				s.relays[moment.program].OnStatement(func(sql string) {
					if !a.hasActed() && moment.is(s, sql) {
						a.act()
					}
				})
			} else {
				a.watch(func(program, sql string, _ int64) bool { return program == moment.program && moment.is(s, sql) })
			}
			a.meets(want)
		})
	}
}

// The statements with which the dispatcher claims what is due, and clears what it has signalled.
const (
	// storing begins what commits deliveries: one statement, which is a transaction of its own.
	storing  = "INSERT INTO webhook_events"
	claiming = "attempts = attempts + 1, token"
	clearing = "SET due_at = NULL, attempts = 0"
)

// The moments at which a provider has done what it was asked for and its answer is on its way: the
// worker is killed before it has it, and its successor asks again.
func TestKilledBeforeAProvidersAnswer(t *testing.T) {
	t.Parallel()
	for name, moment := range map[string]struct {
		clerk bool
		rule  faults.Rule
		done  func(s *stage) bool
	}{
		"customer made": {false, faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/customers"}, func(s *stage) bool {
			return s.Sandbox.Stripe.Counts()["customer"] == 1
		}},
		"projection written": {true, faults.Rule{Method: http.MethodPatch, PathContains: "/metadata"}, func(s *stage) bool {
			return s.Sandbox.Clerk.PublicMetadata(s.Sandbox.Clerk.Users()[0])["stripe"] != nil
		}},
		"profile given": {false, faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/customers/"}, func(s *stage) bool {
			return strings.Contains(string(s.Sandbox.Stripe.Customers()[0]), "Augusta")
		}},
		"billing stopped": {false, faults.Rule{Method: http.MethodPost, PathPrefix: "/v1/subscriptions/"}, func(s *stage) bool {
			return strings.Contains(string(s.Sandbox.Stripe.Subscriptions(s.customer())[0]), `"cancel_at_period_end":true`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := reference.story(t)
			s := newStage(t)
			// Else the customer's own event would have it linked before anyone asks for it again.
			s.Sandbox.StripeWebhooks.Hold()
			a := newAssassin(s, system.ProgramWorker)
			arrived, gone := make(chan struct{}), make(chan struct{})
			rule := moment.rule
			rule.Times, rule.HoldAfter, rule.OnHit = 1, gone, func() { close(arrived) }
			injector := s.Sandbox.StripeFaults
			if moment.clerk {
				injector = s.Sandbox.ClerkFaults
			}
			injector.Add(rule)
			tend := s.tend
			s.tend = func() {
				select {
				case <-arrived:
					if !a.hasActed() && moment.done(s) {
						a.act()
						close(gone)
					}
				default:
				}
				if s.true(`SELECT EXISTS (SELECT FROM stripe_customers WHERE user_id IS NOT NULL)`) {
					s.Sandbox.StripeWebhooks.Release()
				}
				tend()
			}
			a.meets(want)
		})
	}
}

// meets plays the story and insists on the moment having come.
func (a *assassin) meets(want *undisturbed) {
	s := a.stage
	s.t.Helper()
	customer, deleted := s.play()
	if !a.hasActed() {
		s.t.Fatal("the moment never came")
	}
	customer.differsFrom(s.t, "before the deletion", want.customer)
	deleted.differsFrom(s.t, "in the end", want.deleted)
}

// true tells whether a condition on the database holds. It is asked from outside of the test's
// goroutine, so what goes wrong counts as no.
func (s *stage) true(sql string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.holds(sql)(ctx) == nil
}

// neverPoked tells whether our user has no workflow yet.
func (s *stage) neverPoked() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := s.Temporal.DescribeWorkflowExecution(ctx, "user/"+s.Sandbox.Clerk.Users()[0], "")
	var missing *serviceerror.NotFound
	return errors.As(err, &missing)
}
