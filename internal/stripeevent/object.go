package stripeevent

import (
	"strconv"
	"time"

	"github.com/tidwall/gjson"
)

// The functions below read a member of an event's object, "" or 0 where it is not there or not of
// the expected type. A member is looked for when it is asked for: most of an object is never looked
// at.

func text(r gjson.Result) string {
	if r.Type != gjson.String {
		return ""
	}
	return r.Str
}

func number(r gjson.Result) int64 {
	n, err := strconv.ParseInt(r.Raw, 10, 64)
	if err != nil || r.Type != gjson.Number {
		return 0
	}
	return n
}

// decimal is a number as text, "" for none.
func decimal(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func moment(r gjson.Result) time.Time {
	n := number(r)
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}

func flag(r gjson.Result) bool { return r.Type == gjson.True }

// reference reads the id of another object, which Stripe gives as the id alone or as the whole
// object.
func reference(r gjson.Result) string {
	if r.IsObject() {
		r = r.Get("id")
	}
	id := text(r)
	if !objectIDForm.MatchString(id) {
		return ""
	}
	return id
}

// metadata reads the values that are strings, as all are in Stripe.
func metadata(r gjson.Result) map[string]string {
	if !r.IsObject() {
		return nil
	}
	values := map[string]string{}
	r.ForEach(func(key, value gjson.Result) bool {
		values[key.Str] = text(value)
		return true
	})
	return values
}
