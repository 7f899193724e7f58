package activities

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/clerkevent"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// Users brings our copy of a user to what Clerk says, and forgets users who are deleted.
type Users struct {
	Store  *store.Store
	Clerk  Clerk
	Access account.AccessPolicy
	// Deletion is the policy that every customer of a deleted user has to comply with before
	// the user's data is erased.
	Deletion account.DeletionPolicy
	// LinkByEmail makes a user with a verified email look for customers that nobody claims.
	LinkByEmail bool
	// RereadDelay is how long to wait before reading again what does not show an event yet.
	RereadDelay time.Duration
	// MissingConfirmedAfter is how long after Clerk has first said that it does not have a user whose
	// deletion the product has noted the same answer confirms the deletion.
	MissingConfirmedAfter time.Duration
}

// UserInput names a user.
type UserInput struct {
	ClerkUserID string `json:"clerkUserId"`
	// InBulk is set by a bulk sync: it looks at a customer that is found itself, and what is doubtful
	// it leaves to a person.
	InBulk bool `json:"inBulk,omitempty"`
	// Unlisted is when a bulk sync began to read Clerk's list of all users, which does not show this
	// one; zero where none did. It is in no history.
	Unlisted time.Time `json:"-"`
	// Existing is set for a user who has been there for a while, and whom something may have given a
	// customer that we have not been told of: see [UserResult.Existing].
	Existing bool `json:"existing,omitempty"`
	// Again is set where attempts before were given up so that this one begins at once.
	Again bool `json:"again,omitempty"`
}

// UserResult says what the workflow has to do next.
type UserResult struct {
	Outcome Outcome `json:"outcome"`
	// Deleting is set once the user's deletion was asked for.
	Deleting bool `json:"deleting,omitempty"`
	// CustomerDue is set when the user has no customer yet, or one that was not given their
	// latest name or email, or a subscription of which it is not known whose customer it is.
	CustomerDue bool `json:"customerDue,omitempty"`
	// Onboarded tells whether the user has a customer.
	Onboarded bool `json:"onboarded,omitempty"`
	// Existing is set when the user has no customer and signed up longer ago than Stripe's search is
	// behind.
	Existing   bool `json:"existing,omitempty"`
	PublishDue bool `json:"publishDue,omitempty"`
	// PublishForced is set when Clerk holds something else than what was published last: a
	// write that came late, or somebody's replacing update. Such a publish may not skip.
	PublishForced bool `json:"publishForced,omitempty"`
	// CheckoutsDue is set for a user who is being deleted, or is, where a checkout that was being
	// opened meanwhile may have been left open, or one on a customer that came to them later, or where
	// Stripe has to tell which customer's a subscription is; and for one whose deletion the product has
	// asked for, and nobody else.
	CheckoutsDue bool `json:"checkoutsDue,omitempty"`
	// Awaited is set where there is something to publish that somebody waits for.
	Awaited bool `json:"awaited,omitempty"`
	// Claimed is set when customers that name this user were poked to be linked.
	Claimed bool `json:"claimed,omitempty"`
}

// searchBehind is how long after its creation a customer may not be found yet, with room to spare:
// Stripe says a minute as a rule, and longer while it has an outage.
const searchBehind = 10 * time.Minute

