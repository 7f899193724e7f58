package fences_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers are shared by the tests of this package; each test has a database and a namespace of
// its own on them.
var servers = system.NewServers()

func TestMain(m *testing.M) {
	flag.Parse()
	if err := runAtOnce(2 * runtime.GOMAXPROCS(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	goleak.VerifyTestMain(servers.Around(m), system.Leftover())
}

// runAtOnce sets how many tests run at once, unless the command line says it. These tests wait for
// their database for about half of their time, so that one for each processor leaves processors idle.
func runAtOnce(tests int) error {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(tests))
}
