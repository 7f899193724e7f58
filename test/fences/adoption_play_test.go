package fences_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// Whatever a product that was there before us has noted, rightly or wrongly, and in whatever order
// people, customers and lists are looked at: whoever something names for a customer has that one and
// is given no other, PostgreSQL and Clerk are as Stripe says, and who leaves is erased and not billed.
//
// ADOPTION_SEED plays the products of a run again that failed.
func TestWhateverAProductHasNotedIsBroughtIn(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("ADOPTION_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	products := 12
	if given := os.Getenv("ADOPTIONS"); given != "" {
		var err error
		if products, err = strconv.Atoi(given); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ADOPTION_SEED=%d go test -run %s ./test/fences", seed, t.Name())
	for n := range products {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			deletion := []account.DeletionPolicy{account.DeleteCancelAtPeriodEnd, account.DeleteCancelNow}[random.IntN(2)]
			p := &product{lab: newLab(t, policies{deletion: deletion}), random: random}
			p.bound()
			p.play()
		})
	}
}

// product is one that was there before us.
type product struct {
	*lab
	random *rand.Rand
	people []formerly
	story  []string
}

// formerly is somebody whom the product had before us. named is set where something at Stripe or in
// the product's tables names them for their customer.
type formerly struct {
	user, customer string
	subscriptions  []string
	named          bool
	// second is another customer of theirs, which the product's column names and nothing else does; ""
	// for none.
	second string
}

func (p *product) play() {
	p.t.Helper()
	defer func() {
		if p.t.Failed() {
			for _, line := range p.story {
				p.t.Log(line)
			}
		}
	}()
	for n := range 3 {
		p.people = append(p.people, p.somebody(n))
	}
	p.untold()
	for range 2 + p.random.IntN(5) {
		p.happens()
	}
	p.Sandbox.StripeFaults.Clear()
	p.Sandbox.ClerkFaults.Clear()
	p.everyList()
	p.settle()
	for _, each := range p.people {
		p.looks(account.UserEntity(each.user))
	}
	p.settle()
	for _, each := range p.people {
		p.broughtIn(each)
	}
	for _, each := range p.people {
		p.leaves(each)
	}
}

func (p *product) tells(format string, args ...any) {
	p.story = append(p.story, fmt.Sprintf(format, args...))
}

// one answers whether something is so that is so once in so many times.
func (p *product) one(in int) bool { return p.random.IntN(in) == 0 }

func pick[T any](p *product, of ...T) T { return of[p.random.IntN(len(of))] }

// somebody makes one of the product's people, and notes what it has noted of them.
func (p *product) somebody(n int) formerly {
	p.t.Helper()
	name := fmt.Sprintf("ada%d", n)
	a := formerly{user: p.Sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: name, Emails: []clerksim.EmailSpec{{Address: name + "@example.com", Verified: true}},
		CreatedAt: time.Now().Add(-90 * 24 * time.Hour)})}
	spec := stripesim.CustomerSpec{Email: pick(p, "", name+"@example.com", "elsewhere@example.com")}
	if p.one(3) {
		spec.Metadata = map[string]string{pick(p, account.MetadataKeys()...): a.user}
		a.named = true
	}
	a.customer = p.Sandbox.Stripe.AddCustomer(spec)
	p.tells("%s: customer %s, metadata %v", a.user, a.customer, spec.Metadata)
	for range p.random.IntN(3) {
		bought := stripesim.CheckoutSpec{CustomerID: a.customer}
		if p.one(3) {
			bought.SubscriptionMetadata = map[string]string{"userId": a.user}
			a.named = true
		}
		id := p.buy(bought).SubscriptionID
		a.subscriptions = append(a.subscriptions, id)
		ended := p.one(4)
		if ended {
			p.must(p.Sandbox.Stripe.CancelNow(id))
		}
		p.tells("  subscription %s, metadata %v, ended %t", id, bought.SubscriptionMetadata, ended)
	}
	if p.one(5) {
		return a // the product has no row of them
	}
	column := pick(p, nil, any(""), any("none"), any("cus_Forgotten1234"), any(a.customer), any(a.customer))
	if a.named = a.named || column == any(a.customer); column == nil && p.one(2) {
		a.second = p.Sandbox.Stripe.AddCustomer(stripesim.CustomerSpec{})
		column = a.second
	}
	p.exec(`INSERT INTO person_user (clerk_user_id, stripe_customer_id) VALUES ($1, $2)`, a.user, column)
	p.tells("  noted customer %v", column)
	for _, id := range append(slices.Clone(a.subscriptions), "lifetime_"+name, "sub_Forgotten"+strconv.Itoa(n)) {
		if p.one(2) {
			continue
		}
		customer := pick(p, any(a.customer), any(a.customer), nil, any(a.second))
		status := pick(p, "active", "active", "canceled", "past_due", "incomplete", "trialing")
		p.exec(`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, status, plan_id, updated_at)
			SELECT id, $2, $3, $4, (SELECT min(id) FROM plans), now() - $5::interval FROM person_user WHERE clerk_user_id = $1`,
			a.user, id, customer, status, pick(p, 0, time.Hour, 40*24*time.Hour))
		a.named = a.named || customer == any(a.customer) || slices.Contains(a.subscriptions, id)
		p.tells("  noted subscription %s of %v as %s", id, customer, status)
	}
	return a
}

