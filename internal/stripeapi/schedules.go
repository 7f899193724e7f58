package stripeapi

import (
	"context"
	"encoding/json"
	"time"

	"github.com/stripe/stripe-go/v76"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// CustomerSchedules reads all subscription schedules that a customer has or had, whatever has
// become of them, or fails as a whole. Beside one of a status that is not known, which is a
// failure, all others are answered.
func (c *Client) CustomerSchedules(ctx context.Context, customerID string) ([]account.Schedule, error) {
	const op = "list subscription schedules"
	if !account.ValidCustomerID(customerID) {
		return nil, badID(op)
	}
	list, err := all(ctx, op, func(s *stripe.SubscriptionSchedule) string { return s.ID },
		func(ctx context.Context, after *string) (page[*stripe.SubscriptionSchedule], error) {
			it := c.sdk.SubscriptionSchedules.List(&stripe.SubscriptionScheduleListParams{
				ListParams: listParams(ctx, pageSize, after),
				Customer:   stripe.String(customerID),
			})
			return collect(it, it.SubscriptionSchedule)
		})
	if err != nil {
		return nil, err
	}
	schedules := make([]account.Schedule, 0, len(list))
	for _, s := range list {
		switch schedule := toSchedule(s); {
		case schedule.CustomerID != customerID:
			return nil, badBody(op)
		case schedule.Status.Rank() == 0: // of a status that is not known nothing follows
			err = badBody(op)
		default:
			schedules = append(schedules, schedule)
		}
	}
	return schedules, err
}

// Schedule reads one subscription schedule.
func (c *Client) Schedule(ctx context.Context, scheduleID string) (account.Schedule, error) {
	schedule, err := c.oneSchedule(ctx, "read subscription schedule", scheduleID, func(ctx context.Context) (*stripe.SubscriptionSchedule, error) {
		params := &stripe.SubscriptionScheduleParams{}
		params.Context = ctx
		return c.sdk.SubscriptionSchedules.Get(scheduleID, params)
	})
	if err != nil {
		return account.Schedule{}, err
	}
	return toSchedule(schedule), nil
}

// EndThroughSchedule ends a subscription at a moment of its present period by the schedule that
// manages it: the phases go up to that moment, and the subscription ends with the last of them. The
// phase that runs keeps all that it has; nothing is prorated. The schedule is read before, since
// Stripe wants every phase that is to stay, and takes a phase that it is not given for one that is
// dropped.
//
// Stripe refuses it for a schedule that is over.
func (c *Client) EndThroughSchedule(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error {
	return c.endSchedule(ctx, "end through subscription schedule", scheduleID, idempotencyKey, func(s *stripe.SubscriptionSchedule) []*stripe.SubscriptionSchedulePhaseParams {
		return phasesUntil(s, at)
	})
}

// EndWithPresentPhase is [Client.EndThroughSchedule] where no phase is to begin any more: the one
// that runs goes on until the moment, and those behind it are dropped.
func (c *Client) EndWithPresentPhase(ctx context.Context, scheduleID string, at time.Time, idempotencyKey string) error {
	return c.endSchedule(ctx, "end with present phase of subscription schedule", scheduleID, idempotencyKey, func(s *stripe.SubscriptionSchedule) []*stripe.SubscriptionSchedulePhaseParams {
		return presentPhase(s, at)
	})
}

func (c *Client) endSchedule(ctx context.Context, op, scheduleID, idempotencyKey string,
	kept func(*stripe.SubscriptionSchedule) []*stripe.SubscriptionSchedulePhaseParams,
) error {
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	schedule, err := c.oneSchedule(ctx, op, scheduleID, func(ctx context.Context) (*stripe.SubscriptionSchedule, error) {
		params := &stripe.SubscriptionScheduleParams{}
		params.Context = ctx
		return c.sdk.SubscriptionSchedules.Get(scheduleID, params)
	})
	if err != nil {
		return err
	}
	phases := kept(schedule)
	if len(phases) == 0 {
		return badBody(op) // without any, Stripe would keep all
	}
	return c.updateSchedule(ctx, op, scheduleID, func(params *stripe.SubscriptionScheduleParams) {
		params.EndBehavior = stripe.String(string(stripe.SubscriptionScheduleEndBehaviorCancel))
		params.ProrationBehavior = stripe.String("none")
		params.Phases = phases
	}, idempotencyKey)
}

// ContinueThroughSchedule takes back that a schedule ends its subscription: after the last phase it
// lets the subscription go on. The phases stay as they are.
func (c *Client) ContinueThroughSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	const op = "continue through subscription schedule"
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	return c.updateSchedule(ctx, op, scheduleID, func(params *stripe.SubscriptionScheduleParams) {
		params.EndBehavior = stripe.String(string(stripe.SubscriptionScheduleEndBehaviorRelease))
	}, idempotencyKey)
}

// CancelSchedule ends a schedule for good, and with it, at once, the subscription that it manages,
// if it has begun. Nothing is billed and nothing prorated. Stripe refuses it for one that is over.
func (c *Client) CancelSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	const op = "cancel subscription schedule"
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	_, err := c.oneSchedule(ctx, op, scheduleID, func(ctx context.Context) (*stripe.SubscriptionSchedule, error) {
		params := &stripe.SubscriptionScheduleCancelParams{InvoiceNow: stripe.Bool(false), Prorate: stripe.Bool(false)}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.SubscriptionSchedules.Cancel(scheduleID, params)
	})
	return err
}

