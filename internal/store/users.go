package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
)

// User is a row of person_user.
type User struct {
	ID                  string     `db:"id"`
	ClerkUserID         string     `db:"clerk_user_id"`
	FirstName           *string    `db:"first_name"`
	LastName            *string    `db:"last_name"`
	Username            *string    `db:"user_name"`
	Email               *string    `db:"email"`
	EmailVerified       bool       `db:"email_verified"`
	StripeCustomerID    *string    `db:"stripe_customer_id"`
	DeletionRequestedAt *time.Time `db:"deletion_requested_at"`
	DeletionSeq         *int64     `db:"deletion_seq"`
	// ErasedAt is when we erased what is personal. That the product has noted the user as deleted, in
	// a column of its own, erases nothing.
	ErasedAt *time.Time `db:"erased_at"`
	// Noted is set where the product itself has noted a deletion, in one of the two columns that it
	// has for that, and nobody has told us of it: the row has no number of ours.
	Noted             bool   `db:"noted"`
	ReadSeq           int64  `db:"read_seq"`
	ProfileVersion    int64  `db:"profile_version"`
	ProjectionJSON    []byte `db:"projection"`
	ProjectionVersion int64  `db:"projection_version"`
	PublishedVersion  int64  `db:"published_version"`
	// RepairSeq is the number of the latest read that has shown Clerk to hold something else than
	// what was published last, 0 where none has since something was written there.
	RepairSeq    int64   `db:"repair_seq"`
	PublishError *string `db:"publish_error"`
	// Unplaced is set where a row of their subscriptions does not say which customer's it is, and
	// Stripe may know it: see [Store.UnplacedSubscriptions].
	Unplaced bool `db:"unplaced"`
}

const userColumns = `id, clerk_user_id, first_name, last_name, user_name, email, email_verified, stripe_customer_id,
	deletion_requested_at, deletion_seq, erased_at,
	deletion_seq IS NULL AND (deletion_requested_at IS NOT NULL OR deleted_at IS NOT NULL) AS noted, read_seq, profile_version,
	projection, projection_version, published_version, coalesce(repair_seq, 0) AS repair_seq, publish_error,
	coalesce((SELECT true FROM subscriptions s WHERE s.user_id = person_user.id AND ` + unplaced + ` LIMIT 1), false) AS unplaced`

// Deleting tells whether the user's deletion was asked for. From then on no personal data is
// stored for them, and nothing is sold to them.
func (u *User) Deleting() bool { return u.DeletionRequestedAt != nil || u.DeletionSeq != nil }

// CustomerID is the customer that the user's row names as theirs, "" for none. The product may have
// written there what is no customer's id.
func (u *User) CustomerID() string {
	if id := deref(u.StripeCustomerID); account.ValidCustomerID(id) {
		return id
	}
	return ""
}

// PublishDue tells whether Clerk may not hold the stored projection yet.
func (u *User) PublishDue() bool { return u.versionsDiffer() || u.RepairSeq != 0 }

// publishDue is [User.PublishDue] of rows, as the index of what is due has it.
const publishDue = `(projection_version <> published_version OR repair_seq IS NOT NULL)`

func (u *User) versionsDiffer() bool { return u.ProjectionVersion != u.PublishedVersion }

// HighestNumber is the highest number in the user's row, 0 for no user.
func (u *User) HighestNumber() int64 {
	switch {
	case u == nil:
		return 0
	case u.DeletionSeq != nil:
		return max(u.ReadSeq, *u.DeletionSeq)
	default:
		return u.ReadSeq
	}
}

// KnownSince tells whether somebody has come to know of the user what a read of this number cannot
// say: that they are being deleted, or what a later read has shown of them. A read that says that
// there is no such user does not count then.
func (u *User) KnownSince(number int64) bool {
	return u != nil && (u.DeletionSeq != nil || u.HighestNumber() > number)
}

// Projection is the stored projection with its version.
func (u *User) Projection() (account.Projection, error) {
	var p account.Projection
	if err := json.Unmarshal(u.ProjectionJSON, &p); err != nil {
		return p, fmt.Errorf("decoding the stored projection: %w", err)
	}
	p.Version = u.ProjectionVersion
	return p, nil
}

// Profile is the stored profile as Clerk last showed it.
func (u *User) Profile() account.User {
	return account.User{
		ID: u.ClerkUserID, FirstName: deref(u.FirstName), LastName: deref(u.LastName), Username: deref(u.Username),
		Email: deref(u.Email), EmailVerified: u.EmailVerified,
	}
}

