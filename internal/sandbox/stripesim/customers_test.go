package stripesim_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

func TestCustomerLivesThroughTheRealClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made, err := w.api.Customers.New(&stripe.CustomerParams{Email: stripe.String("ada@example.com"), Name: stripe.String("Ada"),
		Metadata: map[string]string{"clerk_user_id": "user_1", "plan": "x"}})
	w.ok(err)
	p := &stripe.CustomerParams{Name: stripe.String("")}
	p.AddMetadata("plan", "")
	p.AddMetadata("tier", "gold")
	changed, err := w.api.Customers.Update(made.ID, p)
	w.ok(err)
	equal(t, "name", changed.Name, "")
	equal(t, "email stays", changed.Email, "ada@example.com")
	equal(t, "metadata", fmt.Sprint(changed.Metadata), "map[clerk_user_id:user_1 tier:gold]")

	ev := w.last("customer.updated")
	prev := ev["data"].(map[string]any)["previous_attributes"].(map[string]any)
	equal(t, "previous attributes", fmt.Sprint(prev), "map[metadata:map[plan:x tier:<nil>] name:Ada]")

	gone, err := w.api.Customers.Del(made.ID, nil)
	w.ok(err)
	equal(t, "deleted", gone.Deleted, true)
	read, err := w.api.Customers.Get(made.ID, nil)
	w.ok(err)
	equal(t, "read after deletion", read.Deleted, true)
	equal(t, "email of a deleted customer", read.Email, "")
	inOrder(t, w.types(), "customer.created", "customer.updated", "customer.deleted")
	_, err = w.api.Customers.Update(made.ID, p)
	equal(t, "update of a deleted one", stripeError(t, err).Code, stripe.ErrorCodeResourceMissing)
}

func TestDeletingACustomerEndsItsSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.checkout(stripesim.CheckoutSpec{PriceID: w.price(900, "month"), Email: "a@example.com"})
	w.types()
	w.ok(w.sim.DeleteCustomer(r.CustomerID))
	inOrder(t, w.types(), "customer.subscription.deleted", "payment_method.detached", "customer.deleted")
	it := w.api.Subscriptions.List(&stripe.SubscriptionListParams{Customer: &r.CustomerID, Status: stripe.String("all")})
	n := 0
	for it.Next() {
		n++
		equal(t, "status", it.Subscription().Status, stripe.SubscriptionStatusCanceled)
	}
	w.ok(it.Err())
	equal(t, "subscriptions of a deleted customer", n, 1)
}

func TestListingPagesNewestFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var ids []string
	for i := range 7 {
		ids = append(ids, w.sim.AddCustomer(stripesim.CustomerSpec{Email: fmt.Sprintf("c%d@example.com", i)}))
	}
	var seen []string
	p := &stripe.CustomerListParams{}
	p.Limit = stripe.Int64(3)
	it := w.api.Customers.List(p)
	for it.Next() {
		seen = append(seen, it.Customer().ID)
	}
	w.ok(it.Err())
	equal(t, "how many", len(seen), len(ids))
	for i := range ids {
		equal(t, "order", seen[i], ids[len(ids)-1-i])
	}

	back := &stripe.CustomerListParams{}
	back.Limit, back.EndingBefore, back.Single = stripe.Int64(2), stripe.String(ids[2]), true
	page := w.api.Customers.List(back)
	var before []string
	for page.Next() {
		before = append(before, page.Customer().ID)
	}
	w.ok(page.Err())
	equal(t, "ending_before", fmt.Sprint(before), fmt.Sprint([]string{ids[3], ids[4]}))
	equal(t, "more before that", page.CustomerList().HasMore, true)

	mail := w.api.Customers.List(&stripe.CustomerListParams{Email: stripe.String("C3@example.com")})
	equal(t, "email filter minds case", mail.Next(), false)
}

func TestListFiltersByCreationTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sim.AddCustomer(stripesim.CustomerSpec{})
	w.advance(time.Hour)
	late := w.sim.AddCustomer(stripesim.CustomerSpec{})
	it := w.api.Customers.List(&stripe.CustomerListParams{CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: start().Unix() + 60}})
	equal(t, "one", it.Next(), true)
	equal(t, "the late one", it.Customer().ID, late)
	equal(t, "no other", it.Next(), false)
}

