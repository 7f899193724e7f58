package activities

import (
	"context"
	"slices"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/internal/stripeevent"
)

// Subscriptions brings our copy of a customer's subscriptions to what Stripe says. Its
// activities run on Stripe's task queue.
type Subscriptions struct {
	Store  *store.Store
	Stripe Stripe
	Policy SubscriptionPolicy
	// Observe is told about every event that a sync takes; it may be nil.
	Observe func(source, eventType string, status store.EventStatus, received time.Time)
	// Prompt publishes what a sync has changed; it may be nil.
	Prompt *PromptPublisher
}

// SubscriptionPolicy is what an operator may choose about subscriptions.
type SubscriptionPolicy struct {
	Access   account.AccessPolicy
	Deletion account.DeletionPolicy
	// LinkByEmail lets a customer that nobody claims be linked to the one user whose verified
	// primary email it has.
	LinkByEmail bool
	// LinkByEmailAfter is how long after a customer was first seen it may be linked so, and how far
	// apart Clerk has to have said twice that it does not have whoever is named.
	LinkByEmailAfter time.Duration
	// BoundaryDelay is how long after a boundary the customer is read again. It doubles while
	// Stripe has not acted on a boundary that has passed.
	BoundaryDelay time.Duration
	// MissingConfirmedAfter is how long after Stripe has first said that it does not have something of
	// a deleted user the same answer confirms that nobody is billed for it.
	MissingConfirmedAfter time.Duration
	// Livemode is the mode of the key.
	Livemode bool
	// RereadDelay is how long to wait before reading again what does not show an event yet.
	RereadDelay time.Duration
}

// RecordInput names the customer to be read.
type RecordInput struct {
	CustomerID string `json:"customerId"`
	// Reread counts the reads made because the one before did not show an event yet.
	Reread int `json:"reread,omitempty"`
	// Overdue counts the reads made for a boundary that Stripe has not acted on yet.
	Overdue int `json:"overdue,omitempty"`
	// ForBoundary is set when nothing but a boundary that has passed is the reason to read.
	ForBoundary bool `json:"forBoundary,omitempty"`
	// InPart is set where the look before could read a part of the customer only, and its workflow
	// comes back to the rest by itself.
	InPart bool `json:"inPart,omitempty"`
	// InBulk is set by a bulk sync, which gives a customer that it links the user's name and email
	// itself, and publishes after that.
	InBulk bool `json:"inBulk,omitempty"`
}

// Outcome is what came of a sync.
type Outcome string

// The outcomes.
const (
	// OutcomeSynced: our copy agrees with what was read.
	OutcomeSynced Outcome = "synced"
	// OutcomeWaiting: the customer belongs to nobody yet; its events wait.
	OutcomeWaiting Outcome = "waiting"
	// OutcomeMissing: the provider does not know the entity; nothing was changed.
	OutcomeMissing Outcome = "missing"
	// OutcomeDeleted: the user is a tombstone; nothing is left to do.
	OutcomeDeleted Outcome = "deleted"
)

