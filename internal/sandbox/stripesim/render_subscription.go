package stripesim

func (r renderer) subscription(x *subscription) object {
	items := []any{}
	for _, it := range x.Items {
		items = append(items, r.item(x, it))
	}
	out := object{
		"id": x.ID, "object": "subscription", "application": nil, "application_fee_percent": nil,
		"automatic_tax": object{"enabled": false, "liability": nil}, "billing_cycle_anchor": x.Anchor, "billing_cycle_anchor_config": nil,
		"billing_thresholds": nil, "cancel_at": timeOrNull(x.CancelAt), "cancel_at_period_end": x.AtPeriodEnd,
		"canceled_at":          timeOrNull(x.CanceledAt),
		"cancellation_details": object{"comment": orNull(x.Comment), "feedback": orNull(x.Feedback), "reason": orNull(x.Reason)},
		"collection_method":    x.Collection, "created": x.Created, "currency": x.Currency, "customer": x.Customer,
		"days_until_due": timeOrNull(x.DaysUntilDue), "default_payment_method": orNull(x.Card), "default_source": nil,
		"default_tax_rates": []any{}, "description": orNull(x.Description), "ended_at": timeOrNull(x.EndedAt),
		"items":          object{"object": "list", "data": items, "has_more": false, "url": "/v1/subscription_items?subscription=" + x.ID},
		"latest_invoice": orNull(x.Latest), "livemode": r.live, "metadata": orNothing(x.Metadata), "next_pending_invoice_item_invoice": nil,
		"on_behalf_of": nil, "pause_collection": nil,
		"payment_settings":              object{"payment_method_options": nil, "payment_method_types": nil, "save_default_payment_method": "off"},
		"pending_invoice_item_interval": nil, "pending_setup_intent": nil, "pending_update": nil, "schedule": orNull(x.Schedule),
		"start_date": x.Start, "status": x.Status, "test_clock": nil, "transfer_data": nil, "trial_end": timeOrNull(x.TrialEnd),
		"trial_settings": object{"end_behavior": object{"missing_payment_method": x.MissingCard}}, "trial_start": timeOrNull(x.TrialStart),
	}
	if sc := r.db.Schedules.get(x.Schedule); x.CancelAt == 0 && !x.ended() && sc != nil && sc.open() && sc.EndBehavior == "cancel" {
		out["cancel_at"] = sc.Phases[len(sc.Phases)-1].End
	}
	if x.Pause != nil {
		out["pause_collection"] = object{"behavior": x.Pause.Behavior, "resumes_at": timeOrNull(x.Pause.ResumesAt)}
	}
	if r.v.basil() {
		out["discounts"] = []any{}
		out["invoice_settings"] = object{"account_tax_ids": nil, "issuer": object{"type": "self"}}
		out["automatic_tax"].(object)["disabled_reason"] = nil
	} else {
		out["current_period_start"], out["current_period_end"], out["discount"] = x.PeriodStart, x.PeriodEnd, nil
	}
	if r.v.clover() {
		out["billing_mode"], out["customer_account"] = object{"flexible": nil, "type": "classic"}, nil
	}
	if r.v.dahlia() {
		out["billing_schedules"], out["managed_payments"] = []any{}, object{"enabled": false}
		out["invoice_settings"] = object{"account_tax_ids": nil, "custom_fields": nil, "description": nil, "footer": nil, "issuer": object{"type": "self"}}
	}
	return out
}

// item carries the billing period from basil on.
func (r renderer) item(x *subscription, it item) object {
	p := r.db.Prices.get(it.Price)
	out := object{"id": it.ID, "object": "subscription_item", "billing_thresholds": nil, "created": it.Created,
		"metadata": orNothing(it.Metadata), "price": r.price(p), "quantity": it.Quantity, "subscription": x.ID, "tax_rates": []any{}}
	if p.metered() {
		delete(out, "quantity")
	}
	if r.v.basil() {
		out["current_period_start"], out["current_period_end"] = x.PeriodStart, x.PeriodEnd
		out["discounts"], out["plan"] = []any{}, r.plan(p)
	}
	return out
}

func (r renderer) schedule(x *schedule) object {
	out := object{
		"id": x.ID, "object": "subscription_schedule", "application": nil, "canceled_at": timeOrNull(x.CanceledAt), "completed_at": timeOrNull(x.CompletedAt),
		"created": x.Created, "current_phase": nil, "customer": x.Customer,
		"default_settings": object{"application_fee_percent": nil, "automatic_tax": object{"enabled": false, "liability": nil},
			"billing_cycle_anchor": "automatic", "billing_thresholds": nil, "collection_method": "charge_automatically",
			"default_payment_method": nil, "description": nil,
			"invoice_settings": object{"account_tax_ids": nil, "days_until_due": nil, "issuer": object{"type": "self"}},
			"on_behalf_of":     nil, "transfer_data": nil},
		"end_behavior": x.EndBehavior, "livemode": r.live, "metadata": orNothing(x.Metadata), "phases": r.phases(x),
		"released_at": timeOrNull(x.ReleasedAt), "released_subscription": orNull(x.Released), "status": x.Status,
		"subscription": orNull(x.Subscription), "test_clock": nil,
	}
	if x.Status == statusActive {
		p := x.Phases[x.current()]
		out["current_phase"] = object{"start_date": p.Start, "end_date": p.End}
	}
	if r.v.basil() {
		settings := out["default_settings"].(object)
		settings["automatic_tax"].(object)["disabled_reason"] = nil
	}
	if r.v.clover() {
		out["billing_mode"], out["customer_account"] = object{"flexible": nil, "type": "classic"}, nil
	}
	if r.v.dahlia() {
		inv := out["default_settings"].(object)["invoice_settings"].(object)
		inv["custom_fields"], inv["description"], inv["footer"] = nil, nil, nil
	}
	return out
}

func (r renderer) phases(x *schedule) []any {
	phases := []any{}
	for _, p := range x.Phases {
		items := []any{}
		for _, it := range p.Items {
			row := object{"billing_thresholds": nil, "metadata": orNothing(it.Metadata), "price": it.Price, "quantity": it.Quantity, "tax_rates": []any{}}
			if r.v.basil() {
				row["discounts"], row["plan"] = []any{}, it.Price
			}
			items = append(items, row)
		}
		row := object{"add_invoice_items": []any{}, "application_fee_percent": nil, "billing_cycle_anchor": nil, "billing_thresholds": nil,
			"collection_method": nil, "currency": p.Currency, "default_payment_method": nil, "default_tax_rates": []any{},
			"description": nil, "end_date": p.End, "invoice_settings": nil, "items": items, "metadata": orNothing(p.Metadata), "on_behalf_of": nil,
			"proration_behavior": "create_prorations", "start_date": p.Start, "transfer_data": nil, "trial_end": timeOrNull(p.TrialEnd)}
		if r.v.basil() {
			row["discounts"] = []any{}
		} else {
			row["coupon"] = nil
		}
		phases = append(phases, row)
	}
	return phases
}
