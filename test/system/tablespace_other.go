//go:build !linux

package system

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// SmallTablespace answers that no file system can be mounted.
func SmallTablespace(*testing.T, *pgx.Conn) (name string, ok bool) { return "", false }
