package stripeevent_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

const ada = "user_2adaLovelace"

// versions are the API versions of the files in testdata, which tell the same story.
func versions() []string {
	return []string{"2023-10-16", "2025-03-31.basil", "2025-09-30.clover", "2026-03-25.dahlia"}
}

// payload answers one event of testdata.
func payload(t *testing.T, version, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", version+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var events map[string]json.RawMessage
	if err := json.Unmarshal(raw, &events); err != nil {
		t.Fatal(err)
	}
	if events[name] == nil {
		t.Fatalf("testdata has no event %s of version %s", name, version)
	}
	return events[name]
}

func parse(t *testing.T, body []byte) stripeevent.Event {
	t.Helper()
	e, err := stripeevent.Parse(string(body))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// event makes an event around an object.
func event(t *testing.T, eventType, object string, previous ...string) stripeevent.Event {
	t.Helper()
	data := `"object":` + object
	if len(previous) > 0 {
		data += `,"previous_attributes":` + previous[0]
	}
	return parse(t, fmt.Appendf(nil, `{"id":"evt_1","object":"event","type":%q,"created":1700000100,"data":{%s}}`, eventType, data))
}

func at(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }

// TestAllVersionsSayTheSame reads the same events as each API version renders them.
func TestAllVersionsSayTheSame(t *testing.T) {
	t.Parallel()
	claim := func(source string) account.Claim {
		return account.Claim{CustomerID: "cus_ada1", ClerkUserID: ada, Source: source}
	}
	type said struct {
		entity  account.Entity
		claims  []account.Claim
		payment account.Payment
		changes []stripeevent.Change
		created string
	}
	change := func(field, before, after string) stripeevent.Change {
		return stripeevent.Change{SubscriptionID: "sub_1", Field: field, Before: before, After: after}
	}
	for _, version := range versions() {
		old := version == "2023-10-16"
		only := func(when bool, id string) string {
			if when {
				return id
			}
			return ""
		}
		dispute := "du_1"
		if old {
			dispute = "dp_1"
		}
		want := map[string]said{
			"subscription": {
				entity: "customer/cus_ada1",
				claims: []account.Claim{claim("subscription:sub_1")},
				changes: []stripeevent.Change{
					change("status", "past_due", "active"),
					change("cancel_at_period_end", "false", "true"),
					change("cancel_at", "", "1702592000"),
					change("canceled_at", "", "1700000050"),
					change("pause_collection", "true", "false"),
					change("current_period_end", "1700000000", "1702592000"),
					change("price", "price_old", "price_new"),
					change("quantity", "2", "3"),
				},
			},
			"session": {entity: "customer/cus_ada1", claims: []account.Claim{claim("checkout_metadata:cs_test_1")}},
			"invoice": {
				entity: "customer/cus_ada1",
				claims: []account.Claim{claim("subscription:sub_1")},
				payment: account.Payment{
					ID: "in_1", Kind: account.PaymentInvoice, CustomerID: "cus_ada1", SubscriptionID: "sub_1", InvoiceID: "in_1",
					IntentID: only(old || strings.HasSuffix(version, "clover"), "pi_1"), ChargeID: only(old, "ch_1"),
					Status: "paid", Reason: "subscription_cycle", Amount: 4500, AmountPaid: 4500, Currency: "usd",
					Created: at(1700000042), FinalizedAt: at(1700000050), PaidAt: at(1700000060), Attempts: 1,
				},
			},
			"payment_intent": {
				entity: "customer/cus_ada1",
				payment: account.Payment{
					ID: "pi_1", Kind: account.PaymentIntent, CustomerID: "cus_ada1", InvoiceID: only(old, "in_1"), IntentID: "pi_1", ChargeID: "ch_1",
					Status: "requires_payment_method", Reason: "insufficient_funds", Amount: 4500, Currency: "usd", Created: at(1700000050),
				},
			},
			"charge": {
				entity: "customer/cus_ada1",
				payment: account.Payment{
					ID: "ch_1", Kind: account.PaymentCharge, CustomerID: "cus_ada1", InvoiceID: only(old, "in_1"), IntentID: "pi_1", ChargeID: "ch_1",
					Status: "partially_refunded", Amount: 4500, AmountPaid: 4500, AmountRefunded: 1500, Currency: "usd", Created: at(1700000055),
				},
			},
			"dispute": {
				entity: "charge/ch_1",
				payment: account.Payment{
					ID: dispute, Kind: account.PaymentDispute, IntentID: "pi_1", ChargeID: "ch_1",
					Status: "needs_response", Reason: "fraudulent", Amount: 4500, Currency: "usd", Created: at(1700000090),
				},
			},
			"refund": {
				entity: account.Entity(cmp.Or(only(strings.HasSuffix(version, "dahlia"), "customer/cus_ada1"), "charge/ch_1")),
				payment: account.Payment{
					ID: "re_1", Kind: account.PaymentRefund, CustomerID: only(strings.HasSuffix(version, "dahlia"), "cus_ada1"), IntentID: "pi_1", ChargeID: "ch_1",
					Status: "failed", Reason: "expired_or_canceled_card", Amount: 1500, Currency: "usd", Created: at(1700000080), FailedAt: at(1700000100),
				},
			},
			"customer": {entity: "customer/cus_ada1", claims: []account.Claim{claim("customer:cus_ada1")}, created: "cus_ada1"},
			"schedule": {entity: "customer/cus_ada1"},
			"price":    {entity: "product/prod_1"},
			"product":  {entity: "product/prod_1"},
		}
		for name, w := range want {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				e := parse(t, payload(t, version, name))
				if e.APIVersion != version || e.Livemode || !e.Created.Equal(at(1700000100)) || e.ObjectID == "" || !stripeevent.Handled(e.Type) {
					t.Errorf("read %+v", e)
				}
				payment, _ := e.Payment()
				got := said{e.Entity(), e.Claims(), payment, e.Changed(), e.CreatedObject()}
				if !reflect.DeepEqual(got, w) {
					t.Errorf("got  %+v\nwant %+v", got, w)
				}
				if paid := w.payment != (account.Payment{}); paid && payment.Rank() == 0 {
					t.Errorf("status %q of a %s has no rank", payment.Status, payment.Kind)
				}
			})
		}
	}
}

func TestParseRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"", "null", "[]", `"x"`, "{", `{"id":"evt_1"}`, `{"type":"customer.created"}`, `{"id":"ada@example.com","type":"customer.created"}`,
		`{"id":"evt_1","type":"ada@example.com"}`, `{"id":1,"type":"customer.created"}`, `{"id":"evt_1","type":"customer.created"} trailing`,
	} {
		_, err := stripeevent.Parse(body)
		if !errors.Is(err, stripeevent.ErrNotAnEvent) {
			t.Errorf("Parse(%s): error is %v", body, err)
		}
		if err != nil && strings.Contains(err.Error(), "@") {
			t.Errorf("the error shows the body: %v", err)
		}
	}
}

// TestParseTakesWhatItCan has fields of types that they never had.
func TestParseTakesWhatItCan(t *testing.T) {
	t.Parallel()
	bodies := []string{
		`{"id":"evt_1","type":"unknown.type"}`,
		`{"id":"evt_1","type":"unknown.type","data":"x","created":"2026-01-01T00:00:00Z","livemode":1}`,
		`{"id":"evt_1","type":"invoice.paid","data":{"object":[]}}`,
		`{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":{},"customer":7,"metadata":[1],"parent":"x","payments":[],"amount_paid":"4","items":3}}}`,
		`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"id":"sub_1","object":"subscription","items":"x"},"previous_attributes":[]}}`,
		`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"id":"sub_1","object":"subscription"},"previous_attributes":{"items":"x","pause_collection":3}}}`,
	}
	for _, body := range bodies {
		e := parse(t, []byte(body))
		if e.Entity() != "" || e.Claims() != nil {
			t.Errorf("%s: entity %q, claims %v", body, e.Entity(), e.Claims())
		}
		if _, paid := e.Payment(); paid {
			t.Errorf("%s: a payment", body)
		}
		if changed := e.Changed(); len(changed) != 0 {
			t.Errorf("%s: changes %v", body, changed)
		}
	}
	e := parse(t, []byte(`{"id":"evt_1","type":"customer.subscription.updated","data":{"object":{"id":"sub_1","object":"subscription",
		"parent":"odd","customer":{"id":"cus_1","object":"customer"},"metadata":{"a":1,"clerk_user_id":"user_1"}}}}`))
	if e.Entity() != "customer/cus_1" || len(e.Claims()) != 1 {
		t.Errorf("fields beside an odd one: entity %q, claims %v", e.Entity(), e.Claims())
	}
}

