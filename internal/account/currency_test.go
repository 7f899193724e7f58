package account_test

import (
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Every currency that Stripe takes, with the decimals of its own list, in any case of letters.
func TestAmountsHaveTheDecimalsOfStripesOwnList(t *testing.T) {
	t.Parallel()
	all := strings.Fields(`usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf
		clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd jod jpy
		kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr
		pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs uah ugx
		uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw`)
	none := strings.Fields(`bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf`)
	three := strings.Fields(`bhd jod kwd omr tnd`)
	for _, currency := range all {
		want := "1000.50"
		switch {
		case slices.Contains(none, currency):
			want = "100050"
		case slices.Contains(three, currency):
			want = "100.050"
		}
		for _, code := range []string{currency, strings.ToUpper(currency)} {
			if got := account.FormatAmount(big.NewInt(100050), code); got != want {
				t.Errorf("100050 of the smallest unit of %s are %s, want %s", code, got, want)
			}
		}
	}
	if got := account.FormatAmount(big.NewInt(-5), "usd"); got != "-0.05" {
		t.Errorf("what is given back is %s", got)
	}
	if got := account.FormatAmount(big.NewInt(5), ""); got != "5 of the smallest unit" {
		t.Errorf("an amount without a currency is %s", got)
	}
}
