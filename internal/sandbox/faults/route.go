package faults

import (
	"regexp"
	"strings"
)

// An id of either provider is a short prefix, an underscore and characters that no route has: its
// last part holds a digit or a capital letter. The prefixes that tests like to write ids with by
// hand ("user_nobody") are named.
var (
	idForm   = regexp.MustCompile(`^[a-z]+(_[a-z]+)*_[A-Za-z0-9]*[A-Z0-9][A-Za-z0-9]*$`)
	idPrefix = regexp.MustCompile(`^(user|sess|org|idn|ins|cus|sub|si|in|pi|pm|ch|re|dp|du|cs|price|prod|evt|we|acct|msg)_[A-Za-z0-9_]+$`)
)

// Route is the path with each id in it replaced by {id}, so that requests for different objects
// count as one kind.
func Route(path string) string {
	segments := strings.Split(path, "/")
	for k, s := range segments {
		if idForm.MatchString(s) || idPrefix.MatchString(s) {
			segments[k] = "{id}"
		}
	}
	return strings.Join(segments, "/")
}
