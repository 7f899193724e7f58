package system

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// smallSize is how much fits into a small tablespace.
const smallSize = "4m"

// SmallTablespace makes a tablespace on a file system of four megabytes, for as long as the test
// runs, and answers its name; ok is false where no file system can be mounted. The inbox, and a
// table named filling, may be put there.
func SmallTablespace(t *testing.T, db *pgx.Conn) (name string, ok bool) {
	t.Helper()
	var data, database string
	if err := db.QueryRow(t.Context(), `SELECT current_setting('data_directory'), current_database()`).Scan(&data, &database); err != nil {
		t.Fatal(err)
	}
	owner, err := os.Stat(data)
	if err != nil {
		return "", false // a server elsewhere
	}
	// Where the server's own user can reach it.
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Clean(data)), "small-")
	if err != nil {
		return "", false
	}
	status, isStat := owner.Sys().(*syscall.Stat_t)
	if !isStat || syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%s,mode=0700,uid=%d,gid=%d", smallSize, status.Uid, status.Gid)) != nil {
		_ = os.Remove(dir) // it is empty
		return "", false
	}
	name = "small_" + strings.ToLower(filepath.Base(dir)[len("small-"):])
	t.Cleanup(func() {
		ctx := context.Background()
		conn, err := pgx.ConnectConfig(ctx, db.Config())
		if err == nil {
			for _, sql := range []string{`ALTER TABLE webhook_events SET TABLESPACE pg_default`, `DROP TABLE IF EXISTS filling`, `DROP TABLESPACE ` + name} {
				_, failed := conn.Exec(ctx, sql)
				err = errors.Join(err, failed)
			}
			_ = conn.Close(ctx)
		}
		if err != nil {
			t.Error("removing the tablespace:", err)
		}
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error("unmounting:", err)
		}
		_ = os.Remove(dir) // it is empty
	})
	if _, err := db.Exec(t.Context(), fmt.Sprintf(`CREATE TABLESPACE %s LOCATION '%s'`, name, dir)); err != nil {
		t.Fatal(err)
	}
	return name, true
}