// Differs tells in what Clerk's listing of a user differs from what is stored here: "profile",
// "metadata", or "" where it does not. The metadata of a user whose projection is on its way are
// not looked at.
func (u *User) Differs(listed account.ListedUser) (what string, err error) {
	if u.Profile() != fitted(listed.User) {
		return "profile", nil
	}
	if u.versionsDiffer() || u.ProjectionVersion == 0 {
		return "", nil
	}
	projection, err := u.Projection()
	if err != nil {
		return "", err
	}
	if !projection.Equals(listed.Held) {
		return "metadata", nil
	}
	return "", nil
}

// Holds tells whether the stored profile is what a read of Clerk shows.
func (u *User) Holds(seen account.User) bool {
	return u.Profile() == fitted(seen)
}

// isAs tells whether what Clerk shows of a user is exactly what is stored here. Where a customer
// might be is not looked at: it matters for a user without one.
func (u *User) isAs(shown account.ListedUser) bool {
	if u.ProjectionVersion == 0 || !u.Holds(shown.User) {
		return false
	}
	projection, err := u.Projection()
	return err == nil && projection.Equals(shown.Held)
}

// fitted is a profile as the columns hold it: without what only says where a customer might be.
func fitted(p account.User) account.User {
	p.CreatedAt, p.UpdatedAt, p.CustomerHint = time.Time{}, time.Time{}, ""
	p.FirstName, p.LastName, p.Username, p.Email = fit(p.FirstName), fit(p.LastName), fit(p.Username), fit(p.Email)
	return p
}

// UserByClerkID reads a user, or nil where there is none.
func (s *Store) UserByClerkID(ctx context.Context, clerkUserID string) (*User, error) {
	rows, _ := s.pool.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE clerk_user_id = $1`, clerkUserID)
	return oneUser("read a user", rows)
}

// LockUser locks a user's row until the transaction ends, or answers nil where there is none. Rows
// that refer to the user can be added meanwhile.
func (t *Tx) LockUser(ctx context.Context, clerkUserID string) (*User, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE clerk_user_id = $1 FOR NO KEY UPDATE`, clerkUserID)
	return oneUser("lock a user", rows)
}

// LockUserByID is [Tx.LockUser] by our own id.
func (t *Tx) LockUserByID(ctx context.Context, id string) (*User, error) {
	rows, _ := t.tx.Query(ctx, `SELECT `+userColumns+` FROM person_user WHERE id = $1 FOR NO KEY UPDATE`, id)
	return oneUser("lock a user", rows)
}

// EnsureUser makes a user's row if there is none, and locks it.
func (t *Tx) EnsureUser(ctx context.Context, clerkUserID string) (user *User, created bool, err error) {
	tag, err := t.tx.Exec(ctx, `INSERT INTO person_user (clerk_user_id) VALUES ($1) ON CONFLICT (clerk_user_id) DO NOTHING`, clerkUserID)
	if err != nil {
		return nil, false, classify("create a user", err)
	}
	user, err = t.LockUser(ctx, clerkUserID)
	return user, tag.RowsAffected() == 1, err
}

