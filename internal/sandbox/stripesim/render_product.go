package stripesim

func (r renderer) product(p *product) object {
	out := object{
		"id": p.ID, "object": "product", "active": p.Active, "created": p.Created, "default_price": orNull(p.DefaultPrice),
		"description": orNull(p.Description), "images": []any{}, "livemode": r.live, "metadata": orNothing(p.Metadata), "name": p.Name,
		"package_dimensions": nil, "shippable": nil, "statement_descriptor": nil, "tax_code": nil, "unit_label": orNull(p.UnitLabel),
		"updated": p.Updated, "url": orNull(p.URL),
	}
	if r.v.basil() {
		out["marketing_features"], out["type"] = []any{}, "service"
	} else {
		out["features"] = []any{}
	}
	return out
}

func (r renderer) price(p *price) object {
	var recurring any
	if p.Interval != "" {
		section := object{"interval": p.Interval, "interval_count": p.IntervalCount, "usage_type": p.UsageType}
		if r.v.basil() {
			section["meter"], section["trial_period_days"] = nil, nil
		} else {
			section["aggregate_usage"] = nil
		}
		recurring = section
	}
	return object{
		"id": p.ID, "object": "price", "active": p.Active, "billing_scheme": "per_unit", "created": p.Created, "currency": p.Currency,
		"custom_unit_amount": nil, "livemode": r.live, "lookup_key": orNull(p.LookupKey), "metadata": orNothing(p.Metadata),
		"nickname": orNull(p.Nickname), "product": p.Product, "recurring": recurring, "tax_behavior": "unspecified", "tiers_mode": nil,
		"transform_quantity": nil, "type": p.kind(), "unit_amount": p.unit(), "unit_amount_decimal": p.exact(),
	}
}

// plan is the older view of a recurring price.
func (r renderer) plan(p *price) any {
	if p == nil || p.Interval == "" {
		return nil
	}
	out := object{
		"id": p.ID, "object": "plan", "active": p.Active, "amount": p.unit(), "amount_decimal": p.exact(),
		"billing_scheme": "per_unit", "created": p.Created, "currency": p.Currency, "interval": p.Interval, "interval_count": p.IntervalCount,
		"livemode": r.live, "metadata": orNothing(p.Metadata), "nickname": orNull(p.Nickname), "product": p.Product, "tiers_mode": nil,
		"transform_usage": nil, "trial_period_days": nil, "usage_type": p.UsageType,
	}
	if r.v.basil() {
		out["meter"] = nil
	} else {
		out["aggregate_usage"] = nil
	}
	return out
}
