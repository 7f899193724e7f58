package clerkapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkuser"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

const (
	// maxPage is the most users that a page has here. Clerk lists up to 500, but a user can be large.
	maxPage = 200
	// overlap is how far a page begins before the end of the one before: so many users may be deleted
	// between two pages without a request for one more page.
	overlap = 20
)

// UsersPage lists users, those first that were there first, so that who signs up meanwhile is on
// the last page. It answers the place of the next page, "" after the last.
//
// Clerk has no cursors: a user who is deleted moves all that come after one place forward. So pages
// overlap, and a user can be on two of them. A place has the offset and the moment of the last user
// before it: where a page begins behind that moment, because more were deleted than two pages
// overlap, as they may be while somebody pauses, it is listed from further ahead.
func (c *Client) UsersPage(ctx context.Context, after string) (users []account.ListedUser, next string, err error) {
	return c.usersPage(ctx, "list users", order{"+created_at", func(u account.ListedUser) int64 { return u.CreatedAt.UnixMilli() }}, after)
}

// ChangedUsersPage is [Client.UsersPage] with those first that were changed last. Who is changed
// meanwhile moves to the front, and others with that back by one: they are seen twice.
func (c *Client) ChangedUsersPage(ctx context.Context, after string) (users []account.ListedUser, next string, err error) {
	return c.usersPage(ctx, "list changed users", order{"-updated_at", func(u account.ListedUser) int64 { return -u.UpdatedAt.UnixMilli() }}, after)
}

// order is how users are listed: by a number that rises from one to the next.
type order struct {
	by string
	of func(account.ListedUser) int64
}

// CountUsers answers how many users there are.
func (c *Client) CountUsers(ctx context.Context) (int64, error) {
	count, err := do(ctx, "count users", func(ctx context.Context) (userCount, error) {
		var count userCount
		err := c.backend.Call(ctx, clerk.NewAPIRequest(http.MethodGet, "/users/count"), &count)
		return count, err
	})
	return count.Total, err
}

// userCount is Clerk's answer.
type userCount struct {
	clerk.APIResource
	Total int64 `json:"total_count"`
}

func (c *Client) usersPage(ctx context.Context, op string, by order, after string) (users []account.ListedUser, next string, err error) {
	offset, last, err := placeOf(op, after)
	if err != nil {
		return nil, "", err
	}
	for {
		if users, err = c.usersFrom(ctx, op, by, offset); err != nil {
			return nil, "", err
		}
		if offset == 0 || last == nil || len(users) > 0 && by.of(users[0]) <= *last {
			break
		}
		offset = max(0, offset-maxPage+overlap)
	}
	if len(users) == maxPage {
		next = strconv.Itoa(offset+maxPage-overlap) + "@" + strconv.FormatInt(by.of(users[maxPage-1]), 10)
	}
	return users, next, nil
}

// placeOf reads a place: an offset, and the number of the last user before it where that is known.
func placeOf(op, after string) (offset int, last *int64, err error) {
	if after == "" {
		return 0, nil, nil
	}
	place, number, known := strings.Cut(after, "@")
	if offset, err = strconv.Atoi(place); err == nil && known {
		last = new(int64)
		*last, err = strconv.ParseInt(number, 10, 64)
	}
	if err != nil || offset < 0 {
		return 0, nil, failure.New(failure.Permanent, "clerk", op, "bad_place", nil)
	}
	return offset, last, nil
}

func (c *Client) usersFrom(ctx context.Context, op string, by order, offset int) ([]account.ListedUser, error) {
	list, err := do(ctx, op, func(ctx context.Context) (userPage, error) {
		// The SDK's own method counts all users as well, each time.
		request := clerk.NewAPIRequest(http.MethodGet, "/users")
		request.SetParams(&pageParams{order: by.by, offset: offset})
		var page userPage
		err := c.backend.Call(ctx, request, &page)
		return page, err
	})
	if err != nil {
		return nil, err
	}
	var users []account.ListedUser
	for _, u := range list {
		if u == nil || !account.ValidUserID(u.ID) {
			return nil, badBody(op)
		}
		shown, err := clerkuser.Read(u)
		if err != nil {
			return nil, badBody(op)
		}
		users = append(users, shown)
	}
	return users, nil
}

type pageParams struct {
	clerk.APIParams
	order  string
	offset int
}

// ToQuery implements clerk.Queryable.
func (p *pageParams) ToQuery() url.Values {
	return url.Values{"limit": {strconv.Itoa(maxPage)}, "offset": {strconv.Itoa(p.offset)}, "order_by": {p.order}}
}

// userPage is the answer to a list of users, an array.
type userPage []*clerk.User

// Read implements clerk.ResponseReader; the response itself is of no use here.
func (*userPage) Read(*clerk.APIResponse) {}

// soundList tells whether a body is an array of objects that have ids.
func soundList(body []byte) bool {
	var list []struct {
		ID string `json:"id"`
	}
	if json.Unmarshal(body, &list) != nil || list == nil {
		return false
	}
	for _, each := range list {
		if each.ID == "" {
			return false
		}
	}
	return true
}