// SetProfile stores what a read of Clerk showed and the number of that read. It changes only
// what differs, audits the names of what changed, and answers whether the name or the email
// that customers carry changed. The caller has checked the read fence and the deletion mark.
//
// Deliveries that came after the read began may have been completed at the door because they showed
// what was stored before. Where the read changes that, the user is looked at once more.
func (t *Tx) SetProfile(ctx context.Context, u *User, p account.User, read int64, eventIDs []string) (changed bool, err error) {
	p = fitted(p)
	before := u.Profile()
	var fields []string
	note := func(differs bool, field string) {
		if differs {
			fields = append(fields, field)
		}
	}
	note(before.FirstName != p.FirstName, "first_name")
	note(before.LastName != p.LastName, "last_name")
	note(before.Email != p.Email, "email")
	changed = len(fields) > 0
	note(before.Username != p.Username, "user_name")
	note(before.EmailVerified != p.EmailVerified, "email_verified")
	if len(fields) == 0 {
		u.ReadSeq = read
		return false, t.tx.Later(ctx, "store a read's number", `UPDATE person_user SET read_seq = $2 WHERE id = $1`, u.ID, read)
	}
	// Deliveries share this lock, and look at no user for whom they cannot have it. It is taken before
	// the row is written: of a row that is written already they would wait for the end.
	if err := t.tx.Later(ctx, "lock a profile", `SELECT 1 FROM person_user WHERE id = $1 FOR UPDATE`, u.ID); err != nil {
		return false, err
	}
	if err := t.tx.Later(ctx, "store a profile", `UPDATE person_user
		SET first_name = nullif($2, ''), last_name = nullif($3, ''), user_name = nullif($4, ''), email = nullif($5, ''),
		    email_verified = $6, read_seq = $7, profile_version = profile_version + $8::int, updated_at = now()
		WHERE id = $1`, u.ID, p.FirstName, p.LastName, p.Username, p.Email, p.EmailVerified, read, btoi(changed)); err != nil {
		return false, err
	}
	if err := t.lookAgain(ctx, u, read); err != nil {
		return false, err
	}
	u.ReadSeq = read
	u.ProfileVersion += int64(btoi(changed))
	after := make(map[string]any, len(fields))
	for _, field := range fields {
		after[field] = "changed"
	}
	return changed, t.Audit(ctx, Entry{Action: "user.profile", User: u, Entity: account.UserEntity(u.ClerkUserID),
		Subject: u.ClerkUserID, After: after, EventIDs: eventIDs})
}