func TestHandled(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, eventType := range stripeevent.HandledTypes() {
		if seen[eventType] {
			t.Errorf("%s is listed twice", eventType)
		}
		seen[eventType] = true
		if !stripeevent.Handled(eventType) {
			t.Errorf("%s is registered and not handled", eventType)
		}
	}
	for _, eventType := range []string{"customer.subscription.something_new", "charge.dispute.something_new", "price.deleted",
		"refund.created", "refund.updated", "refund.failed", "refund.something_new", "charge.refund.updated", "invoice.finalized", "invoice.voided",
		"invoice.marked_uncollectible", "payment_intent.canceled"} {
		if !stripeevent.Handled(eventType) {
			t.Errorf("%s is not handled", eventType)
		}
	}
	for _, eventType := range []string{
		"", "customer", "customer.source.created", "customer.discount.created", "invoice.created", "invoice.upcoming", "invoice.will_be_due",
		"charge.succeeded", "charge.refund", "refund", "payment_intent.created", "product_feature.created", "plan.created", "checkout.session",
	} {
		if stripeevent.Handled(eventType) {
			t.Errorf("%s is handled", eventType)
		}
		if e := event(t, eventType+"x", `{"id":"cus_1","object":"customer"}`); e.Entity() != "" {
			t.Errorf("%sx concerns %s", eventType, e.Entity())
		}
	}
}

// A refund names what it gives back, and as a rule no customer.
func TestEntityOfARefund(t *testing.T) {
	t.Parallel()
	for object, want := range map[string]account.Entity{
		`{"id":"re_1","object":"refund","charge":"ch_1","payment_intent":"pi_1"}`:                        "charge/ch_1",
		`{"id":"re_1","object":"refund","charge":{"id":"py_1","object":"charge"},"payment_intent":null}`: "charge/py_1",
		`{"id":"re_1","object":"refund","charge":null,"payment_intent":"pi_1"}`:                          "charge/pi_1",
		`{"id":"re_1","object":"refund","charge":"ch_1","customer":"cus_1"}`:                             "customer/cus_1",
		`{"id":"re_1","object":"refund","charge":null}`:                                                  "",
	} {
		for _, eventType := range []string{"refund.created", "refund.failed", "charge.refund.updated"} {
			if got := event(t, eventType, object).Entity(); got != want {
				t.Errorf("%s of %s concerns %q, want %q", eventType, object, got, want)
			}
		}
	}
}