// RecordResult says what the workflow has to do and to wait for.
type RecordResult struct {
	Outcome Outcome `json:"outcome"`
	// ClerkUserID is the owner, "" while there is none.
	ClerkUserID string         `json:"clerkUserId,omitempty"`
	Status      account.Status `json:"status,omitempty"`
	// Live tells whether some subscription of the customer can still change.
	Live bool `json:"live,omitempty"`
	// WakeAt is when to read again if nothing else happens; zero if nothing can.
	WakeAt  time.Time `json:"wakeAt,omitzero"`
	Overdue int       `json:"overdue,omitempty"`
	// RereadAfter is set when Stripe did not show yet what an event told, or showed what was before a
	// change of the last minute, or when something of the customer could not be read and InPart does
	// not say so.
	RereadAfter time.Duration `json:"rereadAfter,omitempty"`
	PublishDue  bool          `json:"publishDue,omitempty"`
	// Awaited is set where somebody waits for what this sync has to bring about.
	Awaited bool `json:"awaited,omitempty"`
	// Published is the version of the projection that this very sync has written to Clerk, zero if
	// none.
	Published int64 `json:"published,omitempty"`
	// StopDue is set when the owner is being deleted and something would bill them on, or may.
	StopDue bool `json:"stopDue,omitempty"`
	// Events is how many events were completed.
	Events int `json:"events,omitempty"`
	// Commands are the operations of this customer that have not ended. As a rule their own
	// requests see to them; here are those too whose request got lost.
	Commands []string `json:"commands,omitempty"`
	// InPart is the class of the failure that has kept something of the customer from being read, ""
	// where all was. What could be read is recorded, and the rest is to be come back to.
	InPart string `json:"inPart,omitempty"`
	// UndoFor is the user whom the customer was made for in vain, where that is not undone: whoever
	// has found out may be gone.
	UndoFor string `json:"undoFor,omitempty"`
	// Unknown are the users whom something names the customer for and whom nobody knows here, where it
	// is nobody's. It is for a bulk sync, and in no history.
	Unknown []string `json:"-"`
	// ProfileDue is set when the customer was not given the user's present name and email. It is for a
	// bulk sync, and in no history.
	ProfileDue bool `json:"-"`
}

// RecordSubscriptions reads a customer once and commits what it shows: rows, history, audit,
// payment facts and the events that it answers, in one transaction. A customer that no user
// owns is linked if the evidence names one.
//
// What of the customer cannot be read holds up nothing else: that is recorded, and then the failure
// is answered, so that the customer is read again, and the events stay due. Where a few attempts
// have met it, what was recorded is the result, with the failure beside it: whoever asked has to
// act on it, such as on a command that it found.
//
// What that changes for Clerk it publishes where Clerk takes it at once; else it answers that a
// publish is due.
//
// Where it fails, what bills a user who is being deleted is stopped all the same: see [holding].
//
// Idempotent: it stores a state, not a change. An attempt that wakes up late is dropped by the
// read fence; events that are completed already are not taken again. For what is published see
// [Projections.PublishProjection].
func (a *Subscriptions) RecordSubscriptions(ctx context.Context, in RecordInput) (RecordResult, error) {
	return holding(ctx, a, in.CustomerID, func(s *stopping) (RecordResult, error) {
		result, unread, err := a.recordAndPublish(ctx, in)
		class := failure.Of(unread)
		switch {
		case err != nil, unread == nil:
			return result, err
		case in.InBulk:
			return result, &inPart{unread}
		case !in.InPart && class != failure.Permanent && attempt(ctx) < loudFrom:
			return result, unread
		}
		// No event is answered by a part, so that there is nothing else to be read again for: the
		// workflow says when to come back to it.
		s.gaveUp, result.InPart, result.RereadAfter = unread, string(class), 0
		noteFailing(ctx, a.Store, account.CustomerEntity(in.CustomerID), unread)
		return result, nil
	})
}

// recordAndPublish answers in unread why something of the customer could not be read, where all
// else is recorded.
func (a *Subscriptions) recordAndPublish(ctx context.Context, in RecordInput) (result RecordResult, unread, err error) {
	// A bulk sync publishes itself, behind all else that it writes of a customer: what Clerk tells of
	// it is complete then, and nobody's business.
	result, unread, err = a.record(ctx, in)
	if err != nil || in.InBulk || !result.PublishDue || result.ClerkUserID == "" {
		return result, unread, err
	}
	version, done := a.Prompt.Publish(ctx, result.ClerkUserID, result.Awaited)
	result.Published, result.PublishDue = version, !done
	return result, unread, nil
}

