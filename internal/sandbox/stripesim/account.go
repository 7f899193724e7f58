package stripesim

import "slices"

// endpoint is a webhook endpoint as the account lists it. Deliveries are somebody else's work.
type endpoint struct {
	ID, URL, Version, Description, Status string
	Events                                []string
	Created                               int64
	Metadata                              map[string]string
	Secret                                string
}

const endpointParams = `description disabled enabled_events.# metadata.* url `

func (s *Server) getAccount(c *call) (any, *apiError) {
	out := s.account()
	if c.v.dahlia() {
		settings := out["settings"].(object)
		out["business_profile"].(object)["minority_owned_business_designation"] = nil
		settings["invoices"].(object)["hosted_payment_method_save"] = nil
		payments := settings["payments"].(object)
		payments["statement_descriptor_prefix_kana"], payments["statement_descriptor_prefix_kanji"] = nil, nil
	}
	return out, nil
}

func (s *Server) account() object {
	wanting := object{"alternatives": []any{}, "current_deadline": nil, "currently_due": []any{}, "disabled_reason": nil,
		"errors": []any{}, "eventually_due": []any{}, "past_due": []any{}, "pending_verification": []any{}}
	return object{
		"id": s.opts.AccountID, "object": "account", "business_type": nil,
		"business_profile": object{"annual_revenue": nil, "estimated_worker_count": nil, "mcc": nil, "name": nil,
			"product_description": nil, "support_address": nil, "support_email": nil, "support_phone": nil, "support_url": nil, "url": nil},
		"capabilities":    object{"card_payments": "active", "transfers": "active"},
		"charges_enabled": true, "controller": object{"type": "account"}, "country": "US", "created": s.clock.start.Unix(),
		"default_currency": "usd", "details_submitted": true, "email": "owner@sandbox.example",
		"external_accounts":   object{"data": []any{}, "has_more": false, "object": "list", "url": "/v1/accounts/" + s.opts.AccountID + "/external_accounts"},
		"future_requirements": wanting, "metadata": object{}, "payouts_enabled": true, "requirements": wanting,
		"settings": object{"bacs_debit_payments": object{"display_name": nil, "service_user_number": nil},
			"branding":      object{"icon": nil, "logo": nil, "primary_color": nil, "secondary_color": nil},
			"card_issuing":  object{"tos_acceptance": object{"date": nil, "ip": nil}},
			"card_payments": object{"decline_on": object{"avs_failure": true, "cvc_failure": true}, "statement_descriptor_prefix": nil, "statement_descriptor_prefix_kana": nil, "statement_descriptor_prefix_kanji": nil},
			"dashboard":     object{"display_name": "Sandbox", "timezone": "Etc/UTC"}, "invoices": object{"default_account_tax_ids": nil},
			"payments":            object{"statement_descriptor": nil, "statement_descriptor_kana": nil, "statement_descriptor_kanji": nil},
			"payouts":             object{"debit_negative_balances": true, "schedule": object{"delay_days": 2, "interval": "daily"}, "statement_descriptor": nil},
			"sepa_debit_payments": object{}},
		"tos_acceptance": object{"date": nil, "ip": nil, "user_agent": nil}, "type": "standard",
	}
}

func (s *Server) createEndpoint(c *call) (any, *apiError) {
	x := &endpoint{ID: s.newID("we_"), URL: c.required("url"), Version: c.or("", "api_version"), Status: "enabled",
		Created: s.unix(), Secret: "whsec_" + s.newID("")}
	if v := x.Version; v != "" && !slices.Contains([]version{v20231016, vBasil, vClover, vDahlia}, version(v)) {
		c.fail(badValue("", "api_version", "Invalid API version: %s", v))
	}
	if !c.has("enabled_events") {
		c.fail(missingParam("enabled_events"))
	}
	change := s.endpointChange(c, x)
	if c.err != nil {
		return nil, c.err
	}
	change()
	s.db.Endpoints.put(x.ID, x)
	out := s.renderer(c.v).endpoint(x)
	out["secret"] = x.Secret // shown this once
	return out, nil
}

func (s *Server) endpointChange(c *call, x *endpoint) func() {
	next := *x
	if f := c.root.at("enabled_events"); f != nil {
		next.Events = nil
		for _, e := range f.list() {
			next.Events = append(next.Events, e.value)
		}
	}
	next.URL, next.Description = c.or(x.URL, "url"), c.or(x.Description, "description")
	if off, ok := c.boolean("disabled"); ok {
		next.Status = "enabled"
		if off {
			next.Status = "disabled"
		}
	}
	next.Metadata = c.metadata(x.Metadata, "metadata")
	return func() { *x = next }
}

func (s *Server) getEndpoint(c *call) (any, *apiError) {
	if x := s.db.Endpoints.get(c.id); x != nil {
		return x, nil
	}
	return nil, missing("webhook_endpoint", c.id)
}

func (s *Server) updateEndpoint(c *call) (any, *apiError) {
	x := s.db.Endpoints.get(c.id)
	if x == nil {
		return nil, missing("webhook_endpoint", c.id)
	}
	change := s.endpointChange(c, x)
	if c.err != nil {
		return nil, c.err
	}
	change()
	return x, nil
}

func (s *Server) removeEndpoint(c *call) (any, *apiError) {
	if s.db.Endpoints.get(c.id) == nil {
		return nil, missing("webhook_endpoint", c.id)
	}
	s.db.Endpoints.remove(c.id)
	return object{"id": c.id, "object": "webhook_endpoint", "deleted": true}, nil
}

func (s *Server) listEndpoints(c *call) (any, *apiError) { return listed(c, &s.db.Endpoints, nil) }

func (r renderer) endpoint(x *endpoint) object {
	events := []any{}
	for _, e := range x.Events {
		events = append(events, e)
	}
	return object{"id": x.ID, "object": "webhook_endpoint", "api_version": orNull(x.Version), "application": nil, "created": x.Created,
		"description": orNull(x.Description), "enabled_events": events, "livemode": r.live, "metadata": orNothing(x.Metadata),
		"status": x.Status, "url": x.URL}
}

func (s *Server) createPortalSession(c *call) (any, *apiError) {
	id := c.required("customer")
	if cus := s.db.Customers.get(id); c.err == nil && (cus == nil || cus.Deleted) {
		return nil, missingRef("customer", id, "customer")
	}
	if c.address("return_url"); c.err != nil {
		return nil, c.err
	}
	out := object{"id": s.newID("bps_"), "object": "billing_portal.session", "configuration": c.or("bpc_1SandboxPortal", "configuration"),
		"created": s.unix(), "customer": id, "flow": nil, "livemode": s.opts.Livemode, "locale": orNull(c.or("", "locale")),
		"on_behalf_of": nil, "return_url": orNull(c.or("", "return_url")), "url": "https://billing.stripe.com/p/session/" + s.newID("test_")}
	if c.v.clover() {
		out["customer_account"] = nil
	}
	return out, nil
}
