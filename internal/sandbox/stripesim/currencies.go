package stripesim

import (
	"slices"
	"strings"
)

// currencies are what Stripe lets an account in the United States charge in.
const currencies = `usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp cny cop crc cve
	czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl hrk htg huf idr ils inr isk jmd jpy kes kgs khr kmf krw kyd kzt lak lbp
	lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd
	scr sek sgd shp sle sos srd std szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw`

// currency reads a currency, which Stripe takes in capitals too; "" where none is given.
func (p *params) currency(path ...string) string {
	v, _ := p.text(path...)
	v = strings.ToLower(v)
	if v != "" && !slices.Contains(strings.Fields(currencies), v) {
		p.fail(badValue("", bracketed(path), "Invalid currency: %s. Stripe currently supports these currencies: %s", v,
			strings.Join(strings.Fields(currencies), ", ")))
	}
	return v
}
