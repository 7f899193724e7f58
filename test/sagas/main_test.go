// Package sagas_test breaks every step of every command in every way there is, and looks at what
// becomes of it: the three systems are all new, all old, or all as somebody else made them
// meanwhile, and the caller was told which.
package sagas_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

func TestMain(m *testing.M) { goleak.VerifyTestMain(servers.Around(m), system.Leftover()) }
