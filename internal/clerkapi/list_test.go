package clerkapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
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
		users[i] = fmt.Sprintf(`{"object":"user","id":"user_%d","first_name":"N%d","created_at":%d,"updated_at":%d,"public_metadata":{"stripe":{"version":%d}}}`, i, i, 1600000000123+i, 1700000000123+i, i)
	}
	return "[" + strings.Join(users, ",") + "]"
}

// A full page overlaps with the next, so that nobody is passed over when others are deleted in
// between; one that is not full is the last. Users are asked for once: the SDK's own list counts
// them all as well.
func TestUserPages(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		list      func(*clerkapi.Client) ([]account.ListedUser, string, error)
		order     string
		users     int
		next      string
		wantQuery string
	}{
		{func(c *clerkapi.Client) ([]account.ListedUser, string, error) { return c.UsersPage(t.Context(), "") }, "+created_at", 200, "180@1600000000322", "0"},
		{func(c *clerkapi.Client) ([]account.ListedUser, string, error) {
			return c.UsersPage(t.Context(), "180@1600000000322")
		}, "+created_at", 199, "", "180"},
		{func(c *clerkapi.Client) ([]account.ListedUser, string, error) {
			return c.ChangedUsersPage(t.Context(), "180")
		}, "-updated_at", 200, "360@-1700000000322", "180"},
		{func(c *clerkapi.Client) ([]account.ListedUser, string, error) {
			return c.ChangedUsersPage(t.Context(), "")
		}, "-updated_at", 0, "", "0"},
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
			t.Errorf("%d users by %s: got %d, next %q, asked %d times, error %v", c.users, c.order, len(users), next, asked, err)
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
		if _, _, err := client.UsersPage(t.Context(), ""); failure.Of(err) != failure.Transient {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// Where more users were deleted than two pages overlap, the next page begins behind the last user
// who was listed. It is listed from further ahead until it does not, in either order.
func TestAUserPageBehindManyDeletionsStepsBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		deleted int
		asked   []string
	}{
		{"fewer than pages overlap", 19, []string{"180"}},
		{"as many", 20, []string{"180", "0"}},
		{"more", 21, []string{"180", "0"}},
		{"all of the page", 200, []string{"180", "0"}},
	} {
		for _, changed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, by the last change %t", c.name, changed), func(t *testing.T) {
				t.Parallel()
				there := make([]int, 600)
				for i := range there {
					there[i] = i
				}
				var asked []string
				client := serve(t, func(w http.ResponseWriter, r *http.Request) {
					q := r.URL.Query()
					asked = append(asked, q.Get("offset"))
					offset, err := strconv.Atoi(q.Get("offset"))
					if err != nil {
						t.Error(err)
					}
					var users []string
					for _, i := range there[offset:min(offset+200, len(there))] {
						users = append(users, fmt.Sprintf(`{"object":"user","id":"user_%d","created_at":%d,"updated_at":%d}`, i, 1600000000000+i, 1700000000000-i))
					}
					answer(http.StatusOK, "["+strings.Join(users, ",")+"]")(w, r)
				})
				list := client.UsersPage
				if changed {
					list = client.ChangedUsersPage
				}
				_, next, err := list(t.Context(), "")
				if err != nil {
					t.Fatal(err)
				}
				there, asked = there[c.deleted:], nil
				users, _, err := list(t.Context(), next)
				if err != nil {
					t.Fatal(err)
				}
				first := fmt.Sprintf("user_%d", max(200, c.deleted))
				if !slices.ContainsFunc(users, func(u account.ListedUser) bool { return u.ID == first }) || !slices.Equal(asked, c.asked) {
					t.Errorf("asked from %v, want %v; %d users from %s on, and among them %s", asked, c.asked, len(users), users[0].ID, first)
				}
			})
		}
	}
}

// A place that is none is refused for good.
func TestAPlaceInUsersThatIsNone(t *testing.T) {
	t.Parallel()
	client := serve(t, answer(http.StatusOK, "[]"))
	for _, place := range []string{"x", "-1", "180@", "180@x"} {
		if _, _, err := client.UsersPage(t.Context(), place); failure.Of(err) != failure.Permanent {
			t.Errorf("%q: %v", place, err)
		}
	}
}