// record answers in unread why something of the customer could not be read, where all else is
// recorded.
func (a *Subscriptions) record(ctx context.Context, in RecordInput) (result RecordResult, unread, err error) {
	read, err := a.Store.NextReadOf(ctx, in.CustomerID)
	if err != nil {
		return result, nil, err
	}
	number := read.Number
	seen, err := a.readAs(ctx, in.CustomerID, read)
	if err != nil {
		return result, nil, err
	}
	result, linked, err := a.commit(ctx, in, number, seen, cause(ctx), nil)
	if err != nil || linked || seen.customerMissing && result.RereadAfter > 0 {
		return result, seen.unread, err
	}
	// The claim is committed. Only now look for the user: a user who appears in this very
	// moment commits first and then looks for claims, so one of the two finds the other.
	if linked, err = a.link(ctx, in, seen); err != nil || !linked {
		return result, seen.unread, err
	}
	result, _, err = a.commit(ctx, in, number, seen, cause(ctx), nil)
	return result, seen.unread, err
}

// committed is what a step that is part of a commit finds.
type committed struct {
	tx *store.Tx
	// user is the owner, nil where the customer belongs to nobody.
	user *store.User
	// fresh is false where a read with a higher number has been committed, so that the rows of
	// this one were dropped.
	fresh bool
	now   time.Time
	// rows are the customer's subscriptions as they were stored before this read, told what events of
	// the last minute say of them that it does not show.
	rows []store.Subscription
	told []stripeevent.Change
}

// commit stores what was read, under both fences. linked is false when the customer belongs to
// nobody: then only its evidence, its payment facts and the state of its events are stored. then,
// if there is one, is the last step of the same transaction.
func (a *Subscriptions) commit(ctx context.Context, in RecordInput, number int64, seen shown, why store.Cause,
	then func(context.Context, committed) error,
) (result RecordResult, linked bool, err error) {
	var taken takenEvents
	err = a.Store.Update(ctx, "record subscriptions", why, func(ctx context.Context, tx *store.Tx) error {
		result, linked = RecordResult{}, false
		behind := false
		user, customer, err := tx.LockCustomer(ctx, in.CustomerID)
		if err != nil {
			return err
		}
		if err := tx.Reading(ctx, number, customer.ReadSeq, customer.SchedulesReadSeq, user.HighestNumber()); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if taken, err = a.take(ctx, tx, in, number, seen, now); err != nil {
			return err
		}
		// The number that is stored already is this very read's, when it commits again because
		// its customer has just been linked.
		c := committed{tx: tx, user: user, fresh: number >= customer.ReadSeq, now: now, told: taken.told}
		if err := place(ctx, c, in.CustomerID, seen); err != nil {
			return err
		}
		if seen.customerMissing {
			if err := a.notePrimaryMissing(ctx, c, customer, seen.began, taken); err != nil {
				return err
			}
			if err := a.commitMissing(ctx, in, c, customer, seen, number, taken, &result); err != nil {
				return err
			}
			return last(ctx, then, c)
		}
		if err := tx.ResolveDrift(ctx, account.CustomerEntity(in.CustomerID), account.DriftCustomerMissing, ""); err != nil {
			return err
		}
		if !c.fresh && !seen.partial() && customer.WholeSeq < number {
			// What overtook it has not seen all that it has: neither of the two may say that its events are
			// answered.
			return failure.New(failure.Transient, "postgres", "record subscriptions", "overtaken_in_part", nil)
		}
		if c.fresh {
			whole, last := customer.WholeSeq, customer.ReadSeq
			if last == number {
				last = whole // it is this very read
			}
			back := !customer.Exists() && !seen.customer.Deleted
			if err := tx.SetCustomer(ctx, customer, seen.customer, number, user == nil || !user.Deleting()); err != nil {
				return err
			}
			if seen.partial() || len(taken.early) > 0 {
				// One that is behind an event that is here shows what was, and concludes nothing either.
				if err := tx.ReadInPart(ctx, customer, whole); err != nil {
					return err
				}
			}
			claims := account.ReadClaims(seen.customer, seen.subscriptions)
			if err := tx.SetClaims(ctx, in.CustomerID, claims); err != nil {
				return err
			}
			if user != nil {
				if err := noteOtherClaims(ctx, tx, user, in.CustomerID, claims); err != nil {
					return err
				}
				if back && user.Deleting() {
					// What nobody could list while it was not there may be open.
					if err := tx.CheckoutsDue(ctx, user, in.CustomerID); err != nil {
						return err
					}
				}
				if c.rows, behind, err = a.commitRows(ctx, c, seen, reads{number, last}, taken, a.trustOf(in, c, why, then != nil)); err != nil {
					return err
				}
				if behind {
					if err := tx.ReadInPart(ctx, customer, whole); err != nil {
						return err
					}
				}
			}
		}
		if user == nil {
			result.Outcome = OutcomeWaiting
			if customer.MadeInVainFor != nil && !customer.DeletedInStripe {
				result.UndoFor = *customer.MadeInVainFor
			}
			if err := a.commitWaiting(ctx, tx, in.CustomerID, seen.customer.Deleted, taken, &result); err != nil {
				return err
			}
			return last(ctx, then, c)
		}
		linked = true
		result.ProfileDue = !user.Deleting() && customer.Exists() && customer.ProfileVersion < user.ProfileVersion
		if err := a.commitLinked(ctx, tx, in, c, customer, seen, number, taken, behind, &result); err != nil {
			return err
		}
		return last(ctx, then, c)
	})
	if err == nil && (linked || seen.customerMissing) {
		taken.observe(a.Observe, result)
	}
	return result, linked, err
}

