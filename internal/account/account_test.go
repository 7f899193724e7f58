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

// More evidence for an erased user never makes them lose: what names them beside the product's own
// tables counts, also where the product's word weighs more.
func TestTheProductsWordTakesNothingFromAnErasedUser(t *testing.T) {
	t.Parallel()
	claim := func(user, place string) account.Claim {
		return account.Claim{CustomerID: "cus_1", ClerkUserID: user, Source: place + ":1"}
	}
	erased, product := claim("user_erased", account.PlaceSubscription), claim("user_erased", account.PlaceProduct)
	users := map[string]account.ClaimedUser{"user_erased": {Known: true, Tombstone: true}, "user_here": {Known: true}}
	for name, claims := range map[string][]account.Claim{
		"the customer names another":                              {erased, claim("user_here", account.PlaceCustomer)},
		"the customer names another, beside the product's word":   {erased, product, claim("user_here", account.PlaceCustomer)},
		"the product's word comes first":                          {product, erased, claim("user_here", account.PlaceCustomer)},
		"a checkout names another, beside the product's own word": {erased, product, claim("user_here", account.PlaceSession)},
	} {
		if owner := account.Claimant(account.Evidence{Claims: claims, Users: users}); owner.ClerkUserID != "user_erased" {
			t.Errorf("%s: it is %+v", name, owner)
		}
	}
	if owner := account.Claimant(account.Evidence{Claims: []account.Claim{product, claim("user_here", account.PlaceCustomer)}, Users: users}); owner.ClerkUserID == "user_erased" {
		t.Errorf("by the product's word alone it is %+v", owner)
	}
}

