package clerkapi

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkuser"
)

const (
	// maxPage is the most users that a page has here. Clerk lists up to 500, but a user can be large.
	maxPage = 200
	// overlap is how far a page begins before the end of the one before: so many users may be deleted
	// between two pages without another being passed over.
	overlap = 20
)

// UsersPage lists users, those first that were there first, so that who signs up meanwhile is on
// the last page. It answers the offset of the next page, 0 after the last.
//
// Clerk has no cursors: a user who is deleted moves all that come after one place forward. So pages
// overlap, and a user can be on two of them.
func (c *Client) UsersPage(ctx context.Context, offset int) (users []account.ListedUser, next int, err error) {
	return c.usersPage(ctx, "list users", "+created_at", offset)
}

// ChangedUsersPage is [Client.UsersPage] with those first that were changed last. Who is changed
// meanwhile moves to the front, and others with that back by one: they are seen twice.
func (c *Client) ChangedUsersPage(ctx context.Context, offset int) (users []account.ListedUser, next int, err error) {
	return c.usersPage(ctx, "list changed users", "-updated_at", offset)
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

func (c *Client) usersPage(ctx context.Context, op, order string, offset int) (users []account.ListedUser, next int, err error) {
	list, err := do(ctx, op, func(ctx context.Context) (userPage, error) {
		// The SDK's own method counts all users as well, each time.
		request := clerk.NewAPIRequest(http.MethodGet, "/users")
		request.SetParams(&pageParams{order: order, offset: offset})
		var page userPage
		err := c.backend.Call(ctx, request, &page)
		return page, err
	})
	if err != nil {
		return nil, 0, err
	}
	for _, u := range list {
		if u == nil || !account.ValidUserID(u.ID) {
			return nil, 0, badBody(op)
		}
		shown, err := clerkuser.Read(u)
		if err != nil {
			return nil, 0, badBody(op)
		}
		users = append(users, shown)
	}
	if len(users) == maxPage {
		next = offset + maxPage - overlap
	}
	return users, next, nil
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