// SyncUser reads a user at Clerk and commits name and email, and tells where what Clerk's
// metadata holds differs from our projection. A signed user.deleted among the due events sets
// the deletion mark instead, without asking Clerk: a mere 404 never does.
//
// Clerk does not promise either that a read shows at once what an event tells: see [Users.told].
//
// Idempotent: it stores a state under the read fence. It never clears what was published.
func (a *Users) SyncUser(ctx context.Context, in UserInput) (result UserResult, err error) {
	entity := account.UserEntity(in.ClerkUserID)
	defer func() { showFailing(ctx, a.Store, entity, err) }()
	number, err := a.Store.NextRead(ctx)
	if err != nil {
		return result, err
	}
	deleted, err := a.Store.HasDue(ctx, entity, "user.deleted", number)
	if err != nil {
		return result, err
	}
	if deleted {
		return a.requestDeletion(ctx, in, number)
	}
	// The stored projection is read before Clerk is asked: a publish that commits in between
	// makes them differ for no reason, which costs a write; the other order would hide one.
	before, err := a.Store.UserByClerkID(ctx, in.ClerkUserID)
	if err != nil {
		return result, err
	}
	if before != nil && before.Deleting() && !before.Noted {
		return a.commitDeleted(ctx, in, number, before)
	}
	user, held, err := a.Clerk.User(ctx, in.ClerkUserID)
	if failure.IsNotFound(err) {
		number, user, held, err = a.readAwaited(ctx, in, number, err)
	}
	if failure.IsNotFound(err) {
		return a.commitMissing(ctx, in, number)
	}
	if err != nil {
		return result, err
	}
	if before != nil && before.Deleting() {
		// Only the product has noted that they are to be deleted. Until Clerk says so nothing is erased,
		// and nobody waits for it, but nothing is sold to them, or made for them.
		result, err = a.commitDeleted(ctx, in, number, before)
		result.Deleting, result.CheckoutsDue, result.Onboarded = false, true, true
		return result, err
	}
	if result, err = a.commit(ctx, in, number, before, user, held); err != nil || result.Deleting {
		return result, err
	}
	result.Claimed, err = a.pokeClaimed(ctx, user.ID, verifiedEmail(user)...)
	return result, err
}

// awaitedPause is how long after Clerk has said that it does not know a user it is asked once more.
const awaitedPause = time.Second

// readAwaited reads once more, under a new number, a user whom Clerk does not know, where somebody
// waits for them: whoever has a token is there, or has just signed up, and not each of Clerk's
// reads shows them. What the second read says counts.
func (a *Users) readAwaited(ctx context.Context, in UserInput, number int64, missing error) (int64, account.User, json.RawMessage, error) {
	awaited, err := a.Store.Awaited(ctx, in.ClerkUserID)
	if err != nil {
		return number, account.User{}, nil, err
	}
	if !awaited {
		return number, account.User{}, nil, missing
	}
	if err := pause(ctx, awaitedPause); err != nil {
		return number, account.User{}, nil, err
	}
	if number, err = a.Store.NextRead(ctx); err != nil {
		return number, account.User{}, nil, err
	}
	user, held, err := a.Clerk.User(ctx, in.ClerkUserID)
	return number, user, held, err
}

