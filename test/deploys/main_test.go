// Package deploys_test changes the programs while they work: an old and a new worker at the same
// workflows, and copies of both programs that are restarted one after the other under load.
package deploys_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

// before are the programs as they were before the changes of workflow code that ask for a version.
// They are built from the files as they were then, and without those that have come since.
var before = &system.Programs{Replaced: map[string]string{
	"workflows/subscription_lifecycle.go": "testdata/before/subscription_lifecycle.go.txt",
	"workflows/command.go":                "testdata/before/command.go.txt",
	"workflows/publisher.go":              "testdata/before/publisher.go.txt",
	"workflows/user.go":                   "testdata/before/user.go.txt",
	"workflows/sleeper.go":                "",
}}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(before.Around(servers.Around(m)), system.Leftover())
}
