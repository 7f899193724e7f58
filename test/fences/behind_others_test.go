package fences_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// isPoked wants somebody to look at an entity again by itself in a moment, though its run has
// ended, and does so.
func (l *lab) isPoked(entity account.Entity) {
	l.t.Helper()
	l.wants("true", `SELECT due_at < now() + interval '1 minute' FROM pokes WHERE entity = $1`, string(entity))
	l.exec(`UPDATE pokes SET due_at = now() WHERE due_at IS NOT NULL`)
	l.settle()
}

// open is how many events of an entity have not ended.
func (l *lab) open(entity account.Entity) string {
	l.t.Helper()
	return l.text(`SELECT count(*) FROM webhook_events WHERE entity = $1 AND status <> 'completed'`, string(entity))
}

// What an event tells of a user is newer than a read of Clerk that is from before: it is not
// answered by that, and the user is read again.
func TestAProfileThatDoesNotShowYetIsReadAgain(t *testing.T) {
	t.Parallel()
	for _, behind := range []bool{false, true} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("behind %t, the event was answered before %t", behind, again), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				user, customer := l.signUp("ada")
				shown, _ := l.Sandbox.Clerk.User(user)
				name := "Augusta"
				l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
				if again {
					l.settle() // a luckier read
				}
				l.unpoked()
				op := l.asksSync(user)
				restore := func() {}
				if behind {
					restore = l.work.answer("GET /v1/users/"+user, http.StatusOK, string(shown))
				}
				l.must(l.work.lookAtUser(t.Context(), user))
				restore()
				if behind {
					l.wants(map[bool]string{false: "1", true: "0"}[again], `SELECT `+l.open(account.UserEntity(user)))
					l.wants(map[bool]string{false: "ada", true: name}[again], `SELECT first_name FROM person_user`)
					l.wants("false", `SELECT read_seq > (SELECT seq FROM operations WHERE id = $1) FROM person_user`, op)
					l.isPoked(account.UserEntity(user))
				}
				l.settle()
				l.wants(name, `SELECT first_name FROM person_user`)
				l.wants(name+" Lovelace", `SELECT name FROM stripe_customers WHERE stripe_customer_id = $1`, customer)
				l.wants("0", `SELECT `+l.open(account.UserEntity(user)))
			})
		}
	}
}

// asksSync begins a sync of a user, which nobody is poked for.
func (l *lab) asksSync(user string) (operation string) {
	l.t.Helper()
	op, _, err := l.Store.BeginOperation(l.t.Context(), newSync(user))
	l.must(err)
	return op.ID
}

// Metadata that somebody's server has replaced are repaired, though the read behind Clerk's event
// shows them as they were.
func TestMetadataThatAreWipedAreRepairedThoughTheReadIsBehind(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	s := l.subject(1)
	shown, _ := l.Sandbox.Clerk.User(s.user)
	l.must(l.Sandbox.Clerk.WipeMetadata(s.user))
	l.unpoked()
	restore := l.work.answer("GET /v1/users/"+s.user, http.StatusOK, string(shown))
	l.must(l.work.lookAtUser(t.Context(), s.user))
	restore()
	if l.Sandbox.Clerk.PublicMetadata(s.user)["stripe"] != nil {
		t.Fatal("they are not gone")
	}
	l.isPoked(account.UserEntity(s.user))
	l.agree(s.user)
	if l.Sandbox.Clerk.PublicMetadata(s.user)["stripe"] == nil {
		t.Error("Clerk holds nothing of a paying user's subscription")
	}
	l.wants("0", `SELECT `+l.open(account.UserEntity(s.user)))
}

// A read that does not show for a minute what an event tells is believed.
func TestWhatClerkDoesNotShowForAMinuteIsBelieved(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	user, _ := l.signUp("ada")
	shown, _ := l.Sandbox.Clerk.User(user)
	name := "Augusta"
	l.must(l.Sandbox.Clerk.UpdateUser(user, clerksim.UserChange{FirstName: &name}))
	l.unpoked()
	l.exec(`UPDATE webhook_events SET received_at = received_at - interval '1 minute'`)
	restore := l.work.answer("GET /v1/users/"+user, http.StatusOK, string(shown))
	l.must(l.work.syncUser(t.Context(), user))
	restore()
	l.wants("0", `SELECT `+l.open(account.UserEntity(user)))
	l.wants("", `SELECT due_at FROM pokes WHERE entity = $1`, "user/"+user)
}