func (a *Users) commit(ctx context.Context, in UserInput, number int64, before *store.User, user account.User, held json.RawMessage) (result UserResult, err error) {
	err = a.Store.Update(ctx, "record a user", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		result = UserResult{Outcome: OutcomeSynced}
		row, created, err := tx.EnsureUser(ctx, in.ClerkUserID)
		if err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, row.HighestNumber()); err != nil {
			return err
		}
		due, err := tx.TakeEvents(ctx, account.UserEntity(in.ClerkUserID), number)
		if err != nil {
			return err
		}
		if row.Deleting() {
			result.Deleting = true
			return tx.CompleteEvents(ctx, due, true)
		}
		if row.Noted {
			if err := a.notedInVain(ctx, tx, row); err != nil {
				return err
			}
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		done, newer, err := a.told(ctx, tx, row, user, due, now)
		if err != nil {
			return err
		}
		// What is older than what we know replaces nothing, answers no event, and ends nobody's wait for
		// what is so now.
		behind := len(newer) > 0 && row.ReadSeq > 0
		if behind {
			done = nil
		}
		if err := tx.CompleteEvents(ctx, done, false); err != nil {
			return err
		}
		if created {
			if err := tx.Audit(ctx, store.Entry{Action: "user.created", User: row, Entity: account.UserEntity(in.ClerkUserID),
				Subject: in.ClerkUserID, EventIDs: eventIDs(due)}); err != nil {
				return err
			}
		}
		if number > row.ReadSeq && !behind {
			if _, err := tx.SetProfile(ctx, row, user, number, eventIDs(due)); err != nil {
				return err
			}
		}
		customers, err := tx.CustomersOf(ctx, row)
		if err != nil {
			return err
		}
		result.Onboarded = slices.ContainsFunc(customers, store.Customer.Exists)
		named, err := tx.Undecided(ctx, row, customers)
		if err != nil {
			return err
		}
		leave := row.Noted && !result.Onboarded && named.CustomerID == ""
		if leave {
			// Whoever the product has noted as deleted is given something only where somebody asks for it.
			operations, err := tx.UnsettledOperations(ctx, "", account.UserEntity(in.ClerkUserID))
			if err != nil {
				return err
			}
			leave = !operations.Awaited
		}
		if named.Taken {
			if err := tx.NoteDrift(ctx, account.CustomerEntity(named.CustomerID), account.DriftConflictingClaims, named.CustomerID); err != nil {
				return err
			}
		}
		// To whom a bulk sync has not come with a customer yet there is nothing to tell: what is told
		// comes back as an event.
		if result.Onboarded || !in.InBulk && !leave {
			if _, err := tx.Reproject(ctx, row, a.Access, now, eventIDs(due)); err != nil {
				return err
			}
		}
		if err := tx.ResolveDrift(ctx, account.UserEntity(in.ClerkUserID), account.DriftUserMissing, ""); err != nil {
			return err
		}
		result.CustomerDue = (!result.Onboarded || row.Unplaced) && !leave || slices.ContainsFunc(customers, func(c store.Customer) bool {
			return c.Exists() && c.ProfileVersion < row.ProfileVersion
		})
		if err := a.judge(ctx, tx, row, before, user.CustomerHint, held, &result); err != nil {
			return err
		}
		if result.PublishForced && number == row.ReadSeq {
			if err := tx.RepairDue(ctx, row); err != nil {
				return err
			}
		}
		if !in.InBulk && (result.PublishDue || result.PublishForced) {
			operations, err := tx.UnsettledOperations(ctx, "", account.UserEntity(in.ClerkUserID))
			if err != nil {
				return err
			}
			result.Awaited = operations.Awaited
		}
		if leave {
			result.Onboarded = true // as far as there is anything to do
			return nil
		}
		result.Existing = !result.Onboarded && user.CreatedAt.Before(now.Add(-searchBehind))
		return nil
	})
	return result, err
}

// told parts a user's due events into those that a read answers and those that it is behind, by
// Clerk's own time of the user's last change, and has the user read again in a moment where it is
// behind any. newer are those, and where the read would change the profile also those which an
// earlier read has answered: not each of Clerk's copies shows the same. A payload without a time
// says nothing of that.
func (a *Users) told(ctx context.Context, tx *store.Tx, row *store.User, user account.User, due []store.Due, now time.Time) (done, newer []store.Due, err error) {
	shows := func(d store.Due) bool {
		event, err := clerkevent.Parse(d.Payload)
		return err != nil || event.Shows == nil || user.UpdatedAt.IsZero() || !event.Shows.UpdatedAt.After(user.UpdatedAt)
	}
	entity := account.UserEntity(row.ClerkUserID)
	done, newer = parted(due, now, shows)
	if len(newer) == 0 && row.ReadSeq > 0 && !row.Holds(user) {
		before, err := tx.ToldSince(ctx, entity, now.Add(-account.ReadsBehind))
		if err != nil {
			return nil, nil, err
		}
		_, newer = parted(before, now, shows)
	}
	return done, newer, readAgain(ctx, tx, entity, newer, now, a.RereadDelay)
}

// judge says what is left to do for a user whose profile is stored.
func (a *Users) judge(ctx context.Context, tx *store.Tx, row, before *store.User, hint string, held json.RawMessage, result *UserResult) error {
	if !result.Onboarded {
		if err := tx.SetHint(ctx, row, hint); err != nil {
			return err
		}
	}
	result.PublishDue = row.PublishDue()
	if before == nil || before.ProjectionVersion == 0 {
		return nil // never published: the ordinary publish writes in any case
	}
	projection, err := before.Projection()
	if err != nil {
		return err
	}
	result.PublishForced = !projection.Equals(held)
	return nil
}

