//go:build unix

package devstack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/client"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

const (
	// stepPatience bounds the wait for the three systems to agree after a step.
	stepPatience = 90 * time.Second
	// tellEvery is how often somebody who waits is told for what.
	tellEvery = 10 * time.Second
	// firstPeriod is the least that the first period of the story's subscription lasts: Stripe lets a
	// buyer be billed on a given day, and here that day is a moment away. So the renewal comes in real
	// time, on clocks that agree, and not in a future that only the sandbox lives in. A machine that
	// is slow to sign somebody up gets this many times as long, for the steps in between.
	firstPeriod      = 10 * time.Second
	firstPeriodSlack = 6
)

// story is one person's life as a customer.
type story struct {
	sandbox *sandbox.Sandbox
	observe *observer
	screen  *screen

	first, born, married string // names
	email                string
	plans                map[string]string // price to name
	price                string

	api      *client.ClientWithResponses
	user     string // id at Clerk
	customer string // id at Stripe
	renewal  time.Time
	slowest  time.Duration // step so far
	// delivered is how many webhooks had been sent when the step began.
	delivered int
}

// step is one thing that the person does, and what has to be true after it beside agreement.
type step struct {
	title string
	// do answers since when the systems have had something to agree about.
	do   func(context.Context) (since time.Time, err error)
	then func(state) error
}

// playStory plays the story, unless it is switched off. Each start plays it with somebody new.
func (s *stack) playStory(ctx context.Context) error {
	if !s.settings.story {
		s.screen.line("no story: DEV_STORY is off")
		return nil
	}
	o, err := newObserver(ctx, s.places.databaseURL, s.sandbox)
	if err != nil {
		return err
	}
	defer o.close(context.WithoutCancel(ctx))
	y := &story{sandbox: s.sandbox, observe: o, screen: s.screen}
	if y.api, err = client.Connect("http://"+s.reachable(), y.token, nil); err != nil {
		return err
	}
	y.cast(len(s.sandbox.Stripe.Customers()))
	if err := y.findPlan(ctx); err != nil {
		return err
	}
	if err := s.sandbox.Idle(ctx); err != nil { // so that each step counts its own webhooks
		return fmt.Errorf("deliver what is left of last time: %w", err)
	}
	y.screen.line("")
	y.screen.line("%s", y.screen.styled(bold, "A story over real HTTP: "+fullName(y.first, y.born)))
	for i, step := range y.steps() {
		if err := y.play(ctx, i+1, step); err != nil {
			return fmt.Errorf("the story stopped at %q (DEV_STORY=off starts without it): %w", step.title, err)
		}
	}
	y.screen.line("")
	return nil
}

// cast chooses a person whom nobody here has been yet.
func (y *story) cast(n int) {
	people := [][3]string{{"Ada", "Byron", "Lovelace"}, {"Grace", "Murray", "Hopper"}, {"Mary", "Fairfax", "Somerville"}, {"Maria", "Winkelmann", "Kirch"}}
	p := people[n%len(people)]
	y.first, y.born, y.married = p[0], p[1], p[2]
	y.email = strings.ToLower(y.first) + "@example.com"
	if round := n / len(people); round > 0 {
		y.email = fmt.Sprintf("%s.%d@example.com", strings.ToLower(y.first), round+1)
	}
}

// findPlan takes the sandbox's plan, or makes one on the first start.
func (y *story) findPlan(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, y.sandbox.StripeURL()+"/v1/prices?active=true&type=recurring&limit=1&expand[]=data.product", nil)
	if err != nil {
		return fmt.Errorf("look for a plan: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+y.sandbox.StripeSecretKey)
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("look for a plan: %w", err)
	}
	defer func() { _ = answer.Body.Close() }()
	var prices struct {
		Data []struct {
			ID      string `json:"id"`
			Product struct {
				Name string `json:"name"`
			} `json:"product"`
		} `json:"data"`
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("look for a plan: the sandbox answered %d", answer.StatusCode)
	}
	if err := json.NewDecoder(answer.Body).Decode(&prices); err != nil {
		return fmt.Errorf("look for a plan: %w", err)
	}
	if len(prices.Data) > 0 {
		y.price, y.plans = prices.Data[0].ID, map[string]string{prices.Data[0].ID: prices.Data[0].Product.Name}
		return nil
	}
	y.price = y.sandbox.Stripe.AddPrice(y.sandbox.Stripe.AddProduct("Pro"), 2000, "month")
	y.plans = map[string]string{y.price: "Pro"}
	return nil
}

