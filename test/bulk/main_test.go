// Package bulk_test brings whole products in that were there before us.
package bulk_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var (
	servers = system.NewServers()
	// prioritizing know the priorities of tasks.
	prioritizing = system.NewServersWith(map[string]string{"matching.useNewMatcher": "true"})
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(servers.Around(prioritizing.Around(m)), system.Leftover())
}