func last(ctx context.Context, then func(context.Context, committed) error, c committed) error {
	if then == nil {
		return nil
	}
	return then(ctx, c)
}

// reads are the numbers of a read and of the last one before it of which something was stored.
type reads struct{ this, before int64 }

// trust is how far a read is believed that turns a row back to what it was before a recent change.
type trust struct {
	// since is after which moment a change is recent; zero where the read is believed in any case.
	since time.Time
	// keeps is set where the row stays as it is until the customer was read once more; else it is
	// stored, and the customer read once more.
	keeps bool
	// blind is set where a read is believed even if it shows what cannot be any more.
	blind bool
}

// trustOf says how far a read is believed. Stripe does not promise that a read shows what an
// earlier one has shown: the copy that answers may be a moment behind. A row that was changed in
// that moment stays, as an event that came in it does, until the customer was read again as often
// as for an event: nobody who has just paid loses access for the rest of the period because of such
// a read. What a command decides about is stored as its look shows it, so that its caller is told
// what our rows hold, and read again; and behind Stripe's own confirmation, which often turns
// something back, it is as it shows. Whoever is being deleted is billed no longer because of a row.
func (a *Subscriptions) trustOf(in RecordInput, c committed, why store.Cause, command bool) trust {
	switch {
	case c.user.Deleting():
		return trust{blind: true}
	case command && why.OperationID != "":
		return trust{}
	}
	recent := account.ReadsBehind
	if in.Reread >= maxRereads {
		recent = maxRereads * a.Policy.RereadDelay // the rereads may have been made for something before
	}
	return trust{since: c.now.Add(-recent), keeps: !command}
}

// outlived tells whether a read shows a stored subscription as it cannot be any more.
func outlived(ctx context.Context, tx *store.Tx, stored []store.Subscription, shown account.Subscription) (bool, error) {
	i := slices.IndexFunc(stored, func(row store.Subscription) bool { return row.StripeID == shown.ID })
	if i < 0 {
		return false, nil
	}
	return tx.Outlived(ctx, stored[i], shown.Status)
}