func (y *story) steps() []step {
	plan := y.plans[y.price]
	return []step{
		{y.first + " signs up", y.signUp, y.hasCustomer},
		{y.first + " buys " + plan + ": one checkout, a burst of webhooks", y.buy, y.hasAccess},
		{fullName(y.first, y.born) + " becomes " + fullName(y.first, y.married), y.marry, nil},
		{"the first period ends: Stripe renews and takes the second payment", y.renew, y.isRenewed},
		{y.first + " cancels: POST /api/subscriptions/{id}/cancel", y.cancel, y.isTold},
		{y.first + " thinks better of it: POST /api/subscriptions/{id}/reactivate", y.reactivate, y.isTold},
		{y.first + " deletes the account: personal data are erased, what was paid is kept", y.leave, nil},
	}
}

// play does a step and shows the systems when they agree about it.
func (y *story) play(ctx context.Context, number int, step step) error {
	y.screen.line("")
	y.screen.line("%s", y.screen.styled(bold, fmt.Sprintf("%d. %s", number, step.title)))
	y.delivered = y.deliveries()
	since, err := step.do(ctx)
	if err != nil {
		return err
	}
	var st state
	told := time.Now()
	err = await(ctx, stepPatience, func(ctx context.Context) (err error) {
		st, err = y.observe.look(ctx, y.user)
		if err == nil {
			err = st.difference()
		}
		if err == nil && step.then != nil {
			err = step.then(st)
		}
		if err != nil && ctx.Err() == nil && time.Since(told) > tellEvery {
			told = time.Now()
			y.screen.line("   (waiting: %v)", err)
		}
		return err
	})
	took := time.Since(since)
	if ctx.Err() != nil {
		return ctx.Err() // somebody stopped it, which is no disagreement
	}
	y.slowest = max(y.slowest, took)
	y.screen.line("%s", st.table(y.plans))
	if err != nil {
		y.screen.line("   they do not agree")
		return err
	}
	if len(st.stripe.customers) > 0 {
		y.customer = st.stripe.customers[0].ID
	}
	y.screen.line("   %s, %s after; %d webhooks", y.screen.styled(green, "agree"), shortly(took), y.deliveries()-y.delivered)
	return nil
}

// deliveries counts the webhooks that were sent so far.
func (y *story) deliveries() int {
	return len(y.sandbox.ClerkWebhooks.Log()) + len(y.sandbox.StripeWebhooks.Log())
}

func (y *story) signUp(context.Context) (time.Time, error) {
	since := time.Now()
	y.user = y.sandbox.Clerk.AddUser(clerksim.UserSpec{FirstName: y.first, LastName: y.born,
		Emails: []clerksim.EmailSpec{{Address: y.email, Verified: true}}})
	return since, nil
}

func (y *story) hasCustomer(st state) error {
	if len(st.stripe.customers) != 1 {
		return fmt.Errorf("Stripe has %d customers for one person", len(st.stripe.customers))
	}
	return nil
}

func (y *story) buy(ctx context.Context) (time.Time, error) {
	since := time.Now()
	y.renewal = y.sandbox.Stripe.Now().Add(max(firstPeriod, firstPeriodSlack*y.slowest)).Truncate(time.Second)
	_, err := y.sandbox.Stripe.CompleteCheckout(ctx, stripesim.CheckoutSpec{CustomerID: y.customer, PriceID: y.price, ClientReferenceID: y.user,
		SubscriptionMetadata: map[string]string{"clerk_user_id": y.user}, BillingAnchor: y.renewal})
	return since, err
}

