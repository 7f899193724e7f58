package stripesim_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
)

// What Stripe refuses is refused with the parameter that is wrong, and changes nothing.
func TestWhatStripeRefusesIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.sim.AddProduct("Pro")
	monthly := w.sim.AddPrice(product, 700, "month")
	yearly := w.sim.AddPrice(product, 9000, "year")
	quarterly := w.sim.AddPrice(product, 1900, "month", stripesim.Every(3))
	euros := w.sim.AddPrice(product, 300, "month", stripesim.Currency("eur"))
	other := w.sim.AddPrice(product, 900, "month")
	payer := w.payer("ada@example.com")
	sub := w.checkout(stripesim.CheckoutSpec{CustomerID: payer, PriceID: monthly}).SubscriptionID
	item := w.subscription(sub).Items.Data[0].ID
	status, _, body := w.send("POST", "/v1/subscriptions/"+sub, "items[0][price]="+other, nil)
	if status != 200 {
		t.Fatal(body)
	}
	free := w.payer("bo@example.com")
	now := start().Unix()
	later := fmt.Sprint(now + 86400)
	past := fmt.Sprint(now - 86400)
	running := w.made("/v1/subscription_schedules", "customer="+w.payer("cy@example.com")+"&start_date=now&phases[0][items][0][price]="+monthly+"&phases[0][iterations]=3")
	waiting := w.made("/v1/subscription_schedules", "customer="+w.payer("di@example.com")+"&start_date="+later+"&phases[0][items][0][price]="+monthly)
	const (
		mixedCurrency  = "The price specified only supports `eur`. This doesn't match the expected currency: `usd`."
		mixedInterval  = "Currency and interval fields must match across all plans on this subscription. Found mismatch in interval field."
		twice          = "Cannot add multiple subscription items with the same plan"
		mixedPhase     = "For a particular phase, all of its `plans` must have the same"
		combined       = "You cannot combine currencies on a single customer"
		future         = "must be in the future"
		schedules      = "/v1/subscription_schedules"
		prices         = "/v1/prices"
		sessions       = "/v1/checkout/sessions"
		subscriptions  = "/v1/subscriptions"
		oneOfProration = "Invalid proration_behavior: must be one of always_invoice, create_prorations, or none"
	)
	toSub, toRunning := subscriptions+"/"+sub, schedules+"/"+running
	create := "customer=" + free + "&items[0][price]=" + monthly
	page := "mode=subscription&success_url=https://example.com/ok&line_items[0][price]=" + monthly + "&line_items[0][quantity]=1"
	inAPhase := "customer=" + free + "&start_date=" + later + "&phases[0][items][0][price]=" + monthly
	price := "product=" + product + "&currency=usd&unit_amount=1&recurring[interval]=month"
	before := w.sim.Counts()
	for name, c := range map[string]struct{ path, form, param, refusal string }{
		// One subscription is in one currency, of one interval, and has each price once.
		"an item moved to another currency":          {toSub, "items[0][id]=" + item + "&items[0][price]=" + euros, "items", mixedCurrency},
		"an item added in another currency":          {toSub, "items[0][price]=" + euros, "items", mixedCurrency},
		"an item added of another interval":          {toSub, "items[0][price]=" + yearly, "items", mixedInterval},
		"one of two items moved to another interval": {toSub, "items[0][id]=" + item + "&items[0][price]=" + yearly, "items", mixedInterval},
		"an item added of another interval count":    {toSub, "items[0][price]=" + quarterly, "items", "mismatch in interval_count field"},
		"an item added twice":                        {toSub, "items[0][price]=" + monthly, "items", twice},
		"an item moved to the other one's price":     {toSub, "items[0][id]=" + item + "&items[0][price]=" + other, "items", twice},
		"two currencies from the start":              {subscriptions, create + "&items[1][price]=" + euros, "items", mixedCurrency},
		"two intervals from the start":               {subscriptions, create + "&items[1][price]=" + yearly, "items", mixedInterval},
		"a price twice from the start":               {subscriptions, create + "&items[1][price]=" + monthly, "items", twice},
		"another currency than asked for":            {subscriptions, "customer=" + free + "&currency=usd&items[0][price]=" + euros, "items", mixedCurrency},
		"a checkout's second line in another currency": {sessions, page + "&line_items[1][price]=" + euros + "&line_items[1][quantity]=1",
			"line_items[1][price]", mixedCurrency},
		"a checkout's second line of another interval": {sessions, page + "&line_items[1][price]=" + yearly + "&line_items[1][quantity]=1",
			"line_items", "different billing intervals"},
		"a checkout in another currency than its price": {sessions, page + "&currency=eur", "line_items[0][price]",
			"The price specified only supports `usd`. This doesn't match the expected currency: `eur`."},
		// So is all of a customer, with what schedules are to bring.
		"a schedule in another currency": {schedules, "customer=" + payer + "&start_date=" + later + "&phases[0][items][0][price]=" + euros, "", combined},
		"phases in two currencies":       {schedules, inAPhase + "&phases[1][items][0][price]=" + euros, "", combined},
		"a running schedule moved to another currency": {toRunning, fmt.Sprintf("phases[0][start_date]=%d&phases[0][items][0][price]=%s", now, euros),
			"", combined},
		"a phase in another currency behind the running one": {toRunning, fmt.Sprintf("phases[0][start_date]=%d&phases[0][items][0][price]=%s&phases[1][items][0][price]=%s",
			now, monthly, euros), "", combined},
		"two currencies in a phase":           {schedules, inAPhase + "&phases[0][items][1][price]=" + euros, "phases[0][items]", mixedPhase},
		"two intervals in a phase":            {schedules, inAPhase + "&phases[0][items][1][price]=" + yearly, "phases[0][items]", mixedPhase},
		"a price twice in a phase":            {schedules, inAPhase + "&phases[0][items][1][price]=" + monthly, "phases[0][items]", twice},
		"a phase in another currency by name": {schedules, inAPhase + "&phases[0][currency]=eur", "phases[0][items][0][price]", "expected currency: `eur`"},
		// Words that Stripe does not know.
		"end_behavior":                    {toRunning, "end_behavior=bogus", "end_behavior", "Invalid end_behavior: must be one of cancel or release"},
		"end_behavior of a new one":       {schedules, inAPhase + "&end_behavior=bogus", "end_behavior", "Invalid end_behavior"},
		"end_behavior emptied":            {toRunning, "end_behavior=", "end_behavior", "You passed an empty string for 'end_behavior'"},
		"proration_behavior":              {toSub, "proration_behavior=bogus", "proration_behavior", oneOfProration},
		"proration_behavior of a new one": {subscriptions, create + "&proration_behavior=bogus", "proration_behavior", oneOfProration},
		"proration_behavior of a change":  {toRunning, "proration_behavior=bogus", "proration_behavior", oneOfProration},
		"proration_behavior of a phase":   {schedules, inAPhase + "&phases[0][proration_behavior]=bogus", "phases[0][proration_behavior]", "must be one of"},
		"collection_method":               {toSub, "collection_method=bogus", "collection_method", "must be one of charge_automatically or send_invoice"},
		"collection_method of a new one":  {subscriptions, create + "&collection_method=bogus", "collection_method", "must be one of"},
		"collection_method of a phase":    {schedules, inAPhase + "&phases[0][collection_method]=bogus", "phases[0][collection_method]", "must be one of"},
		"collection_method by default": {schedules, inAPhase + "&default_settings[collection_method]=bogus", "default_settings[collection_method]",
			"must be one of"},
		"payment_behavior":     {subscriptions, create + "&payment_behavior=bogus", "payment_behavior", "must be one of"},
		"billing_cycle_anchor": {toSub, "billing_cycle_anchor=bogus", "billing_cycle_anchor", "must be one of now or unchanged"},
		"feedback":             {toSub, "cancellation_details[feedback]=bogus", "cancellation_details[feedback]", "must be one of customer_service, "},
		"missing_payment_method": {toSub, "trial_settings[end_behavior][missing_payment_method]=bogus",
			"trial_settings[end_behavior][missing_payment_method]", "must be one of"},
		"payment_method_collection": {sessions, page + "&payment_method_collection=bogus", "payment_method_collection", "must be one of"},
		"tax_exempt":                {"/v1/customers", "tax_exempt=bogus", "tax_exempt", "must be one of exempt, none, or reverse"},
		"usage_type":                {prices, price + "&recurring[usage_type]=bogus", "recurring[usage_type]", "must be one of licensed or metered"},
		"interval":                  {prices, "product=" + product + "&currency=usd&unit_amount=1&recurring[interval]=bogus", "recurring[interval]", "must be one of day, month, week, or year"},
		// Prices.
		"a currency that there is not": {prices, "product=" + product + "&currency=xyz&unit_amount=1", "currency", "Invalid currency: xyz. Stripe currently supports"},
		"a product's price in such":    {"/v1/products", "name=x&default_price_data[currency]=xyz&default_price_data[unit_amount]=1", "default_price_data[currency]", "Invalid currency: xyz"},
		"a negative amount":            {prices, "product=" + product + "&currency=usd&unit_amount=-1", "unit_amount", "Invalid non-negative integer"},
		"a negative decimal":           {prices, "product=" + product + "&currency=usd&unit_amount_decimal=-0.5", "unit_amount_decimal", "Invalid decimal: -0.5"},
		"a decimal of too many places": {prices, "product=" + product + "&currency=usd&unit_amount_decimal=0.1234567890123", "unit_amount_decimal", "at maximum 12 decimal places"},
		"an amount in two ways":        {prices, price + "&unit_amount_decimal=1", "unit_amount", "only specify one"},
		"more than three years":        {prices, "product=" + product + "&currency=usd&unit_amount=1&recurring[interval]=year&recurring[interval_count]=4", "recurring[interval_count]", "three years"},
		"more than 36 months":          {prices, price + "&recurring[interval_count]=37", "recurring[interval_count]", "three years"},
		"more than 156 weeks":          {prices, "product=" + product + "&currency=usd&unit_amount=1&recurring[interval]=week&recurring[interval_count]=157", "recurring[interval_count]", "three years"},
		"no interval at all":           {prices, price + "&recurring[interval_count]=0", "recurring[interval_count]", "greater than or equal to 1"},
		// Times.
		"an end that has passed":               {subscriptions, create + "&cancel_at=" + past, "cancel_at", future},
		"an end in two ways":                   {subscriptions, create + "&cancel_at_period_end=true&cancel_at=" + later, "cancel_at", "only specify one"},
		"a trial that is over":                 {subscriptions, create + "&trial_end=" + past, "trial_end", "in the future"},
		"a trial of more than two years":       {subscriptions, create + "&trial_period_days=731", "trial_period_days", "The maximum number of trial period days is 730 (2 years)."},
		"a trial until more than two years on": {toSub, "trial_end=" + fmt.Sprint(now+731*86400), "trial_end", "The maximum number of trial period days is 730 (2 years)."},
		"a checkout's trial of as many":        {sessions, page + "&subscription_data[trial_period_days]=731", "subscription_data[trial_period_days]", "is 730"},
		"a negative trial":                     {subscriptions, create + "&trial_period_days=-1", "trial_period_days", "greater than or equal to 0"},
		"a trial in two ways":                  {subscriptions, create + "&trial_period_days=1&trial_end=" + later, "trial_end", "only specify one"},
		"an anchor that has passed":            {subscriptions, create + "&billing_cycle_anchor=" + past, "billing_cycle_anchor", "in the future"},
		"an anchor behind the period":          {subscriptions, create + "&billing_cycle_anchor=" + fmt.Sprint(now+40*86400), "billing_cycle_anchor", "next natural billing date"},
		"a pause until what has passed":        {toSub, "pause_collection[behavior]=void&pause_collection[resumes_at]=" + past, "pause_collection[resumes_at]", future},
		"invoices that are never due":          {subscriptions, create + "&collection_method=send_invoice", "days_until_due", "Missing required param"},
		"invoices that become never due":       {toSub, "collection_method=send_invoice", "days_until_due", "Missing required param"},
		"a due time of a charge":               {subscriptions, create + "&days_until_due=3", "days_until_due", "'send_invoice'"},
		// Texts.
		"metadata of 51 keys":                 {"/v1/customers", keys(51), "metadata", "Metadata can have up to 50 keys, but you've set 51."},
		"a metadata key with a bracket":       {"/v1/customers", "metadata[a%5B]=v", "metadata", "Metadata keys cannot contain square brackets"},
		"a metadata key with another bracket": {"/v1/customers", "metadata[a%5Db]=v", "metadata", "Metadata keys cannot contain square brackets"},
		"a metadata key of 41 characters":     {toSub, "metadata[" + strings.Repeat("k", 41) + "]=v", "metadata[" + strings.Repeat("k", 41) + "]", "at most 40"},
		"a metadata value of 501 characters":  {toSub, "metadata[k]=" + strings.Repeat("v", 501), "metadata[k]", "at most 500"},
		"a metadata value with parts":         {"/v1/customers", "metadata[a][b]=v", "metadata", "Invalid val"},
		"metadata that are no object":         {"/v1/customers", "metadata=v", "metadata", "Invalid object"},
		"a customer's long description":       {"/v1/customers", "description=" + strings.Repeat("x", 351), "description", "must be at most 350 characters"},
		"a subscription's long description":   {toSub, "description=" + strings.Repeat("x", 501), "description", "must be at most 500 characters"},
		"a product's long name":               {"/v1/products", "name=" + strings.Repeat("x", 251), "name", "must be at most 250 characters"},
		"a lookup key":                        {prices, price + "&lookup_key=" + strings.Repeat("x", 201), "lookup_key", "must be at most 200 characters"},
		"any text":                            {prices, price + "&nickname=" + strings.Repeat("x", 5001), "nickname", "must be at most 5000 characters"},
		"a checkout's email without a domain": {sessions, page + "&customer_email=foo", "customer_email", "Invalid email address: foo"},
		"a coupon that there is not":          {subscriptions, create + "&coupon=SPRING", "coupon", "No such coupon: 'SPRING'"},
		"a setup of something":                {sessions, "mode=setup&success_url=https://example.com/ok&line_items[0][price]=" + monthly + "&line_items[0][quantity]=1", "line_items", "`setup` mode"},
	} {
		status, _, body := w.send("POST", c.path, c.form, nil)
		var answer struct {
			Error struct{ Type, Param, Message string }
		}
		if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 400 || answer.Error.Type != "invalid_request_error" ||
			answer.Error.Param != c.param || !strings.Contains(answer.Error.Message, c.refusal) {
			t.Errorf("%s: %d of param %q, want %q of param %q in %.400s", name, status, answer.Error.Param, c.refusal, c.param, body)
		}
	}
	if after := w.sim.Counts(); !maps.Equal(before, after) {
		t.Errorf("what was refused has changed the account from %v to %v", before, after)
	}
	// What comes close is taken.
	for _, c := range []struct{ path, form string }{
		{"/v1/customers", keys(50)},
		{"/v1/customers", "description=" + strings.Repeat("x", 350)},
		{toSub, "items[0][id]=" + item + "&items[0][deleted]=true&items[1][price]=" + monthly},
		{toSub, "cancellation_details[feedback]="},
		{prices, "product=" + product + "&currency=USD&unit_amount=0&recurring[interval]=month&recurring[interval_count]=36"},
		{sessions, page + "&line_items[1][price]=" + other + "&line_items[1][quantity]=1&currency=usd"},
		{schedules + "/" + waiting, "phases[0][start_date]=" + later + "&phases[0][items][0][price]=" + euros},
		{subscriptions, create + "&items[1][price]=" + other + "&collection_method=send_invoice&days_until_due=3&trial_period_days=730"},
	} {
		if status, _, body := w.send("POST", c.path, c.form, nil); status != 200 {
			t.Errorf("%s %.90s: %d %.300s", c.path, c.form, status, body)
		}
	}
}

