package clerkapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkapi"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
)

func usersJSON(n int) string {
	users := make([]string, n)
	for i := range users {
		users[i] = fmt.Sprintf(`{"object":"user","id":"user_%d","first_name":"N%d","updated_at":%d,"public_metadata":{"stripe":{"version":%d}}}`, i, i, 1700000000123+i, i)
	}
	return "[" + strings.Join(users, ",") + "]"
}

// A full page overlaps with the next, so that nobody is passed over when others are deleted in
// between; one that is not full is the last. Users are asked for once: the SDK's own list counts
// them all as well.
func TestUserPages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list      func(*clerkapi.Client) ([]account.ListedUser, int, error)
		order     string
		users     int
		next      int
		wantQuery string
	}{
		{func(c *clerkapi.Client) ([]account.ListedUser, int, error) { return c.UsersPage(t.Context(), 0) }, "+created_at", 200, 180, "0"},
		{func(c *clerkapi.Client) ([]account.ListedUser, int, error) { return c.UsersPage(t.Context(), 180) }, "+created_at", 199, 0, "180"},
		{func(c *clerkapi.Client) ([]account.ListedUser, int, error) {
			return c.ChangedUsersPage(t.Context(), 180)
		}, "-updated_at", 200, 360, "180"},
		{func(c *clerkapi.Client) ([]account.ListedUser, int, error) { return c.ChangedUsersPage(t.Context(), 0) }, "-updated_at", 0, 0, "0"},
	} {
		asked := 0
		client := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked++
			q := r.URL.Query()
			if r.URL.Path != "/v1/users" || q.Get("limit") != "200" || q.Get("offset") != c.wantQuery || q.Get("order_by") != c.order {
				t.Errorf("asked %s", r.URL)
			}
			answer(http.StatusOK, usersJSON(c.users))(w, r)
		})
		users, next, err := c.list(client)
		if err != nil || len(users) != c.users || next != c.next || asked != 1 {
			t.Errorf("%d users by %s: got %d, next %d, asked %d times, error %v", c.users, c.order, len(users), next, asked, err)
		}
		if c.users > 0 {
			if u := users[1]; u.ID != "user_1" || u.FirstName != "N1" || string(u.Held) != `{"version":1}` || !u.UpdatedAt.Equal(time.UnixMilli(1700000000124)) {
				t.Errorf("a user is %+v", u)
			}
		}
	}
}

func TestBadUserPages(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"a user without an id": `[{"object":"user"}]`,
		"somebody else's id":   `[{"object":"user","id":"x"}]`,
		"nothing":              `null`,
		"an object":            `{"data":[]}`,
		"HTML":                 `<html>`,
	} {
		client := serve(t, answer(http.StatusOK, body))
		if _, _, err := client.UsersPage(t.Context(), 0); failure.Of(err) != failure.Transient {
			t.Errorf("%s: error %v", name, err)
		}
	}
}