// ReleaseSchedule detaches a schedule from its subscription, which goes on as it is. Its later
// phases are gone with that.
func (c *Client) ReleaseSchedule(ctx context.Context, scheduleID, idempotencyKey string) error {
	const op = "release subscription schedule"
	if !usableKey(idempotencyKey) {
		return badKey(op)
	}
	_, err := c.oneSchedule(ctx, op, scheduleID, func(ctx context.Context) (*stripe.SubscriptionSchedule, error) {
		params := &stripe.SubscriptionScheduleReleaseParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		return c.sdk.SubscriptionSchedules.Release(scheduleID, params)
	})
	return err
}

func (c *Client) updateSchedule(ctx context.Context, op, scheduleID string, set func(*stripe.SubscriptionScheduleParams), idempotencyKey string) error {
	_, err := c.oneSchedule(ctx, op, scheduleID, func(ctx context.Context) (*stripe.SubscriptionSchedule, error) {
		params := &stripe.SubscriptionScheduleParams{}
		params.Context = ctx
		params.SetIdempotencyKey(idempotencyKey)
		set(params)
		return c.sdk.SubscriptionSchedules.Update(scheduleID, params)
	})
	return err
}

// oneSchedule makes a call that is about one schedule and answers it.
func (c *Client) oneSchedule(
	ctx context.Context, op, scheduleID string, call func(context.Context) (*stripe.SubscriptionSchedule, error),
) (*stripe.SubscriptionSchedule, error) {
	if !wellFormed("sub_sched_", scheduleID) {
		return nil, badID(op)
	}
	schedule, err := do(ctx, op, call)
	if err != nil {
		return nil, err
	}
	if schedule.ID != scheduleID {
		return nil, badBody(op)
	}
	return schedule, nil
}

// toSchedule makes our own schedule of the SDK's. Of one that was not expanded it has no more than
// the id.
func toSchedule(s *stripe.SubscriptionSchedule) account.Schedule {
	schedule := account.Schedule{
		ID:               s.ID,
		Status:           account.ScheduleStatus(s.Status),
		EndsSubscription: s.EndBehavior == stripe.SubscriptionScheduleEndBehaviorCancel,
	}
	if s.Customer != nil {
		schedule.CustomerID = s.Customer.ID
	}
	if s.Subscription != nil {
		schedule.SubscriptionID = s.Subscription.ID
	}
	for _, p := range s.Phases {
		phase := account.Phase{Start: unix(p.StartDate), End: unix(p.EndDate), Prices: []string{}}
		for _, i := range p.Items {
			if i.Price != nil {
				phase.Prices = append(phase.Prices, i.Price.ID)
			}
		}
		schedule.Phases = append(schedule.Phases, phase)
		if s.CurrentPhase == nil || p.StartDate >= s.CurrentPhase.EndDate {
			schedule.Later = append(schedule.Later, phase)
		}
	}
	return schedule
}

