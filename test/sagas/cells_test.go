package sagas_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
)

// saga is one command.
type saga struct {
	name, path, body string
	// from is how the subscription ends before, to how it is wanted.
	from, to string
	// managed is set where a schedule manages the subscription.
	managed bool
	// refused is set where Clerk refuses for good what comes of it, so that it has to be undone.
	refused bool
}

func sagas() []saga {
	return []saga{
		{name: "cancel", path: "cancel", from: runs, to: endsWithPeriod},
		{name: "cancel now", path: "cancel", body: `{"at":"now"}`, from: runs, to: over},
		{name: "reactivate", path: "reactivate", from: endsWithPeriod, to: runs},
		{name: "cancel, with a schedule", path: "cancel", from: runs, to: endsByDate, managed: true},
		{name: "cancel, refused by Clerk", path: "cancel", from: runs, to: endsWithPeriod, refused: true},
	}
}

// The steps of a command, in their order.
const (
	stepRead    = "read Stripe"
	stepNote    = "note what is about to be done"
	stepChange  = "change Stripe"
	stepRecord  = "record it"
	stepPublish = "publish to Clerk"
	stepSettle  = "note that Clerk has it"
	stepUndo    = "undo at Stripe"
)

func (g saga) steps() []string {
	switch {
	case g.refused:
		return []string{stepUndo}
	case g.managed:
		return []string{stepChange}
	default:
		return []string{stepRead, stepNote, stepChange, stepRecord, stepPublish, stepSettle}
	}
}

// The faults.
const (
	forGood = "fails for good"
	minute  = "fails for a while"
	killed  = "the worker is killed before"
	killed2 = "the worker is killed after"
	portal  = "the portal changes it before"
	portal2 = "the portal changes it after"
)

// cell is one fault at one step of one command, and what came of it.
type cell struct {
	saga        saga
	step, fault string

	p            *subscriber
	answer       reply
	status       string // how the operation ended
	state, story string

	// reached waits until the step is where the fault wants it; mend ends the fault.
	reached, mend func()
}

func cells(wanted ...string) (all []*cell) {
	for _, g := range sagas() {
		for _, step := range g.steps() {
			for _, fault := range wanted {
				if g.managed && strings.HasPrefix(fault, "the portal") {
					continue // the portal does not change what a schedule manages
				}
				if (fault == killed2 || fault == portal2) && inDatabase(step) {
					continue // before and after are one: the statement has not been committed
				}
				all = append(all, &cell{saga: g, step: step, fault: fault})
			}
		}
	}
	return all
}

func inDatabase(step string) bool {
	return step == stepNote || step == stepRecord || step == stepSettle
}

func (c *cell) String() string { return fmt.Sprintf("%s: %s: %s", c.saga.name, c.step, c.fault) }

// prepare brings the subscription to where the command finds it.
func (c *cell) prepare(p *subscriber) error {
	c.p = p
	if c.saga.managed {
		return p.manage()
	}
	if c.saga.from == endsWithPeriod {
		return p.s.Sandbox.Stripe.CancelAtPeriodEnd(p.subscription)
	}
	return nil
}

// arm sets the fault.
func (c *cell) arm() {
	c.reached, c.mend = func() {}, func() {}
	if c.saga.refused {
		// Clerk refuses; from its first refusal on the undo is what is broken.
		broken := make(chan struct{})
		undo := &cell{saga: c.saga, step: c.step, fault: c.fault, p: c.p}
		once := sync.OnceFunc(func() { undo.arm2(); close(broken) })
		heal := c.p.s.Sandbox.ClerkFaults.Add(faults.Rule{Method: http.MethodPatch, PathContains: c.p.user, Status: http.StatusUnprocessableEntity, OnHit: once})
		c.reached = func() { <-broken; undo.reached() }
		c.mend = func() { undo.mend(); heal() }
		return
	}
	c.arm2()
}

func (c *cell) arm2() {
	c.reached, c.mend = func() {}, func() {}
	if inDatabase(c.step) {
		c.armDatabase()
		return
	}
	injector, rule := c.p.s.Sandbox.StripeFaults, c.request()
	if c.step == stepPublish {
		injector = c.p.s.Sandbox.ClerkFaults
	}
	gate := make(chan struct{})
	arrived := make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	switch c.fault {
	case forGood:
		rule.Status = map[bool]int{true: http.StatusUnprocessableEntity, false: http.StatusBadRequest}[c.step == stepPublish]
		c.mend = injector.Add(rule)
	case minute:
		rule.Status, rule.HTML, rule.OnHit = http.StatusServiceUnavailable, true, sync.OnceFunc(func() { close(arrived) })
		c.mend = injector.Add(rule)
		c.reached = func() { <-arrived }
	case killed, killed2:
		rule.Times, rule.OnHit = 1, func() { close(arrived) }
		if c.fault == killed {
			rule.Hold = gate
		} else {
			rule.HoldAfter = gate
		}
		injector.Add(rule)
		c.reached, c.mend = func() { <-arrived }, release
	case portal:
		rule.Times, rule.OnHit = 1, c.p.portal
		injector.Add(rule)
	case portal2:
		rule.Times, rule.HoldAfter, rule.OnHit = 1, gate, func() { close(arrived) }
		injector.Add(rule)
		go func() {
			<-arrived
			c.p.effect(c.step, c.saga)
			c.p.portal()
			release()
		}()
		c.mend = release
	}
}

// request is what the step asks of a provider.
func (c *cell) request() faults.Rule {
	switch c.step {
	case stepRead:
		return faults.Rule{Method: http.MethodGet, PathPrefix: "/v1/subscriptions", QueryContains: c.p.customer}
	case stepPublish:
		return faults.Rule{Method: http.MethodPatch, PathContains: c.p.user}
	default:
		if c.saga.managed {
			// However it is asked for, through the schedule or by taking it off.
			return faults.Rule{Method: http.MethodPost, PathContains: c.p.schedule}
		}
		method := http.MethodPost
		if c.saga.to == over {
			method = http.MethodDelete
		}
		return faults.Rule{Method: method, PathPrefix: "/v1/subscriptions/" + c.p.subscription}
	}
}

// armDatabase sets a fault of the database.
func (c *cell) armDatabase() {
	subject, point := c.p.subscription, map[string]string{stepNote: "note", stepRecord: "record", stepSettle: "settle"}[c.step]
	if c.step == stepSettle {
		subject = c.p.user
	}
	switch c.fault {
	case forGood, minute:
		kind := map[string]string{forGood: "for good", minute: "for a minute"}[c.fault]
		c.p.s.exec(`INSERT INTO faults VALUES ($1, $2, $3)`, subject, point, kind)
		c.mend = func() { c.p.s.exec(`DELETE FROM faults WHERE subject = $1`, subject) }
	case killed:
		c.reached, c.mend = c.p.stall(subject, point)
	case portal:
		reached, release := c.p.stall(subject, point)
		done := make(chan struct{})
		go func() {
			defer close(done)
			reached()
			c.p.portal()
			release()
		}()
		c.mend = func() { <-done }
	}
}