// commitRows stores the subscriptions that a read showed, and returns the rows that were there
// before, and whether the read is known to be behind one of them.
func (a *Subscriptions) commitRows(ctx context.Context, c committed, seen shown, number reads, taken takenEvents, how trust) (stored []store.Subscription, behind bool, err error) {
	tx, user, eventIDs := c.tx, c.user, taken.ids()
	var prices, ids, former []string
	for _, s := range seen.subscriptions {
		ids = append(ids, s.ID)
		for _, item := range s.Items {
			prices = append(prices, item.PriceID)
		}
	}
	if stored, err = tx.SubscriptionsShown(ctx, seen.customer.ID, ids); err != nil {
		return nil, false, err
	}
	plans, err := tx.PlansOf(ctx, prices)
	if err != nil {
		return nil, false, err
	}
	lately := &lately{due: taken.events, beside: taken.beside, load: func() ([]store.Due, error) {
		return tx.ToldSince(ctx, account.CustomerEntity(seen.customer.ID), how.since)
	}}
	for _, s := range seen.subscriptions {
		// Of whoever is being deleted what runs has to be known, and not since when it owes.
		if slices.Contains(seen.kept, s.ID) && !user.Deleting() {
			continue
		}
		if !how.blind {
			if over, err := outlived(ctx, tx, stored, s); err != nil {
				return nil, false, err
			} else if over {
				behind = true
				continue
			}
		}
		if !how.since.IsZero() {
			back, sure, err := tx.TurnsBack(ctx, how.since, stored, s, plans, lately.tells(s))
			if err != nil {
				return nil, false, err
			}
			behind = behind || back
			if sure && how.keeps {
				continue
			}
		}
		if _, err := tx.SetSubscription(ctx, user, stored, s, plans, number.this, eventIDs); err != nil {
			return nil, false, err
		}
		if err := notePrices(ctx, tx, s, plans); err != nil {
			return nil, false, err
		}
		i := slices.IndexFunc(stored, func(row store.Subscription) bool { return row.StripeID == s.ID })
		if i < 0 {
			continue
		}
		if stored[i].UserID != user.ID {
			former = append(former, stored[i].UserID)
		}
		if stored[i].Missing {
			if err := tx.ResolveDrift(ctx, account.CustomerEntity(seen.customer.ID), account.DriftSubscriptionMissing, s.ID); err != nil {
				return nil, false, err
			}
		}
	}
	if err := tx.Keep(ctx, stored, seen.kept, number.before); err != nil {
		return nil, false, err
	}
	for _, id := range seen.missing {
		if err := tx.NoteMissing(ctx, id); err != nil {
			return nil, false, err
		}
		if err := tx.NoteDrift(ctx, account.CustomerEntity(seen.customer.ID), account.DriftSubscriptionMissing, id); err != nil {
			return nil, false, err
		}
	}
	if _, err = tx.Reproject(ctx, user, a.Policy.Access, c.now, eventIDs); err != nil {
		return nil, false, err
	}
	return stored, behind, tx.ReprojectFormer(ctx, former, a.Policy.Access, c.now, eventIDs)
}

// notePrices makes a subscription whose prices are all unknown loud, and has the products of
// unknown prices read, as any of them may make the plan: if Stripe knows the price, the catalogue
// will, and that pokes this customer again.
func notePrices(ctx context.Context, tx *store.Tx, s account.Subscription, plans map[string]store.Plan) error {
	entity := account.CustomerEntity(s.CustomerID)
	if s.Status.Terminal() {
		// The price of what has ended gives nobody anything any more.
		return tx.ResolveDrift(ctx, entity, account.DriftUnknownPrice, s.ID)
	}
	if len(s.Items) == 0 {
		return nil
	}
	known := false
	var products []account.Entity
	for _, item := range s.Items {
		if _, ok := plans[item.PriceID]; ok {
			known = true
		} else if account.ValidProductID(item.ProductID) {
			products = append(products, account.ProductEntity(item.ProductID))
		}
	}
	note := tx.NoteDrift
	if known {
		note = tx.ResolveDrift
	}
	if err := note(ctx, entity, account.DriftUnknownPrice, s.ID); err != nil || len(products) == 0 {
		return err
	}
	return tx.Poke(ctx, account.JobSync, store.Distinct(products)...)
}

