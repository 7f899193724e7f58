package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// Now is the database's clock, as this transaction sees it. Whatever depends on the time is
// computed from it, so that two programs with different clocks come to the same answer.
func (t *Tx) Now(ctx context.Context) (time.Time, error) {
	if t.now.IsZero() {
		if err := t.tx.QueryRow(ctx, `SELECT now()`).Scan(&t.now); err != nil {
			return t.now, classify("read the clock", err)
		}
	}
	return t.now, nil
}

// Reproject computes a user's projection from fresh reads of all their subscriptions over all
// their customers and stores it, one version on, if its content changed. The caller holds the
// lock on the user's row since before it wrote what changed: that is what makes the projection
// of two customers that change at once right, whichever commits last.
func (t *Tx) Reproject(ctx context.Context, u *User, policy account.AccessPolicy, now time.Time, eventIDs []string) (changed bool, err error) {
	subscriptions, err := t.SubscriptionsOfUser(ctx, u)
	if err != nil {
		return false, err
	}
	customers, err := t.CustomersOf(ctx, u)
	if err != nil {
		return false, err
	}
	held := make([]account.Held, len(subscriptions))
	for i, s := range subscriptions {
		held[i] = s.Held()
	}
	ids := []string{}
	for _, c := range customers {
		if c.Exists() {
			ids = append(ids, c.ID)
		}
	}
	before, err := u.Projection()
	if err != nil {
		return false, err
	}
	after := account.Project(held, ids, policy, now)
	// A customer that the product has noted is not forgotten before it is known whose it is.
	primary := after.CustomerID
	if named, err := t.Undecided(ctx, u, customers); err != nil {
		return false, err
	} else if named.CustomerID != "" {
		primary = named.CustomerID
	}
	if u.ProjectionVersion > 0 && after.SameContent(before) && deref(u.StripeCustomerID) == primary {
		return false, nil
	}
	raw, err := json.Marshal(after)
	if err != nil {
		return false, fmt.Errorf("encoding a projection: %w", err)
	}
	// A tombstone has nowhere to publish to: Clerk has no such user any more.
	err = t.tx.QueryRow(ctx, `UPDATE person_user SET projection = $2, projection_version = projection_version + 1,
			published_version = CASE WHEN erased_at IS NULL THEN published_version ELSE projection_version + 1 END,
			publish_due_since = CASE WHEN erased_at IS NULL THEN coalesce(publish_due_since, now()) END,
			publish_retry_at = CASE WHEN erased_at IS NULL THEN now() + $4::interval END,
			stripe_customer_id = nullif($3, ''), updated_at = now()
		WHERE id = $1 RETURNING projection_version, published_version`, u.ID, raw, primary, sweepAfter).
		Scan(&u.ProjectionVersion, &u.PublishedVersion)
	if err != nil {
		return false, classify("store a projection", err)
	}
	u.ProjectionJSON, u.StripeCustomerID = raw, nullString(primary)
	return true, t.Audit(ctx, Entry{Action: "projection.changed", User: u, Entity: account.UserEntity(u.ClerkUserID), Subject: u.ClerkUserID,
		Before: asMap(before), After: asMap(after), EventIDs: eventIDs})
}

// ReprojectFormer computes anew the projections of the users who have lost subscriptions in this
// transaction, since their rows have turned out to be somebody else's, and has what that changes
// published. What was never told to Clerk is left to the user's own first look.
//
// Their rows are locked behind that of the owner, and in the order of our ids. Where that meets a
// transaction that has locked them the other way round, one of the two starts anew: see
// [Store.Update].
func (t *Tx) ReprojectFormer(ctx context.Context, userIDs []string, policy account.AccessPolicy, now time.Time, eventIDs []string) error {
	slices.Sort(userIDs)
	for _, id := range slices.Compact(userIDs) {
		former, err := t.LockUserByID(ctx, id)
		if err != nil {
			return err
		}
		if former == nil || former.ProjectionVersion == 0 {
			continue
		}
		changed, err := t.Reproject(ctx, former, policy, now, eventIDs)
		if err != nil {
			return err
		}
		if !changed || !former.PublishDue() {
			continue
		}
		if err := t.Poke(ctx, account.JobSync, account.UserEntity(former.ClerkUserID)); err != nil {
			return err
		}
	}
	return nil
}

// sweepAfter is how long whatever is due is left to the poke that it caused, before the sweep
// pokes again.
const sweepAfter = 30 * time.Second

// RepairDue notes that the user's latest read has shown Clerk to hold something else than what was
// published last, so that nobody takes it for published and the sweep comes back to it. Where the
// versions differ that is due anyway.
func (t *Tx) RepairDue(ctx context.Context, u *User) error {
	if u.versionsDiffer() || u.ReadSeq == u.RepairSeq {
		return nil
	}
	u.RepairSeq = u.ReadSeq
	return t.tx.Later(ctx, "note a repair", `UPDATE person_user SET repair_seq = $2, publish_due_since = coalesce(publish_due_since, now()),
		publish_retry_at = coalesce(publish_retry_at, now() + $3::interval) WHERE id = $1`, u.ID, u.RepairSeq, sweepAfter)
}

// Published records the version of the projection that Clerk now holds, even if it is lower
// than what was recorded: a late writer may have put back an older one, and only the truth
// about that gets it mended. Commands that only waited for Clerk to have it are done with that. It
// answers whether there is more to publish by now.
//
// repair is the repair that was due before it was written, 0 for none: what a later read has shown
// is not mended by that.
func (s *Store) Published(ctx context.Context, clerkUserID string, version, repair int64, why Cause) (more bool, err error) {
	err = s.Update(ctx, "record a publish", why, func(ctx context.Context, tx *Tx) error {
		u, err := tx.LockUser(ctx, clerkUserID)
		if err != nil || u == nil {
			return err
		}
		more = u.ErasedAt == nil && (u.ProjectionVersion != version || u.RepairSeq > repair)
		if u.ErasedAt != nil {
			return nil
		}
		if err := tx.tx.Later(ctx, "record a publish", `UPDATE person_user SET published_version = $2, publish_error = NULL,
				repair_seq = CASE WHEN repair_seq > $4 THEN repair_seq END,
				publish_due_since = CASE WHEN projection_version <> $2 OR repair_seq > $4 THEN coalesce(publish_due_since, now()) END,
				publish_retry_at = CASE WHEN projection_version <> $2 OR repair_seq > $4 THEN now() + $3::interval END
			WHERE id = $1`, u.ID, version, sweepAfter, repair); err != nil {
			return err
		}
		if err := tx.settlePublished(ctx, clerkUserID, version); err != nil {
			return err
		}
		return tx.ResolveDrift(ctx, account.UserEntity(clerkUserID), account.DriftUserMissing, "")
	})
	return more, err
}

// PublishFailed records why Clerk could not be brought to the stored projection. The sweep
// comes back to it, ever more slowly.
func (s *Store) PublishFailed(ctx context.Context, clerkUserID, reason string) error {
	_, err := s.pool.Exec(ctx, `UPDATE person_user SET publish_error = $2, publish_due_since = coalesce(publish_due_since, now()),
			publish_retry_at = now() + least(interval '1 hour', greatest($3::interval, (now() - coalesce(publish_due_since, now())) / 2))
		WHERE clerk_user_id = $1 AND `+publishDue, clerkUserID, reason, sweepAfter)
	return classify("record a failed publish", err)
}

func asMap(p account.Projection) map[string]any {
	raw, err := json.Marshal(p)
	if err != nil {
		return nil
	}
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	delete(m, "version")
	return m
}
