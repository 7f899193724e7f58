// Package api_test asks the running programs as people do, over real HTTP, and looks at the
// answers: that each is true, that it is as the API's description says, and that the three systems
// end as it told.
package api_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Around(m), system.Leftover()) }
