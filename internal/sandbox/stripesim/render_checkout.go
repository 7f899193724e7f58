package stripesim

func (r renderer) session(x *session) object {
	var amount, url, details any
	if p := r.db.Prices.get(x.Price); p != nil {
		amount = p.amount(x.Quantity)
		if x.TrialDays > 0 || x.TrialEnd > 0 {
			amount = int64(0)
		}
	}
	if x.Status == "open" && x.UI == "hosted" {
		url = "https://checkout.stripe.com/c/pay/" + x.ID
	}
	if x.Email != "" || x.Status == "complete" {
		d := object{"address": nil, "email": orNull(x.Email), "name": nil, "phone": nil, "tax_exempt": "none", "tax_ids": nil}
		if r.v.dahlia() {
			d["business_name"], d["individual_name"] = nil, nil
		}
		details = d
	}
	var customerEmail any
	if x.Customer == "" {
		customerEmail = orNull(x.Email)
	}
	out := object{
		"id": x.ID, "object": "checkout.session", "after_expiration": nil, "allow_promotion_codes": nil, "amount_subtotal": amount,
		"amount_total": amount, "automatic_tax": object{"enabled": false, "liability": nil, "status": nil},
		"billing_address_collection": nil, "cancel_url": orNull(x.CancelURL), "client_reference_id": orNull(x.Reference),
		"client_secret": nil, "consent": nil, "consent_collection": nil, "created": x.Created, "currency": orNull(x.Currency),
		"currency_conversion": nil, "custom_fields": []any{},
		"custom_text": object{"after_submit": nil, "shipping_address": nil, "submit": nil, "terms_of_service_acceptance": nil},
		"customer":    orNull(x.Customer), "customer_creation": nil, "customer_details": details, "customer_email": customerEmail,
		"expires_at": x.ExpiresAt, "invoice": orNull(x.Invoice), "invoice_creation": nil, "livemode": r.live, "locale": nil,
		"metadata": orNothing(x.Metadata), "mode": x.Mode, "payment_intent": orNull(x.Intent), "payment_link": orNull(x.PaymentLink),
		"payment_method_collection": nil, "payment_method_configuration_details": nil, "payment_method_options": object{},
		"payment_method_types": []any{"card"}, "payment_status": x.PaymentStatus,
		"phone_number_collection": object{"enabled": false}, "recovered_from": nil, "setup_intent": orNull(x.SetupIntent),
		"shipping_address_collection": nil, "shipping_cost": nil, "shipping_options": []any{},
		"status": x.Status, "submit_type": nil, "subscription": orNull(x.Subscription), "success_url": orNull(x.SuccessURL),
		"total_details": nil, "ui_mode": x.UI, "url": url,
	}
	if x.Mode == "subscription" {
		out["payment_method_collection"] = x.CollectCard
	}
	if amount != nil {
		out["total_details"] = object{"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
	}
	if r.v.basil() {
		out["adaptive_pricing"], out["collected_information"] = object{"enabled": false}, nil
		out["discounts"], out["permissions"], out["saved_payment_method_options"] = []any{}, nil, nil
		out["wallet_options"] = nil
		out["automatic_tax"].(object)["provider"] = nil
	} else {
		out["shipping_details"] = nil
	}
	if r.v.clover() {
		out["customer_account"], out["origin_context"] = nil, nil
	}
	if r.v.dahlia() {
		out["integration_identifier"], out["managed_payments"] = nil, object{"enabled": false}
	}
	return out
}
