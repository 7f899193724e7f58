package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/jackc/pgx/v5"

	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// emptyDSN answers a database without any of our tables.
func emptyDSN(t *testing.T) string {
	t.Helper()
	dsn := databases.DSN(t)
	m := migrator(t, dsn)
	for {
		name, err := m.Down(t.Context())
		must(t, err)
		if name == "" {
			return dsn
		}
	}
}

// takenBack takes migrations back down to one and with it.
func takenBack(t *testing.T, m *store.Migrator, migration string) {
	t.Helper()
	for {
		name, err := m.Down(t.Context())
		must(t, err)
		if name == "" {
			t.Fatalf("there is no migration %s", migration)
		}
		if strings.Contains(name, migration) {
			return
		}
	}
}

func migrator(t *testing.T, dsn string) *store.Migrator {
	t.Helper()
	m, err := store.NewMigrator(dsn)
	must(t, err)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// schema describes every table, column, index, constraint, trigger, sequence and function of ours.
func schema(t *testing.T, w *world) []string {
	t.Helper()
	return all[string](w, `SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || coalesce('(' || character_maximum_length || ')', '')
				|| ' ' || is_nullable || ' ' || coalesce(column_default, '') AS line FROM information_schema.columns
			WHERE table_schema = 'public' AND table_name <> 'clerk_stripe_sync_migrations'
		UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'clerk_stripe_sync_migrations'
		UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
			WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'clerk_stripe_sync_migrations'
		UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
		UNION ALL SELECT 'sequence ' || sequencename FROM pg_sequences WHERE sequencename NOT LIKE 'clerk_stripe_sync%'
		UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		ORDER BY line`)
}

// What is taken back leaves nothing, and what is applied again is what was there before.
func TestMigrationsUpDownUp(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	before := schema(t, w)
	must(t, w.Migrated(t.Context()))

	list, err := m.Status(t.Context())
	must(t, err)
	for step := range list {
		name, err := m.Down(t.Context())
		must(t, err)
		if want := list[len(list)-1-step].Name; name != want {
			t.Fatalf("step %d took back %q, want %q", step, name, want)
		}
		if err := w.Migrated(t.Context()); failure.Of(err) != failure.Operator {
			t.Fatalf("with %s taken back the schema is said to be complete: %v", name, err)
		}
	}
	if name, err := m.Down(t.Context()); name != "" || err != nil {
		t.Fatalf("taking back nothing answered %q, %v", name, err)
	}
	if left := schema(t, w); len(left) != 0 {
		t.Fatalf("left behind:\n%s", strings.Join(left, "\n"))
	}
	list, err = m.Status(t.Context())
	must(t, err)
	if slices.ContainsFunc(list, func(s store.MigrationStatus) bool { return s.Applied }) {
		t.Fatalf("applied after all was taken back: %v", list)
	}

	applied, err := m.Up(t.Context())
	must(t, err)
	if len(applied) != len(list) {
		t.Fatalf("applied %v, want all of %v", applied, list)
	}
	if after := schema(t, w); !slices.Equal(before, after) {
		t.Fatalf("the schema differs after down and up:\nbefore %s\nafter %s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
	if applied, err = m.Up(t.Context()); err != nil || len(applied) != 0 {
		t.Fatalf("applying again did %v, %v", applied, err)
	}
	must(t, w.Migrated(t.Context()))
}

// Several programs that start at once migrate once.
func TestMigratorsAtOnce(t *testing.T) {
	t.Parallel()
	dsn := emptyDSN(t)
	const migrators = 3
	applied := make([][]string, migrators)
	var group errgroup.Group
	for i := range migrators {
		m := migrator(t, dsn)
		group.Go(func() (err error) {
			applied[i], err = m.Up(t.Context())
			return err
		})
	}
	must(t, group.Wait())
	list, err := migrator(t, dsn).Status(t.Context())
	must(t, err)
	if together := slices.Concat(applied...); len(together) != len(list) {
		t.Fatalf("three migrators applied %v, want each of %d files once", together, len(list))
	}
}

// documented are the product's tables with exactly the columns that its app's documents name.
func documented() []string {
	return []string{
		`CREATE TABLE person_user (id uuid PRIMARY KEY, clerk_user_id varchar(255) UNIQUE NOT NULL, first_name varchar(255) NOT NULL,
			last_name varchar(255) NOT NULL, user_name varchar(255), email varchar(255) NOT NULL, stripe_customer_id varchar(255),
			deletion_requested_at timestamptz, deleted_at timestamptz)`,
		`CREATE TABLE plans (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, plan_name varchar(255))`,
		`CREATE TABLE subscriptions (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL REFERENCES person_user(id),
			stripe_subscription_id varchar(255) NOT NULL UNIQUE, stripe_customer_id varchar(255),
			plan_id integer REFERENCES plans(id), status varchar(50) NOT NULL,
			subscription_type varchar(50) DEFAULT 'monthly', current_period_start timestamp,
			current_period_end timestamp, cancel_at_period_end boolean DEFAULT false,
			canceled_at timestamp, trial_start timestamp, trial_end timestamp, metadata text,
			created_at timestamp DEFAULT now(), updated_at timestamp DEFAULT now())`,
		`INSERT INTO person_user VALUES ('00000000-0000-0000-0000-000000000001', 'user_1', 'Ada', 'Lovelace', 'ada', 'ada@example.com', 'cus_1')`,
		`INSERT INTO person_user VALUES ('00000000-0000-0000-0000-000000000002', 'user_2', 'Bo', 'Nil', NULL, 'bo@example.com', NULL)`,
		`INSERT INTO plans (plan_name) VALUES ('Pro'), ('Basic')`,
		`INSERT INTO subscriptions (user_id, stripe_subscription_id, stripe_customer_id, plan_id, status, current_period_end, metadata)
			VALUES ('00000000-0000-0000-0000-000000000001', 'sub_1', 'cus_1', 1, 'active', '2026-02-01 12:00:00', '{"a":"b"}')`,
	}
}

// Tables that the product's app made before are taken over: their rows stay as they are, and all
// that is written later can be written to them.
func TestAdoptExistingTables(t *testing.T) {
	t.Parallel()
	dsn := emptyDSN(t)
	w := worldOn(t, dsn, store.Options{})
	for _, statement := range documented() {
		w.exec(statement)
	}
	contents := func() []string {
		return slices.Concat(
			all[string](w, `SELECT concat_ws('|', id, clerk_user_id, first_name, last_name, user_name, email, stripe_customer_id) FROM person_user ORDER BY 1`),
			all[string](w, `SELECT concat_ws('|', id, plan_name) FROM plans ORDER BY 1`),
			all[string](w, `SELECT concat_ws('|', id, user_id, stripe_subscription_id, stripe_customer_id, plan_id, status, subscription_type,
				current_period_start, current_period_end, cancel_at_period_end, canceled_at, trial_start, trial_end, metadata, created_at) FROM subscriptions`))
	}
	before := contents()
	must(t, migrate(t.Context(), dsn))
	if after := contents(); !slices.Equal(before, after) {
		t.Fatalf("rows changed:\nbefore %v\nafter  %v", before, after)
	}
	must(t, w.Migrated(t.Context()))
	// Everything that the application writes to these tables.
	exerciseUsers(t, w)
}

// Every column that the documents name has the name and the type that they say.
func TestDocumentedColumns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const documents = `
person_user id uuid NO
person_user clerk_user_id character varying(255) NO
person_user first_name character varying(255) YES
person_user last_name character varying(255) YES
person_user user_name character varying(255) YES
person_user email character varying(255) YES
person_user stripe_customer_id character varying(255) YES
person_user deletion_requested_at timestamp with time zone YES
person_user deleted_at timestamp with time zone YES
plans id integer NO
plans plan_name character varying(255) NO
subscriptions id uuid NO
subscriptions user_id uuid NO
subscriptions stripe_subscription_id character varying(255) NO
subscriptions stripe_customer_id character varying(255) YES
subscriptions plan_id integer YES
subscriptions status character varying(50) NO
subscriptions subscription_type character varying(50) YES 'monthly'::character varying
subscriptions current_period_start timestamp without time zone YES
subscriptions current_period_end timestamp without time zone YES
subscriptions cancel_at_period_end boolean YES false
subscriptions canceled_at timestamp without time zone YES
subscriptions trial_start timestamp without time zone YES
subscriptions trial_end timestamp without time zone YES
subscriptions metadata text YES
subscriptions created_at timestamp without time zone YES
subscriptions updated_at timestamp without time zone YES
webhook_events source text NO
webhook_events event_id text NO
webhook_events type text NO
webhook_events entity text YES
webhook_events seq bigint NO
webhook_events status text NO
webhook_events reason text YES
webhook_events received_at timestamp with time zone NO
webhook_events completed_at timestamp with time zone YES
webhook_events payload text YES`
	found := all[string](w, `SELECT table_name || ' ' || column_name || ' ' || data_type || coalesce('(' || character_maximum_length || ')', '') || ' ' || is_nullable
		|| CASE WHEN table_name = 'subscriptions' AND column_name IN ('subscription_type', 'cancel_at_period_end') THEN ' ' || column_default ELSE '' END
		FROM information_schema.columns WHERE table_schema = 'public'`)
	for line := range strings.SplitSeq(strings.TrimSpace(documents), "\n") {
		if !slices.Contains(found, line) {
			t.Errorf("documented and not so in the database: %s", line)
		}
	}
	for _, c := range []struct{ table, definition string }{
		{"subscriptions", "PRIMARY KEY (id)"},
		{"subscriptions", "UNIQUE (stripe_subscription_id)"},
		{"subscriptions", "FOREIGN KEY (user_id) REFERENCES person_user(id)"},
		{"subscriptions", "FOREIGN KEY (plan_id) REFERENCES plans(id)"},
		{"person_user", "UNIQUE (clerk_user_id)"},
		{"webhook_events", "PRIMARY KEY (source, event_id)"},
	} {
		if n := one[int](w, `SELECT count(*) FROM pg_constraint WHERE conrelid = $1::text::regclass AND pg_get_constraintdef(oid) = $2`, c.table, c.definition); n != 1 {
			t.Errorf("%s lacks %s", c.table, c.definition)
		}
	}
	if n := one[int](w, `SELECT count(*) FROM pg_constraint WHERE conrelid = 'person_user'::regclass AND contype = 'u' AND pg_get_constraintdef(oid) LIKE '%email%'`); n != 0 {
		t.Error("email is unique: two people may have the same")
	}
	// Every column of ours that holds a time holds its zone; the documents' own do not.
	if odd := all[string](w, `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND data_type = 'timestamp without time zone'
		AND (table_name, column_name) NOT IN (SELECT 'subscriptions', unnest(ARRAY['current_period_start','current_period_end','canceled_at','trial_start','trial_end','created_at','updated_at']))
		AND (table_name, column_name) NOT IN (SELECT 'person_user', unnest(ARRAY['created_at','updated_at']))
		AND table_name <> 'clerk_stripe_sync_migrations'`); len(odd) != 0 {
		t.Errorf("without a time zone: %v", odd)
	}
	// Numbers handed out ahead of use would put an event before a read that came first.
	if n := one[int64](w, `SELECT cache_size FROM pg_sequences WHERE sequencename = 'sync_seq'`); n != 1 {
		t.Errorf("sync_seq caches %d numbers, want 1", n)
	}
}

// Nobody changes the audit log, not its owner, not a superuser, not in a replica's session.
func TestAuditLogIsAppendOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if !one[bool](w, `SELECT rolsuper FROM pg_roles WHERE rolname = current_user`) {
		t.Fatal("this test has to be run by a superuser to show anything")
	}
	w.exec(`INSERT INTO audit_log (action, entity, subject) VALUES ('a', 'user/user_1', 's')`)
	for _, role := range []string{"origin", "replica", "local"} {
		w.exec(`SELECT set_config('session_replication_role', $1, false)`, role)
		for _, statement := range []string{
			`UPDATE audit_log SET action = 'b'`, `DELETE FROM audit_log`, `TRUNCATE audit_log`, `TRUNCATE audit_log CASCADE`,
			`INSERT INTO audit_log (id, action, entity, subject) OVERRIDING SYSTEM VALUE SELECT id, 'b', 'c', 'd' FROM audit_log ON CONFLICT (id) DO UPDATE SET action = 'b'`,
		} {
			_, err := w.conn.Exec(t.Context(), statement)
			if err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("as %s, %q was answered: %v", role, statement, err)
			}
		}
	}
	if got := all[string](w, `SELECT action FROM audit_log`); !slices.Equal(got, []string{"a"}) {
		t.Fatalf("the log holds %v", got)
	}
	w.exec(`INSERT INTO audit_log (action, entity, subject) VALUES ('c', 'user/user_1', 's')`)
}