// pokeClaimed looks for customers that name this user, now that the user is committed, or that have
// an address which they have verified as their primary one, and has them looked at. It looks for
// claims, not for waiting events: those may have been given up.
func (a *Users) pokeClaimed(ctx context.Context, clerkUserID string, verified ...string) (bool, error) {
	customers, err := a.Store.UnlinkedClaimed(ctx, clerkUserID)
	if err != nil {
		return false, err
	}
	for _, address := range verified {
		if !a.LinkByEmail {
			break
		}
		byEmail, err := a.Store.UnlinkedByEmail(ctx, address)
		if err != nil {
			return false, err
		}
		customers = append(customers, byEmail...)
	}
	var entities []account.Entity
	for _, id := range customers {
		entities = append(entities, account.CustomerEntity(id))
	}
	if len(entities) == 0 {
		return false, nil
	}
	return true, a.Store.Poke(ctx, account.JobSync, store.Distinct(entities)...)
}

// verifiedEmail is the primary address of a user, nothing unless it is verified.
func verifiedEmail(user account.User) []string {
	if !user.EmailVerified {
		return nil
	}
	return []string{user.Email}
}

// verifiedIn are the addresses that events show to be a user's verified primary ones. A user who
// signs up, or verifies an address, and is deleted before anybody has looked at them is known by
// these alone.
func verifiedIn(due []store.Due) []string {
	var verified []string
	for _, event := range due {
		if address := clerkevent.VerifiedAddress(event.Payload); address != "" {
			verified = append(verified, address)
		}
	}
	return verified
}

// commitMissing handles a user whom Clerk does not know, though nobody told us of a deletion:
// drift. Rows and access stay as they are, and the events wait. What somebody else has come to know
// meanwhile is not gone against: the user is read again.
//
// That Clerk does not have somebody is no deletion by itself, nor is what the product has noted of
// one. Both together are, once Clerk has said so twice, far enough apart: not each of its copies
// shows the same, and nothing of a deletion is taken back.
func (a *Users) commitMissing(ctx context.Context, in UserInput, number int64) (UserResult, error) {
	result := UserResult{Outcome: OutcomeMissing}
	entity := account.UserEntity(in.ClerkUserID)
	deleted := false
	err := a.Store.Update(ctx, "record a missing user", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		row, err := tx.LockUser(ctx, in.ClerkUserID)
		if err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, row.HighestNumber()); err != nil {
			return err
		}
		if row.KnownSince(number) {
			return failure.New(failure.Transient, "postgres", "record a missing user", "overtaken", nil)
		}
		if row != nil && row.Noted {
			if deleted, err = tx.DriftIsOlder(ctx, entity, account.DriftUserMissing, a.MissingConfirmedAfter); err != nil || deleted {
				return err
			}
			if err := tx.EraseLater(ctx, row, a.MissingConfirmedAfter); err != nil {
				return err
			}
		}
		due, err := tx.TakeEvents(ctx, entity, number)
		if err != nil {
			return err
		}
		if row != nil {
			err = tx.NoteDrift(ctx, entity, account.DriftUserMissing, in.ClerkUserID)
		} else {
			err = tx.NoteNotInClerk(ctx, in.ClerkUserID, in.Unlisted)
		}
		if err != nil {
			return err
		}
		// Nobody waits for a user whom Clerk does not have.
		if err := tx.EndWaits(ctx, entity, number, store.NoSuchUser); err != nil {
			return err
		}
		if row != nil {
			if err := tx.SettleUnpublishable(ctx, row, number); err != nil {
				return err
			}
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		// Who has just signed up is not shown by each of Clerk's copies.
		_, early := parted(due, now, func(store.Due) bool { return false })
		if err := readAgain(ctx, tx, entity, early, now, a.RereadDelay); err != nil {
			return err
		}
		return tx.HoldEvents(ctx, due, store.EventWaiting, "Clerk does not know this user", false)
	})
	if err == nil && deleted {
		return a.requestDeletion(ctx, in, number)
	}
	return result, err
}

