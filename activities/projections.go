package activities

import (
	"context"
	"encoding/json"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Projections brings what Clerk holds of a user's subscriptions to what we store. Its activity
// runs on Clerk's task queue.
type Projections struct {
	Store *store.Store
	Clerk Clerk
}

// PublishInput names the user.
type PublishInput struct {
	ClerkUserID string `json:"clerkUserId"`
	// Forced is set where Clerk was seen to hold something else than what was published: then
	// no pass may skip.
	Forced bool `json:"forced,omitempty"`
}

// PublishResult says how far the publisher came.
type PublishResult struct {
	// Version is the last one written, zero if none was.
	Version int64 `json:"version,omitempty"`
	// Missing is set when Clerk does not know the user: drift. Nothing was lost; the sweep
	// comes back to it.
	Missing bool `json:"missing,omitempty"`
	// More is set when the projection changed faster than it could be written.
	More bool `json:"more,omitempty"`
}

// passes bounds one activity; a projection that changes faster than that is left to the next.
const passes = 4

// PublishProjection writes the stored projection to Clerk, again and again until what was
// written is what is stored.
//
// Idempotent: it writes a state. Only the first pass of the first attempt may skip, and only
// where the versions agree; a retry always writes, since the attempt before may have written
// something older after somebody else's newer. It records what it wrote, even if that is lower
// than what is recorded: then the versions differ, and the next pass mends it.
func (a *Projections) PublishProjection(ctx context.Context, in PublishInput) (result PublishResult, err error) {
	maySkip := !in.Forced && attempt(ctx) == 1
	for range passes {
		user, err := a.Store.UserByClerkID(ctx, in.ClerkUserID)
		if err != nil || user == nil || user.ErasedAt != nil {
			return result, err
		}
		if maySkip && !user.PublishDue() {
			return result, nil
		}
		maySkip = false
		version, err := a.write(ctx, user, in.Forced || user.RepairSeq != 0)
		if failure.IsNotFound(err) {
			awaited, number, asked := a.askAgain(ctx, in.ClerkUserID)
			if failure.IsNotFound(asked) {
				result.Missing, result.More = true, false
				return result, a.missing(ctx, user, number, awaited)
			}
			if err = asked; err == nil {
				err = failure.New(failure.Transient, "clerk", "write metadata", "there_after_all", nil)
			}
		}
		if err != nil {
			return result, a.failed(ctx, in.ClerkUserID, err)
		}
		result.Version = version
		if result.More, err = a.Store.Published(ctx, in.ClerkUserID, version, user.RepairSeq, cause(ctx)); err != nil || !result.More {
			return result, err
		}
	}
	return result, nil
}

func (a *Projections) write(ctx context.Context, user *store.User, forced bool) (version int64, err error) {
	projection, err := user.Projection()
	if err != nil {
		return 0, err
	}
	var held json.RawMessage
	if forced {
		// Somebody else wrote there. What they added under our key goes too, and to remove it
		// one has to know it.
		if _, held, err = a.Clerk.User(ctx, user.ClerkUserID); err != nil {
			return 0, err
		}
	}
	patch, err := projection.MergePatch(held)
	if err != nil {
		return 0, err
	}
	return projection.Version, a.Clerk.SetStripeMetadata(ctx, user.ClerkUserID, patch)
}

// askAgain reads a user whom Clerk did not know when their metadata was to be written, under a
// number of its own. Where somebody waits for them it pauses before: not each of Clerk's copies
// shows who was there a moment ago.
func (a *Projections) askAgain(ctx context.Context, clerkUserID string) (awaited bool, number int64, err error) {
	if awaited, err = a.Store.Awaited(ctx, clerkUserID); err != nil {
		return awaited, 0, err
	}
	if awaited {
		if err = pause(ctx, awaitedPause); err != nil {
			return awaited, 0, err
		}
	}
	if number, err = a.Store.NextRead(ctx); err != nil {
		return awaited, 0, err
	}
	_, _, err = a.Clerk.User(ctx, clerkUserID)
	return awaited, number, err
}

// missing handles a user whom Clerk does not know, as it has said twice, the second time to a read
// of this number. For one who is being deleted, maybe only since they were read here, that is how
// it should be: there is nothing to publish to any more. For any other it is drift, unless somebody
// else has read since that they are there. It ends nobody's wait: where somebody waits, the user is
// looked at, which decides whether there is anything to wait for.
func (a *Projections) missing(ctx context.Context, user *store.User, number int64, awaited bool) error {
	// What only the product has noted is no deletion before the user was looked at.
	deleting := user.DeletionSeq != nil
	if !deleting {
		err := a.Store.Update(ctx, "note a missing user", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
			now, err := tx.LockUser(ctx, user.ClerkUserID)
			if err != nil || now == nil {
				return err
			}
			if deleting = now.DeletionSeq != nil; deleting {
				return nil
			}
			if now.KnownSince(number) {
				return failure.New(failure.Transient, "postgres", "note a missing user", "overtaken", nil)
			}
			entity := account.UserEntity(user.ClerkUserID)
			if awaited || now.Noted {
				if err := tx.Poke(ctx, account.JobSync, entity); err != nil {
					return err
				}
			}
			return tx.NoteDrift(ctx, entity, account.DriftUserMissing, user.ClerkUserID)
		})
		if err != nil {
			return err
		}
	}
	if deleting {
		_, err := a.Store.Published(ctx, user.ClerkUserID, user.ProjectionVersion, user.RepairSeq, cause(ctx))
		return err
	}
	return a.Store.PublishFailed(ctx, user.ClerkUserID, "Clerk does not know this user")
}

func (a *Projections) failed(ctx context.Context, clerkUserID string, err error) error {
	if ctx.Err() == nil {
		// Shown beside the versions; the failure that counts is the one that is returned.
		_ = a.Store.PublishFailed(ctx, clerkUserID, string(failure.Of(err))+": "+failure.CodeOf(err))
	}
	return err
}