func (y *story) hasAccess(st state) error {
	projection, err := st.rows.user.Projection()
	if err != nil {
		return err
	}
	if !projection.SubscriptionActive || projection.Plan != y.plans[y.price] {
		return fmt.Errorf("no access to %s yet", y.plans[y.price])
	}
	return nil
}

func (y *story) marry(context.Context) (time.Time, error) {
	return time.Now(), y.sandbox.Clerk.UpdateUser(y.user, clerksim.UserChange{LastName: &y.married})
}

// renew waits for the end of the first period. The sandbox does what is due when it is asked.
func (y *story) renew(ctx context.Context) (time.Time, error) {
	left := y.renewal.Sub(y.sandbox.Stripe.Now())
	if left > 0 {
		y.screen.line("   (in %s)", shortly(left))
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	} else {
		y.screen.line("   (it came already, while a step before was waited for)")
	}
	return time.Now(), y.sandbox.Stripe.Advance(ctx, 0)
}

func (y *story) isRenewed(st state) error {
	if len(st.stripe.subscriptions) != 1 || st.stripe.subscriptions[0].CurrentPeriodEnd <= y.renewal.Unix() {
		return errors.New("Stripe has not renewed yet")
	}
	if st.rows.payments < 2 {
		return fmt.Errorf("PostgreSQL knows %d payments of 2", st.rows.payments)
	}
	return y.hasAccess(st)
}

// token is the person's session token, as their browser would have it.
func (y *story) token(context.Context) (string, error) {
	return y.sandbox.Clerk.SessionToken(clerksim.TokenSpec{UserID: y.user}), nil
}

// subscription is the person's subscription, as the API tells them.
func (y *story) subscription(ctx context.Context) (string, error) {
	list, err := y.api.ListSubscriptionsWithResponse(ctx, nil)
	if err != nil {
		return "", fmt.Errorf("ask for the subscriptions: %w", err)
	}
	if err := client.Check(list); err != nil {
		return "", fmt.Errorf("ask for the subscriptions: %w", err)
	}
	if list.JSON200 == nil || len(list.JSON200.Subscriptions) == 0 {
		return "", errors.New("the API knows no subscription")
	}
	return list.JSON200.Subscriptions[0].Id, nil
}

func (y *story) cancel(ctx context.Context) (time.Time, error) {
	return y.command(ctx, "cancel", func(id string) (client.Answer, error) {
		return y.api.CancelSubscriptionWithResponse(ctx, id, nil, client.CancelRequest{})
	})
}

func (y *story) reactivate(ctx context.Context) (time.Time, error) {
	return y.command(ctx, "reactivate", func(id string) (client.Answer, error) {
		return y.api.ReactivateSubscriptionWithResponse(ctx, id, nil)
	})
}

// isTold waits for Stripe's word of what the API has done already.
func (y *story) isTold(st state) error {
	if y.deliveries() == y.delivered {
		return errors.New("Stripe's webhook of it has not come yet")
	}
	return y.hasAccess(st)
}

// command asks for something and says what was answered.
func (y *story) command(ctx context.Context, what string, ask func(id string) (client.Answer, error)) (time.Time, error) {
	id, err := y.subscription(ctx)
	if err != nil {
		return time.Time{}, err
	}
	since := time.Now()
	answer, err := ask(id)
	if err != nil {
		return since, fmt.Errorf("%s: %w", what, err)
	}
	y.screen.line("   %s", strings.TrimSpace(string(answer.GetBody())))
	if err := client.Check(answer); err != nil {
		return since, fmt.Errorf("%s: %w", what, err)
	}
	return since, nil
}

func (y *story) leave(context.Context) (time.Time, error) {
	return time.Now(), y.sandbox.Clerk.DeleteUser(y.user)
}