// What stands nearer to the customer wins; a user whom nobody has loses to any other, and one whose
// deletion was asked for to nobody; a reference that the payer may have written counts where the
// user has verified the customer's own address, and less than anything else where they had and are
// erased.
func TestClaimant(t *testing.T) {
	t.Parallel()
	const here, there = "user_1", "user_2"
	claims := func(list ...string) (claims []account.Claim) {
		for _, each := range list {
			user, source, _ := strings.Cut(each, " ")
			claims = append(claims, account.Claim{CustomerID: "cus_1", ClerkUserID: user, Source: source})
		}
		return claims
	}
	gone, erased := account.ClaimedUser{Missing: true}, account.ClaimedUser{Known: true, Tombstone: true}
	verified := account.ClaimedUser{Known: true, VerifiedEmail: "Ada@example.com"}
	had := account.ClaimedUser{Known: true, Tombstone: true, HadAddress: true}
	type users = map[string]account.ClaimedUser
	for name, c := range map[string]struct {
		claims     []account.Claim
		users      users
		trusted    bool
		want       string // "" for nobody, "conflict" for a conflict
		source     string
		unverified int
	}{
		"nothing":                                                     {},
		"a customer":                                                  {claims: claims("user_1 customer:cus_1"), want: here, source: "customer:cus_1"},
		"several that agree":                                          {claims: claims("user_1 checkout_metadata:cs_1", "user_1 customer:cus_1", "user_1 subscription:sub_1"), want: here, source: "customer:cus_1"},
		"a customer over a subscription":                              {claims: claims("user_2 subscription:sub_1", "user_1 customer:cus_1"), want: here, source: "customer:cus_1"},
		"a subscription over a session":                               {claims: claims("user_1 subscription:sub_1", "user_2 checkout_metadata:cs_1"), want: here, source: "subscription:sub_1"},
		"a customer over a session":                                   {claims: claims("user_2 checkout_metadata:cs_1", "user_1 customer:cus_1"), want: here, source: "customer:cus_1"},
		"a session over the user's notes":                             {claims: claims("user_1 checkout_metadata:cs_1", "user_2 hint:user_2"), want: here, source: "checkout_metadata:cs_1"},
		"two subscriptions":                                           {claims: claims("user_1 subscription:sub_1", "user_2 subscription:sub_2"), want: "conflict"},
		"two sessions":                                                {claims: claims("user_1 checkout_metadata:cs_1", "user_2 checkout_metadata:cs_2"), want: "conflict"},
		"an operator, and a session":                                  {claims: claims("user_1 operator:cus_1", "user_2 checkout_metadata:cs_2"), want: "conflict"},
		"two subscriptions, and the customer":                         {claims: claims("user_1 subscription:sub_1", "user_2 subscription:sub_2", "user_2 customer:cus_1"), want: there, source: "customer:cus_1"},
		"gone, alone":                                                 {claims: claims("user_1 customer:cus_1"), users: users{here: gone}, want: here, source: "customer:cus_1"},
		"gone, on the customer":                                       {claims: claims("user_2 customer:cus_1", "user_1 checkout_metadata:cs_1"), users: users{there: gone}, want: here, source: "checkout_metadata:cs_1"},
		"gone, in the same place":                                     {claims: claims("user_2 subscription:sub_2", "user_1 subscription:sub_1"), users: users{there: gone}, want: here, source: "subscription:sub_1"},
		"gone, against a verified address":                            {claims: claims("user_2 customer:cus_1", "user_1 reference:cs_1"), users: users{there: gone, here: verified}, want: here, source: "reference:cs_1, verified email"},
		"both gone":                                                   {claims: claims("user_2 checkout_metadata:cs_2", "user_1 checkout_metadata:cs_1"), users: users{here: gone, there: gone}, want: "conflict"},
		"erased, on a session":                                        {claims: claims("user_2 customer:cus_1", "user_1 checkout_metadata:cs_1"), users: users{here: erased}, want: here, source: "checkout_metadata:cs_1"},
		"erased, and another erased":                                  {claims: claims("user_2 customer:cus_1", "user_1 checkout_metadata:cs_1"), users: users{here: erased, there: erased}, want: there, source: "customer:cus_1"},
		"erased, by a mere reference":                                 {claims: claims("user_2 reference:cs_1", "user_1 checkout_metadata:cs_1"), users: users{there: erased}, want: here, source: "checkout_metadata:cs_1", unverified: 1},
		"a reference":                                                 {claims: claims("user_1 reference:cs_1"), users: users{here: {Known: true, VerifiedEmail: "eve@example.com"}}, unverified: 1},
		"a reference of before":                                       {claims: claims("user_1 checkout:cs_1"), users: users{here: {Known: true}}, unverified: 1},
		"a reference to somebody unknown":                             {claims: claims("user_1 reference:cs_1"), unverified: 1},
		"a reference, and the address":                                {claims: claims("user_1 payment_link_reference:cs_1"), users: users{here: verified}, want: here, source: "payment_link_reference:cs_1, verified email"},
		"a reference, and another's evidence":                         {claims: claims("user_1 reference:cs_1", "user_2 subscription:sub_1"), users: users{here: verified}, want: there, source: "subscription:sub_1"},
		"two references, one with the address":                        {claims: claims("user_1 reference:cs_1", "user_2 reference:cs_2"), users: users{here: verified}, want: here, source: "reference:cs_1, verified email", unverified: 1},
		"two references, both with the address":                       {claims: claims("user_1 reference:cs_1", "user_2 reference:cs_2"), users: users{here: verified, there: verified}, want: "conflict"},
		"a reference to an erased user, and the address they had":     {claims: claims("user_1 payment_link_reference:cs_1"), users: users{here: had}, want: here, source: "payment_link_reference:cs_1, verified email"},
		"a reference to a user who is being deleted, and another's":   {claims: claims("user_1 reference:cs_1"), users: users{here: {Known: true, Tombstone: true, VerifiedEmail: "ada@example.com"}}, unverified: 1},
		"the address of an erased user, and another's evidence":       {claims: claims("user_1 reference:cs_1", "user_2 checkout_metadata:cs_1"), users: users{here: had, there: {Known: true}}, want: there, source: "checkout_metadata:cs_1"},
		"the address of an erased user, and another's notes":          {claims: claims("user_1 reference:cs_1", "user_2 hint:user_2"), users: users{here: had, there: {Known: true}}, want: there, source: "hint:user_2"},
		"the address of an erased user, and the evidence of one gone": {claims: claims("user_1 reference:cs_1", "user_2 customer:cus_1"), users: users{here: had, there: gone}, want: here, source: "reference:cs_1, verified email"},
		"the address of an erased user, and another erased":           {claims: claims("user_1 reference:cs_1", "user_2 checkout_metadata:cs_1"), users: users{here: had, there: erased}, want: there, source: "checkout_metadata:cs_1"},
		"the address of an erased user, and their own evidence":       {claims: claims("user_1 reference:cs_1", "user_1 subscription:sub_1", "user_2 customer:cus_1"), users: users{here: had, there: {Known: true}}, want: here, source: "subscription:sub_1"},
		"a reference, trusted":                                        {claims: claims("user_1 reference:cs_1"), trusted: true, want: here, source: "reference:cs_1"},
		"a reference of before, trusted":                              {claims: claims("user_1 checkout:cs_1"), trusted: true, want: here, source: "checkout:cs_1"},
		"a Payment Link's, which is never trusted":                    {claims: claims("user_1 payment_link_reference:cs_1"), trusted: true, unverified: 1},
		"a trusted reference against the metadata":                    {claims: claims("user_1 reference:cs_1", "user_2 checkout_metadata:cs_1"), trusted: true, want: "conflict"},
		"a trusted reference against a subscription":                  {claims: claims("user_1 reference:cs_1", "user_2 subscription:sub_1"), trusted: true, want: there, source: "subscription:sub_1"},
		"the product's table":                                         {claims: claims("user_1 product:user_1", "user_2 subscription:sub_1"), want: here, source: "product:user_1"},
		"the product's table for two":                                 {claims: claims("user_1 product:user_1", "user_2 product:user_2"), want: "conflict"},
		"the product's table for two, one erased":                     {claims: claims("user_1 product:user_1", "user_2 product:user_2"), users: users{there: erased}, want: "conflict"},
		"the product's table, and the customer":                       {claims: claims("user_1 product:user_1", "user_2 customer:cus_1"), users: users{there: {Known: true}}, want: "conflict"},
		"the product's table, the customer's is gone":                 {claims: claims("user_1 product:user_1", "user_2 customer:cus_1"), users: users{there: gone}, want: here, source: "product:user_1"},
		"a subscription that the product has stored":                  {claims: claims("user_1 product_subscription:sub_1", "user_2 checkout_metadata:cs_1"), want: here, source: "product_subscription:sub_1"},
		"such a one, and the customer":                                {claims: claims("user_1 product_subscription:sub_1", "user_2 customer:cus_1"), want: there, source: "customer:cus_1"},
	} {
		got := account.Claimant(account.Evidence{Claims: c.claims, Users: c.users, CustomerEmail: " ada@example.com", TrustReferences: c.trusted})
		who := got.ClerkUserID
		if got.Conflict {
			who += "conflict"
		}
		if who != c.want || got.Source != c.source || len(got.Unverified) != c.unverified {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := account.NamedUsers(claims("user_2 a", "user_1 b", "user_2 c")); !slices.Equal(got, []string{here, there}) {
		t.Errorf("named are %v", got)
	}
	if e := (account.Evidence{Claims: claims("user_1 customer:cus_1", "user_2 subscription:sub_1")}); e.Against(here) || !e.Against(there) {
		t.Error("what is against the owner is not what the evidence says against them")
	}
}

func TestUserInMetadata(t *testing.T) {
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
		if got, ok := account.UserInMetadata(c.metadata); got != c.want || ok != (c.want != "") {
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
		account.PaymentDispute: {"", "warning_needs_response", "warning_under_review", "warning_closed", "needs_response", "under_review", "prevented", "lost", "won"},
		account.PaymentRefund:  {"", "requires_action", "pending", "succeeded", "canceled", "failed"},
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
		return account.Claim{CustomerID: "cus_1", ClerkUserID: user, Source: "checkout_metadata:cs_1"}
	}
	for name, c := range map[string]struct {
		email, has string
		metadata   map[string]string
		claims     []account.Claim
		want       bool
	}{
		"names the user":                           {metadata: map[string]string{"clerk_user_id": "user_1"}, want: true},
		"names the user, has another address":      {email: "ada@example.com", has: "other@example.com", metadata: map[string]string{"userId": "user_1"}, want: true},
		"names another, has the address":           {email: "ada@example.com", has: "ada@example.com", metadata: map[string]string{"clerk_user_id": "user_2"}},
		"has the address":                          {email: "ada@example.com", has: "Ada@Example.com", want: true},
		"has the address, another claims it":       {email: "ada@example.com", has: "ada@example.com", claims: []account.Claim{claim("user_2")}},
		"has the address, two claim it":            {email: "ada@example.com", has: "ada@example.com", claims: []account.Claim{claim("user_1"), claim("user_2")}},
		"has the address, a payer names another":   {email: "ada@example.com", has: "ada@example.com", claims: []account.Claim{{CustomerID: "cus_1", ClerkUserID: "user_2", Source: "reference:cs_1"}}, want: true},
		"has the address, names one who is gone":   {email: "ada@example.com", has: "ada@example.com", metadata: map[string]string{"clerk_user_id": "user_gone"}, want: true},
		"names one who is gone":                    {metadata: map[string]string{"clerk_user_id": "user_gone"}},
		"is claimed by the user":                   {claims: []account.Claim{claim("user_1")}, want: true},
		"names the user, and another nearer to it": {metadata: map[string]string{"clerk_user_id": "user_2"}, claims: []account.Claim{claim("user_1")}},
		"has no address, as the user":              {},
		"has an address, the user none":            {has: "ada@example.com"},
	} {
		customer := account.Customer{ID: "cus_1", Email: c.has, Metadata: c.metadata}
		known := account.Evidence{Claims: append(account.ReadClaims(customer, nil), c.claims...), Users: map[string]account.ClaimedUser{"user_gone": {Missing: true}}}
		if got := account.Adopts("user_1", c.email, customer, known); got != c.want {
			t.Errorf("one that %s: %t", name, got)
		}
	}
}
