// Package kill_test plays the story against the two real programs while they are killed and
// stopped, and finds the same state in the end as if nothing had happened.
package kill_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

// atOnce is how many stories are played at the same time. Most of the time of each is spent waiting
// until somebody notices that a process is gone, so it does not depend on the number of processors.
const atOnce = "16"

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			panic(err) // testing's own flag
		}
	}
	goleak.VerifyTestMain(servers.Around(m), system.Leftover())
}
