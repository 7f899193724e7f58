package stripesim

import (
	"cmp"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

type product struct {
	ID, Name, Description, DefaultPrice, UnitLabel, URL string
	Active                                              bool
	Created, Updated                                    int64
	Metadata                                            map[string]string
}

type price struct {
	ID, Product, Currency, Nickname, LookupKey string
	UnitAmount                                 int64
	UnitDecimal                                string // instead of UnitAmount, where that is no whole number
	Interval                                   string // "" is a one-time price
	IntervalCount                              int64
	UsageType                                  string
	Active                                     bool
	Created                                    int64
	Metadata                                   map[string]string
}

const productParams = `active description=..40000 images.# metadata.* name=..250 package_dimensions.* shippable statement_descriptor=..22 tax_code
	unit_label=..12 url default_price features.* `

const priceParams = `active currency_options.* lookup_key=..200 metadata.* nickname tax_behavior=exclusive|inclusive|unspecified transfer_lookup_key `

func (s *Server) createProduct(c *call) (any, *apiError) {
	p := &product{ID: c.or("", "id"), Active: true, Created: s.unix(), Name: c.required("name")}
	if c.err == nil && s.db.Products.get(p.ID) != nil {
		return nil, invalid("resource_already_exists", "id", "Product already exists.")
	}
	change := s.productChange(c, p)
	var first *price
	if c.has("default_price_data") {
		first = &price{Active: true, Created: s.unix(), UsageType: "licensed", IntervalCount: 1}
		s.readPrice(c, first, "default_price_data")
	}
	if c.err != nil {
		return nil, c.err
	}
	if p.ID == "" {
		p.ID = s.newID("prod_")
	}
	change()
	s.db.Products.put(p.ID, p)
	s.record("product.created", p, nil)
	if first != nil {
		first.ID, first.Product = s.newID("price_"), p.ID
		s.db.Prices.put(first.ID, first)
		s.record("price.created", first, nil)
		s.updating("product.updated", p, func() { p.DefaultPrice = first.ID })
	}
	return p, nil
}

func (s *Server) productChange(c *call, p *product) func() {
	next := *p
	for name, at := range map[string]*string{"name": &next.Name, "description": &next.Description, "unit_label": &next.UnitLabel,
		"url": &next.URL, "default_price": &next.DefaultPrice} {
		if v, ok := c.text(name); ok {
			*at = v
		}
	}
	if id := next.DefaultPrice; id != "" && s.db.Prices.get(id) == nil {
		c.fail(missingRef("price", id, "default_price"))
	}
	if v, ok := c.boolean("active"); ok {
		next.Active = v
	}
	next.Metadata = c.metadata(p.Metadata, "metadata")
	return func() { next.ID, next.Updated = p.ID, s.unix(); *p = next }
}

func (s *Server) getProduct(c *call) (any, *apiError) {
	if p := s.db.Products.get(c.id); p != nil {
		return p, nil
	}
	return nil, missing("product", c.id)
}

func (s *Server) updateProduct(c *call) (any, *apiError) {
	p := s.db.Products.get(c.id)
	if p == nil {
		return nil, missing("product", c.id)
	}
	change := s.productChange(c, p)
	if c.err != nil {
		return nil, c.err
	}
	s.updating("product.updated", p, change)
	return p, nil
}

func (s *Server) removeProduct(c *call) (any, *apiError) {
	p := s.db.Products.get(c.id)
	if p == nil {
		return nil, missing("product", c.id)
	}
	if slices.ContainsFunc(s.db.Prices.newest(nil), func(x *price) bool { return x.Product == p.ID }) {
		return nil, invalid("", "", "This product cannot be deleted because it has one or more user-created prices.")
	}
	s.dropProduct(p)
	return object{"id": p.ID, "object": "product", "deleted": true}, nil
}

func (s *Server) dropProduct(p *product) {
	s.db.Products.remove(p.ID)
	s.record("product.deleted", p, nil)
}

func (s *Server) listProducts(c *call) (any, *apiError) {
	active, byActive := c.boolean("active")
	created := c.span("created")
	var ids []string
	for _, f := range c.root.at("ids").list() {
		ids = append(ids, f.value)
	}
	return listed(c, &s.db.Products, func(x *product) bool {
		return (!byActive || x.Active == active) && (ids == nil || slices.Contains(ids, x.ID)) && created.holds(x.Created)
	})
}

func (s *Server) createPrice(c *call) (any, *apiError) {
	p := &price{Active: true, Created: s.unix(), UsageType: "licensed", IntervalCount: 1, Product: c.or("", "product")}
	s.readPrice(c, p)
	switch {
	case c.err != nil:
		return nil, c.err
	case p.Product != "" && s.db.Products.get(p.Product) == nil:
		return nil, missingRef("product", p.Product, "product")
	case p.Product == "" && !c.has("product_data"):
		return nil, missingParam("product")
	}
	change := s.priceChange(c, p)
	if c.err != nil {
		return nil, c.err
	}
	if p.Product == "" {
		pr := &product{ID: s.newID("prod_"), Name: c.required("product_data", "name"), Active: true, Created: s.unix(), Updated: s.unix(),
			Metadata: c.metadata(nil, "product_data", "metadata")}
		if c.err != nil {
			return nil, c.err
		}
		s.db.Products.put(pr.ID, pr)
		s.record("product.created", pr, nil)
		p.Product = pr.ID
	}
	change()
	p.ID = s.newID("price_")
	s.db.Prices.put(p.ID, p)
	s.record("price.created", p, nil)
	return p, nil
}

// readPrice reads what cannot be changed later: amount, currency and interval.
func (s *Server) readPrice(c *call, p *price, at ...string) {
	in := func(path ...string) []string { return append(slices.Clone(at), path...) }
	c.required(in("currency")...)
	p.Currency = c.currency(in("currency")...)
	whole, byWhole := c.integer(in("unit_amount")...)
	exact, byDecimal := c.text(in("unit_amount_decimal")...)
	switch {
	case byWhole && byDecimal:
		c.fail(badValue("", bracketed(in("unit_amount")), "You may only specify one of these parameters: unit_amount, unit_amount_decimal."))
	case byWhole && whole < 0:
		c.fail(badValue("parameter_invalid_integer", bracketed(in("unit_amount")), "Invalid non-negative integer"))
	case byWhole:
		p.UnitAmount = whole
	case byDecimal:
		c.unitDecimal(p, exact, in("unit_amount_decimal"))
	default:
		c.fail(missingParam(bracketed(in("unit_amount"))))
	}
	if !c.has(in("recurring")...) {
		return
	}
	c.required(in("recurring", "interval")...)
	p.Interval, _ = c.choice([]string{"day", "month", "week", "year"}, in("recurring", "interval")...)
	if n, ok := c.integer(in("recurring", "interval_count")...); ok {
		p.IntervalCount = n
	}
	// Stripe bills at most three years at once.
	switch most := map[string]int64{"day": 1095, "week": 156, "month": 36, "year": 3}[p.Interval]; {
	case p.IntervalCount < 1:
		c.fail(badValue("parameter_invalid_integer", bracketed(in("recurring", "interval_count")), "This value must be greater than or equal to 1."))
	case p.IntervalCount > most:
		c.fail(badValue("", bracketed(in("recurring", "interval_count")), "Invalid interval_count: a maximum of three years interval is allowed (3 years, 36 months, 156 weeks, or 1095 days)"))
	}
	if typ, ok := c.choice([]string{"licensed", "metered"}, in("recurring", "usage_type")...); ok {
		p.UsageType = typ
	}
}

// decimalForm is a decimal as Stripe takes them.
var decimalForm = regexp.MustCompile(`^([0-9]+)(?:\.([0-9]{1,12}))?$`)

// unitDecimal reads what a unit costs where that may be a fraction. Stripe tells a whole number as
// unit_amount too, of others unit_amount is null.
func (c *call) unitDecimal(p *price, v string, path []string) {
	parts := decimalForm.FindStringSubmatch(v)
	if parts == nil {
		c.fail(badValue("", bracketed(path), "Invalid decimal: %s; must be non-negative and contain at maximum 12 decimal places.", v))
		return
	}
	fraction := strings.TrimRight(parts[2], "0")
	n, err := strconv.ParseInt(parts[1], 10, 64)
	switch {
	case err != nil:
		c.fail(badValue("", bracketed(path), "Invalid decimal: %s", v))
	case fraction == "":
		p.UnitAmount = n
	default:
		p.UnitDecimal = decimal(n) + "." + fraction
	}
}

// amount is what n units cost, rounded to whole cents as a line of an invoice is.
func (p *price) amount(n int64) int64 {
	if p.UnitDecimal == "" {
		return p.UnitAmount * n
	}
	exact, _ := new(big.Rat).SetString(p.UnitDecimal)
	exact.Mul(exact, big.NewRat(n, 1)).Add(exact, big.NewRat(1, 2))
	return new(big.Int).Div(exact.Num(), exact.Denom()).Int64()
}

// unit is a price's unit_amount, exact its unit_amount_decimal.
func (p *price) unit() any {
	if p.UnitDecimal != "" {
		return nil
	}
	return p.UnitAmount
}

func (p *price) exact() string { return cmp.Or(p.UnitDecimal, decimal(p.UnitAmount)) }

func (s *Server) priceChange(c *call, p *price) func() {
	next := *p
	if v, ok := c.text("nickname"); ok {
		next.Nickname = v
	}
	if v, ok := c.text("lookup_key"); ok {
		next.LookupKey = v
	}
	if v, ok := c.boolean("active"); ok {
		next.Active = v
	}
	next.Metadata = c.metadata(p.Metadata, "metadata")
	return func() { next.Product = p.Product; *p = next }
}

func (s *Server) getPrice(c *call) (any, *apiError) {
	if p := s.db.Prices.get(c.id); p != nil {
		return p, nil
	}
	return nil, missing("price", c.id)
}

func (s *Server) updatePrice(c *call) (any, *apiError) {
	p := s.db.Prices.get(c.id)
	if p == nil {
		return nil, missing("price", c.id)
	}
	change := s.priceChange(c, p)
	if c.err != nil {
		return nil, c.err
	}
	s.updating("price.updated", p, change)
	return p, nil
}

func (s *Server) listPrices(c *call) (any, *apiError) {
	active, byActive := c.boolean("active")
	of, byProduct := c.text("product")
	typ, byType := c.choice([]string{"one_time", "recurring"}, "type")
	currency, byCurrency := c.text("currency")
	created := c.span("created")
	var keys []string
	for _, f := range c.root.at("lookup_keys").list() {
		keys = append(keys, f.value)
	}
	return listed(c, &s.db.Prices, func(x *price) bool {
		return (!byActive || x.Active == active) && (!byProduct || x.Product == of) && (!byType || x.kind() == typ) &&
			(!byCurrency || x.Currency == currency) && (keys == nil || slices.Contains(keys, x.LookupKey)) && created.holds(x.Created)
	})
}

func (p *price) kind() string {
	if p.Interval == "" {
		return "one_time"
	}
	return "recurring"
}

func (d *state) productName(id string) string {
	if p := d.Products.get(id); p != nil {
		return p.Name
	}
	return "Product"
}
