package stripesim

import (
	"maps"
	"slices"
	"strings"
)

func (r renderer) invoice(x *invoice) object {
	lines := []any{}
	for _, l := range x.Lines {
		lines = append(lines, r.line(x, l))
	}
	out := object{
		"id": x.ID, "object": "invoice", "account_country": "US", "account_name": nil, "account_tax_ids": nil, "amount_due": x.Total,
		"amount_paid": x.Paid, "amount_remaining": x.Total - x.Paid, "amount_shipping": 0, "application": nil,
		"attempt_count": x.Attempts, "attempted": x.Attempts > 0 || x.Status == "paid", "auto_advance": x.due() != 0,
		"automatic_tax": object{"enabled": false, "liability": nil, "status": nil}, "billing_reason": x.Reason,
		"collection_method": x.Collection, "created": x.Created, "currency": x.Currency, "custom_fields": nil, "customer": x.Customer,
		"customer_address": nil, "customer_email": orNull(x.Email), "customer_name": orNull(x.Name), "customer_phone": nil,
		"customer_shipping": nil, "customer_tax_exempt": "none", "customer_tax_ids": []any{}, "default_payment_method": nil,
		"default_source": nil, "default_tax_rates": []any{}, "description": nil, "discounts": []any{}, "due_date": timeOrNull(x.DueDate),
		"effective_at": timeOrNull(x.FinalizedAt), "ending_balance": nil, "footer": nil, "from_invoice": nil, "hosted_invoice_url": nil,
		"invoice_pdf": nil, "issuer": object{"type": "self"}, "last_finalization_error": nil, "latest_revision": nil,
		"lines":    object{"object": "list", "data": lines, "has_more": false, "url": "/v1/invoices/" + x.ID + "/lines"},
		"livemode": r.live, "metadata": object{}, "next_payment_attempt": timeOrNull(x.NextAttempt), "number": orNull(x.Number),
		"on_behalf_of":     nil,
		"payment_settings": object{"default_mandate": nil, "payment_method_options": nil, "payment_method_types": nil},
		"period_end":       x.PeriodEnd, "period_start": x.PeriodStart, "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0,
		"receipt_number": nil, "rendering": nil, "shipping_cost": nil, "shipping_details": nil, "starting_balance": 0,
		"statement_descriptor": nil, "status": x.Status,
		"status_transitions": object{"finalized_at": timeOrNull(x.FinalizedAt), "marked_uncollectible_at": timeOrNull(x.UncollectibleAt),
			"paid_at": timeOrNull(x.PaidAt), "voided_at": timeOrNull(x.VoidedAt)},
		"subtotal": x.Total, "subtotal_excluding_tax": x.Total, "test_clock": nil, "total": x.Total, "total_discount_amounts": []any{},
		"total_excluding_tax": x.Total, "webhooks_delivered_at": timeOrNull(x.FinalizedAt),
	}
	if r.v.basil() {
		tax := out["automatic_tax"].(object)
		tax["disabled_reason"], tax["provider"] = nil, nil
		out["amount_overpaid"], out["automatically_finalizes_at"] = 0, timeOrNull(x.FinalizeAt)
		out["total_pretax_credit_amounts"], out["total_taxes"] = []any{}, []any{}
		out["parent"] = object{"quote_details": nil, "type": "subscription_details",
			"subscription_details": object{"metadata": orNothing(x.SubscriptionMetadata), "subscription": x.Subscription}}
	} else {
		maps.Copy(out, map[string]any{"application_fee_amount": nil, "charge": orNull(x.Charge), "discount": nil,
			"paid": x.Status == "paid", "paid_out_of_band": x.OutOfBand, "payment_intent": orNull(x.Intent), "quote": nil,
			"subscription": orNull(x.Subscription), "subscription_details": object{"metadata": orNothing(x.SubscriptionMetadata)},
			"tax": nil, "total_tax_amounts": []any{}, "transfer_data": nil})
	}
	if r.v.clover() {
		out["customer_account"] = nil
	}
	return out
}

