package clerksim_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"
	"github.com/clerk/clerk-sdk-go/v2/user"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/clerksim"
)

func TestWhatPeopleDoEmits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.sim.AddUser(ana())
	w.expectNews(t, "user.created")
	primary := func() (address, status string) {
		u, err := w.users.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range u.EmailAddresses {
			if u.PrimaryEmailAddressID != nil && e.ID == *u.PrimaryEmailAddressID {
				return e.EmailAddress, e.Verification.Status
			}
		}
		return "", ""
	}
	for _, step := range []struct {
		name            string
		do              func() error
		address, status string
	}{
		{"rename", func() error { return w.sim.UpdateUser(id, clerksim.UserChange{LastName: clerk.String("Souza")}) }, "ana.work@example.com", "verified"},
		{"other primary", func() error { return w.sim.SetPrimaryEmail(id, "ana@example.com") }, "ana@example.com", "unverified"},
		{"verify", func() error { return w.sim.VerifyEmail(id, "ANA@example.com") }, "ana@example.com", "verified"},
		{"one more", func() error { return w.sim.AddEmail(id, clerksim.EmailSpec{Address: "third@example.com"}) }, "ana@example.com", "verified"},
		{"remove primary", func() error { return w.sim.RemoveEmail(id, "ana@example.com") }, "ana.work@example.com", "verified"},
		{"remove verified", func() error { return w.sim.RemoveEmail(id, "ana.work@example.com") }, "", ""},
		{"set metadata", func() error { return w.sim.SetPublicMetadata(id, map[string]any{"a": "b"}) }, "", ""},
		{"wipe metadata", func() error { return w.sim.WipeMetadata(id) }, "", ""},
	} {
		w.pass(time.Second)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		w.expectNews(t, "user.updated")
		if address, status := primary(); address != step.address || status != step.status {
			t.Errorf("%s: primary is %s (%s), want %s (%s)", step.name, address, status, step.address, step.status)
		}
		u, _ := w.users.Get(t.Context(), id)
		if u.UpdatedAt != w.clock().UnixMilli() {
			t.Errorf("%s: updated_at %d", step.name, u.UpdatedAt)
		}
	}
	if err := w.sim.VerifyEmail(id, "none@example.com"); err == nil {
		t.Error("verified an address that the user does not have")
	}
	if err := w.sim.DeleteUser(id); err != nil {
		t.Fatal(err)
	}
	w.expectNews(t, "user.deleted")
	for name, err := range map[string]error{"delete": w.sim.DeleteUser(id), "wipe": w.sim.WipeMetadata(id), "forget": w.sim.ForgetUser(id)} {
		if !errors.Is(err, clerksim.ErrNoUser) {
			t.Errorf("%s a deleted user: %v", name, err)
		}
	}
	if _, ok := w.sim.User(id); ok || len(w.sim.Users()) != 0 || w.sim.PublicMetadata(id) != nil {
		t.Error("the deleted user is still there")
	}
	w.expectNews(t)
}

func TestForgottenUsersAnswer404(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.sim.AddUser(ana())
	w.news()
	if err := w.sim.ForgetUser(id); err != nil {
		t.Fatal(err)
	}
	expectError(t, second(w.users.Get(t.Context(), id)), 404, "resource_not_found")
	list, err := w.users.List(t.Context(), &user.ListParams{})
	if err != nil || list.TotalCount != 0 {
		t.Errorf("listed: %+v, %v", list, err)
	}
	if _, ok := w.sim.User(id); !ok {
		t.Error("the user is gone altogether")
	}
	if err := w.sim.RememberUser(id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.users.Get(t.Context(), id); err != nil {
		t.Error(err)
	}
	w.expectNews(t)
}

func TestEmitAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.sim.AddUser(ana())
	first := w.expectNews(t, "user.created")[0]
	if !w.sim.EmitAgain(first.ID) || w.sim.EmitAgain("msg_unknown") {
		t.Error("EmitAgain knows the wrong webhooks")
	}
	again := w.expectNews(t, "user.created")[0]
	if again.ID != first.ID || !bytes.Equal(again.Body.Data, first.Body.Data) || again.Body.Timestamp != first.Body.Timestamp {
		t.Errorf("emitted again as %+v", again)
	}
	if n := len(w.sim.Events()); n != 1 {
		t.Errorf("%d events", n)
	}
}

// The order of webhooks is that of the changes, whoever makes them, and the receiver may make more.
func TestWebhooksKeepTheOrderOfChanges(t *testing.T) {
	t.Parallel()
	var (
		sim  *clerksim.Server
		mu   sync.Mutex
		seen []string
	)
	sim = clerksim.New(clerksim.Options{Emit: func(id, typ string, body []byte) {
		var e struct{ Data struct{ ID string } }
		if err := json.Unmarshal(body, &e); err != nil {
			t.Error(err)
		}
		if typ == "user.created" {
			if err := sim.WipeMetadata(e.Data.ID); err != nil {
				t.Error(err)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, id)
	}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				sim.AddUser(clerksim.UserSpec{})
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := sim.Settled(ctx); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, e := range sim.Events() {
		want = append(want, e.ID)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(want) != 2*8*20 || !slices.Equal(seen, want) {
		t.Fatalf("%d emitted of %d, or in another order", len(seen), len(want))
	}
}

func TestIDsFollowTheSeed(t *testing.T) {
	t.Parallel()
	ids := func(seed uint64) []string {
		sim := clerksim.New(clerksim.Options{Seed: seed})
		return []string{sim.InstanceID(), sim.AddUser(ana()), sim.AddUser(ana())}
	}
	if first, again, other := ids(1), ids(1), ids(2); !slices.Equal(first, again) || first[1] == other[1] || first[1] == first[2] {
		t.Errorf("ids %v, %v, %v", first, again, other)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.sim.AddUser(ana())
	if _, err := w.users.UpdateMetadata(t.Context(), id, &user.UpdateMetadataParams{PublicMetadata: raw(`{"n":9007199254740993}`)}); err != nil {
		t.Fatal(err)
	}
	token := w.sim.SessionToken(clerksim.TokenSpec{UserID: id})
	var saved bytes.Buffer
	if err := w.sim.Save(&saved); err != nil {
		t.Fatal(err)
	}

	next := newWorld(t)
	if err := next.sim.Load(bytes.NewReader(saved.Bytes())); err != nil {
		t.Fatal(err)
	}
	before, _ := w.sim.User(id)
	after, ok := next.sim.User(id)
	if !ok || !bytes.Equal(before, after) {
		t.Errorf("user was\n%s\nand is\n%s", before, after)
	}
	if next.sim.InstanceID() != w.sim.InstanceID() || next.sim.PublicKeyPEM() != w.sim.PublicKeyPEM() {
		t.Error("instance or token key is another")
	}
	if _, err := verify(t, next, token); err != nil {
		t.Errorf("a token from before: %v", err)
	}
	if len(next.sim.Events()) != len(w.sim.Events()) {
		t.Error("webhooks were forgotten")
	}
	next.expectNews(t)
	if got, want := next.sim.AddUser(ana()), w.sim.AddUser(ana()); got != want || got == id {
		t.Errorf("the next id is %s, want %s", got, want)
	}
	for _, broken := range []string{"", "{}", "[1]"} {
		if err := next.sim.Load(strings.NewReader(broken)); err == nil {
			t.Errorf("loaded %q", broken)
		}
	}
}
