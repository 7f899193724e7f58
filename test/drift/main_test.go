// Package drift_test plants what can be wrong, and has it found.
package drift_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Around(m), system.Leftover()) }