func TestEntityIsNeverMadeOfAForeignID(t *testing.T) {
	t.Parallel()
	for eventType, object := range map[string]string{
		"customer.updated":              `{"id":"../x","object":"customer"}`,
		"customer.subscription.deleted": `{"id":"sub_1","object":"subscription","customer":"cus_1/../../x"}`,
		"invoice.paid":                  `{"id":"in_1","object":"invoice","customer":"user_1"}`,
		"payment_intent.succeeded":      `{"id":"pi_1","object":"payment_intent","customer":null}`,
		"charge.dispute.created":        `{"id":"dp_1","object":"dispute","charge":"x"}`,
		"refund.updated":                `{"id":"re_1","object":"refund","charge":"x","payment_intent":"pi_1/x","customer":"x"}`,
		"price.updated":                 `{"id":"price_1","object":"price","product":"a b"}`,
		"product.updated":               `{"id":"a/b","object":"product"}`,
	} {
		if e := event(t, eventType, object); e.Entity() != "" {
			t.Errorf("%s of %s concerns %s", eventType, object, e.Entity())
		}
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	claim := func(user, source string) account.Claim {
		return account.Claim{CustomerID: "cus_1", ClerkUserID: user, Source: source}
	}
	tests := []struct {
		name, object string
		want         []account.Claim
	}{
		{"reference only", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","client_reference_id":"user_a"}`, []account.Claim{claim("user_a", "reference:cs_1")}},
		{
			"a Payment Link's reference", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","client_reference_id":"user_a","payment_link":"plink_1"}`,
			[]account.Claim{claim("user_a", "payment_link_reference:cs_1")},
		},
		{
			"both, and the same", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","client_reference_id":"user_a","payment_link":"plink_1","metadata":{"clerk_user_id":"user_a"}}`,
			[]account.Claim{claim("user_a", "checkout_metadata:cs_1")},
		},
		{"metadata only", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","metadata":{"user_id":"user_a"}}`, []account.Claim{claim("user_a", "checkout_metadata:cs_1")}},
		{
			"both, and not the same", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","client_reference_id":"user_b","metadata":{"clerkUserId":"user_a"}}`,
			[]account.Claim{claim("user_a", "checkout_metadata:cs_1"), claim("user_b", "reference:cs_1")},
		},
		{"our key before the others", `{"id":"cus_1","object":"customer","metadata":{"userId":"user_b","clerk_user_id":"user_a"}}`, []account.Claim{claim("user_a", "customer:cus_1")}},
		{"ids of another system", `{"id":"cs_1","object":"checkout.session","customer":"cus_1","client_reference_id":"42","metadata":{"user_id":"auth0|1"}}`, nil},
		{"a guest", `{"id":"cs_1","object":"checkout.session","customer":null,"client_reference_id":"user_a"}`, nil},
		{"metadata of an object that is no evidence", `{"id":"pi_1","object":"payment_intent","customer":"cus_1","metadata":{"user_id":"user_a"}}`, nil},
		{"an invoice without a subscription", `{"id":"in_1","object":"invoice","customer":"cus_1","subscription_details":{"metadata":{"user_id":"user_a"}}}`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if got := event(t, "checkout.session.completed", test.object).Claims(); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestPaymentsThatDiffer(t *testing.T) {
	t.Parallel()
	paid, ok := event(t, "payment_intent.succeeded", `{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":5,"amount_received":5}`).Payment()
	if !ok || !paid.PaidAt.Equal(at(1700000100)) || paid.AmountPaid != 5 {
		t.Errorf("a payment intent that succeeded: %+v, %v", paid, ok)
	}
	refunded, ok := event(t, "charge.refunded", `{"id":"py_1","object":"charge","status":"succeeded","amount":5,"amount_refunded":5,"refunded":true}`).Payment()
	if !ok || refunded.Status != "refunded" || refunded.ChargeID != "py_1" {
		t.Errorf("a charge refunded in full: %+v, %v", refunded, ok)
	}
	failed, ok := event(t, "payment_intent.payment_failed", `{"id":"pi_1","object":"payment_intent","status":"requires_payment_method","last_payment_error":{"code":"card_declined"}}`).Payment()
	if !ok || failed.Reason != "card_declined" {
		t.Errorf("a failure without a decline code: %+v, %v", failed, ok)
	}
	declined, ok := event(t, "invoice.payment_failed", `{"id":"in_1","object":"invoice","status":"open","due_date":1700009999,"attempt_count":1,"status_transitions":{"finalized_at":1700000050}}`).Payment()
	if !ok || !declined.FailedAt.Equal(at(1700000100)) || !declined.DueAt.Equal(at(1700009999)) || !declined.FinalizedAt.Equal(at(1700000050)) {
		t.Errorf("an invoice that could not be collected: %+v, %v", declined, ok)
	}
	for eventType, status := range map[string]string{"invoice.finalized": "open", "invoice.voided": "void", "invoice.marked_uncollectible": "uncollectible"} {
		i, ok := event(t, eventType, `{"id":"in_1","object":"invoice","status":"`+status+`"}`).Payment()
		if !ok || i.Status != status || !i.FailedAt.IsZero() || i.Rank() == 0 {
			t.Errorf("%s: %+v, %v", eventType, i, ok)
		}
	}
	canceled, ok := event(t, "payment_intent.canceled", `{"id":"pi_1","object":"payment_intent","status":"canceled","amount":5}`).Payment()
	if !ok || canceled.Status != "canceled" || canceled.Rank() <= (account.Payment{Kind: account.PaymentIntent, Status: "processing"}).Rank() {
		t.Errorf("a payment intent that was given up: %+v, %v", canceled, ok)
	}
	prevented, ok := event(t, "charge.dispute.closed", `{"id":"du_1","object":"dispute","charge":"ch_1","status":"prevented"}`).Payment()
	if !ok || prevented.Rank() <= (account.Payment{Kind: account.PaymentDispute, Status: "under_review"}).Rank() {
		t.Errorf("a dispute that was prevented: %+v, %v", prevented, ok)
	}
	given, ok := event(t, "refund.updated", `{"id":"pyr_1","object":"refund","charge":null,"payment_intent":"pi_1","status":"succeeded","amount":5,"reason":"duplicate"}`).Payment()
	if !ok || given.Kind != account.PaymentRefund || given.IntentID != "pi_1" || given.Reason != "duplicate" || !given.FailedAt.IsZero() {
		t.Errorf("a refund: %+v, %v", given, ok)
	}
	leaky, ok := event(t, "charge.dispute.updated", `{"id":"dp_1","object":"dispute","charge":"ch_1","status":"lost","reason":"Ada says no"}`).Payment()
	if !ok || leaky.Reason != "" {
		t.Errorf("a reason that is a text: %+v, %v", leaky, ok)
	}
	for eventType, object := range map[string]string{
		"customer.updated":           `{"id":"cus_1","object":"customer"}`,
		"invoice.paid":               `{"id":"x","object":"invoice"}`,
		"invoice.updated":            `{"id":"in_1","object":"invoice","customer":"cus_1"}`,
		"refund.created":             `{"id":"x","object":"refund","charge":"ch_1"}`,
		"checkout.session.completed": `{"id":"cs_1","object":"checkout.session"}`,
	} {
		if p, ok := event(t, eventType, object).Payment(); ok {
			t.Errorf("%s tells the payment %+v", eventType, p)
		}
	}
}

func TestCreatedObject(t *testing.T) {
	t.Parallel()
	for eventType, want := range map[string]string{
		"customer.subscription.created": "sub_1", "price.created": "sub_1", "product.created": "sub_1",
		"customer.subscription.updated": "", "charge.dispute.created": "", "subscription_schedule.created": "",
	} {
		if got := event(t, eventType, `{"id":"sub_1","object":"subscription"}`).CreatedObject(); got != want {
			t.Errorf("%s: %q, want %q", eventType, got, want)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	raw, err := os.ReadFile(filepath.Join("testdata", "2026-03-25.dahlia.json"))
	if err != nil {
		b.Fatal(err)
	}
	var events map[string]json.RawMessage
	if err := json.Unmarshal(raw, &events); err != nil {
		b.Fatal(err)
	}
	body := events["subscription"]
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := stripeevent.Parse(string(body)); err != nil {
			b.Fatal(err)
		}
	}
}
