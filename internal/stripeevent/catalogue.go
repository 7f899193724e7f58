package stripeevent

import (
	"maps"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// CatalogueChange is one field of a product or a price that an event says has changed, in the
// fields that are kept. Flags are "true" and "false"; of the metadata only what they say is told.
type CatalogueChange struct{ Field, Before, After string }

// ChangedProduct lists what the event says has changed of a product or a price; none for other
// events.
func (e Event) ChangedProduct() (changes []CatalogueChange) {
	if e.Type != "product.updated" && e.Type != "price.updated" || !e.previous.IsObject() {
		return nil
	}
	add := func(field, before, after string) {
		if before != after {
			changes = append(changes, CatalogueChange{field, before, after})
		}
	}
	truth := func(r gjson.Result) string { return strconv.FormatBool(flag(r)) }
	if was := e.previous.Get("active"); was.Exists() {
		add("active", truth(was), truth(e.object.Get("active")))
	}
	if e.ObjectKind == "price" {
		if was := e.previous.Get("lookup_key"); was.Exists() {
			add("lookup_key", text(was), text(e.object.Get("lookup_key")))
		}
		return changes
	}
	if was := e.previous.Get("name"); was.Exists() {
		add("name", text(was), text(e.object.Get("name")))
	}
	if was := e.previous.Get("metadata"); was.IsObject() {
		now := metadata(e.metadata)
		before := make(map[string]string, len(now))
		maps.Copy(before, now)
		was.ForEach(func(key, value gjson.Result) bool {
			before[key.Str] = text(value)
			return true
		})
		add("beside", strconv.FormatBool(account.AllowsBeside(before)), strconv.FormatBool(account.AllowsBeside(now)))
		add("add_on", strconv.FormatBool(account.IsAddOn(before)), strconv.FormatBool(account.IsAddOn(now)))
	}
	return changes
}

// Shown answers what a read of a product shows in the field.
func (c CatalogueChange) Shown(p account.Product) string {
	switch c.Field {
	case "name":
		return p.Name
	case "beside":
		return strconv.FormatBool(p.Beside)
	case "add_on":
		return strconv.FormatBool(p.AddOn)
	default:
		return strconv.FormatBool(p.Active)
	}
}

// ShownOfPrice answers what a read of a price shows in the field.
func (c CatalogueChange) ShownOfPrice(p account.Price) string {
	if c.Field == "lookup_key" {
		return p.LookupKey
	}
	return strconv.FormatBool(p.Active)
}