func (r renderer) line(x *invoice, l line) object {
	p := r.db.Prices.get(l.Price)
	out := object{
		"id": l.ID, "object": "line_item", "amount": l.Amount, "currency": x.Currency, "description": l.Text, "discount_amounts": []any{},
		"discountable": !l.Proration, "discounts": []any{}, "invoice": x.ID, "livemode": r.live, "metadata": orNothing(x.SubscriptionMetadata),
		"period": object{"end": l.End, "start": l.Start}, "quantity": l.Quantity, "subscription": orNull(x.Subscription),
	}
	var price any
	unit, product := decimal(l.Amount), ""
	if p != nil {
		price, unit, product = r.price(p), p.exact(), p.Product
	}
	if !r.v.basil() {
		maps.Copy(out, map[string]any{"amount_excluding_tax": l.Amount, "price": price, "proration": l.Proration,
			"proration_details": object{"credited_items": nil}, "tax_amounts": []any{}, "tax_rates": []any{}, "type": "subscription",
			"subscription_item": orNull(l.Item), "unit_amount_excluding_tax": unit})
		if l.Pended {
			out["type"], out["invoice_item"] = "invoiceitem", "ii_"+strings.TrimPrefix(l.ID, "il_")
		}
		return out
	}
	out["parent"] = object{"invoice_item_details": nil, "type": "subscription_item_details",
		"subscription_item_details": object{"invoice_item": nil, "proration": l.Proration, "proration_details": object{"credited_items": nil},
			"subscription": orNull(x.Subscription), "subscription_item": orNull(l.Item)}}
	out["pretax_credit_amounts"], out["subtotal"], out["taxes"] = []any{}, l.Amount, []any{}
	out["pricing"] = object{"type": "price_details", "unit_amount_decimal": unit,
		"price_details": object{"price": orNull(l.Price), "product": orNull(product)}}
	if r.v.dahlia() {
		out["quantity_decimal"] = decimal(l.Quantity)
	}
	return out
}

// invoicePayment links an invoice to its payment, which neither of them does by itself from basil
// on.
func (r renderer) invoicePayment(x *invoice) object {
	return object{
		"id": "inpay_" + strings.TrimPrefix(x.ID, "in_"), "object": "invoice_payment", "amount_paid": x.Paid, "amount_requested": x.Total,
		"created": x.FinalizedAt, "currency": x.Currency, "invoice": x.ID, "is_default": true, "livemode": r.live,
		"payment": object{"type": "payment_intent", "payment_intent": x.Intent}, "status": "paid",
		"status_transitions": object{"canceled_at": nil, "paid_at": timeOrNull(x.PaidAt)},
	}
}

func (r renderer) intent(x *intent) object {
	out := object{
		"id": x.ID, "object": "payment_intent", "amount": x.Amount, "amount_capturable": 0, "amount_details": object{"tip": object{}},
		"amount_received": x.Received, "application": nil, "application_fee_amount": nil, "automatic_payment_methods": nil,
		"canceled_at": timeOrNull(x.CanceledAt), "cancellation_reason": nil, "capture_method": "automatic",
		"client_secret": x.ID + "_secret_" + x.ID[len(x.ID)-8:], "confirmation_method": "automatic", "created": x.Created,
		"currency": x.Currency, "customer": orNull(x.Customer), "description": orNull(x.Description), "last_payment_error": nil,
		"latest_charge": orNull(x.Charge), "livemode": r.live, "metadata": orNothing(x.Metadata), "next_action": nil, "on_behalf_of": nil,
		"payment_method": orNull(x.Card), "payment_method_configuration_details": nil, "payment_method_options": object{},
		"payment_method_types": []any{"card"}, "processing": nil, "receipt_email": nil, "review": nil, "setup_future_usage": nil,
		"shipping": nil, "statement_descriptor": nil, "statement_descriptor_suffix": nil, "status": x.Status, "transfer_data": nil,
		"transfer_group": nil,
	}
	if x.Failure != "" {
		out["last_payment_error"] = object{"code": x.Failure, "message": "Your card was declined.", "type": "card_error"}
	}
	if !r.v.basil() {
		out["invoice"] = orNull(x.Invoice)
	}
	if r.v.clover() {
		out["customer_account"] = nil
	}
	if r.v.dahlia() {
		out["excluded_payment_method_types"], out["managed_payments"], out["source"] = nil, object{"enabled": false}, nil
	}
	return out
}

