package stripeapi_test

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// A schedule that is to end has its phases sent anew, and what Stripe is not given of a phase it
// takes away: each thing that a phase has is sent as it is.
func TestAPhaseKeepsAllThatItHas(t *testing.T) {
	t.Parallel()
	const phase = `"start_date":1780000000,"end_date":1790000000,"application_fee_percent":2.5,"automatic_tax":{"enabled":true,"liability":{"type":"account","account":"acct_1"}},
		"billing_cycle_anchor":"automatic","billing_thresholds":{"amount_gte":900,"reset_billing_cycle_anchor":true},"collection_method":"send_invoice","currency":"usd",
		"default_payment_method":"pm_1","default_tax_rates":[{"id":"txr_1"}],"description":"Half a year",
		"invoice_settings":{"account_tax_ids":["atxi_1"],"days_until_due":14,"issuer":{"type":"account","account":"acct_2"}},
		"metadata":{"of":"phase"},"on_behalf_of":"acct_3","proration_behavior":"none","transfer_data":{"destination":"acct_4","amount_percent":10},"trial_end":1785000000,
		"add_invoice_items":[{"price":"price_fee","quantity":1,"tax_rates":[{"id":"txr_2"}],"discounts":[{"coupon":"FEE","discount":null,"promotion_code":null}]}],
		"items":[{"price":"price_1","quantity":3,"billing_thresholds":{"usage_gte":7},"metadata":{"of":"item"},"tax_rates":[{"id":"txr_3"}],
			"discounts":[{"coupon":"ITEM","discount":null,"promotion_code":null}]}]`
	sent := map[string]string{
		"start_date": "1780000000", "end_date": "1790000000", "application_fee_percent": "2.5000", "automatic_tax.enabled": "true", "automatic_tax.liability.type": "account",
		"automatic_tax.liability.account": "acct_1", "billing_cycle_anchor": "automatic", "billing_thresholds.amount_gte": "900",
		"billing_thresholds.reset_billing_cycle_anchor": "true", "collection_method": "send_invoice", "currency": "usd", "default_payment_method": "pm_1",
		"default_tax_rates.0": "txr_1", "description": "Half a year", "invoice_settings.account_tax_ids.0": "atxi_1", "invoice_settings.days_until_due": "14",
		"invoice_settings.issuer.type": "account", "invoice_settings.issuer.account": "acct_2", "metadata.of": "phase", "on_behalf_of": "acct_3",
		"proration_behavior": "none", "transfer_data.destination": "acct_4", "transfer_data.amount_percent": "10.0000", "trial_end": "1785000000",
		"add_invoice_items.0.price": "price_fee", "add_invoice_items.0.quantity": "1", "add_invoice_items.0.tax_rates.0": "txr_2",
		"add_invoice_items.0.discounts.0.coupon": "FEE", "items.0.price": "price_1", "items.0.quantity": "3", "items.0.billing_thresholds.usage_gte": "7",
		"items.0.metadata.of": "item", "items.0.tax_rates.0": "txr_3", "items.0.discounts.0.coupon": "ITEM",
	}
	for name, c := range map[string]struct {
		discounts string
		sent      map[string]string
	}{
		"a coupon": {`"coupon":"HALF","discounts":[]`, map[string]string{"coupon": "HALF"}},
		"discounts": {
			`"coupon":null,"discounts":[{"coupon":"HALF","discount":null,"promotion_code":null},{"coupon":null,"discount":"di_1","promotion_code":null},
				{"coupon":null,"discount":null,"promotion_code":"promo_1"}]`,
			map[string]string{"discounts.0.coupon": "HALF", "discounts.1.discount": "di_1", "discounts.2.promotion_code": "promo_1"},
		},
		"a coupon that is among the discounts": {
			`"coupon":"HALF","discounts":[{"coupon":"HALF","discount":null,"promotion_code":null}]`, map[string]string{"discounts.0.coupon": "HALF"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var form url.Values
			_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					form = r.PostForm
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"object":"subscription_schedule","id":"sub_sched_1","customer":"cus_1","subscription":"sub_1","status":"active",
					"end_behavior":"release","current_phase":{"start_date":1780000000,"end_date":1790000000},"phases":[{`+phase+","+c.discounts+`}]}`)
			})
			if err := client.EndThroughSchedule(t.Context(), "sub_sched_1", time.Unix(1790000000, 0), "k"); err != nil {
				t.Fatal(err)
			}
			var got, want []string
			for key, values := range form {
				if path, ok := strings.CutPrefix(key, "phases[0]["); ok {
					got = append(got, strings.NewReplacer("][", ".", "]", "").Replace(path)+"="+strings.Join(values, ","))
				}
			}
			for _, all := range []map[string]string{sent, c.sent} {
				for key, value := range all {
					want = append(want, key+"="+value)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			for _, missing := range want {
				if !slices.Contains(got, missing) {
					t.Errorf("not sent: %s", missing)
				}
			}
			for _, more := range got {
				if !slices.Contains(want, more) {
					t.Errorf("sent: %s", more)
				}
			}
		})
	}
}
