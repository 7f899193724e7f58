package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// BulkOrder is what somebody wants brought in.
type BulkOrder struct {
	// DryRun only counts what differs.
	DryRun bool
	// IDs are Clerk users and Stripe customers; none for all.
	IDs []string
	// Since is the moment from which on what has changed is meant; zero for everything.
	Since time.Time
	// Alongside lets it go on beside another.
	Alongside bool
	// Caller is who wants it.
	Caller string
}

// mostNamed is how many users and customers one bulk sync may name.
const mostNamed = 10_000

// StartBulk begins a bulk sync and answers it. While another goes on there is none, and that one is
// answered.
func (c *Console) StartBulk(ctx context.Context, o BulkOrder) (run *store.BulkRun, begun bool, err error) {
	if len(o.IDs) > mostNamed {
		return nil, false, mistaken("name at most %d at once, or none for all", mostNamed)
	}
	wanted := store.BulkRun{ID: "bulk_" + strings.ToLower(rand.Text()), Caller: o.Caller, DryRun: o.DryRun, Alongside: o.Alongside}
	if o.DryRun && len(o.IDs) > 0 {
		return nil, false, mistaken("a dry run is of everything; syncctl user shows how one user stands")
	}
	if !o.Since.IsZero() {
		if err := checkSince(o, time.Now()); err != nil {
			return nil, false, err
		}
		wanted.Since = &o.Since
	}
	for _, id := range o.IDs {
		switch {
		case account.ValidUserID(id):
			wanted.Entities = append(wanted.Entities, string(account.UserEntity(id)))
		case account.ValidCustomerID(id):
			wanted.Entities = append(wanted.Entities, string(account.CustomerEntity(id)))
		default:
			return nil, false, mistaken("%q is neither a Clerk user id nor the id of a Stripe customer", id)
		}
	}
	switch other, err := c.beginBulk(ctx, wanted); {
	case err != nil:
		return nil, false, err
	case other != nil:
		return other, false, nil
	}
	// Recorded first: a run that nobody knows of could not be stopped. One that is recorded and does
	// not start is found by whoever asks next.
	if err := c.Runs.StartBulk(ctx, workflows.BulkSyncInput{ID: wanted.ID, Named: len(wanted.Entities) > 0, Changed: wanted.Since != nil}); err != nil {
		return nil, false, errors.Join(err, c.Store.FinishBulk(ctx, wanted.ID, "not started"))
	}
	run, err = c.Store.Bulk(ctx, wanted.ID)
	return run, true, err
}

func checkSince(o BulkOrder, now time.Time) error {
	switch {
	case len(o.IDs) > 0:
		return mistaken("name either ids or a moment; those that are named are brought in whenever they were changed")
	case o.DryRun:
		return mistaken("a dry run is of everything; leave the moment out")
	case o.Since.After(now):
		return mistaken("the moment %s is yet to come", o.Since.Format(time.RFC3339))
	case now.Sub(o.Since) > activities.BulkReachesBack:
		return mistaken("Stripe tells of the last 30 days only; name a moment after %s, or none to bring in everything",
			now.Add(-activities.BulkReachesBack).UTC().Format(time.RFC3339))
	}
	return nil
}

// beginBulk records a pass, or answers the one that is in its way. One whose run is gone is in
// nobody's way.
func (c *Console) beginBulk(ctx context.Context, wanted store.BulkRun) (other *store.BulkRun, err error) {
	for {
		err := c.Store.BeginBulk(ctx, wanted)
		if !errors.Is(err, store.ErrBulkUnderWay) {
			return nil, err
		}
		if other, err = c.Store.UnfinishedBulk(ctx); err != nil {
			return nil, err
		}
		if other == nil {
			continue // it has just ended
		}
		open, err := c.Runs.BulkIsOpen(ctx, other.ID)
		if err != nil || open {
			return other, err
		}
		if err := c.Store.FinishBulk(ctx, other.ID, "its workflow is gone"); err != nil {
			return nil, err
		}
	}
}

// Bulk answers how far a bulk sync is, nil where there is none.
func (c *Console) Bulk(ctx context.Context, id string) (*store.BulkRun, error) {
	return c.Store.Bulk(ctx, id)
}

// Bulks lists bulk syncs, the newest first.
func (c *Console) Bulks(ctx context.Context, limit int) ([]store.BulkRun, error) {
	return c.Store.Bulks(ctx, limit)
}

// BulkFailures lists what a bulk sync could not bring in, and why.
func (c *Console) BulkFailures(ctx context.Context, id string, after account.Entity, limit int) ([]store.BulkFailure, error) {
	return c.Store.BulkFailures(ctx, id, after, limit)
}

// PauseBulk has a bulk sync stop behind the page that is under way, or go on.
func (c *Console) PauseBulk(ctx context.Context, id string, paused bool) (run *store.BulkRun, err error) {
	changed, err := c.Store.PauseBulk(ctx, id, paused)
	if err == nil && changed && !paused {
		err = c.Runs.PokeBulk(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	return c.Store.Bulk(ctx, id)
}

// CancelBulk has a bulk sync end behind the page that is under way. What was brought in stays.
func (c *Console) CancelBulk(ctx context.Context, id string) (*store.BulkRun, error) {
	if err := c.Runs.CancelBulk(ctx, id); err != nil {
		return nil, err
	}
	return c.Store.Bulk(ctx, id)
}
