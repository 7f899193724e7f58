package stripesim

func (r renderer) customer(c *customer) object {
	if c.Deleted {
		return object{"id": c.ID, "object": "customer", "deleted": true}
	}
	locales := []any{}
	for _, l := range c.Locales {
		locales = append(locales, l)
	}
	return object{
		"id": c.ID, "object": "customer", "address": sectionOrNull(c.Address), "balance": c.Balance, "created": c.Created,
		"currency": orNull(c.Currency), "default_source": nil, "delinquent": c.Delinquent, "description": orNull(c.Description),
		"discount": nil, "email": orNull(c.Email), "invoice_prefix": c.InvoicePrefix,
		"invoice_settings": object{"custom_fields": nil, "default_payment_method": orNull(c.DefaultCard), "footer": nil, "rendering_options": nil},
		"livemode":         r.live, "metadata": orNothing(c.Metadata), "name": orNull(c.Name), "next_invoice_sequence": c.Invoices + 1,
		"phone": orNull(c.Phone), "preferred_locales": locales, "shipping": sectionOrNull(c.Shipping), "tax_exempt": c.TaxExempt,
		"test_clock": nil,
	}
}

func (r renderer) card(c *card) object {
	return object{
		"id": c.ID, "object": "payment_method", "created": c.Created, "customer": orNull(c.Customer), "livemode": r.live,
		"metadata": orNothing(c.Metadata), "type": "card",
		"billing_details": object{"address": emptyAddress(), "email": nil, "name": nil, "phone": nil},
		"card": object{"brand": c.Brand, "checks": object{"address_line1_check": nil, "address_postal_code_check": nil, "cvc_check": "pass"},
			"country": "US", "exp_month": 12, "exp_year": 2040, "fingerprint": "sandboxFingerpr1", "funding": "credit", "generated_from": nil,
			"last4": c.Last4, "networks": object{"available": []any{c.Brand}, "preferred": nil},
			"three_d_secure_usage": object{"supported": true}, "wallet": nil},
	}
}

func emptyAddress() object {
	return object{"city": nil, "country": nil, "line1": nil, "line2": nil, "postal_code": nil, "state": nil}
}
