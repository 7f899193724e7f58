package stripesim

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// The most characters that Stripe takes of a text.
const (
	maxName      = 256
	maxEmail     = 512
	maxReference = 200
	maxURL       = 5000
	maxText      = 5000 // of each text that has no limit of its own
)

// searchForgets is how long Stripe's search shows who was deleted, in seconds.
const searchForgets = 24 * 60 * 60

// limit refuses a text that is longer than Stripe takes.
func (p *params) limit(most int, path ...string) {
	v, _ := p.text(path...)
	if e := tooLong(bracketed(path), v, most); e != nil {
		p.fail(e)
	}
}

func tooLong(name, value string, most int) *apiError {
	if utf8.RuneCountInString(value) <= most {
		return nil
	}
	shown := []rune(value)
	return badValue("", name, "Invalid string: %s...%s; must be at most %d characters", string(shown[:10]), string(shown[len(shown)-4:]), most)
}

// address refuses what is no address of a web page, where there is any.
func (p *params) address(path ...string) {
	p.limit(maxURL, path...)
	v, ok := p.text(path...)
	if !ok || v == "" {
		return
	}
	u, err := url.Parse(strings.ReplaceAll(v, "{CHECKOUT_SESSION_ID}", "cs"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		p.fail(badValue("url_invalid", bracketed(path), "Not a valid URL"))
	}
}

// validEmail tells whether Stripe takes an address.
func validEmail(address string) bool {
	local, domain, ok := strings.Cut(address, "@")
	return ok && local != "" && strings.Contains(strings.Trim(domain, "."), ".") && !strings.ContainsAny(address, " \t\r\n,;<>()") && !strings.Contains(domain, "@")
}

// noQuantity stands for a quantity that is needed and was not given.
const noQuantity = -1

// quantity reads how many of a price are bought: none of a metered one, which takes no quantity,
// else what is given or, where it need not be given, one.
func (s *Server) quantity(c *call, list string, f *field, priceID string, needed bool) int64 {
	n, given := c.integer(append(pathOf(f), "quantity")...)
	at := strings.TrimSuffix(strings.TrimPrefix(f.name, list+"["), "]")
	p := s.db.Prices.get(priceID)
	switch {
	case p != nil && p.metered() && given:
		c.fail(invalid("", f.name+"[quantity]", "Quantity should not be specified where usage_type is `metered`. Remove quantity from `%s[%s]`", list, at))
		return 0
	case p != nil && p.metered():
		return 0
	case !given && needed:
		return noQuantity
	case !given:
		return 1
	case n < 0 || needed && n < 1:
		c.fail(badValue("parameter_invalid_integer", f.name+"[quantity]", "This value must be greater than or equal to %d.", map[bool]int{true: 1, false: 0}[needed]))
		return 0
	default:
		return n
	}
}

func (p *price) metered() bool { return p.Interval != "" && p.UsageType == "metered" }