// Addresses that are none are refused without being repeated: they hold passwords.
func TestBadAddress(t *testing.T) {
	t.Parallel()
	const dsn = "postgres://ada:hunter2@[::1:5432/db?sslmode=maybe"
	_, open := store.Open(t.Context(), store.Options{DSN: dsn})
	_, migrate := store.NewMigrator(dsn)
	for _, err := range []error{open, migrate} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "DATABASE_URL") {
			t.Errorf("a bad address was answered: %v", err)
		}
	}
}

// describe is a row as text, for comparisons.
func describe(w *world, table, where string, args ...any) string {
	w.t.Helper()
	rows, _ := w.conn.Query(w.t.Context(), `SELECT * FROM `+table+` WHERE `+where, args...)
	maps, err := pgx.CollectRows(rows, pgx.RowToMap)
	must(w.t, err)
	return fmt.Sprint(maps)
}

// A stored projection of before says false of a subscription's end by saying nothing. It is
// completed under a new version, which falls due little by little; a complete one stays as it is,
// and one of no subscription says nothing of an end.
func TestStoredProjectionsSayFalse(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takenBack(t, m, "false_is_a_value")
	const stored = `INSERT INTO person_user (clerk_user_id, projection, projection_version, published_version, deleted_at, deletion_requested_at)
		SELECT 'user_' || $1 || n, $2::jsonb, 3, 3, $3, $3 FROM generate_series(1, $4::int) n`
	w.exec(stored, "runs", `{"customerId":"cus_1","subscriptionId":"sub_1","status":"active","subscriptionActive":true}`, nil, 25)
	w.exec(stored, "ends", `{"customerId":"cus_1","subscriptionId":"sub_1","status":"active","subscriptionActive":true,"cancelAtPeriodEnd":true}`, nil, 1)
	w.exec(stored, "none", `{"customerId":"cus_1","subscriptionActive":false}`, nil, 1)
	w.exec(stored, "gone", `{"customerId":"cus_1","subscriptionId":"sub_1","status":"canceled","subscriptionActive":false}`, time.Now(), 1)
	_, err := m.Up(t.Context())
	must(t, err)
	want := []string{
		"user_ends1 true 3 3 f", "user_gone1 false 4 4 f", "user_none1 - 3 3 f", "user_runs1 false 4 3 t",
	}
	if got := all[string](w, `SELECT concat_ws(' ', clerk_user_id, coalesce(projection ->> 'cancelAtPeriodEnd', '-'), projection_version, published_version,
		publish_retry_at IS NOT NULL) FROM person_user WHERE clerk_user_id LIKE '%1' AND length(clerk_user_id) = 10 ORDER BY 1`); !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q", got, want)
	}
	if due := one[int](w, `SELECT count(*) FROM person_user WHERE publish_retry_at <= now()`); due > 10 {
		t.Errorf("%d fall due at once", due)
	}
	if last := one[float64](w, `SELECT extract(epoch FROM max(publish_retry_at) - min(publish_retry_at))::float8 FROM person_user`); last < 1.5 || last > 10 {
		t.Errorf("25 fall due within %g seconds", last)
	}
	if users, oldest, err := w.PublishLag(t.Context()); err != nil || users != 25 || oldest < 0 {
		t.Errorf("%d users, the oldest for %g seconds, %v", users, oldest, err)
	}
	for _, name := range []string{"runs1", "ends1", "none1"} {
		u, err := w.UserByClerkID(t.Context(), "user_"+name)
		must(t, err)
		p, err := u.Projection()
		must(t, err)
		raw, err := json.Marshal(p)
		must(t, err)
		if said := strings.Contains(string(raw), `"cancelAtPeriodEnd":`); said != (name != "none1") || !p.Equals(raw) {
			t.Errorf("%s is published as %s", name, raw)
		}
	}
	if told := one[int](w, `SELECT count(*) FROM audit_log WHERE action = 'projection.changed' AND after = '{"cancelAtPeriodEnd": false}'`); told != 26 {
		t.Errorf("the audit log tells of %d, want 26", told)
	}
}

