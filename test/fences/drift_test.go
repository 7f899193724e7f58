package fences_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// again does something once more where it failed for a while, as a retry does.
func again(do func() error) error {
	err := do()
	if failure.Of(err) == failure.Transient {
		err = do()
	}
	return err
}

// A user is deleted at Clerk, and somebody finds them missing there just when it is told. That is
// no difference: it would stay open, as nobody looks at whoever is erased any more.
func TestNobodyIsReportedMissingWhoIsBeingDeleted(t *testing.T) {
	t.Parallel()
	for name, finds := range map[string]func(ctx context.Context, a *actor, user string) error{
		"by a publisher":    func(ctx context.Context, a *actor, user string) error { return a.publish(ctx, user, false) },
		"by a look at them": func(ctx context.Context, a *actor, user string) error { return a.lookAtUser(ctx, user) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.explore(policies{}, func() scene {
				user, _ := l.behind("ada")
				customer := l.customerOf(user)
				l.must(l.Sandbox.Clerk.DeleteUser(user))
				return scene{
					first: func(ctx context.Context, a *actor) error {
						return again(func() error { return finds(ctx, a, user) })
					},
					second: func(ctx context.Context, a *actor) error {
						l.take()
						for range 2 { // marks them, and erases them
							if err := again(func() error { return a.lookAtUser(ctx, user) }); err != nil {
								return err
							}
							if err := a.lookAtCustomer(ctx, customer); err != nil {
								return err
							}
						}
						return nil
					},
					check: func() {
						l.settle()
						l.wants("", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
						l.wants("true", erased, user)
					},
				}
			})
		})
	}
}

// A provider answers once that it does not have somebody, while another look shows them. Whichever
// of the two is stored last, the answer stands only until they are seen: nobody stays reported.
func TestNobodyIsReportedMissingWhomALaterReadHasShown(t *testing.T) {
	t.Parallel()
	type look func(ctx context.Context, a *actor) error
	for name, sees := range map[string]func(l *lab) (once func() (remove func()), first, second look){
		"at Clerk": func(l *lab) (func() func(), look, look) {
			user, _, _ := l.subscribed("ada")
			look := func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
			return func() func() {
				return l.Sandbox.ClerkFaults.Add(faults.Rule{PathPrefix: "/v1/users/" + user, Status: http.StatusNotFound, Times: 1})
			}, look, look
		},
		"at Clerk, by a publisher": func(l *lab) (func() func(), look, look) {
			user, _ := l.behind("ada")
			return func() func() {
					return l.Sandbox.ClerkFaults.Add(faults.Rule{PathPrefix: "/v1/users/" + user, Status: http.StatusNotFound, Times: 2})
				}, func(ctx context.Context, a *actor) error { return a.publish(ctx, user, false) },
				func(ctx context.Context, a *actor) error { return a.lookAtUser(ctx, user) }
		},
		"at Stripe": func(l *lab) (func() func(), look, look) {
			_, customer, _ := l.subscribed("ada")
			look := func(ctx context.Context, a *actor) error { return a.lookAtCustomer(ctx, customer) }
			return func() func() {
				list := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/subscriptions", Status: http.StatusNotFound, Times: 1})
				alone := l.Sandbox.StripeFaults.Add(faults.Rule{PathPrefix: "/v1/customers/" + customer, Status: http.StatusNotFound, Times: 1})
				return func() { list(); alone() }
			}, look, look
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			l.explore(policies{}, func() scene {
				once, first, second := sees(l)
				l.unpoked()
				remove := once()
				return scene{
					first:  func(ctx context.Context, a *actor) error { return again(func() error { return first(ctx, a) }) },
					second: func(ctx context.Context, a *actor) error { return again(func() error { return second(ctx, a) }) },
					check: func() {
						remove()
						l.wants("", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
					},
				}
			})
		})
	}
}

// A repair was asked for of a user whom Clerk did not have, and a look has shown them since: nobody
// is deleted.
func TestNobodyIsDeletedWhomALaterLookHasShown(t *testing.T) {
	t.Parallel()
	for _, shown := range []bool{true, false} {
		t.Run(map[bool]string{true: "shown since", false: "missing still"}[shown], func(t *testing.T) {
			t.Parallel()
			l := newLab(t, policies{})
			s := l.subject(1)
			l.exec(`INSERT INTO reconciliation_runs (id, workflow_id) VALUES ('run', 'w')`)
			d := store.Difference{Entity: account.UserEntity(s.user), Class: account.DriftUserMissing, Subject: s.user}
			l.must(l.Store.NotePage(t.Context(), "run", store.SeenUser, nil, []store.Difference{d}))
			l.must(l.Store.Confirm(t.Context(), "run", []store.Difference{d}, nil))
			if shown {
				l.must(l.work.syncUser(t.Context(), s.user))
				l.wants("", `SELECT string_agg(class, ' ') FROM drift WHERE resolved_at IS NULL`)
			}
			_, _, err := l.Store.RepairPage(t.Context(), "run", []account.Drift{account.DriftUserMissing}, 20, 100, store.Cause{Caller: "operator"})
			l.must(err)
			l.settle()
			if !shown {
				l.gone(s.user, account.DeleteCancelAtPeriodEnd, s.customer)
				return
			}
			l.agree(s.user)
			l.wants("false", `SELECT deletion_requested_at IS NOT NULL FROM person_user`)
		})
	}
}
