package account_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Only what has the form of an id goes on; what could leave its place in a path does not.
func TestIDForms(t *testing.T) {
	t.Parallel()
	forms := map[string]func(string) bool{
		"user": account.ValidUserID, "customer": account.ValidCustomerID, "product": account.ValidProductID, "charge": account.ValidChargeID,
	}
	valid := map[string][]string{
		"user":     {"user_1", "user_2abcXYZ", "user_" + strings.Repeat("a", 128)},
		"customer": {"cus_1", "cus_Nabc_XYZ", "cus_" + strings.Repeat("a", 128)},
		"product": {"prod_1", "pro-plan", "2024", strings.Repeat("a", 200), "user_1", "cus_1", "ch_1", "user_2abcXYZ", "cus_Nabc_XYZ", "py_1",
			"user_" + strings.Repeat("a", 128), "cus_" + strings.Repeat("a", 128), "ch_" + strings.Repeat("a", 128), "sub_1", "Cus_1", "user_a-b", "cus_", "user_", "user_" + strings.Repeat("a", 129)},
		"charge": {"ch_1", "py_1", "ch_" + strings.Repeat("a", 128)},
	}
	candidates := []string{"", " ", "sub_1", "Cus_1", "user_", "cus_", "user_a-b", "user_" + strings.Repeat("a", 129), strings.Repeat("a", 201)}
	for _, bad := range []string{"/", "..", "?", "#", "%2f", " ", "\n", "\x00", "é", "@", ".", "user_1/x"} {
		candidates = append(candidates, "user_1"+bad, "cus_1"+bad, "prod_1"+bad, "ch_1"+bad, bad+"user_1", bad+"cus_1", bad+"ch_1")
	}
	for _, ids := range valid {
		candidates = append(candidates, ids...)
	}
	for kind, form := range forms {
		for _, id := range candidates {
			if got, want := form(id), slices.Contains(valid[kind], id); got != want {
				t.Errorf("%q as the id of a %s: %t, want %t", id, kind, got, want)
			}
		}
	}
}

func TestEntities(t *testing.T) {
	t.Parallel()
	for entity, want := range map[account.Entity]string{
		account.UserEntity("user_1"): "user user_1", account.CustomerEntity("cus_1"): "customer cus_1", account.ProductEntity("prod_1"): "product prod_1",
		account.ChargeEntity("ch_1"): "charge ch_1", "user/a/b": "user a/b",
		"": " ", "user": " ", "user/": " ", "/user_1": " ", "order/or_1": " ", "User/user_1": " ",
	} {
		if kind, id := entity.Split(); fmt.Sprint(kind, " ", id) != want {
			t.Errorf("%q: %q %q, want %q", entity, kind, id, want)
		}
	}
	if account.UserEntity("user_1") != "user/user_1" || account.CustomerEntity("cus_1") != "customer/cus_1" || account.ProductEntity("p") != "product/p" || account.ChargeEntity("c") != "charge/c" {
		t.Error("an entity is not the id of its workflow")
	}
	if account.JobSync >= account.JobOnboard || account.JobOnboard >= account.JobOffboard || account.JobSync <= 0 {
		t.Error("deleted wins over created wins over updated")
	}
}

func TestIntervalType(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		interval string
		count    int64
		want     string
	}{
		{"month", 1, "monthly"}, {"month", 0, "monthly"}, {"year", 1, "yearly"}, {"week", 1, "weekly"}, {"day", 1, "daily"},
		{"month", 3, "3-month"}, {"year", 2, "2-year"}, {"", 0, ""}, {"", 1, ""}, {"", 2, ""}, {"fortnight", 1, "fortnight"},
	} {
		if got := account.IntervalType(c.interval, c.count); got != c.want {
			t.Errorf("%d %s: %q, want %q", c.count, c.interval, got, c.want)
		}
		item, price := account.Item{Interval: c.interval, IntervalCount: c.count}, account.Price{Interval: c.interval, IntervalCount: c.count}
		if item.Type() != c.want || price.Type() != c.want {
			t.Errorf("%d %s: of an item %q, of a price %q", c.count, c.interval, item.Type(), price.Type())
		}
	}
}

func TestClaimant(t *testing.T) {
	t.Parallel()
	claims := func(users ...string) (list []account.Claim) {
		for i, u := range users {
			list = append(list, account.Claim{CustomerID: "cus_1", ClerkUserID: u, Source: fmt.Sprint(i)})
		}
		return list
	}
	for _, c := range []struct {
		claims   []account.Claim
		user     string
		conflict bool
		distinct []string
	}{
		{nil, "", false, []string{}},
		{claims("user_1"), "user_1", false, []string{"user_1"}},
		{claims("user_1", "user_1", "user_1"), "user_1", false, []string{"user_1"}},
		{claims("user_2", "user_1"), "", true, []string{"user_1", "user_2"}},
		{claims("user_1", "user_1", "user_2", "user_1"), "", true, []string{"user_1", "user_2"}},
	} {
		user, conflict := account.Claimant(c.claims)
		if user != c.user || conflict != c.conflict {
			t.Errorf("%v: %q, %t", c.claims, user, conflict)
		}
		if got := account.DistinctUsers(c.claims); !slices.Equal(got, c.distinct) {
			t.Errorf("%v: users %v", c.claims, got)
		}
	}
}