// noteOtherClaims makes evidence for another user than the owner loud. The stored link stays.
func noteOtherClaims(ctx context.Context, tx *store.Tx, owner *store.User, customerID string, claims []account.Claim) error {
	entity := account.CustomerEntity(customerID)
	if slices.ContainsFunc(claims, func(c account.Claim) bool { return c.ClerkUserID != owner.ClerkUserID }) {
		evidence, err := tx.EvidenceOn(ctx, customerID)
		if err != nil {
			return err
		}
		if evidence.Against(owner.ClerkUserID) {
			return tx.NoteDrift(ctx, entity, account.DriftConflictingClaims, customerID)
		}
	}
	return tx.ResolveConflict(ctx, owner, customerID)
}

// commitLinked ends the events that this read answers and says what is left to do, from the
// rows as they stand, whoever wrote them.
func (a *Subscriptions) commitLinked(ctx context.Context, tx *store.Tx, in RecordInput, c committed, customer *store.Customer, seen shown, number int64,
	taken takenEvents, behind bool, result *RecordResult,
) error {
	user, now := c.user, c.now
	if err := tx.CompleteEvents(ctx, taken.done, user.Deleting()); err != nil {
		return err
	}
	stored, err := tx.SubscriptionsOfCustomer(ctx, in.CustomerID)
	if err != nil {
		return err
	}
	result.Outcome = OutcomeSynced
	result.ClerkUserID = user.ClerkUserID
	result.PublishDue = user.PublishDue()
	result.Events = len(taken.done)
	if len(taken.early) > 0 || behind || seen.unread != nil {
		result.RereadAfter = a.Policy.RereadDelay << min(max(in.Reread-maxRereads, 0), maxSlower)
	}
	var held []account.Held
	for _, s := range stored {
		if user.Deleting() && s.Missing {
			continue // whether it may still bill anybody is looked at below
		}
		held = append(held, s.Held())
	}
	if lead, ok := account.Leading(held, a.Policy.Access, now); ok {
		result.Status = lead.Status
	}
	for _, h := range held {
		result.Live = result.Live || !h.Status.Terminal()
	}
	result.WakeAt, result.Overdue = a.Policy.wake(held, now, in)
	operations, err := tx.UnsettledOperations(ctx, account.CustomerEntity(in.CustomerID), account.UserEntity(user.ClerkUserID))
	if err != nil {
		return err
	}
	result.Commands, result.Awaited = operations.Commands, operations.Awaited
	if operations.Returning && slices.ContainsFunc(held, func(h account.Held) bool { return h.Status == account.StatusIncomplete }) {
		// They have paid, and Stripe may not show that yet.
		result.RereadAfter = a.Policy.RereadDelay
	}
	if user.Deleting() {
		if err := a.commitDeleting(ctx, c, customer, seen, number, result); err != nil {
			return err
		}
	}
	if in.InBulk && (result.Live || result.StopDue || result.RereadAfter > 0) {
		// Somebody has to look at its boundaries, or to stop it: its workflow does, once the bulk sync is
		// done with it, or has died.
		return tx.PokeWithin(ctx, bulkLeaves, account.JobSync, account.CustomerEntity(in.CustomerID))
	}
	return nil
}

// bulkLeaves is how long a bulk sync may take with one customer before their own workflow looks at
// them.
const bulkLeaves = time.Minute

// longestOverdue is the longest pause between two looks for the same reason.
const longestOverdue = 6 * time.Hour

// slower is the pause after so many looks for the same reason: twice as long each time, and no
// longer than longestOverdue.
func slower(first time.Duration, looks int) time.Duration {
	pause := min(first, longestOverdue)
	for range looks {
		if pause = min(2*pause, longestOverdue); pause == longestOverdue {
			break
		}
	}
	return pause
}

