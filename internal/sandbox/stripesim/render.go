package stripesim

import (
	"fmt"
	"strconv"
)

// object is a JSON object.
type object = map[string]any

// renderer writes objects as one API version shows them.
type renderer struct {
	db   *state
	v    version
	live bool
}

func (s *Server) renderer(v version) renderer { return renderer{db: s.db, v: v, live: s.opts.Livemode} }

// resource renders whatever a handler answers or an event is about.
func (r renderer) resource(x any) object {
	switch x := x.(type) {
	case object:
		return x
	case *customer:
		return r.customer(x)
	case *card:
		return r.card(x)
	case *product:
		return r.product(x)
	case *price:
		return r.price(x)
	case *subscription:
		return r.subscription(x)
	case *schedule:
		return r.schedule(x)
	case *invoiceItem:
		return r.invoiceItem(x)
	case *invoice:
		return r.invoice(x)
	case *intent:
		return r.intent(x)
	case *charge:
		return r.charge(x)
	case *refund:
		return r.refund(x)
	case *dispute:
		return r.dispute(x)
	case *session:
		return r.session(x)
	case *endpoint:
		return r.endpoint(x)
	case *event:
		return r.event(x)
	}
	panic(fmt.Sprintf("stripesim: render: no shape for %T", x))
}

// orNull is how Stripe writes a text that is not there.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// timeOrNull is how Stripe writes a time that is not there.
func timeOrNull(t int64) any {
	if t == 0 {
		return nil
	}
	return t
}

func orNothing(m map[string]string) object {
	out := object{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// sectionOrNull is for sections that are kept as they came.
func sectionOrNull(o object) any {
	if o == nil {
		return nil
	}
	return o
}

func listOf(url string, data []any) object {
	return object{"object": "list", "data": orEmpty(data), "has_more": false, "url": url}
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
