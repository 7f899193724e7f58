// Package clerkevent reads what a Clerk webhook says: that something about a user changed. Who the
// user is now is read from Clerk: names and addresses in the payload are looked at only to find out
// whether they are known already.
package clerkevent

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkuser"
)

// ErrNotAnEvent is the error of a body that is no event of Clerk's. Its text, and that of all
// errors of this package, holds nothing of the body.
var ErrNotAnEvent = errors.New("not a Clerk event")

// The event types that are handled.
const (
	UserCreated = "user.created"
	UserUpdated = "user.updated"
	UserDeleted = "user.deleted"
)

// Event is one event as its payload tells it. Clerk's payloads have no id of their own: the id
// of the delivery (the header svix-id) is the same in each redelivery and stands for it.
type Event struct {
	Type string
	// InstanceID is the Clerk instance that sent it; "" where the payload names none.
	InstanceID string
	// UserID is the user that the event is about; "" for events of other things, and for what
	// does not have the form of a user's id.
	UserID string
	// Timestamp is when it happened; zero where the payload does not say.
	Timestamp time.Time
	// Shows is the user as a user.updated tells of them: as they were when it happened, which need not
	// be as they are now. Nil for other types, and where the payload does not have the form of a user.
	Shows *account.ListedUser
}

var (
	typeForm     = regexp.MustCompile(`^[A-Za-z0-9_.]{1,255}$`)
	instanceForm = regexp.MustCompile(`^ins_[A-Za-z0-9]{1,128}$`)
)

// Parse reads a verified payload. It fails only for what is no event at all: not JSON, or
// without a type. Events of unknown types are fine.
func Parse(body string) (Event, error) {
	payload := gjson.Parse(body)
	if !gjson.Valid(body) || !payload.IsObject() {
		return Event{}, fmt.Errorf("%w: not a JSON object", ErrNotAnEvent)
	}
	e := Event{Type: text(payload.Get("type")), Timestamp: moment(payload.Get("timestamp"))}
	if !typeForm.MatchString(e.Type) {
		return Event{}, fmt.Errorf("%w: no usable type", ErrNotAnEvent)
	}
	if id := text(payload.Get("instance_id")); instanceForm.MatchString(id) {
		e.InstanceID = id
	}
	if Handled(e.Type) {
		if id := text(payload.Get("data.id")); account.ValidUserID(id) {
			e.UserID = id
		}
	}
	if e.Type == UserUpdated && e.UserID != "" {
		e.Shows = shown(payload.Get("data").Raw)
	}
	return e, nil
}

// VerifiedAddress is the primary address of the user of whom a payload tells, "" unless it is
// verified, and for what tells of none.
func VerifiedAddress(body string) string {
	payload := gjson.Parse(body)
	if kind := text(payload.Get("type")); kind != UserCreated && kind != UserUpdated {
		return ""
	}
	user := shown(payload.Get("data").Raw)
	if user == nil || !user.EmailVerified {
		return ""
	}
	return user.Email
}

func shown(data string) *account.ListedUser {
	user, err := clerkuser.Parse(data)
	if err != nil {
		return nil
	}
	return &user
}

// HandledTypes lists the event types that a webhook endpoint has to be subscribed to.
func HandledTypes() []string { return []string{UserCreated, UserUpdated, UserDeleted} }

// Handled tells whether events of a type are handled.
func Handled(eventType string) bool { return slices.Contains(HandledTypes(), eventType) }

// Entity answers whom the event concerns, "" if nobody.
func (e Event) Entity() account.Entity {
	if e.UserID == "" || !Handled(e.Type) {
		return ""
	}
	return account.UserEntity(e.UserID)
}

// Job answers what the event asks of the user's workflow, zero for types that are not handled.
func (e Event) Job() account.Job {
	switch e.Type {
	case UserCreated:
		return account.JobOnboard
	case UserUpdated:
		return account.JobSync
	case UserDeleted:
		return account.JobOffboard
	default:
		return 0
	}
}

// text answers a JSON string, "" for anything else.
func text(r gjson.Result) string {
	if r.Type != gjson.String {
		return ""
	}
	return r.Str
}

// moment reads a time in milliseconds, as Clerk sends it, or in seconds, as Clerk's own examples
// have it: what would lie before 1973 in milliseconds is in seconds.
func moment(r gjson.Result) time.Time {
	n, err := strconv.ParseInt(r.Raw, 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	if n < 100_000_000_000 {
		return time.Unix(n, 0).UTC()
	}
	return time.UnixMilli(n).UTC()
}
