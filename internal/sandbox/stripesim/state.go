package stripesim

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"
)

// state is everything that the account holds; it is what Save writes.
type state struct {
	Made      map[string]uint64 // how many ids of a prefix were made
	SearchLag time.Duration

	Customers     table[customer]
	Cards         table[card]
	Products      table[product]
	Prices        table[price]
	Subscriptions table[subscription]
	Schedules     table[schedule]
	Invoices      table[invoice]
	InvoiceItems  table[invoiceItem]
	Intents       table[intent]
	Charges       table[charge]
	Refunds       table[refund]
	Disputes      table[dispute]
	Sessions      table[session]
	Endpoints     table[endpoint]
	Events        table[event]
}

func newState() *state {
	return &state{
		Made:      map[string]uint64{},
		Customers: newTable[customer](), Cards: newTable[card](), Products: newTable[product](), Prices: newTable[price](),
		Subscriptions: newTable[subscription](), Schedules: newTable[schedule](), Invoices: newTable[invoice](), InvoiceItems: newTable[invoiceItem](),
		Intents: newTable[intent](), Charges: newTable[charge](), Refunds: newTable[refund](), Disputes: newTable[dispute](),
		Sessions: newTable[session](), Endpoints: newTable[endpoint](), Events: newTable[event](),
	}
}

// table keeps objects of one kind, oldest first.
type table[T any] struct {
	Rows  map[string]*T
	Order []string
}

func newTable[T any]() table[T] { return table[T]{Rows: map[string]*T{}} }

func (t *table[T]) get(id string) *T { return t.Rows[id] }

func (t *table[T]) put(id string, row *T) {
	t.Rows[id] = row
	t.Order = append(t.Order, id)
}

func (t *table[T]) remove(id string) {
	delete(t.Rows, id)
	for i, other := range t.Order {
		if other == id {
			t.Order = append(t.Order[:i:i], t.Order[i+1:]...)
			return
		}
	}
}

// newest gives the rows that keep says yes to, newest first, as Stripe lists them.
func (t *table[T]) newest(keep func(*T) bool) []*T {
	var out []*T
	for _, v := range slices.Backward(t.Order) {
		if row := t.Rows[v]; keep == nil || keep(row) {
			out = append(out, row)
		}
	}
	return out
}

// timed finds an object to which something can become due.
func (d *state) timed(id string) timed {
	switch {
	case d.Subscriptions.Rows[id] != nil:
		return d.Subscriptions.Rows[id]
	case d.Invoices.Rows[id] != nil:
		return d.Invoices.Rows[id]
	case d.Sessions.Rows[id] != nil:
		return d.Sessions.Rows[id]
	case d.Schedules.Rows[id] != nil:
		return d.Schedules.Rows[id]
	}
	return nil
}

// replan builds the agenda anew, after a load.
func (s *Server) replan() {
	s.agenda = newAgenda()
	for _, id := range s.db.Subscriptions.Order {
		s.plan(s.db.Subscriptions.get(id))
	}
	for _, id := range s.db.Invoices.Order {
		s.plan(s.db.Invoices.get(id))
	}
	for _, id := range s.db.Sessions.Order {
		s.plan(s.db.Sessions.get(id))
	}
	for _, id := range s.db.Schedules.Order {
		s.plan(s.db.Schedules.get(id))
	}
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newID makes an id in Stripe's form: the prefix, then letters and digits that follow from the seed
// and a count.
func (s *Server) newID(prefix string) string {
	s.db.Made[prefix]++
	length := 24
	switch prefix {
	case "cus_", "prod_", "si_", "req_":
		length = 14
	case "cs_test_", "cs_live_":
		length = 58
	}
	out := make([]byte, 0, len(prefix)+length)
	out = append(out, prefix...)
	if length == 24 {
		out = append(out, '1')
	}
	for block := 0; len(out) < len(prefix)+length; block++ {
		for _, c := range sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d", prefix, s.opts.Seed, s.db.Made[prefix], block)) {
			out = append(out, base62[int(c)%len(base62)])
		}
	}
	return string(out[:len(prefix)+length])
}
