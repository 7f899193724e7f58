package store_test

import (
	"testing"
	"time"
)

// A pass over a provider's list that goes on while the database is put back has covered only what
// it began with: what lies between what the database knows then and that is left to the next pass.
func TestRecoveryLeavesNothingOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Second)
	ago := func(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }
	for _, step := range []struct {
		what              string
		from, until, want time.Time
		before            string
	}{
		{"the first pass", ago(120), ago(30), ago(30), ""},
		{"the next one", ago(40), ago(20), ago(20), ""},
		{"an older one", ago(90), ago(25), ago(20), ""},
		{"one that had begun before the database was put back", ago(30), ago(10), ago(50), `UPDATE recovery_cursors SET safe_until = now() - interval '50 minutes'`},
		{"one that began since", ago(60), ago(10), ago(10), ""},
		{"one that had begun before the database was put back to before all of them", ago(20), ago(5), ago(60), `DELETE FROM recovery_cursors`},
	} {
		if step.before != "" {
			w.exec(step.before)
		}
		must(t, w.AdvanceRecovery(t.Context(), "stripe", step.from, step.until, 0))
		got, err := w.RecoveryCursor(t.Context(), "stripe")
		must(t, err)
		if off := got.Sub(step.want).Abs(); off > 30*time.Second {
			t.Errorf("%s: everything until %s is taken for known, want %s", step.what, got, step.want)
		}
	}
}
