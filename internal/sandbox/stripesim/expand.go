package stripesim

import "strings"

const maxExpandDepth = 4

// expandAll replaces ids in an answer by the objects they name, as expand[] asks.
func (s *Server) expandAll(c *call, out object) *apiError {
	for _, f := range c.root.at("expand").list() {
		path := strings.Split(f.value, ".")
		if len(path) > maxExpandDepth+boolInt(path[0] == "data") {
			return badValue("", "expand", "You cannot expand more than %d levels of a property. Property: %s", maxExpandDepth, f.value)
		}
		if !s.expand(s.renderer(c.v), out, path) {
			e := badValue("", "expand", "This property cannot be expanded (%s).", f.value)
			return e
		}
	}
	return nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// expand follows one path; false when there is nothing of that name, or nothing that can be
// expanded.
func (s *Server) expand(r renderer, at any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch at := at.(type) {
	case []any:
		for _, x := range at {
			if !s.expand(r, x, path) {
				return false
			}
		}
		return true
	case []object:
		for _, x := range at {
			if !s.expand(r, x, path) {
				return false
			}
		}
		return true
	case object:
		value, ok := at[path[0]]
		if !ok {
			if value = s.includable(r, at, path[0]); value == nil {
				return false
			}
			at[path[0]] = value
		}
		switch v := value.(type) {
		case nil:
			return true
		case string:
			x := s.db.find(v)
			if x == nil {
				return false
			}
			whole := r.resource(x)
			at[path[0]] = whole
			return s.expand(r, whole, path[1:])
		case object, []any, []object:
			return s.expand(r, v, path[1:])
		}
	}
	return false
}

// includable gives the parts of an object that Stripe leaves out unless they are asked for.
func (s *Server) includable(r renderer, at object, name string) any {
	id, _ := at["id"].(string)
	switch {
	case at["object"] == "customer" && name == "subscriptions":
		var data []any
		for _, sub := range s.db.Subscriptions.newest(func(x *subscription) bool { return x.Customer == id && x.Status != statusCanceled }) {
			data = append(data, r.subscription(sub))
		}
		return listOf("/v1/customers/"+id+"/subscriptions", data)
	case at["object"] == "checkout.session" && name == "line_items":
		sess := s.db.Sessions.get(id)
		var data []any
		if p := s.db.Prices.get(sess.Price); p != nil {
			amount := p.amount(sess.Quantity)
			data = append(data, object{"id": "li_" + strings.TrimPrefix(sess.Price, "price_"), "object": "item", "amount_discount": 0,
				"amount_subtotal": amount, "amount_tax": 0, "amount_total": amount, "currency": p.Currency,
				"description": s.db.productName(p.Product), "price": r.price(p), "quantity": sess.Quantity})
		}
		return listOf("/v1/checkout/sessions/"+id+"/line_items", data)
	}
	return nil
}

// find gives the object with an id, of whatever kind; nil when there is none.
func (d *state) find(id string) any {
	switch prefix, _, _ := strings.Cut(id, "_"); prefix {
	case "cus":
		return found(d.Customers.get(id))
	case "sub":
		if strings.HasPrefix(id, "sub_sched_") {
			return found(d.Schedules.get(id))
		}
		return found(d.Subscriptions.get(id))
	case "in":
		return found(d.Invoices.get(id))
	case "pi":
		return found(d.Intents.get(id))
	case "ch":
		return found(d.Charges.get(id))
	case "price":
		return found(d.Prices.get(id))
	case "pm":
		return found(d.Cards.get(id))
	case "prod":
		return found(d.Products.get(id))
	}
	return found(d.Products.get(id)) // products may have ids of the merchant's own making
}

// found keeps a nil pointer from becoming an interface that is not nil.
func found[T any](x *T) any {
	if x == nil {
		return nil
	}
	return x
}