func TestSearchFindsAndLags(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	find := func(query string) (ids []string) {
		t.Helper()
		p := &stripe.CustomerSearchParams{}
		p.Query = query
		it := w.api.Customers.Search(p)
		for it.Next() {
			ids = append(ids, it.Customer().ID)
		}
		w.ok(it.Err())
		return ids
	}
	const byUser = "metadata['clerk_user_id']:'user_1'"
	id := w.sim.AddCustomer(stripesim.CustomerSpec{Email: "Ada@example.com", Metadata: map[string]string{"clerk_user_id": "user_1"}})
	w.sim.AddCustomer(stripesim.CustomerSpec{Email: "bob@example.com", Metadata: map[string]string{"clerk_user_id": "user_2"}})
	for _, q := range []string{byUser, "email:'ada@example.com'", "email~'ada'", byUser + " AND email:'ada@example.com'",
		byUser + " OR email:'nobody@example.com'", "email~'example' AND -metadata['clerk_user_id']:'user_2'"} {
		equal(t, q, fmt.Sprint(find(q)), fmt.Sprint([]string{id}))
	}

	w.sim.SetSearchLag(time.Minute)
	fresh := w.sim.AddCustomer(stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": "user_3"}})
	equal(t, "too fresh", len(find("metadata['clerk_user_id']:'user_3'")), 0)
	w.advance(2 * time.Minute)
	w.ok(w.sim.UpdateCustomer(fresh, stripesim.CustomerSpec{Metadata: map[string]string{"clerk_user_id": "user_4"}}))
	equal(t, "old version in the index", fmt.Sprint(find("metadata['clerk_user_id']:'user_3'")), fmt.Sprint([]string{fresh}))
	w.advance(time.Minute)
	equal(t, "new version in the index", fmt.Sprint(find("metadata['clerk_user_id']:'user_4'")), fmt.Sprint([]string{fresh}))

	p := &stripe.CustomerSearchParams{}
	p.Query = "shoe_size:'43'"
	it := w.api.Customers.Search(p)
	it.Next()
	equal(t, "unknown field", stripeError(t, it.Err()).HTTPStatusCode, 400)
}

func TestSearchFindsSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	price := w.sim.AddPrice(w.sim.AddProduct("Pro"), 1000, "month")
	buy := func(user string) string {
		t.Helper()
		bought, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{CustomerID: w.sim.AddCustomer(stripesim.CustomerSpec{}), PriceID: price,
			SubscriptionMetadata: map[string]string{"userId": user}})
		w.ok(err)
		return bought.SubscriptionID
	}
	search := func(query string) (ids []string, err error) {
		p := &stripe.SubscriptionSearchParams{}
		p.Query = query
		it := w.api.Subscriptions.Search(p)
		for it.Next() {
			ids = append(ids, it.Subscription().ID)
		}
		return ids, it.Err()
	}
	finds := func(what, query string, want ...string) {
		t.Helper()
		ids, err := search(query)
		w.ok(err)
		equal(t, what, fmt.Sprint(ids), fmt.Sprint(want))
	}
	first, second := buy("user_1"), buy("user_2")
	finds("one", "metadata['userId']:'user_1'", first)
	finds("either", "metadata['userId']:'user_1' OR metadata['user_id']:'user_2' OR metadata['userId']:'user_2'", second, first)

	w.sim.SetSearchLag(time.Minute)
	fresh := buy("user_3")
	finds("too fresh", "metadata['userId']:'user_3'")
	w.advance(2 * time.Minute)
	finds("in the index", "metadata['userId']:'user_3'", fresh)
	_, err := w.api.Subscriptions.Update(fresh, &stripe.SubscriptionParams{Metadata: map[string]string{"userId": "user_4"}})
	w.ok(err)
	finds("old version in the index", "metadata['userId']:'user_3'", fresh)
	w.advance(time.Minute)
	finds("new version in the index", "metadata['userId']:'user_4'", fresh)
	_, err = w.api.Subscriptions.Cancel(fresh, nil)
	w.ok(err)
	finds("ended", "metadata['userId']:'user_4' AND status:'canceled'", fresh)

	_, err = search("email:'ada@example.com'")
	equal(t, "a field of customers", stripeError(t, err).HTTPStatusCode, 400)
}

func TestPaymentMethodsOfACustomer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	count := func(id string) (n int) {
		it := w.api.Customers.ListPaymentMethods(&stripe.CustomerListPaymentMethodsParams{Customer: &id})
		for it.Next() {
			n++
		}
		w.ok(it.Err())
		return n
	}
	id := w.sim.AddCustomer(stripesim.CustomerSpec{})
	equal(t, "without a card", count(id), 0)
	pm, err := w.api.PaymentMethods.Attach("pm_card_visa", &stripe.PaymentMethodAttachParams{Customer: &id})
	w.ok(err)
	equal(t, "with a card", count(id), 1)
	_, err = w.api.PaymentMethods.Detach(pm.ID, &stripe.PaymentMethodDetachParams{})
	w.ok(err)
	equal(t, "detached", count(id), 0)
}