// lookAgain pokes a user whose profile a read has changed where an event was completed that came
// after it. The profile is locked: no delivery is between its look and its commit.
func (t *Tx) lookAgain(ctx context.Context, u *User, read int64) error {
	entity := account.UserEntity(u.ClerkUserID)
	var told bool
	err := t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM webhook_events WHERE entity = $1 AND seq > $2 AND status = 'completed')`, string(entity), read).Scan(&told)
	if err != nil {
		return classify("look for what a profile was told of", err)
	}
	if !told {
		return nil
	}
	return t.PokeRoutinely(ctx, account.JobSync, entity)
}

// RequestDeletion sets the mark from which no command, checkout or undo acts for the user any more,
// and has every customer of theirs looked at. The number orders it among the reads: a customer that
// was read after it was read with the mark in force. What they have verified is kept for what
// becomes known later. Setting it again changes nothing.
//
// What the product has noted of a deletion is no mark, since nothing was ordered by it and nothing
// erased for it. The time at which it was asked for stays; that at which it was done is ours to
// say, and goes to the audit log.
func (t *Tx) RequestDeletion(ctx context.Context, u *User, eventIDs []string) error {
	if u.DeletionSeq != nil {
		return nil
	}
	entry := Entry{Action: "user.deletion_requested", User: u, Entity: account.UserEntity(u.ClerkUserID), Subject: u.ClerkUserID, EventIDs: eventIDs}
	if u.Noted {
		var requested, deleted *time.Time
		err := t.tx.QueryRow(ctx, `SELECT deletion_requested_at::timestamptz, deleted_at::timestamptz FROM person_user WHERE id = $1`, u.ID).Scan(&requested, &deleted)
		if err != nil {
			return classify("read what the product has noted", err)
		}
		entry.Before = map[string]any{"deletion_requested_at": requested, "deleted_at": deleted}
	}
	err := t.tx.QueryRow(ctx, `UPDATE person_user SET deletion_requested_at = coalesce(deletion_requested_at, deleted_at, now()), deletion_seq = nextval('sync_seq'), deleted_at = NULL,
			erase_retry_at = now() + interval '1 hour', updated_at = now()
		WHERE id = $1 RETURNING deletion_requested_at, deletion_seq`, u.ID).Scan(&u.DeletionRequestedAt, &u.DeletionSeq)
	if err != nil {
		return classify("mark a user's deletion", err)
	}
	u.Noted = false
	if err := t.KeepAddresses(ctx, u, nil); err != nil {
		return err
	}
	customers, err := t.CustomersOf(ctx, u)
	if err != nil {
		return err
	}
	entities := make([]account.Entity, len(customers))
	for i, c := range customers {
		entities[i] = account.CustomerEntity(c.ID)
	}
	if err := t.Poke(ctx, account.JobSync, entities...); err != nil {
		return err
	}
	return t.Audit(ctx, entry)
}

// NotedInVain notes that Clerk has a user whose deletion only the product has noted: nobody has to
// look again before Clerk says that they are deleted.
func (t *Tx) NotedInVain(ctx context.Context, u *User) error {
	return t.tx.Later(ctx, "note that a user is there", `UPDATE person_user SET erase_retry_at = NULL WHERE id = $1 AND deletion_seq IS NULL AND erase_retry_at IS NOT NULL`, u.ID)
}

// Erase removes a user's personal data: from their row, from their customers' rows and from the
// payloads of their events that were taken; the others lose theirs when they are. The row, its mark
// and its links stay, as a tombstone that no late event undoes.
func (t *Tx) Erase(ctx context.Context, u *User) error {
	if err := t.KeepAddresses(ctx, u, nil); err != nil {
		return err // as whoever has asked for the deletion did, unless that was an older program
	}
	customers, err := t.CustomersOf(ctx, u)
	if err != nil {
		return err
	}
	entities := []string{string(account.UserEntity(u.ClerkUserID))}
	for _, c := range customers {
		entities = append(entities, string(account.CustomerEntity(c.ID)))
	}
	batch := &pgx.Batch{}
	// A delivery that has seen the user before the mark, and completes what it brings at the door,
	// ends first.
	batch.Queue(`SELECT 1 FROM person_user WHERE id = $1 FOR UPDATE`, u.ID)
	batch.Queue(`UPDATE person_user SET first_name = NULL, last_name = NULL, user_name = NULL, email = NULL, email_verified = false,
		deleted_at = coalesce(deleted_at, now()), erased_at = coalesce(erased_at, now()), deletion_seq = coalesce(deletion_seq, nextval('sync_seq')),
		erase_retry_at = NULL, published_version = projection_version, repair_seq = NULL, publish_due_since = NULL,
		publish_retry_at = NULL, publish_error = NULL, updated_at = now() WHERE id = $1`, u.ID)
	batch.Queue(`DELETE FROM customer_hints WHERE user_id = $1`, u.ID)
	batch.Queue(`UPDATE stripe_customers SET email = NULL, name = NULL WHERE user_id = $1`, u.ID)
	batch.Queue(`UPDATE subscriptions SET metadata = NULL WHERE user_id = $1 AND metadata IS NOT NULL`, u.ID)
	batch.Queue(dropTaken, entities)
	if err := t.tx.SendAll(ctx, batch); err != nil {
		return classify("erase a user's data", err)
	}
	// Clerk has nobody left to be told of what was commanded.
	if err := t.settlePublished(ctx, u.ClerkUserID, math.MaxInt64); err != nil {
		return err
	}
	missing, err := t.confirmedMissing(ctx, u)
	if err != nil {
		return err
	}
	entry := Entry{Action: "user.erased", User: u, Entity: account.UserEntity(u.ClerkUserID), Subject: u.ClerkUserID}
	if len(missing) > 0 {
		// What Stripe does not have any more bills nobody, which is why nothing was waited for.
		entry.After = map[string]any{"missing": missing}
	}
	return t.Audit(ctx, entry)
}

// EraseAnyway is [Tx.Erase] for a user of whom something may still be billed, because an operator
// says so. What that is goes into the audit log. The deletion policy is applied to it all the same,
// whenever it is seen.
func (t *Tx) EraseAnyway(ctx context.Context, u *User, mayStillBill []account.Unsettled) error {
	if err := t.Audit(ctx, Entry{Action: "user.erased_by_operator", User: u, Entity: account.UserEntity(u.ClerkUserID), Subject: u.ClerkUserID,
		After: map[string]any{"may_still_bill": mayStillBill}}); err != nil {
		return err
	}
	return t.Erase(ctx, u)
}

func oneUser(operation string, rows pgx.Rows) (*User, error) {
	u, err := pgx.CollectOneRow(rows, pgx.RowToAddrOfStructByName[User])
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	return u, classify(operation, err)
}

// fit makes of a text what a column of the product's tables can hold: no more than 255 characters,
// and no zero byte, which PostgreSQL has no place for. A name that is too long must not keep its
// user from being stored.
func fit(s string) string {
	const most = 255
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\ufffd")
	n := 0
	for i := range s {
		if n == most {
			return s[:i]
		}
		n++
	}
	return s
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// UserExists tells whether we know a user.
func (t *Tx) UserExists(ctx context.Context, clerkUserID string) (exists bool, err error) {
	err = t.tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM person_user WHERE clerk_user_id = $1)`, clerkUserID).Scan(&exists)
	return exists, classify("look for a user", err)
}