func TestClaimedUser(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		metadata map[string]string
		want     string
	}{
		{nil, ""},
		{map[string]string{"clerk_user_id": "user_1"}, "user_1"},
		{map[string]string{"clerkUserId": "user_1"}, "user_1"},
		{map[string]string{"userId": "user_1"}, "user_1"},
		{map[string]string{"user_id": "user_1"}, "user_1"},
		{map[string]string{"user_id": "user_2", "clerk_user_id": "user_1"}, "user_1"},
		{map[string]string{"user_id": "42", "other": "user_1"}, ""},
		{map[string]string{"clerk_user_id": "42", "userId": "user_1"}, "user_1"},
		{map[string]string{"clerk_user_id": "user_1/../user_2"}, ""},
	} {
		if got, ok := account.ClaimedUser(c.metadata); got != c.want || ok != (c.want != "") {
			t.Errorf("%v: %q, %t", c.metadata, got, ok)
		}
	}
	mine := map[string]string{"clerk_user_id": "user_1"}
	got := account.ReadClaims(account.Customer{ID: "cus_1", Metadata: mine}, []account.Subscription{{ID: "sub_1", Metadata: mine}, {ID: "sub_2"}})
	want := []account.Claim{{CustomerID: "cus_1", ClerkUserID: "user_1", Source: "customer:cus_1"}, {CustomerID: "cus_1", ClerkUserID: "user_1", Source: "subscription:sub_1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("claims %+v, want %+v", got, want)
	}
}

// The statuses of each kind, from the least final to the most. What is not known ranks below.
func TestRank(t *testing.T) {
	t.Parallel()
	for kind, rising := range map[account.PaymentKind][]string{
		account.PaymentInvoice: {"", "draft", "open", "uncollectible", "void", "paid"},
		account.PaymentIntent:  {"", "requires_payment_method", "requires_confirmation", "requires_action", "processing", "requires_capture", "canceled", "succeeded"},
		account.PaymentCharge:  {"", "pending", "failed", "succeeded", "partially_refunded", "refunded"},
		account.PaymentDispute: {"", "warning_needs_response", "warning_under_review", "warning_closed", "needs_response", "under_review", "lost", "won"},
	} {
		for i, status := range rising {
			if i > 0 && (account.Payment{Kind: kind, Status: status}).Rank() <= (account.Payment{Kind: kind, Status: rising[i-1]}).Rank() {
				t.Errorf("%s: %s does not rank above %q", kind, status, rising[i-1])
			}
		}
		if (account.Payment{Kind: kind, Status: "invented_later"}).Rank() != 0 {
			t.Errorf("%s: an unknown status ranks above nothing", kind)
		}
	}
}

func TestFullName(t *testing.T) {
	t.Parallel()
	for want, u := range map[string]account.User{
		"": {}, "Ada": {FirstName: "Ada"}, "Lovelace": {LastName: "Lovelace"}, "Ada Lovelace": {FirstName: " Ada", LastName: "Lovelace "},
	} {
		if got := u.FullName(); got != want {
			t.Errorf("%+v: %q, want %q", u, got, want)
		}
	}
}

func TestAdopts(t *testing.T) {
	t.Parallel()
	claim := func(user string) account.Claim {
		return account.Claim{CustomerID: "cus_1", ClerkUserID: user, Source: "checkout:cs_1"}
	}
	for name, c := range map[string]struct {
		email, has string
		metadata   map[string]string
		claims     []account.Claim
		want       bool
	}{
		"names the user":                        {metadata: map[string]string{"clerk_user_id": "user_1"}, want: true},
		"names the user, has another address":   {email: "ada@example.com", has: "other@example.com", metadata: map[string]string{"userId": "user_1"}, want: true},
		"names another, has the address":        {email: "ada@example.com", has: "ada@example.com", metadata: map[string]string{"clerk_user_id": "user_2"}},
		"has the address":                       {email: "ada@example.com", has: "Ada@Example.com", want: true},
		"has the address, another claims it":    {email: "ada@example.com", has: "ada@example.com", claims: []account.Claim{claim("user_2")}},
		"has the address, two claim it":         {email: "ada@example.com", has: "ada@example.com", claims: []account.Claim{claim("user_1"), claim("user_2")}},
		"is claimed by the user":                {claims: []account.Claim{claim("user_1")}, want: true},
		"names the user, is claimed by another": {metadata: map[string]string{"clerk_user_id": "user_1"}, claims: []account.Claim{claim("user_2")}},
		"has no address, as the user":           {},
		"has an address, the user none":         {has: "ada@example.com"},
	} {
		customer := account.Customer{ID: "cus_1", Email: c.has, Metadata: c.metadata}
		if got := account.Adopts("user_1", c.email, customer, c.claims); got != c.want {
			t.Errorf("one that %s: %t", name, got)
		}
	}
}
