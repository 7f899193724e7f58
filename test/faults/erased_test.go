//go:build faults && linux

package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// How many people a fault that befalls people befalls at once.
const befallen = 3

// errNobodyYet is that nobody was there whom it could befall.
var errNobodyYet = errors.New("nobody is there yet who has a customer")

// befalls picks people who are there, have a customer and are not busy, the newest first, and has
// something happen to each: to one who has a subscription, and to two more. It answers those to
// whom it happened.
func (c *crowd) befalls(what func(*member) error) (whom []*member, err error) {
	members := c.all()
	for _, m := range slices.Backward(members) {
		if len(whom) == befallen {
			break
		}
		if !m.mu.TryLock() {
			continue
		}
		if !m.left && m.customer != "" && (len(whom) > 0 || c.subscription(context.Background(), m) != nil) {
			m.touched |= c.s.now()
			if err = what(m); err == nil {
				whom = append(whom, m)
			}
		}
		m.mu.Unlock()
		if err != nil {
			return whom, err
		}
	}
	if len(whom) == 0 {
		err = errNobodyYet
	}
	return whom, err
}

// customersDeleted has customers deleted in Stripe's dashboard, with the subscriptions that they
// have.
func (s *stage) customersDeleted(*rand.Rand, time.Duration) (func() error, error) {
	_, err := s.crowd.befalls(func(m *member) error {
		err := s.Sandbox.Stripe.DeleteCustomer(m.customer)
		if err == nil {
			m.former = append(m.former, m.customer)
			m.customer, m.subscription, m.unpaying = "", "", false
		}
		return err
	})
	return func() error { return nil }, err
}

// scheduled has a schedule made in the dashboard that begins in a few days.
func (s *stage) scheduled(dice *rand.Rand, m *member) error {
	price := s.crowd.prices[dice.IntN(len(s.crowd.prices))]
	_, err := s.Sandbox.Stripe.AddSchedule(m.customer, price, s.Sandbox.Stripe.Now().Add(time.Duration(72+dice.IntN(72))*time.Hour))
	return err
}

// schedulesBefore has people leave for whom a schedule was made that has not begun.
func (s *stage) schedulesBefore(dice *rand.Rand, _ time.Duration) (func() error, error) {
	_, err := s.crowd.befalls(func(m *member) error {
		if err := s.scheduled(dice, m); err != nil {
			return err
		}
		return s.leave(m)
	})
	return func() error { return nil }, err
}

// schedulesAfter has people leave, and then, before or after they are erased, a schedule made for
// each.
func (s *stage) schedulesAfter(dice *rand.Rand, _ time.Duration) (func() error, error) {
	left, err := s.crowd.befalls(s.leave)
	return func() error {
		for _, m := range left {
			if err := s.scheduled(dice, m); err != nil {
				return err
			}
		}
		return nil
	}, err
}

// leave has somebody delete their account. They are locked.
func (s *stage) leave(m *member) error {
	err := s.Sandbox.Clerk.DeleteUser(m.user)
	if err == nil {
		m.left, m.leftAt = true, time.Now()
	}
	return err
}

// erasures is when users were erased, by Stripe's clock, as far as that was noticed: a little later
// than they were.
type erasures map[string]time.Time

// keepNoticing notes who is erased until ctx ends.
func (s *stage) keepNoticing(ctx context.Context) {
	every(ctx, 500*time.Millisecond, func() { _ = s.noticeErased(ctx) }) // whoever is missed while PostgreSQL is away is noticed later
}

// noticeErased notes who is erased by now. Who was erased once stays noted, whatever PostgreSQL
// forgets.
func (s *stage) noticeErased(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	rows, err := s.db.Query(ctx, `SELECT clerk_user_id FROM person_user WHERE erased_at IS NOT NULL`)
	if err != nil {
		return err
	}
	erased, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	now := s.Sandbox.Stripe.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, user := range erased {
		if _, noted := s.erased[user]; !noted {
			s.erased[user] = now
		}
	}
	return nil
}

// bills looks for whom Stripe has billed after they were erased, and for whom it would.
func (v *verdict) bills() {
	v.s.mu.Lock()
	erased := maps.Clone(v.s.erased)
	v.s.mu.Unlock()
	customers, err := v.s.customersByUser()
	if err != nil {
		v.blame("listing customers: %v", err)
		return
	}
	for user, at := range erased {
		for _, customer := range customers[user] {
			if how, err := v.s.billedSince(customer, at); err != nil {
				v.blame("looking for bills of %s: %v", customer, err)
			} else if how != "" {
				v.billed[user] = how
			}
		}
	}
}