// wake says when to look again: a little after the next boundary of any subscription; and where
// one has passed and Stripe has not acted on it, ever more slowly. Only the looks that such a
// boundary was the reason for slow the next one down: a busy customer is not looked at less.
func (p SubscriptionPolicy) wake(held []account.Held, now time.Time, in RecordInput) (at time.Time, overdue int) {
	passed := false
	consider := func(look time.Time) {
		if at.IsZero() || look.Before(at) {
			at = look
		}
	}
	for _, h := range held {
		for _, boundary := range p.Access.Boundaries(h.Subscription, now) {
			if look := boundary.Add(p.BoundaryDelay); look.After(now) {
				consider(look)
			} else {
				passed = true
			}
		}
	}
	if passed {
		consider(now.Add(slower(p.BoundaryDelay, in.Overdue)))
		overdue = in.Overdue
		if in.ForBoundary {
			overdue++
		}
	}
	return at.UTC(), overdue
}

// commitWaiting leaves the events of a customer that nobody owns to wait, unless it is deleted and
// nothing says whose it was: an event that would, such as that of a checkout, starts anew. Users
// whom claims name and we do not know are asked for: their own sign-up event may have been lost, or
// Clerk may not have them.
func (a *Subscriptions) commitWaiting(ctx context.Context, tx *store.Tx, customerID string, deleted bool, taken takenEvents, result *RecordResult) error {
	evidence, err := tx.EvidenceOn(ctx, customerID)
	if err != nil {
		return err
	}
	claims, entity := evidence.Claims, account.CustomerEntity(customerID)
	owner := account.Claimant(evidence)
	var unknown []account.Entity
	for _, id := range account.NamedUsers(claims) {
		if u := evidence.Users[id]; !u.Known && !u.Missing {
			unknown = append(unknown, account.UserEntity(id))
			result.Unknown = append(result.Unknown, id)
		}
	}
	if len(unknown) > 0 {
		if err := tx.Poke(ctx, account.JobSync, unknown...); err != nil {
			return err
		}
	}
	for class, so := range map[account.Drift]bool{
		account.DriftConflictingClaims:   owner.Conflict,
		account.DriftUnverifiedReference: owner.ClerkUserID == "" && len(owner.Unverified) > 0,
	} {
		if so {
			err = tx.NoteDrift(ctx, entity, class, customerID)
		} else if len(claims) > 0 {
			err = tx.ResolveDrift(ctx, entity, class, "")
		}
		if err != nil {
			return err
		}
	}
	reason := store.WaitingNoUser + awaited(evidence, owner)
	if len(taken.early) > 0 {
		result.RereadAfter = a.Policy.RereadDelay
	}
	if deleted {
		// Nobody has to look after it.
		if err := tx.ResolveDrift(ctx, account.CustomerEntity(customerID), account.DriftOrphanCustomer, ""); err != nil {
			return err
		}
	}
	if deleted && len(claims) == 0 {
		// Nobody will write on it any more whose it was.
		return tx.IgnoreEvents(ctx, taken.done, "no user: the customer was deleted")
	}
	return tx.HoldEvents(ctx, taken.done, store.EventWaiting, reason, false)
}

// awaited says what the events of a customer that nobody owns are waiting for.
func awaited(evidence account.Evidence, owner account.Owner) string {
	claimed := evidence.Users[owner.ClerkUserID]
	switch {
	case owner.Conflict:
		return "claims name different users"
	case owner.ClerkUserID != "" && claimed.Missing:
		return "Clerk does not have " + owner.ClerkUserID + ", whom " + owner.Source + " names"
	case owner.ClerkUserID != "" && !claimed.Known:
		return "the claimed one is not known yet"
	case owner.ClerkUserID == "" && len(owner.Unverified) > 0:
		c := owner.Unverified[0]
		return c.Source + " refers to " + c.ClerkUserID + ", as the payer may have written: waits until this user has verified the customer's " +
			"email address as their primary one, or clerk_user_id is written on the customer or `syncctl confirm` given"
	default:
		return "nobody owns this customer yet"
	}
}
