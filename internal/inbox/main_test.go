package inbox_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bubble runs a test in which time passes by itself as soon as everybody waits: pauses cost
// nothing and are exact.
func bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

// pass lets time pass in a bubble, and what falls due in it happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }
