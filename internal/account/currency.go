package account

import (
	"math/big"
	"strings"
)

// Decimals is how many decimals an amount of a currency has, given that Stripe counts it in the
// smallest unit. The table is Stripe's own, https://docs.stripe.com/currencies: neither ISO 4217
// nor CLDR, which give IDR, COP, PKR and many more the decimals that people write, and not those
// that Stripe counts in.
//
// Stripe's list of currencies without decimals names UGX, and its special cases say that the API
// counts UGX, like ISK, in hundredths all the same. HUF and TWD have no decimals in payouts only.
func Decimals(currency string) int {
	switch strings.ToLower(currency) {
	case "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf":
		return 0
	case "bhd", "jod", "kwd", "omr", "tnd":
		return 3
	default:
		return 2
	}
}

// FormatAmount writes an amount of a currency's smallest unit in the currency itself, without its
// name: 1050 of usd is "10.50". What has no currency stays a number of smallest units, and says so.
func FormatAmount(smallest *big.Int, currency string) string {
	if currency == "" {
		return smallest.String() + " of the smallest unit"
	}
	decimals := Decimals(currency)
	one := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(decimals)), nil)
	return new(big.Rat).SetFrac(smallest, one).FloatString(decimals)
}
