package account

import "strconv"

// IntervalType names a billing interval as the product's app does: "monthly", "yearly",
// "weekly", "daily", or count and interval ("3-month") for anything else. Stripe counts a
// missing interval count as one. A price that does not recur has no type.
func IntervalType(interval string, count int64) string {
	if count > 1 && interval != "" {
		return strconv.FormatInt(count, 10) + "-" + interval
	}
	switch interval {
	case "month":
		return "monthly"
	case "year":
		return "yearly"
	case "week":
		return "weekly"
	case "day":
		return "daily"
	default:
		return interval
	}
}