// billedSince tells how a customer was billed after a moment, or will be; "" if neither. What
// counts is when something is collected, whenever the invoice was made.
func (s *stage) billedSince(customer string, since time.Time) (string, error) {
	var charges struct {
		Data []struct {
			ID      string `json:"id"`
			Amount  int64  `json:"amount"`
			Created int64  `json:"created"`
			Status  string `json:"status"`
		} `json:"data"`
	}
	if err := s.stripe("/v1/charges?limit=100&customer="+customer+fmt.Sprintf("&created[gt]=%d", since.Unix()), &charges); err != nil {
		return "", err
	}
	for _, charge := range charges.Data {
		// One that failed was tried all the same.
		return fmt.Sprintf("charge %s of %d of %s, %s, is %s after the erasure", charge.ID, charge.Amount, customer, charge.Status, time.Unix(charge.Created, 0).Sub(since)), nil
	}
	var invoices struct {
		Data []struct {
			ID          string `json:"id"`
			AmountDue   int64  `json:"amount_due"`
			AutoAdvance bool   `json:"auto_advance"`
			Created     int64  `json:"created"`
			Status      string `json:"status"`
			Transitions struct {
				PaidAt int64 `json:"paid_at"`
			} `json:"status_transitions"`
		} `json:"data"`
	}
	if err := s.stripe("/v1/invoices?limit=100&customer="+customer, &invoices); err != nil {
		return "", err
	}
	for _, invoice := range invoices.Data {
		switch after := time.Unix(invoice.Created, 0).Sub(since); {
		case invoice.AmountDue == 0 || invoice.Status == "void":
		case invoice.Transitions.PaidAt > since.Unix():
			return fmt.Sprintf("invoice %s of %s was paid %s after the erasure", invoice.ID, customer, time.Unix(invoice.Transitions.PaidAt, 0).Sub(since)), nil
		case invoice.AutoAdvance:
			return fmt.Sprintf("invoice %s of %s, %s, will be collected", invoice.ID, customer, invoice.Status), nil
		case invoice.Created > since.Unix():
			return fmt.Sprintf("invoice %s of %s, %s, is %s after the erasure", invoice.ID, customer, invoice.Status, after), nil
		}
	}
	var items struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := s.stripe("/v1/invoiceitems?pending=true&limit=100&customer="+customer, &items); err != nil {
		return "", err
	}
	for _, item := range items.Data {
		return fmt.Sprintf("invoice item %s of %s waits for the next invoice", item.ID, customer), nil
	}
	var schedules struct {
		Data []struct {
			ID     string `json:"id"`
			Status string `json:"status"`
		} `json:"data"`
	}
	if err := s.stripe("/v1/subscription_schedules?scheduled=true&limit=100&customer="+customer, &schedules); err != nil {
		return "", err
	}
	for _, schedule := range schedules.Data {
		return fmt.Sprintf("schedule %s of %s has yet to begin", schedule.ID, customer), nil
	}
	return "", nil
}

// customersByUser are the customers that are not deleted, by the user whom they name.
func (s *stage) customersByUser() (map[string][]string, error) {
	naming := map[string][]string{}
	for _, body := range s.Sandbox.Stripe.Customers() {
		var customer struct {
			ID       string            `json:"id"`
			Metadata map[string]string `json:"metadata"`
		}
		if err := json.Unmarshal(body, &customer); err != nil {
			return nil, err
		}
		user := customer.Metadata["clerk_user_id"]
		naming[user] = append(naming[user], customer.ID)
	}
	return naming, nil
}

// stripe asks the sandbox itself, so that no fault hits and nothing is counted.
func (s *stage) stripe(path string, into any) error {
	request := httptest.NewRequest(http.MethodGet, path, http.NoBody)
	request.Header.Set("Authorization", "Bearer "+s.Sandbox.StripeSecretKey)
	request.Header.Set("Stripe-Version", "2023-10-16")
	answer := httptest.NewRecorder()
	s.Sandbox.Stripe.ServeHTTP(answer, request)
	if answer.Code != http.StatusOK {
		return fmt.Errorf("the sandbox answers GET %s with %d", path, answer.Code)
	}
	return json.Unmarshal(answer.Body.Bytes(), into)
}
