//go:build faults && linux

package faults_test

import (
	"os"
	"testing"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// servers builds the real programs, and makes a database and a namespace on the two servers that
// the test itself starts, kills and ends.
var servers = system.NewServers()

func TestMain(m *testing.M) { os.Exit(servers.Programs.Around(m).Run()) }