// phasesUntil are the phases that a schedule keeps if it ends at a moment: the one that runs and
// those that begin before it, as they are, the last of them ending then.
func phasesUntil(s *stripe.SubscriptionSchedule, at time.Time) []*stripe.SubscriptionSchedulePhaseParams {
	quantities := quantitiesOf(raw(s.LastResponse))
	var kept []*stripe.SubscriptionSchedulePhaseParams
	for i, p := range s.Phases {
		switch over := s.CurrentPhase != nil && p.EndDate <= s.CurrentPhase.StartDate; {
		case over, p.StartDate >= at.Unix() && len(kept) > 0:
			continue
		}
		kept = append(kept, samePhase(p, quantities.of(i)))
	}
	if len(kept) > 0 {
		kept[len(kept)-1].EndDate = stripe.Int64(at.Unix())
	}
	return kept
}

// presentPhase is the phase that runs, as it is, ending at a moment. Of a schedule that has not
// begun it is the first.
func presentPhase(s *stripe.SubscriptionSchedule, at time.Time) []*stripe.SubscriptionSchedulePhaseParams {
	quantities := quantitiesOf(raw(s.LastResponse))
	for i, p := range s.Phases {
		if s.CurrentPhase == nil || p.StartDate == s.CurrentPhase.StartDate {
			present := samePhase(p, quantities.of(i))
			present.EndDate = stripe.Int64(at.Unix())
			return []*stripe.SubscriptionSchedulePhaseParams{present}
		}
	}
	return nil
}

// quantities are those of the items of a schedule's phases.
type quantities [][]*int64

// of answers the quantities of one phase's items.
func (q quantities) of(phase int) func(item int) *int64 {
	return func(item int) *int64 {
		if phase < len(q) && item < len(q[phase]) {
			return q[phase][item]
		}
		return nil
	}
}

// quantitiesOf reads the quantities of the phases' items. The SDK gives zero for an item without
// one, which is what a metered price has, and for which Stripe accepts none.
func quantitiesOf(body []byte) quantities {
	var schedule struct {
		Phases []struct {
			Items []struct {
				Quantity *int64 `json:"quantity"`
			} `json:"items"`
		} `json:"phases"`
	}
	if json.Unmarshal(body, &schedule) != nil {
		return nil
	}
	found := make(quantities, len(schedule.Phases))
	for i, p := range schedule.Phases {
		for _, item := range p.Items {
			found[i] = append(found[i], item.Quantity)
		}
	}
	return found
}

// samePhase asks for a phase as it is: what Stripe is not given of a phase it takes away. Of a
// coupon and discounts it takes one only, and the coupon is among the discounts where there are
// any.
func samePhase(p *stripe.SubscriptionSchedulePhase, quantity func(item int) *int64) *stripe.SubscriptionSchedulePhaseParams {
	same := &stripe.SubscriptionSchedulePhaseParams{
		StartDate:          stripe.Int64(p.StartDate),
		EndDate:            stripe.Int64(p.EndDate),
		BillingCycleAnchor: given(string(p.BillingCycleAnchor)),
		Currency:           given(string(p.Currency)),
		Description:        given(p.Description),
		Metadata:           p.Metadata,
		ProrationBehavior:  given(string(p.ProrationBehavior)),
		DefaultTaxRates:    taxRates(p.DefaultTaxRates),
		BillingThresholds:  thresholds(p.BillingThresholds),
	}
	if p.TrialEnd != 0 {
		same.TrialEnd = stripe.Int64(p.TrialEnd)
	}
	if p.ApplicationFeePercent != 0 {
		same.ApplicationFeePercent = stripe.Float64(p.ApplicationFeePercent)
	}
	if p.AutomaticTax != nil {
		same.AutomaticTax = &stripe.SubscriptionSchedulePhaseAutomaticTaxParams{Enabled: stripe.Bool(p.AutomaticTax.Enabled)}
		if liable := p.AutomaticTax.Liability; liable != nil {
			same.AutomaticTax.Liability = &stripe.SubscriptionSchedulePhaseAutomaticTaxLiabilityParams{Account: accountID(liable.Account), Type: given(string(liable.Type))}
		}
	}
	if p.CollectionMethod != nil {
		same.CollectionMethod = given(string(*p.CollectionMethod))
	}
	for _, d := range p.Discounts {
		same.Discounts = append(same.Discounts, &stripe.SubscriptionSchedulePhaseDiscountParams{
			Coupon: couponID(d.Coupon), Discount: discountID(d.Discount), PromotionCode: promotionID(d.PromotionCode),
		})
	}
	if len(p.Discounts) == 0 {
		same.Coupon = couponID(p.Coupon)
	}
	if p.DefaultPaymentMethod != nil {
		same.DefaultPaymentMethod = given(p.DefaultPaymentMethod.ID)
	}
	same.OnBehalfOf = accountID(p.OnBehalfOf)
	same.InvoiceSettings = invoiceSettings(p.InvoiceSettings)
	if p.TransferData != nil && p.TransferData.Destination != nil {
		same.TransferData = &stripe.SubscriptionTransferDataParams{Destination: given(p.TransferData.Destination.ID)}
		if p.TransferData.AmountPercent != 0 {
			same.TransferData.AmountPercent = stripe.Float64(p.TransferData.AmountPercent)
		}
	}
	for _, a := range p.AddInvoiceItems {
		if a.Price == nil {
			continue
		}
		added := &stripe.SubscriptionSchedulePhaseAddInvoiceItemParams{
			Price: given(a.Price.ID), Quantity: stripe.Int64(a.Quantity), TaxRates: taxRates(a.TaxRates),
		}
		for _, d := range a.Discounts {
			added.Discounts = append(added.Discounts, &stripe.SubscriptionSchedulePhaseAddInvoiceItemDiscountParams{
				Coupon: couponID(d.Coupon), Discount: discountID(d.Discount), PromotionCode: promotionID(d.PromotionCode),
			})
		}
		same.AddInvoiceItems = append(same.AddInvoiceItems, added)
	}
	for n, i := range p.Items {
		item := &stripe.SubscriptionSchedulePhaseItemParams{
			Quantity: quantity(n), Metadata: i.Metadata, TaxRates: taxRates(i.TaxRates),
		}
		if i.Price != nil {
			item.Price = given(i.Price.ID)
		}
		for _, d := range i.Discounts {
			item.Discounts = append(item.Discounts, &stripe.SubscriptionSchedulePhaseItemDiscountParams{
				Coupon: couponID(d.Coupon), Discount: discountID(d.Discount), PromotionCode: promotionID(d.PromotionCode),
			})
		}
		if i.BillingThresholds != nil && i.BillingThresholds.UsageGTE != 0 {
			item.BillingThresholds = &stripe.SubscriptionItemBillingThresholdsParams{UsageGTE: stripe.Int64(i.BillingThresholds.UsageGTE)}
		}
		same.Items = append(same.Items, item)
	}
	return same
}