// Of a customer whose last read did not show all it is not known which subscriptions it has shown:
// no request is told that it was seen.
func TestWhatAStoredReadLeftOutIsNotTakenForShown(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takenBack(t, m, "kept_subscriptions")
	w.exec(`INSERT INTO person_user (clerk_user_id) VALUES ('user_1')`)
	for customer, whole := range map[string]*int64{"cus_whole": nil, "cus_part": new(int64(5))} {
		w.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id, read_seq, whole_read_seq) SELECT $1, id, 9, $2 FROM person_user`, customer, whole)
		w.exec(`INSERT INTO subscriptions (stripe_subscription_id, stripe_customer_id, user_id, status) SELECT 'sub_' || $1, $1, id, 'active' FROM person_user`, customer)
	}
	_, err := m.Up(t.Context())
	must(t, err)
	want := []string{"sub_cus_part 5", "sub_cus_whole -"}
	if got := all[string](w, `SELECT stripe_subscription_id || ' ' || coalesce(kept_read_seq::text, '-') FROM subscriptions ORDER BY 1`); !slices.Equal(got, want) {
		t.Errorf("shown by %q, want %q", got, want)
	}
}

// Whoever was being deleted when addresses began to be kept had one too; of those who were erased
// nothing was left that tells. What is taken back takes every address with it.
func TestAddressesOfThoseWhoAreBeingDeletedAreKept(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takenBack(t, m, "tombstone_addresses")
	w.exec(`INSERT INTO person_user (clerk_user_id, email, email_verified, deletion_requested_at, deletion_seq, deleted_at) VALUES
		('user_1', 'Ada@example.com', true, now(), 1, NULL), ('user_2', 'ada@example.com', false, now(), 1, NULL), ('user_3', NULL, false, now(), 1, now()), ('user_4', '', true, now(), 1, NULL),
		('user_5', 'eve@example.com', true, NULL, NULL, NULL)`)
	_, err := m.Up(t.Context())
	must(t, err)
	if kept := all[string](w, `SELECT u.clerk_user_id FROM tombstone_addresses a JOIN person_user u ON u.id = a.user_id`); !slices.Equal(kept, []string{"user_1"}) {
		t.Errorf("kept are the addresses of %q", kept)
	}
	// It is the mark that the programs make: making it again adds nothing.
	w.withUser("user_1", func(ctx context.Context, tx *store.Tx, u *store.User) error { return tx.Erase(ctx, u) })
	if n := one[int](w, `SELECT count(*) FROM tombstone_addresses`); n != 1 {
		t.Errorf("%d marks are kept of one address", n)
	}
	if n := one[int](w, `SELECT octet_length(address_key) FROM provider_identity`); n != 64 {
		t.Errorf("the key has %d bytes", n)
	}
}

// Of whoever is not erased by now it is looked for what Stripe would still collect, and whom only
// the product has noted as deleted is looked at, also where it has noted that it is done, before
// our mark or behind it. Who was erased stays as they are.
func TestStoredDeletionsAreLookedAtOnceMore(t *testing.T) {
	t.Parallel()
	dsn := databases.DSN(t)
	w := worldOn(t, dsn, store.Options{})
	m := migrator(t, dsn)
	takenBack(t, m, "pending_charges")
	w.exec(`INSERT INTO person_user (clerk_user_id, deletion_requested_at, deletion_seq, deleted_at) VALUES ('user_stays', NULL, NULL, NULL), ('user_marked', now(), 5, NULL),
		('user_erased', now(), 5, now()), ('user_noted', now(), NULL, NULL), ('user_noted_done', now(), NULL, now()), ('user_noted_behind', now(), 5, now())`)
	w.exec(`INSERT INTO audit_log (action, user_id, entity, subject) SELECT 'user.erased', id, 'user/' || clerk_user_id, clerk_user_id FROM person_user WHERE clerk_user_id = 'user_erased'`)
	w.exec(`INSERT INTO stripe_customers (stripe_customer_id, user_id, read_seq, schedules_read_seq) SELECT 'cus_' || substr(clerk_user_id, 6), id, 9, 9 FROM person_user`)
	_, err := m.Up(t.Context())
	must(t, err)
	want := []string{"user_erased 9 f t", "user_marked 0 f f", "user_noted 0 t f", "user_noted_behind 9 t f", "user_noted_done 0 t f", "user_stays 9 f f"}
	var got []string
	for _, row := range all[string](w, `SELECT concat_ws(' ', clerk_user_id, coalesce(schedules_read_seq, 0), erase_retry_at IS NOT NULL) FROM person_user u JOIN stripe_customers c ON c.user_id = u.id ORDER BY 1`) {
		id, _, _ := strings.Cut(row, " ")
		u, err := w.UserByClerkID(t.Context(), id)
		must(t, err)
		got = append(got, row+" "+map[bool]string{true: "t", false: "f"}[u.ErasedAt != nil])
	}
	if !slices.Equal(got, want) {
		t.Errorf("stored are %q, want %q", got, want)
	}
}
