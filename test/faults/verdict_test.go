//go:build faults && linux

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
	"github.com/nepfy/clerk-stripe-sync/test/system"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// calm is how long a run waits for everything to come to rest: what waits for its next attempt may
// have been put back by as much as the faults lasted, and then some.
const calm = 10 * time.Minute

// verdict is what a run comes to.
type verdict struct {
	s           *stage
	deliveries  int // answered 2xx
	during      map[faultID]int
	taken       map[delivered]faultSet
	lost        map[delivered]string // taken and not accounted for, and how they stand
	disagreeing map[string]string    // users, and in what
	billed      map[string]string    // users who were erased, and how
	rolledBack  int                  // deliveries from Clerk that PostgreSQL has forgotten, since it was restored
	other       []string
}

// add takes what a later look has found.
func (v *verdict) add(later *verdict) {
	v.deliveries, v.during, v.taken = later.deliveries, later.during, later.taken
	maps.Copy(v.lost, later.lost)
	maps.Copy(v.disagreeing, later.disagreeing)
	maps.Copy(v.billed, later.billed)
	v.other = append(v.other, later.other...)
}

// wait waits for a condition and answers its last failure.
func (s *stage) wait(patience time.Duration, condition func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var last error
	for {
		err := condition(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err // what is asked when the time is over fails for that reason
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return last
		}
	}
}

// quiet answers nil when nothing is left to do.
func (s *stage) quiet(ctx context.Context) error {
	if err := s.done(ctx); err != nil {
		return err
	}
	var behind int
	err := s.Row(ctx, `SELECT count(*) FROM person_user WHERE projection_version <> published_version AND erased_at IS NULL`, nil, &behind)
	if err == nil && behind > 0 {
		err = fmt.Errorf("for %d users Clerk is behind", behind)
	}
	return err
}

// done answers nil when everything that was delivered or asked for is done. Clerk may be behind
// still, for those who have left it without anybody having heard so.
func (s *stage) done(ctx context.Context) error {
	idle, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := s.Sandbox.Idle(idle); err != nil {
		return err
	}
	// What was accepted before PostgreSQL was restored was answered since, or is asked for again.
	// Where nobody asks again, it stands as accepted until it expires.
	restored := s.lastRestored()
	var events, pokes, operations int
	var example string
	err := s.Row(ctx, `SELECT (SELECT count(*) FROM webhook_events WHERE status IN ('pending', 'failing')),
		(SELECT coalesce(min(type || ' ' || coalesce(entity, '') || ' ' || status || ': ' || coalesce(reason, '')), '') FROM webhook_events WHERE status IN ('pending', 'failing')),
		(SELECT count(*) FROM pokes WHERE due_at IS NOT NULL),
		(SELECT count(*) FROM operations WHERE status IN ('acting', 'recorded') OR status = 'accepted' AND created_at > $1)`, []any{restored}, &events, &example, &pokes, &operations)
	if err == nil && events+pokes+operations > 0 {
		err = fmt.Errorf("%d events due (%s), %d pokes due, %d operations under way", events, example, pokes, operations)
	}
	return err
}

// judge waits until all is quiet, has an operator compare everything and mend it, and looks at all
// of it.
func (s *stage) judge() *verdict {
	v := &verdict{s: s, lost: map[delivered]string{}, disagreeing: map[string]string{}, billed: map[string]string{}}
	began := time.Now()
	if err := s.wait(calm, s.done); err != nil {
		v.blame("it does not come to rest: %v", err)
	}
	s.t.Logf("all is done after %s", time.Since(began).Round(time.Second))
	if err := s.wait(calm, s.reconcile); err != nil {
		v.blame("comparing everything: %v", err)
	}
	if err := s.wait(calm, func(ctx context.Context) error {
		return errors.Join(s.quiet(ctx), s.found(), s.agree(ctx, map[string]string{}))
	}); err != nil {
		s.t.Logf("what is left: %v", err)
	}
	s.t.Logf("compared and agreed after %s", time.Since(began).Round(time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), calm)
	defer cancel()
	_ = s.agree(ctx, v.disagreeing) // they are told one by one
	if err := s.found(); err != nil {
		v.blame("%v", err)
	}
	v.account(ctx)
	v.audit(ctx)
	v.settle(ctx)
	v.shown(ctx)
	if err := s.noticeErased(ctx); err != nil {
		v.blame("looking who is erased: %v", err)
	}
	v.bills()
	return v
}

func (v *verdict) blame(format string, args ...any) {
	v.other = append(v.other, fmt.Sprintf(format, args...))
}