func invoiceSettings(s *stripe.SubscriptionSchedulePhaseInvoiceSettings) *stripe.SubscriptionSchedulePhaseInvoiceSettingsParams {
	if s == nil || s.DaysUntilDue == 0 && len(s.AccountTaxIDs) == 0 && s.Issuer == nil {
		return nil
	}
	params := &stripe.SubscriptionSchedulePhaseInvoiceSettingsParams{}
	if s.DaysUntilDue != 0 {
		params.DaysUntilDue = stripe.Int64(s.DaysUntilDue)
	}
	for _, id := range s.AccountTaxIDs {
		params.AccountTaxIDs = append(params.AccountTaxIDs, stripe.String(id.ID))
	}
	if s.Issuer != nil {
		params.Issuer = &stripe.SubscriptionSchedulePhaseInvoiceSettingsIssuerParams{Account: accountID(s.Issuer.Account), Type: given(string(s.Issuer.Type))}
	}
	return params
}

func couponID(c *stripe.Coupon) *string {
	if c == nil {
		return nil
	}
	return given(c.ID)
}

func discountID(d *stripe.Discount) *string {
	if d == nil {
		return nil
	}
	return given(d.ID)
}

func promotionID(p *stripe.PromotionCode) *string {
	if p == nil {
		return nil
	}
	return given(p.ID)
}

func accountID(a *stripe.Account) *string {
	if a == nil {
		return nil
	}
	return given(a.ID)
}

func thresholds(t *stripe.SubscriptionBillingThresholds) *stripe.SubscriptionBillingThresholdsParams {
	if t == nil {
		return nil
	}
	params := &stripe.SubscriptionBillingThresholdsParams{ResetBillingCycleAnchor: stripe.Bool(t.ResetBillingCycleAnchor)}
	if t.AmountGTE != 0 {
		params.AmountGTE = stripe.Int64(t.AmountGTE)
	}
	return params
}

func taxRates(rates []*stripe.TaxRate) []*string {
	var ids []*string
	for _, r := range rates {
		ids = append(ids, stripe.String(r.ID))
	}
	return ids
}

// given is a text to be sent, nil for none: an empty one would be sent too.
func given(s string) *string { return optional(&s) }