// happens has something happen before the lists are read.
func (p *product) happens() {
	p.t.Helper()
	each := pick(p, p.people...)
	switch what := pick(p, "user", "customer", "profile", "change", "checkout", "lists", "writes", "forgets", "pays", "trouble"); what {
	case "user":
		p.tells("%s is looked at", each.user)
		p.looks(account.UserEntity(each.user))
	case "customer":
		p.tells("%s is looked at", each.customer)
		p.looks(account.CustomerEntity(each.customer))
	case "profile":
		p.tells("%s changes their name", each.user)
		p.must(p.Sandbox.Clerk.UpdateUser(each.user, clerksim.UserChange{FirstName: new("Grace")}))
	case "change":
		p.tells("%s changes at Stripe", each.customer)
		p.Sandbox.StripeFaults.Clear()
		p.post("/v1/customers/"+each.customer, "description", url.QueryEscape(each.user))
	case "checkout":
		p.tells("%s asks for a checkout", each.user)
		desk := p.requests(p.work)
		desk.Wait = firstMoment
		opened, pending, err := desk.Checkout(p.t.Context(), p.checkoutOf(each.user, ""))
		if err != nil {
			p.tells("  refused: %v", err)
		} else if pending == nil && each.named && p.holds(each) {
			p.t.Errorf("%s is sold what they have: %s", each.user, opened.SessionID)
		}
	case "lists":
		p.tells("the lists are read")
		p.Sandbox.StripeFaults.Clear()
		p.Sandbox.ClerkFaults.Clear()
		p.everyList()
		p.exec(`DELETE FROM bulk_runs`) // the next is another
	case "writes":
		what := pick(p, `SET status = 'canceled'`, `SET status = 'active', updated_at = now()`, `SET cancel_at_period_end = NOT coalesce(cancel_at_period_end, false)`)
		p.tells("the product of %s does: %s", each.user, what)
		p.exec(`UPDATE subscriptions `+what+` WHERE user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, each.user)
	case "forgets":
		if p.text(`SELECT count(*) FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE c.stripe_customer_id = $1 AND u.clerk_user_id = $2`, each.customer, each.user) == "0" {
			return // nothing might name them any more
		}
		column := pick(p, nil, any(""), any("none"))
		p.tells("the product forgets what %s has, and sets the customer to %v", each.user, column)
		p.exec(`DELETE FROM subscriptions WHERE user_id = (SELECT id FROM person_user WHERE clerk_user_id = $1)`, each.user)
		p.exec(`UPDATE person_user SET stripe_customer_id = $2 WHERE clerk_user_id = $1`, each.user, column)
	case "trouble":
		rule := pick(p, faults.Rule{Status: http.StatusInternalServerError}, faults.Rule{Status: http.StatusTooManyRequests}, faults.Rule{Status: http.StatusBadGateway, HTML: true},
			faults.Rule{DropAfter: true}, faults.Rule{Status: http.StatusNotFound, PathPrefix: "/v1/customers"}, faults.Rule{Status: http.StatusNotFound, PathPrefix: "/v1/subscriptions"}, faults.Rule{Status: http.StatusNotFound, PathPrefix: "/v1/users"})
		rule.Times, rule.Method = 1+p.random.IntN(3), pick(p, "", "GET", "POST", "PATCH")
		if rule.Status == http.StatusNotFound {
			rule.Times, rule.Method = 1, "GET"
		}
		pick(p, p.Sandbox.StripeFaults, p.Sandbox.ClerkFaults).Add(rule)
		p.tells("the next answers are %+v", rule)
	case "pays":
		for _, id := range each.subscriptions {
			if p.runsOn(id) {
				p.tells("%s changes the quantity of %s", each.user, id)
				p.must(p.Sandbox.Stripe.SetQuantity(id, 1+p.random.Int64N(5)))
			}
		}
	}
	if p.one(2) {
		p.settles()
	}
}

// looks has somebody looked at until nothing is in the way, as a workflow does.
func (p *product) looks(entity account.Entity) {
	p.t.Helper()
	var err error
	for range 12 {
		if err = p.work.look(p.t.Context(), entity); err == nil {
			return
		}
	}
	p.must(err)
}

// settles is [lab.settle] where some answers fail.
func (p *product) settles() {
	p.t.Helper()
	for range 50 {
		p.take()
		pokes, _, _, err := p.Store.ClaimPokes(p.t.Context(), 64, 64, time.Minute)
		p.must(err)
		if len(pokes) == 0 {
			return
		}
		for _, each := range pokes {
			p.looks(account.Entity(each.Entity))
		}
		p.must(p.Store.PokesDone(p.t.Context(), pokes))
	}
	p.t.Fatal("it does not come to rest")
}

// holds tells whether somebody has what the checkout sells.
func (p *product) holds(each formerly) bool { return slices.ContainsFunc(each.subscriptions, p.runsOn) }

func (p *product) broughtIn(each formerly) {
	p.t.Helper()
	theirs := []string{each.customer, each.second}
	slices.Sort(theirs)
	if each.named {
		p.wants(strings.TrimSpace(strings.Join(theirs, " ")), `SELECT string_agg(c.stripe_customer_id, ' ' ORDER BY c.stripe_customer_id COLLATE "C") FROM stripe_customers c JOIN person_user u ON u.id = c.user_id WHERE u.clerk_user_id = $1 AND c.missing_since IS NULL`, each.user)
	}
	p.agree(each.user)
}

func (p *product) leaves(each formerly) {
	p.t.Helper()
	p.must(p.Sandbox.Clerk.DeleteUser(each.user))
	p.settle()
	p.later(missingConfirmedAfter + time.Minute)
	p.must(p.work.lookAtCustomer(p.t.Context(), each.customer))
	p.erasing(each.user)
	p.later(missingConfirmedAfter + time.Minute)
	p.erasing(each.user)
	p.erased(each.user)
	if each.named && p.holds(each) {
		p.t.Errorf("%s was erased, and is billed", each.user)
	}
}