// What an event tells of a product or a price is newer than a read that does not show it: it is not
// answered by that, what is stored stays, and the product is read again.
func TestACatalogueThatDoesNotShowYetIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change    func(l *lab)
		sql, want string
	}{
		"a price is added": {
			func(l *lab) { l.Sandbox.Stripe.AddPrice(l.product, 9900, "year") }, `SELECT count(*) FROM plan_prices`, "2",
		},
		"a price is archived": {
			func(l *lab) { l.must(l.Sandbox.Stripe.ArchivePrice(l.price)) }, `SELECT active FROM plan_prices`, "false",
		},
		"a product has another name": {
			func(l *lab) { l.must(l.Sandbox.Stripe.UpdateProduct(l.product, "Premium")) }, `SELECT plan_name FROM plans`, "Premium",
		},
		"a product is not sold any more": {
			func(l *lab) { l.post("/v1/products/"+l.product, "active", "false") }, `SELECT active FROM plans`, "false",
		},
		"a product only adds to another": {
			func(l *lab) { l.post("/v1/products/"+l.product, "metadata[add_on]", "true") }, `SELECT add_on FROM plans`, "true",
		},
		"a product may be bought beside another": {
			func(l *lab) { l.post("/v1/products/"+l.product, "metadata[beside]", "allow") }, `SELECT beside FROM plans`, "true",
		},
		"a product is of no other kind": {
			func(l *lab) { l.post("/v1/products/"+l.product, "metadata[color]", "red") }, `SELECT beside FROM plans`, "false",
		},
	} {
		for _, behind := range []bool{false, true} {
			for _, again := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, behind %t, the event was answered before %t", name, behind, again), func(t *testing.T) {
					t.Parallel()
					l := newLab(t, policies{})
					entity := account.ProductEntity(l.product)
					product, prices := l.byServer(http.MethodGet, "/v1/products/"+l.product, nil), l.byServer(http.MethodGet, "/v1/prices?product="+l.product, nil)
					before := l.text(c.sql)
					c.change(l)
					if again {
						l.settle() // a luckier read
					}
					l.unpoked()
					restore := func() {}
					if behind {
						l.work.answer("GET /v1/products/"+l.product, http.StatusOK, product)
						restore = l.work.answer("GET /v1/prices?", http.StatusOK, prices)
					}
					l.must(l.work.look(t.Context(), entity))
					restore()
					switch {
					case !behind, before == c.want:
					case again:
						l.wants(c.want, c.sql)
						l.isPoked(entity)
					default:
						l.wants(before, c.sql)
						if l.open(entity) == "0" {
							t.Error("its event is answered")
						}
						l.isPoked(entity)
					}
					l.wants(c.want, c.sql)
					l.wants("0", `SELECT `+l.open(entity))
					l.wants("", `SELECT due_at FROM pokes WHERE entity = $1`, string(entity))
				})
			}
		}
	}
}

// Somebody changes the catalogue and takes that back within a minute. That the first event says how
// it is before the second one is no sign that it is so again: a read that is behind the second
// answers it no more than any other.
func TestACatalogueThatIsChangedBackIsReadAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		there, back func(l *lab)
		sql, want   string
	}{
		"a price is archived and sold again": {
			func(l *lab) { l.must(l.Sandbox.Stripe.ArchivePrice(l.price)) },
			func(l *lab) { l.post("/v1/prices/"+l.price, "active", "true") },
			`SELECT active FROM plan_prices`, "true",
		},
		"a product is renamed and renamed back": {
			func(l *lab) { l.must(l.Sandbox.Stripe.UpdateProduct(l.product, "Premium")) },
			func(l *lab) { l.must(l.Sandbox.Stripe.UpdateProduct(l.product, "Pro")) },
			`SELECT plan_name FROM plans`, "Pro",
		},
		"a product is taken off sale and back": {
			func(l *lab) { l.post("/v1/products/"+l.product, "active", "false") },
			func(l *lab) { l.post("/v1/products/"+l.product, "active", "true") },
			`SELECT active FROM plans`, "true",
		},
	} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, together %t", name, together), func(t *testing.T) {
				t.Parallel()
				l := newLab(t, policies{})
				entity := account.ProductEntity(l.product)
				c.there(l)
				if together {
					l.unpoked()
				} else {
					l.settle()
				}
				product, prices := l.byServer(http.MethodGet, "/v1/products/"+l.product, nil), l.byServer(http.MethodGet, "/v1/prices?product="+l.product, nil)
				c.back(l)
				l.unpoked()
				l.work.answer("GET /v1/products/"+l.product, http.StatusOK, product)
				restore := l.work.answer("GET /v1/prices?", http.StatusOK, prices)
				l.must(l.work.look(t.Context(), entity))
				restore()
				l.isPoked(entity)
				l.wants(c.want, c.sql)
				l.wants("0", `SELECT `+l.open(entity))
			})
		}
	}
}

// A product that Stripe deletes goes, and one that it has just made is waited for, though a read is
// behind.
func TestAProductThatComesOrGoesIsReadAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t, policies{})
	product := l.Sandbox.Stripe.AddProduct("Plus")
	entity := account.ProductEntity(product)
	l.unpoked()
	restore := l.work.answer("GET /v1/products/"+product, http.StatusNotFound, `{"error":{"type":"invalid_request_error","code":"resource_missing","param":"id"}}`)
	l.must(l.work.look(t.Context(), entity))
	restore()
	l.isPoked(entity)
	l.wants("true", `SELECT active FROM plans WHERE stripe_product_id = $1`, product)
	shown := l.byServer(http.MethodGet, "/v1/products/"+product, nil)
	l.must(l.Sandbox.Stripe.DeleteProduct(product))
	l.unpoked()
	restore = l.work.answer("GET /v1/products/"+product, http.StatusOK, shown)
	_, err := l.work.catalogue.RecordProduct(t.Context(), activities.ProductInput{ProductID: product})
	restore()
	l.must(err)
	l.wants("1", `SELECT `+l.open(entity))
	l.isPoked(entity)
	l.wants("false", `SELECT active FROM plans WHERE stripe_product_id = $1`, product)
	l.wants("0", `SELECT `+l.open(entity))
}

func newSync(user string) store.NewOperation {
	return store.NewOperation{RequestHash: []byte("r"), Caller: user, Action: store.ActionSync, ClerkUserID: user, Entity: account.UserEntity(user), Lifetime: time.Hour}
}
