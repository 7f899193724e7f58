// Package migrations holds the database's schema as ordered goose migrations.
package migrations

import "embed"

// FS holds the SQL files, named NNNNN_what.sql and applied in that order. A file that has
// been released is never changed: the next one changes what it made.
//
//go:embed *.sql
var FS embed.FS