// reconcile has everything compared, as an operator does who has heard of lost deliveries: a
// deletion that was lost is in no list, and only a person says that it was one.
func (s *stage) reconcile(ctx context.Context) error {
	var repair []account.Drift
	for _, class := range account.DriftClasses() {
		if class.Repair() != account.RepairByPerson {
			repair = append(repair, class)
		}
	}
	server := runs.Server{Client: s.Temporal}
	if _, _, err := server.Reconcile(ctx, workflows.ReconciliationInput{Caller: "operator", Repair: repair}); err != nil {
		return err
	}
	var result workflows.ReconciliationResult
	if err := s.Temporal.GetWorkflow(ctx, workflows.OnDemandReconciliationID, "").Get(ctx, &result); err != nil {
		return err
	}
	s.t.Logf("compared: %+v", result)
	return nil
}

// found answers nil when every event that Stripe lists, of the types that are handled, is in the
// inbox: delivered, or found although it was lost.
func (s *stage) found() error {
	has, err := s.events(context.Background())
	if err != nil {
		return err
	}
	missing, example := 0, ""
	for _, e := range s.Sandbox.Stripe.Events() {
		if _, known := has[delivered{"stripe", e.ID}]; !known && stripeevent.Handled(e.Type) {
			missing++
			example = e.Type + " " + e.ID
		}
	}
	if missing > 0 {
		return fmt.Errorf("%d events that Stripe lists were never found, such as %s", missing, example)
	}
	return nil
}

// stored is how an event stands.
type stored struct{ status, reason string }

func (s *stage) events(ctx context.Context) (map[delivered]stored, error) {
	rows, err := s.db.Query(ctx, `SELECT source, event_id, status, coalesce(reason, '') FROM webhook_events`)
	if err != nil {
		return nil, err
	}
	has := map[delivered]stored{}
	var d delivered
	var e stored
	_, err = pgx.ForEachRow(rows, []any{&d.source, &d.id, &e.status, &e.reason}, func() error {
		has[d] = e
		return nil
	})
	return has, err
}

// account looks for what became of each delivery that was answered 2xx.
func (v *verdict) account(ctx context.Context) {
	v.taken, v.during = v.s.balancer.all()
	_, v.deliveries = v.s.balancer.counts()
	has, err := v.s.events(ctx)
	if err != nil {
		v.blame("reading the inbox: %v", err)
		return
	}
	tally := map[stored]int{}
	for d := range v.taken {
		e, known := has[d]
		switch {
		case !known && v.s.mayBeForgotten(d):
			v.rolledBack++
		case known && e.status == "completed", known && (e.status == "ignored" || e.status == "waiting") && e.reason != "":
			tally[e]++
		case known:
			v.lost[d] = e.status + ": " + e.reason
		default:
			v.lost[d] = "it is not there"
		}
	}
	v.s.t.Logf("what became of deliveries: %v", tally)
	var recovered int
	if err := v.s.Row(ctx, `SELECT count(*) FROM webhook_events WHERE recovered`, nil, &recovered); err != nil {
		v.blame("counting what was recovered: %v", err)
	}
	v.s.t.Logf("%d events never came, or were forgotten, and were found; %d deliveries were forgotten that are in no list", recovered, v.rolledBack)
	v.s.t.Log(v.s.crowd.api.summary())
}

// agree compares the three systems about everybody, and tells who is not agreed upon.
func (s *stage) agree(ctx context.Context, about map[string]string) error {
	naming, err := s.customersByUser()
	if err != nil {
		return err
	}
	if len(naming[""]) > 0 {
		about[""] = fmt.Sprintf("customers that name nobody: %v", naming[""])
	}
	for _, m := range s.crowd.all() {
		owned := system.Owned{ClerkUserID: m.user, Customers: naming[m.user]}
		_, lives := s.Sandbox.Clerk.User(m.user)
		var known bool
		if err := s.Row(ctx, `SELECT EXISTS (SELECT FROM person_user WHERE clerk_user_id = $1)`, []any{m.user}, &known); err != nil {
			return err
		}
		switch {
		case !lives && !known && len(owned.Customers) == 0:
			continue // came and went, and nothing came of it
		case len(owned.Customers) > 1:
			about[m.user] = fmt.Sprintf("several customers: %v", owned.Customers)
		case lives && len(owned.Customers) == 0:
			about[m.user] = "no customer"
		case !lives && !known && s.forgot(m.leftAt, time.Now()):
			// PostgreSQL has forgotten that they left, and that they were there: an operator ends what they
			// pay for.
			if err := s.endedByAnOperator(owned.Customers); err != nil {
				about[m.user] = err.Error()
			}
		default:
			former, err := s.linked(ctx, m.former)
			if err != nil {
				return err
			}
			owned.Customers = append(owned.Customers, former...)
			if err := errors.Join(s.truth.Of(ctx, owned), s.primary(ctx, m)); err != nil {
				about[m.user] = err.Error()
			}
		}
	}
	for user, what := range about {
		return fmt.Errorf("%d users, such as %s: %s", len(about), user, what)
	}
	return nil
}

