package stripesim

import "net/http"

// routes is everything that the server answers, with the parameters that each route knows (and
// expand, which all do).
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	on := func(pattern, names string, h handler) { mux.HandleFunc(pattern, s.route(names, h)) }
	const created = listParams + " created created.gt created.gte created.lt created.lte "

	on("GET /v1/account", "", s.getAccount)

	on("POST /v1/customers", customerParams, s.createCustomer)
	on("GET /v1/customers", created+"email test_clock", s.listCustomers)
	on("GET /v1/customers/search", "query limit page", s.searchCustomers)
	on("GET /v1/customers/{id}", "", s.getCustomer)
	on("POST /v1/customers/{id}", customerParams, s.updateCustomer)
	on("DELETE /v1/customers/{id}", "", s.removeCustomer)
	on("GET /v1/customers/{id}/payment_methods", listParams+"type", s.listCustomerCards)

	on("GET /v1/payment_methods/{id}", "", s.getCard)
	on("POST /v1/payment_methods/{id}/attach", "customer", s.attachCard)
	on("POST /v1/payment_methods/{id}/detach", "", s.detachCard)

	on("POST /v1/products", productParams+"id default_price_data.* default_price_data.tax_behavior=exclusive|inclusive|unspecified type", s.createProduct)
	on("GET /v1/products", created+"active ids.# shippable type url", s.listProducts)
	on("GET /v1/products/{id}", "", s.getProduct)
	on("POST /v1/products/{id}", productParams, s.updateProduct)
	on("DELETE /v1/products/{id}", "", s.removeProduct)

	on("POST /v1/prices", priceParams+`billing_scheme=per_unit|tiered currency product product_data.name=..250 product_data.metadata.* recurring.interval
		recurring.interval_count recurring.usage_type unit_amount unit_amount_decimal`, s.createPrice)
	on("GET /v1/prices", created+"active currency lookup_keys.# product recurring.* type", s.listPrices)
	on("GET /v1/prices/{id}", "", s.getPrice)
	on("POST /v1/prices/{id}", priceParams, s.updatePrice)

	on("POST /v1/subscriptions", createSubscriptionParams, s.createSubscription)
	on("GET /v1/subscriptions", created+`collection_method=charge_automatically|send_invoice current_period_end.* current_period_start.* customer plan price status
		test_clock automatic_tax.*`, s.listSubscriptions)
	on("GET /v1/subscriptions/search", "query limit page", s.searchSubscriptions)
	on("GET /v1/subscriptions/{id}", "", s.getSubscription)
	on("POST /v1/subscriptions/{id}", updateSubscriptionParams, s.updateSubscription)
	on("DELETE /v1/subscriptions/{id}", cancellationParams+"invoice_now prorate", s.removeSubscription)
	on("POST /v1/subscriptions/{id}/resume", "billing_cycle_anchor=now|unchanged proration_date "+prorationParam, s.resumeSubscription)

	on("POST /v1/subscription_schedules", scheduleParams+"customer from_subscription start_date", s.createSchedule)
	on("GET /v1/subscription_schedules", created+"customer scheduled canceled_at.* completed_at.* released_at.*", s.listSchedules)
	on("GET /v1/subscription_schedules/{id}", "", s.getSchedule)
	on("POST /v1/subscription_schedules/{id}", scheduleParams+prorationParam, s.updateSchedule)
	on("POST /v1/subscription_schedules/{id}/release", "preserve_cancel_date", s.releaseSchedule)
	on("POST /v1/subscription_schedules/{id}/cancel", "invoice_now prorate", s.cancelSchedule)

	on("GET /v1/invoices", created+"collection_method=charge_automatically|send_invoice customer due_date.* status subscription", s.listInvoices)
	on("GET /v1/invoices/{id}", "", s.getInvoice)
	on("POST /v1/invoices/{id}", "auto_advance description metadata.*", s.updateInvoice)
	on("POST /v1/invoices/{id}/pay", "forgive mandate off_session paid_out_of_band payment_method source", s.payInvoice)
	on("POST /v1/invoices/{id}/void", "", s.voidByRequest)
	on("POST /v1/invoices/{id}/mark_uncollectible", "", s.giveUpByRequest)

	on("POST /v1/invoiceitems", "amount currency customer description metadata.* price quantity subscription", s.createInvoiceItem)
	on("GET /v1/invoiceitems", created+"customer invoice pending", s.listInvoiceItems)
	on("GET /v1/invoiceitems/{id}", "", s.getInvoiceItem)
	on("DELETE /v1/invoiceitems/{id}", "", s.removeInvoiceItem)
	on("POST /v1/subscription_items/{id}/usage_records", "action quantity timestamp", s.createUsage)

	on("GET /v1/payment_intents", created+"customer", s.listIntents)
	on("GET /v1/payment_intents/{id}", "client_secret", s.getIntent)
	on("GET /v1/charges", created+"customer payment_intent transfer_group", s.listCharges)
	on("GET /v1/charges/{id}", "", s.getCharge)
	on("POST /v1/refunds", `amount charge currency customer instructions_email metadata.* origin=customer_balance payment_intent reason
		refund_application_fee reverse_transfer`, s.createRefund)
	on("GET /v1/refunds", created+"charge payment_intent", s.listRefunds)
	on("GET /v1/refunds/{id}", "", s.getRefund)
	on("GET /v1/disputes", created+"charge payment_intent", s.listDisputes)
	on("GET /v1/disputes/{id}", "", s.getDispute)

	on("POST /v1/checkout/sessions", sessionParams, s.createSession)
	on("GET /v1/checkout/sessions", created+"customer customer_details.email payment_intent payment_link status subscription", s.listSessions)
	on("GET /v1/checkout/sessions/{id}", "", s.getSession)
	on("POST /v1/checkout/sessions/{id}/expire", "", s.expireByRequest)
	on("POST /v1/billing_portal/sessions", "configuration customer flow_data.* locale on_behalf_of return_url", s.createPortalSession)

	on("GET /v1/events", created+"delivery_success type types.#", s.listEvents)
	on("GET /v1/events/{id}", "", s.getEvent)
	on("POST /v1/webhook_endpoints", endpointParams+"api_version connect", s.createEndpoint)
	on("GET /v1/webhook_endpoints", listParams, s.listEndpoints)
	on("GET /v1/webhook_endpoints/{id}", "", s.getEndpoint)
	on("POST /v1/webhook_endpoints/{id}", endpointParams, s.updateEndpoint)
	on("DELETE /v1/webhook_endpoints/{id}", "", s.removeEndpoint)
	return mux
}