func (r renderer) charge(x *charge) object {
	billing := object{"address": emptyAddress(), "email": orNull(x.Email), "name": nil, "phone": nil}
	cardDetails := object{"amount_authorized": x.Amount, "brand": "visa",
		"checks":  object{"address_line1_check": nil, "address_postal_code_check": nil, "cvc_check": "pass"},
		"country": "US", "exp_month": 12, "exp_year": 2040, "extended_authorization": object{"status": "disabled"},
		"fingerprint": "sandboxFingerpr1", "funding": "credit", "incremental_authorization": object{"status": "unavailable"},
		"installments": nil, "last4": "4242", "mandate": nil, "multicapture": object{"status": "unavailable"}, "network": "visa",
		"network_token": object{"used": false}, "overcapture": object{"maximum_amount_capturable": x.Amount, "status": "unavailable"},
		"three_d_secure": nil, "wallet": nil}
	outcome := object{"network_status": "approved_by_network", "reason": nil, "risk_level": "normal", "seller_message": "Payment complete.", "type": "authorized"}
	if x.Status == "failed" {
		outcome = object{"network_status": "declined_by_network", "reason": "generic_decline", "risk_level": "normal",
			"seller_message": "The bank did not return any further details with this decline.", "type": "issuer_declined"}
	}
	out := object{
		"id": x.ID, "object": "charge", "amount": x.Amount, "amount_captured": 0, "amount_refunded": x.Refunded, "application": nil,
		"application_fee": nil, "application_fee_amount": nil, "balance_transaction": nil, "billing_details": billing,
		"calculated_statement_descriptor": nil, "captured": x.Status == "succeeded", "created": x.Created, "currency": x.Currency,
		"customer": orNull(x.Customer), "description": nil, "disputed": x.Disputed, "failure_balance_transaction": nil,
		"failure_code": orNull(x.Failure), "failure_message": nil, "fraud_details": object{}, "livemode": r.live,
		"metadata": orNothing(x.Metadata), "on_behalf_of": nil, "outcome": outcome, "paid": x.Status == "succeeded",
		"payment_intent": orNull(x.Intent), "payment_method": orNull(x.Card),
		"payment_method_details": object{"card": cardDetails, "type": "card"}, "receipt_email": nil, "receipt_number": nil,
		"receipt_url": nil, "refunded": x.Amount > 0 && x.Refunded == x.Amount, "review": nil, "shipping": nil, "source_transfer": nil,
		"statement_descriptor": nil, "statement_descriptor_suffix": nil, "status": x.Status, "transfer_data": nil, "transfer_group": nil,
	}
	if x.Status == "succeeded" {
		out["amount_captured"] = x.Amount
	}
	if r.v.basil() {
		billing["tax_id"], out["source"] = nil, nil
		for _, k := range []string{"authorization_code", "network_transaction_id", "regulated_status", "transaction_link_id"} {
			cardDetails[k] = nil
		}
		for _, k := range []string{"advice_code", "network_advice_code", "network_decline_code"} {
			outcome[k] = nil
		}
	} else {
		out["invoice"] = orNull(x.Invoice)
	}
	out["refunds"] = r.refundsOf(x)
	return out
}

func (r renderer) refundsOf(x *charge) object {
	refunds := []any{}
	if x.Refunded > 0 {
		for _, re := range slices.Backward(r.db.Refunds.Order) {
			if row := r.db.Refunds.get(re); row.Charge == x.ID {
				refunds = append(refunds, r.refund(row))
			}
		}
	}
	return listOf("/v1/charges/"+x.ID+"/refunds", refunds)
}

func (r renderer) refund(x *refund) object {
	out := object{
		"id": x.ID, "object": "refund", "amount": x.Amount, "balance_transaction": nil, "charge": x.Charge, "created": x.Created,
		"currency": x.Currency, "destination_details": object{"card": object{"type": "refund"}, "type": "card"},
		"metadata": orNothing(x.Metadata), "payment_intent": orNull(x.Intent), "reason": orNull(x.Reason), "receipt_number": nil,
		"source_transfer_reversal": nil, "status": "succeeded", "transfer_reversal": nil,
	}
	if x.Failure != "" {
		out["status"], out["failure_reason"], out["failure_balance_transaction"] = "failed", x.Failure, nil
	}
	if r.v.dahlia() {
		out["customer"], out["customer_account"], out["payment_method"] = orNull(x.Customer), nil, nil
	}
	return out
}

func (r renderer) dispute(x *dispute) object {
	evidence := object{}
	for name := range strings.FieldsSeq(`access_activity_log billing_address cancellation_policy cancellation_policy_disclosure
		cancellation_rebuttal customer_communication customer_email_address customer_name customer_purchase_ip customer_signature
		duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id product_description receipt refund_policy
		refund_policy_disclosure refund_refusal_explanation service_date service_documentation shipping_address shipping_carrier
		shipping_date shipping_documentation shipping_tracking_number uncategorized_file uncategorized_text`) {
		evidence[name] = nil
	}
	details := object{"due_by": x.Created + 9*24*60*60, "has_evidence": false, "past_due": false, "submission_count": 0}
	card := object{"brand": "visa", "network_reason_code": "10.4"}
	out := object{
		"id": x.ID, "object": "dispute", "amount": x.Amount, "balance_transactions": []any{}, "charge": x.Charge, "created": x.Created,
		"currency": x.Currency, "evidence": evidence, "evidence_details": details, "is_charge_refundable": false, "livemode": r.live,
		"metadata": object{}, "payment_intent": orNull(x.Intent), "payment_method_details": object{"card": card, "type": "card"},
		"reason": "fraudulent", "status": x.Status,
	}
	if r.v.basil() {
		out["enhanced_eligibility_types"] = []any{}
		evidence["enhanced_evidence"], details["enhanced_eligibility"] = object{}, object{}
		card["case_type"], card["network"] = "chargeback", "visa"
	}
	return out
}