// primary answers nil where the customer whom PostgreSQL and Clerk name as somebody's is one that
// exists.
func (s *stage) primary(ctx context.Context, m *member) error {
	var stored string
	if err := s.Row(ctx, `SELECT coalesce(max(stripe_customer_id), '') FROM person_user WHERE clerk_user_id = $1 AND erased_at IS NULL`, []any{m.user}, &stored); err != nil {
		return err
	}
	held, _ := s.Sandbox.Clerk.PublicMetadata(m.user)["stripe"].(map[string]any)
	shown, _ := held["customerId"].(string)
	for whose, customer := range map[string]string{"PostgreSQL": stored, "Clerk": shown} {
		if slices.Contains(m.former, customer) {
			return fmt.Errorf("%s names %s as theirs, which was deleted", whose, customer)
		}
	}
	return nil
}

// linked are those of somebody's deleted customers of which PostgreSQL has to know: all, but those
// that it has forgotten since it was restored, which are in no list.
func (s *stage) linked(ctx context.Context, former []string) ([]string, error) {
	if !s.wasRestored() {
		return former, nil
	}
	rows, err := s.db.Query(ctx, `SELECT stripe_customer_id FROM stripe_customers WHERE stripe_customer_id = ANY($1) AND user_id IS NOT NULL`, former)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// endedByAnOperator answers nil where nothing of customers goes on, once an operator has ended it.
func (s *stage) endedByAnOperator(customers []string) error {
	for _, customer := range customers {
		for _, raw := range s.Sandbox.Stripe.Subscriptions(customer) {
			var sub stripeSub
			if err := json.Unmarshal(raw, &sub); err != nil {
				return err
			}
			if !sub.over() {
				if err := s.Sandbox.Stripe.CancelNow(sub.ID); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// mayBeForgotten tells whether a delivery that was answered, and is not there, came while what was
// stored was forgotten later, and is of a kind that cannot be found again: Clerk has no list of
// what it told, and of Stripe's only the types that are handled are looked for. What Clerk told of
// has come back all the same if all agree.
func (s *stage) mayBeForgotten(d delivered) bool {
	at, listed := s.balancer.answeredAt(d)
	return !listed && s.forgot(at, at)
}

// shown has everybody who is still there look at their subscription: now that all agree, they are
// told so, and told what Clerk holds.
func (v *verdict) shown(ctx context.Context) {
	for _, m := range v.s.crowd.all() {
		if _, wrong := v.disagreeing[m.user]; m.left || wrong {
			continue
		}
		c := v.s.crowd.api.begin("look in the end", m.user)
		a, err := v.s.crowd.api.ask(ctx, m.user, http.MethodGet, statePath, "", "")
		c.tell(a, err)
		if err != nil || a.Data == nil {
			c.blame("told %d %s", a.status, a.Code)
			continue
		}
		c.consistent(a)
		held, _ := v.s.Sandbox.Clerk.PublicMetadata(m.user)["stripe"].(map[string]any)
		if a.Data.InSync == nil || !*a.Data.InSync || !same(held, a.Data.Clerk) || held["subscriptionId"] != nil && !same(held, a.Data.Database) {
			c.blame("Clerk holds %v, and they were told %+v", held, *a.Data)
		}
	}
}

// settle looks whether each operation stands as its caller was told.
func (v *verdict) settle(ctx context.Context) {
	for _, c := range v.s.crowd.api.all() {
		if c.operation == "" || v.s.forgot(c.began, c.began.Add(c.took)) {
			continue // of what is forgotten, what all hold is left to be looked at
		}
		var status string
		var lines int
		err := v.s.Row(ctx, `SELECT status, (SELECT count(*) FROM audit_log WHERE operation_id = o.id AND action LIKE 'operation.%')
			FROM operations o WHERE id = $1`, []any{c.operation}, &status, &lines)
		switch {
		case err != nil:
			c.blame("its operation %s: %v", c.operation, err)
		case c.status != "" && status != c.status:
			c.blame("it was told that operation %s is %s, and it is %s", c.operation, c.status, status)
		case lines == 0 && slices.Contains([]string{"cancel", "cancel now", "reactivate"}, c.kind):
			c.blame("operation %s, %s, has no line of audit", c.operation, status)
		}
	}
}

// blame notes once in what a command was told otherwise.
func (c *command) blame(format string, args ...any) {
	if what := fmt.Sprintf(format, args...); !slices.Contains(c.wrong, what) {
		c.wrong = append(c.wrong, what)
	}
}

// audit looks whether every change has its line: each line of a chain begins where the one before
// it ended, the last ends where the row stands, and what is counted in rows is counted in lines.
func (v *verdict) audit(ctx context.Context) {
	for what, sql := range map[string]string{
		"changes of a subscription without their line": `SELECT s.stripe_subscription_id FROM subscriptions s
			WHERE (SELECT count(*) FROM subscription_changes c WHERE c.stripe_subscription_id = s.stripe_subscription_id)
			   <> (SELECT count(*) FROM audit_log a WHERE a.subject = s.stripe_subscription_id AND action = 'subscription.changed')`,
		"projections without their line": `SELECT clerk_user_id FROM person_user u
			WHERE projection_version <> (SELECT count(*) FROM audit_log a WHERE a.subject = u.clerk_user_id AND action = 'projection.changed')`,
		"links without their line": `SELECT stripe_customer_id FROM stripe_customers c
			WHERE (user_id IS NOT NULL)::int <> (SELECT count(*) FROM audit_log a WHERE a.subject = c.stripe_customer_id AND action = 'customer.linked')`,
		"deletions without their line": `SELECT clerk_user_id FROM person_user u
			WHERE (deletion_requested_at IS NOT NULL)::int <> (SELECT count(*) FROM audit_log a WHERE a.subject = u.clerk_user_id AND action = 'user.deletion_requested')
			   OR (erased_at IS NOT NULL) <> (SELECT count(*) > 0 FROM audit_log a WHERE a.subject = u.clerk_user_id AND action = 'user.erased')`,
		"profiles without their line": `SELECT clerk_user_id FROM person_user u
			WHERE profile_version - 1 <> (SELECT count(*) FROM audit_log a WHERE a.subject = u.clerk_user_id AND action = 'user.profile' AND after ?| '{first_name,last_name,email}')`,
		"customers that are linked twice": `SELECT min(stripe_customer_id) FROM stripe_customers WHERE user_id IS NOT NULL AND NOT deleted_in_stripe GROUP BY user_id HAVING count(*) > 1`,
	} {
		rows, err := v.s.db.Query(ctx, sql)
		if err != nil {
			v.blame("looking for %s: %v", what, err)
			continue
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil || len(found) > 0 {
			v.blame("%s: %v %v", what, found, err)
		}
	}
	rows, err := v.s.db.Query(ctx, `SELECT action || ' ' || subject, before, after FROM audit_log
		WHERE action IN ('subscription.changed', 'projection.changed') ORDER BY id`)
	if err != nil {
		v.blame("reading the audit log: %v", err)
		return
	}
	state := map[string]map[string]any{}
	var of string
	var before, after map[string]any
	_, err = pgx.ForEachRow(rows, []any{&of, &before, &after}, func() error {
		if state[of] == nil {
			state[of] = map[string]any{}
		} else {
			for field, value := range before {
				if was, noted := state[of][field]; noted && field != "version" && !reflect.DeepEqual(was, value) {
					v.blame("the audit log of %s lacks a line: %s was %v, and the next line begins with %v", of, field, was, value)
				}
			}
		}
		maps.Copy(state[of], after)
		before, after = nil, nil
		return nil
	})
	if err != nil {
		v.blame("reading the audit log: %v", err)
	}
}

// faults lists all that is wrong.
func (v *verdict) faults() (all []string) {
	all = append(all, v.other...)
	for user, what := range v.disagreeing {
		all = append(all, fmt.Sprintf("disagreeing about %s: %s", user, what))
	}
	for user, how := range v.billed {
		all = append(all, fmt.Sprintf("billed after erasure, %s: %s", user, how))
	}
	for _, c := range v.s.crowd.api.all() {
		if len(c.wrong) > 0 {
			all = append(all, fmt.Sprintf("%s of %s, told %q at attempt %d after %s, during %s: %s", c.kind, c.user, c.told, c.attempts,
				c.took.Round(time.Millisecond), v.s.names(c.during), strings.Join(c.wrong, "; ")))
		}
	}
	// Of these there may be thousands, of one cause.
	for d, how := range v.lost {
		all = append(all, fmt.Sprintf("lost: %s %s: %s", d.source, d.id, how))
	}
	const most = 40
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	return all
}

func (s *stage) names(f faultSet) string {
	all := s.breakages()
	var names []string
	for id := range f.each() {
		names = append(names, all[id].name)
	}
	return "[" + strings.Join(names, ", ") + "]"
}

// table tells of each fault how often it happened, how many deliveries and commands were answered
// meanwhile, and what came of those.
func (v *verdict) table(d *director) string {
	var b strings.Builder
	b.WriteString("| fault | times | deliveries | commands | lost | disagreeing | billed after erasure | untrue |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	commands := v.s.crowd.api.all()
	members := v.s.crowd.all()
	row := func(name string, times, deliveries int, in func(faultSet) bool) {
		asked, lost, disagreeing, billed, untrue := 0, 0, 0, 0, 0
		for _, c := range commands {
			if in(c.during) {
				asked++
				if len(c.wrong) > 0 {
					untrue++
				}
			}
		}
		for d := range v.lost {
			if in(v.taken[d]) {
				lost++
			}
		}
		for _, m := range members {
			if !in(m.touched) {
				continue
			}
			if _, wrong := v.disagreeing[m.user]; wrong {
				disagreeing++
			}
			if _, wrong := v.billed[m.user]; wrong {
				billed++
			}
		}
		often := fmt.Sprint(times)
		if times < 0 {
			often = ""
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d |\n", name, often, deliveries, asked, lost, disagreeing, billed, untrue)
	}
	total := 0
	for i, breakage := range d.all {
		f := faultID(i)
		total += d.counts[f]
		row(breakage.name, d.counts[f], v.during[f], func(set faultSet) bool { return set.has(f) })
	}
	row("all of the run", total, v.deliveries, func(faultSet) bool { return true })
	return b.String()
}

// everybodyLeaves has all users deleted and the last subscription end, so that nothing is left to
// wait for.
func (s *stage) everybodyLeaves() {
	s.t.Helper()
	for _, m := range s.crowd.all() {
		if !m.left {
			s.must(s.leave(m))
		}
	}
	if err := s.wait(calm, func(ctx context.Context) error {
		var n int
		if err := s.Row(ctx, `SELECT count(*) FROM person_user WHERE erased_at IS NULL`, nil, &n); err != nil {
			return err
		}
		if n > 0 {
			return fmt.Errorf("%d users are not erased", n)
		}
		return s.quiet(ctx)
	}); err != nil {
		s.t.Errorf("everybody has left: %v", err) // what was found before is told all the same
	}
	s.must(s.noticeErased(s.t.Context()))
	s.must(s.Sandbox.Stripe.Advance(s.t.Context(), 32*24*time.Hour))
}

// slack is how many more goroutines a program may have than at the start: connections that are kept
// for a while, on either side, have some each.
const slack = 30

// ofARun is how many goroutines a run of a workflow has at most while it is in a worker's cache. A
// run that has gone on at another worker stays in the cache of the first, which the SDK bounds.
const ofARun = 4

// settledLevels answers the levels once all is quiet, and, in the end, once they are down again.
func (s *stage) settledLevels(before *levels) levels {
	s.t.Helper()
	if err := s.wait(calm, s.quiet); err != nil {
		s.t.Errorf("it does not come to rest: %v", err)
	}
	s.balancer.client.CloseIdleConnections()
	var now levels
	err := s.wait(calm, func(ctx context.Context) (err error) {
		if now, err = s.levels(ctx); err != nil || before == nil {
			return err
		}
		for of, n := range now.goroutines {
			if n > before.goroutines[of]+slack+ofARun*now.cached[of] {
				return fmt.Errorf("%s has %d goroutines and %d runs in its cache, at the start %d goroutines", of, n, now.cached[of], before.goroutines[of])
			}
		}
		if now.inside > 0 {
			return fmt.Errorf("%d connections are in a transaction", now.inside)
		}
		if now.held > before.held {
			return fmt.Errorf("%d connections to PostgreSQL are held, at the start %d", now.held, before.held)
		}
		if now.listening > before.listening {
			return fmt.Errorf("%d connections to PostgreSQL listen, at the start %d", now.listening, before.listening)
		}
		return nil
	})
	if err != nil {
		s.t.Errorf("the programs do not come down: %v (%s)", err, now)
	}
	if before == nil {
		now.held = s.leastHeld(now.held)
	}
	return now
}

// leastHeld answers the fewest connections that the programs hold at once of twenty looks at rest.
func (s *stage) leastHeld(least int) int {
	s.t.Helper()
	for range 20 {
		_ = s.wait(time.Second, func(ctx context.Context) error {
			now, err := s.levels(ctx)
			if err == nil {
				least = min(least, now.held)
			}
			return err
		})
	}
	return least
}