// requestDeletion commits the deletion mark, which has every customer of the user looked at, and
// those that may become theirs.
func (a *Users) requestDeletion(ctx context.Context, in UserInput, number int64) (UserResult, error) {
	result := UserResult{Outcome: OutcomeSynced, Deleting: true}
	var verified []string
	err := a.Store.Update(ctx, "mark a user's deletion", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		row, _, err := tx.EnsureUser(ctx, in.ClerkUserID)
		if err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, row.HighestNumber()); err != nil {
			return err
		}
		due, err := tx.TakeEvents(ctx, account.UserEntity(in.ClerkUserID), number)
		if err != nil {
			return err
		}
		if err := tx.RequestDeletion(ctx, row, eventIDs(due)); err != nil {
			return err
		}
		told := verifiedIn(due)
		verified = append(verifiedEmail(row.Profile()), told...)
		if err := tx.KeepAddresses(ctx, row, told); err != nil {
			return err
		}
		if err := tx.EndWaits(ctx, account.UserEntity(in.ClerkUserID), number, store.NoSuchUser); err != nil {
			return err
		}
		// If Clerk did not know them before, this is why.
		if err := tx.ResolveDrift(ctx, account.UserEntity(in.ClerkUserID), account.DriftUserMissing, ""); err != nil {
			return err
		}
		return tx.CompleteEvents(ctx, due, true)
	})
	if err == nil {
		_, err = a.pokeClaimed(ctx, in.ClerkUserID, verified...)
	}
	return result, err
}

// commitDeleted ends events that came for a user who is being deleted or is. They undo nothing, and
// Clerk is not asked: whatever it says, no personal data is stored any more. What they show to be
// verified is marked as the user's, and customers that may become theirs are looked at: whoever
// committed the mark may have died before they looked.
func (a *Users) commitDeleted(ctx context.Context, in UserInput, number int64, before *store.User) (UserResult, error) {
	result := UserResult{Outcome: OutcomeSynced, Deleting: true}
	if before.ErasedAt != nil {
		result.Outcome = OutcomeDeleted
	}
	left, due, err := a.Store.LeftCheckouts(ctx, before.ID)
	if err != nil {
		return result, err
	}
	result.CheckoutsDue = left != "" || due || before.Unplaced && before.ErasedAt == nil
	var verified []string
	err = a.Store.Update(ctx, "record a deleted user", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		if err := tx.Reading(ctx, number, before.HighestNumber()); err != nil {
			return err
		}
		due, err := tx.TakeEvents(ctx, account.UserEntity(in.ClerkUserID), number)
		if err != nil {
			return err
		}
		if err := tx.EndWaits(ctx, account.UserEntity(in.ClerkUserID), number, store.NoSuchUser); err != nil {
			return err
		}
		if before.Noted {
			err = a.notedInVain(ctx, tx, before)
		} else {
			verified = verifiedIn(due)
			err = tx.KeepAddresses(ctx, before, verified)
		}
		if err != nil {
			return err
		}
		return tx.CompleteEvents(ctx, due, true)
	})
	if err == nil && !before.Noted && (before.ErasedAt == nil || len(verified) > 0) {
		_, err = a.pokeClaimed(ctx, in.ClerkUserID, append(verifiedEmail(before.Profile()), verified...)...)
	}
	return result, err
}

// notedInVain ends what a product's note of a deletion has begun: Clerk has the user.
func (a *Users) notedInVain(ctx context.Context, tx *store.Tx, row *store.User) error {
	if err := tx.ResolveDrift(ctx, account.UserEntity(row.ClerkUserID), account.DriftUserMissing, ""); err != nil {
		return err
	}
	return tx.NotedInVain(ctx, row)
}

// EraseResult tells whether a deleted user's data is gone.
type EraseResult struct {
	Erased bool `json:"erased"`
	// Unsettled counts the customers whose billing Stripe has not confirmed to be stopped yet.
	Unsettled int `json:"unsettled,omitempty"`
	// Open says what of them is not settled, and why, for as many of them as are shown.
	Open []OpenCustomer `json:"open,omitempty"`
}