func keys(n int) string {
	form := url.Values{}
	for i := range n {
		form.Set(fmt.Sprintf("metadata[k%d]", i), "v")
	}
	return form.Encode()
}

// Of two checkouts that are open in two currencies only one is completed.
func TestCheckoutsInTwoCurrenciesAreNotBothCompleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	product := w.sim.AddProduct("Pro")
	payer := w.payer("ada@example.com")
	var open []string
	for _, currency := range []string{"usd", "eur"} {
		price := w.sim.AddPrice(product, 700, "month", stripesim.Currency(currency))
		open = append(open, w.made("/v1/checkout/sessions", "mode=subscription&success_url=https://example.com/ok&customer="+payer+
			"&line_items[0][price]="+price+"&line_items[0][quantity]=1"))
	}
	w.checkout(stripesim.CheckoutSpec{SessionID: open[0]})
	_, err := w.sim.CompleteCheckout(t.Context(), stripesim.CheckoutSpec{SessionID: open[1]})
	if err == nil || !strings.Contains(err.Error(), "You cannot combine currencies") {
		t.Errorf("completing the second: %v", err)
	}
	equal(t, "subscriptions", w.sim.Counts()["subscription"], 1)
}

// What a unit costs may be a fraction: then Stripe tells it as a decimal alone, and rounds what is
// billed.
func TestFractionalPrices(t *testing.T) {
	t.Parallel()
	for decimal, want := range map[string]struct {
		unit   any
		shown  string
		billed int64 // of 3
	}{"0.5": {nil, "0.5", 2}, "0.40": {nil, "0.4", 1}, "12.25": {nil, "12.25", 37}, "7.00": {7.0, "7", 21}, "0": {0.0, "0", 0}} {
		w := newWorld(t)
		status, _, body := w.send("POST", "/v1/prices", "product="+w.sim.AddProduct("Calls")+"&currency=usd&unit_amount_decimal="+decimal+"&recurring[interval]=month", nil)
		var price struct {
			ID      string
			Unit    any    `json:"unit_amount"`
			Decimal string `json:"unit_amount_decimal"`
		}
		w.ok(json.Unmarshal([]byte(body), &price))
		if status != 200 || price.Unit != want.unit || price.Decimal != want.shown {
			t.Errorf("a unit of %s: %s", decimal, body)
		}
		bought := w.checkout(stripesim.CheckoutSpec{CustomerID: w.payer("ada@example.com"), PriceID: price.ID, Quantity: 3})
		w.advance(time.Minute)
		invoice, err := w.api.Invoices.Get(bought.InvoiceID, nil)
		w.ok(err)
		equal(t, "billed of "+decimal, invoice.Total, want.billed)
	}
}
