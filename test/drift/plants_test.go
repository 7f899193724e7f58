package drift_test

import (
	"context"
	"fmt"
	"strings"

	"go.temporal.io/api/workflowservice/v1"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// plant makes as many wrong as there are to be of each class. What is done at a provider is told to
// nobody; what no provider can do is done to the rows.
func (p *product) plant() {
	p.t.Helper()
	// What has to be known here before it is wrong.
	var known []string
	for range p.share {
		known = append(known, p.double(), p.duplicate())
	}
	p.bringIn(known...)
	for i := range p.share {
		p.users(i)
		p.customers(i)
		p.subscriptions(i)
		p.catalogue(i)
	}
	p.unwatched()
	p.must(p.Sandbox.Stripe.Settled(p.t.Context()))
}

func (p *product) expect(entity account.Entity, class account.Drift, subject string) {
	p.planted[difference{entity, class, subject}] = true
}

func (p *product) expectUser(class account.Drift, user string) {
	p.expect(account.UserEntity(user), class, user)
}

func (p *product) expectCustomer(class account.Drift, customer string) {
	p.expect(account.CustomerEntity(customer), class, customer)
}

func (p *product) double() (customer string) {
	who := p.take(&p.payers)
	p.checkout(who.customer, p.price)
	p.expect(account.UserEntity(who.user), account.DriftDoubleSubscription, p.product)
	return who.customer
}

func (p *product) duplicate() (customer string) {
	who := p.take(&p.others)
	p.expectUser(account.DriftDuplicateCustomer, who.user)
	return p.Sandbox.Stripe.AddCustomer(who.naming(who.user))
}

func (p *product) users(i int) {
	p.t.Helper()
	clerk := p.Sandbox.Clerk
	p.expectUser(account.DriftMissingUser, clerk.AddUser(clerksim.UserSpec{FirstName: "Eve", Emails: []clerksim.EmailSpec{{Address: fmt.Sprintf("eve%d@example.com", i), Verified: true}}}))

	who := p.take(&p.others)
	p.must(clerk.UpdateUser(who.user, clerksim.UserChange{LastName: new("Sample")}))
	p.expectUser(account.DriftStaleUser, who.user)

	who = p.take(&p.others)
	p.must(clerk.WipeMetadata(who.user))
	p.expectUser(account.DriftStaleMetadata, who.user)

	who = p.take(&p.others)
	p.must(p.Sandbox.Stripe.DeleteCustomer(who.customer))
	p.forget(who)
	p.expectUser(account.DriftUserWithoutCustomer, who.user)

	who = p.take(&p.others)
	p.must(clerk.DeleteUser(who.user))
	p.expectUser(account.DriftUserMissing, who.user)
}

// forget removes a person's customer from what is known here.
func (p *product) forget(who person) {
	p.t.Helper()
	_, err := p.db.Exec(p.t.Context(), `DELETE FROM customer_claims WHERE stripe_customer_id = $1`, who.customer)
	p.must(err)
	p.exec(`UPDATE person_user SET stripe_customer_id = NULL WHERE clerk_user_id = $1`, who.user)
	p.exec(`DELETE FROM stripe_customers WHERE stripe_customer_id = $1`, who.customer)
}

func (p *product) customers(i int) {
	p.t.Helper()
	stripe := p.Sandbox.Stripe
	who := p.take(&p.others)
	p.forget(who)
	p.expectCustomer(account.DriftMissingCustomer, who.customer)
	p.expectUser(account.DriftUserWithoutCustomer, who.user)

	who = p.take(&p.others)
	p.exec(`UPDATE person_user SET stripe_customer_id = NULL WHERE clerk_user_id = $1`, who.user)
	p.exec(`UPDATE stripe_customers SET user_id = NULL, link_source = NULL, linked_at = NULL WHERE stripe_customer_id = $1`, who.customer)
	p.expectCustomer(account.DriftUnlinkedCustomer, who.customer)
	p.expectUser(account.DriftUserWithoutCustomer, who.user)

	who = p.take(&p.others)
	spec := who.naming(who.user)
	spec.Name = "Somebody Else"
	p.must(stripe.UpdateCustomer(who.customer, spec))
	p.expectCustomer(account.DriftStaleCustomer, who.customer)

	who = p.take(&p.others)
	p.must(stripe.UpdateCustomer(who.customer, who.naming(p.people[0].user)))
	p.expectCustomer(account.DriftConflictingClaims, who.customer)

	who = p.take(&p.others)
	gone := fmt.Sprintf("cus_Gone%010d", i)
	p.must(stripe.DeleteCustomer(who.customer))
	p.exec(`UPDATE stripe_customers SET stripe_customer_id = $2 WHERE stripe_customer_id = $1`, who.customer, gone)
	p.exec(`UPDATE person_user SET stripe_customer_id = $2 WHERE clerk_user_id = $1`, who.user, gone)
	p.expectCustomer(account.DriftCustomerMissing, gone)

	orphan := stripe.AddCustomer(stripesim.CustomerSpec{Email: fmt.Sprintf("nobody%d@example.com", i)})
	p.checkout(orphan, p.price)
	p.expectCustomer(account.DriftOrphanCustomer, orphan)

	claimed := stripe.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": fmt.Sprintf("user_2Nobody%021d", i)}})
	p.expectCustomer(account.DriftClaimedUserMissing, claimed)

	referring := stripe.AddCustomer(stripesim.CustomerSpec{Email: fmt.Sprintf("payer%d@example.com", i)})
	p.exec(`INSERT INTO customer_claims (stripe_customer_id, clerk_user_id, source) VALUES ($1, $2, $3)`,
		referring, p.people[0].user, fmt.Sprintf("%s:cs_test_%d", account.PlaceReference, i))
	p.expectCustomer(account.DriftUnverifiedReference, referring)

	who = p.take(&p.others)
	reference := fmt.Sprintf("%s:cs_test_linked_%d", account.PlaceReference, i)
	p.must(stripe.UpdateCustomer(who.customer, who.naming(""))) // it names nobody any more
	p.exec(`UPDATE customer_claims SET source = $2 WHERE stripe_customer_id = $1`, who.customer, reference)
	p.exec(`UPDATE stripe_customers SET link_source = $2 WHERE stripe_customer_id = $1`, who.customer, reference)
	p.expectCustomer(account.DriftUnverifiedLink, who.customer)
}

func (p *product) subscriptions(i int) {
	p.t.Helper()
	of := func(who person, class account.Drift, subscription string) {
		p.expect(account.CustomerEntity(who.customer), class, subscription)
	}
	who := p.take(&p.others)
	of(who, account.DriftMissingSubscription, p.checkout(who.customer, p.price))

	who = p.take(&p.payers)
	p.must(p.Sandbox.Stripe.CancelAtPeriodEnd(who.subscription))
	of(who, account.DriftStaleSubscription, who.subscription)

	who = p.take(&p.payers)
	p.must(p.Sandbox.Clerk.DeleteUser(who.user))
	p.exec(`UPDATE person_user SET deletion_requested_at = now(), deletion_seq = nextval('sync_seq'), deleted_at = now(), erased_at = now() WHERE clerk_user_id = $1`, who.user)
	of(who, account.DriftDeletedUserBilled, who.subscription)

	who = p.take(&p.payers)
	gone := fmt.Sprintf("sub_1Gone%019d", i)
	p.exec(`INSERT INTO subscriptions SELECT (jsonb_populate_record(s, jsonb_build_object('id', gen_random_uuid(), 'stripe_subscription_id', $2::text, 'status', 'paused'))).*
		FROM subscriptions s WHERE stripe_subscription_id = $1`, who.subscription, gone)
	of(who, account.DriftSubscriptionMissing, gone)
}

func (p *product) catalogue(i int) {
	p.t.Helper()
	of := func(product string, class account.Drift, subject string) {
		p.expect(account.ProductEntity(product), class, subject)
	}
	bought := p.extras[i]
	p.exec(`DELETE FROM plan_prices WHERE stripe_price_id = $1`, bought.price)
	of(bought.product, account.DriftMissingPlan, bought.price)
	p.expect(account.CustomerEntity(bought.owner.customer), account.DriftUnknownPrice, bought.owner.subscription)
	p.expect(account.CustomerEntity(bought.owner.customer), account.DriftStaleSubscription, bought.owner.subscription) // it says that it is known

	renamed := p.extras[p.share+i]
	p.must(p.Sandbox.Stripe.UpdateProduct(renamed.product, fmt.Sprint("Renamed ", i)))
	of(renamed.product, account.DriftStalePlan, renamed.product)

	added := p.extra(2*p.share + i)
	of(added.product, account.DriftMissingPlan, added.product)
	of(added.product, account.DriftMissingPlan, added.price)
}

// unwatched ends workflows that watch customers, and waits until the server's list knows.
func (p *product) unwatched() {
	p.t.Helper()
	ended := make([]string, p.share)
	for i := range ended {
		who := p.take(&p.payers)
		ended[i] = workflows.CustomerWorkflowID(who.customer)
		p.must(p.Temporal.TerminateWorkflow(p.t.Context(), ended[i], "", "planted"))
		p.expectCustomer(account.DriftUnwatched, who.customer)
	}
	for len(ended) > 0 {
		page := ended[:min(len(ended), 50)]
		ended = ended[len(page):]
		query := `ExecutionStatus = 'Running' AND WorkflowId IN ('` + strings.Join(page, `', '`) + `')`
		p.Until("the list knows who is not watched", func(ctx context.Context) error {
			open, err := p.Temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: query})
			if err == nil && open.GetCount() > 0 {
				err = fmt.Errorf("%d are open", open.GetCount())
			}
			return err
		})
	}
}