// OpenCustomer is a customer of a user who is being deleted whom something may still bill.
type OpenCustomer struct {
	// CustomerID is "" for subscriptions whose customer is not known yet.
	CustomerID string `json:"customerId"`
	// Unread is set while the customer, or its schedules, were not read since the deletion was asked
	// for.
	Unread bool `json:"unread,omitempty"`
	// Charges counts the invoices and invoice items that Stripe would still collect.
	Charges int `json:"charges,omitempty"`
	// Running are subscriptions and schedules that the deletion policy has to stop, Missing what
	// Stripe says that it does not have, which is not confirmed yet.
	Running []string `json:"running,omitempty"`
	Missing []string `json:"missing,omitempty"`
}

// openCustomers puts what is not settled together by customer.
func openCustomers(unsettled []account.Unsettled) []OpenCustomer {
	var customers []OpenCustomer
	for _, u := range unsettled {
		i := slices.IndexFunc(customers, func(c OpenCustomer) bool { return c.CustomerID == u.CustomerID })
		if i < 0 {
			i = len(customers)
			customers = append(customers, OpenCustomer{CustomerID: u.CustomerID})
		}
		switch c := &customers[i]; u.Reason {
		case account.UnsettledNotRead, account.UnsettledSchedulesNotListed:
			c.Unread = true
		case account.UnsettledSubscription, account.UnsettledScheduleNotBegun:
			c.Running = append(c.Running, u.Subject)
		case account.UnsettledCharge:
			c.Charges++
		case account.UnsettledMissing:
			c.Missing = append(c.Missing, u.Subject)
		}
	}
	return customers
}

const (
	// openShown is how many customers that are not settled are shown.
	openShown = 10
	// eraseRetry is when the sweep comes back to an erasure that is not done. The user's own run tries
	// more often; this is for one that has ended, or never was.
	eraseRetry = 2 * time.Hour
)

// EraseUser erases a deleted user's personal data, once every customer of theirs was read after the
// deletion mark and complies with the policy, also those that evidence names the user for and that
// are not linked yet. Until then it has each customer that does not looked at again: one whose read
// failed for good, one that was linked while the mark was set, and one that Stripe does not have
// any more, which has to say so twice. It runs on the database's task queue.
//
// Idempotent: what is erased stays erased, and the mark and the links stay.
func (a *Users) EraseUser(ctx context.Context, in UserInput) (result EraseResult, err error) {
	err = a.Store.Update(ctx, "erase a user", cause(ctx), func(ctx context.Context, tx *store.Tx) error {
		result = EraseResult{}
		user, err := tx.LockUser(ctx, in.ClerkUserID)
		if err != nil || user == nil || user.DeletionSeq == nil {
			return err
		}
		if user.ErasedAt != nil {
			result.Erased = true
			return nil
		}
		open, err := tx.Unsettled(ctx, user, a.Deletion, "")
		if err != nil {
			return err
		}
		if len(open) == 0 {
			result.Erased = true
			if err := tx.ResolveDrift(ctx, account.UserEntity(in.ClerkUserID), account.DriftSubscriptionMissing, ""); err != nil {
				return err
			}
			return tx.Erase(ctx, user)
		}
		customers := openCustomers(open)
		result.Unsettled, result.Open = len(customers), customers[:min(len(customers), openShown)]
		var entities []account.Entity
		for _, c := range customers {
			if c.CustomerID != "" { // else the user's own run looks for it, whenever it tries again
				entities = append(entities, account.CustomerEntity(c.CustomerID))
			}
		}
		if err := tx.EraseLater(ctx, user, eraseRetry); err != nil {
			return err
		}
		return tx.Poke(ctx, account.JobSync, entities...)
	})
	return result, err
}

func eventIDs(due []store.Due) []string {
	ids := make([]string, len(due))
	for i, d := range due {
		ids[i] = d.EventID
	}
	return ids
}
