//go:build unix

package localstack

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func writeScript(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestNewestBinariesWin(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	var dirs []string
	install := func(dir, version string, programs ...string) {
		for _, program := range programs {
			writeScript(t, filepath.Join(root, dir, program), "echo 'postgres (PostgreSQL) "+version+"'\n")
		}
		dirs = append(dirs, filepath.Join(root, dir))
	}
	install("a", "9.6.24", "postgres", "initdb")
	install("b", "16.4 (Debian 16.4-1)", "postgres", "initdb")
	install("c", "17beta1", "postgres", "initdb")
	install("d", "15.1", "postgres", "initdb")
	install("client-only", "99.0", "postgres")
	dirs = append(dirs, filepath.Join(root, "missing"))

	for version, want := range map[string]string{"": "c", "16": "b", "15": "d", "9": "", "18": ""} {
		if want != "" {
			want = filepath.Join(root, want)
		}
		if got := newestBinaries(t.Context(), dirs, version); got != want {
			t.Errorf("version %q: %q, want %q", version, got, want)
		}
	}
}

func TestAptInstallsWithoutACluster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, calls := filepath.Join(dir, "createcluster.conf"), filepath.Join(dir, "calls")
	const theirs = "#create_main_cluster = true\nssl = on\n"
	// The fake notes each call and what Debian's scripts would have read then.
	aptGet := filepath.Join(dir, "apt-get")
	writeScript(t, aptGet, `echo "$DEBIAN_FRONTEND $*" >>`+calls+`
case "$*" in
*postgresql-common) printf '#create_main_cluster = true\nssl = on\n' >`+config+` ;;
*postgresql) grep '^create_main_cluster' `+config+` >>`+calls+` ;;
esac
`)
	var said output
	installer := aptInstaller{aptGet: aptGet, config: config, out: &said}
	if err := installer.install(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	const want = `noninteractive -o DPkg::Lock::Timeout=300 update -q
noninteractive -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends postgresql-common
noninteractive -o DPkg::Lock::Timeout=300 install -q -y --no-install-recommends postgresql
create_main_cluster = false
`
	if string(got) != want {
		t.Errorf("calls:\n%s\nwant:\n%s", got, want)
	}
	if after, err := os.ReadFile(config); err != nil || string(after) != theirs {
		t.Errorf("the configuration is left as %q, %v", after, err)
	}
	if !strings.Contains(said.String(), "installing it with apt-get") {
		t.Errorf("said %q", said.String())
	}

	writeScript(t, aptGet, "echo 'E: no network'\nexit 100\n")
	if err := installer.install(t.Context()); err == nil || !strings.Contains(err.Error(), "E: no network") {
		t.Errorf("a failure: %v", err)
	}
}

func TestLockIsExclusiveAndLeavesNoFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "lock")
	held, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, errLocked) {
		t.Fatalf("second holder: %v", err)
	}
	got := make(chan error)
	waiting := make(chan struct{})
	go func() {
		next, err := waitLock(t.Context(), path, func() { close(waiting) })
		next.release()
		got <- err
	}()
	<-waiting
	held.release()
	if err := <-got; err != nil {
		t.Errorf("after the release: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}

func TestProgressIsALineEveryTenSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var said output
		p := startProgress(&said, "building")
		time.Sleep(25 * time.Second) // of the bubble's own clock, which takes no time
		p.stop()
		if want := "building: 10s so far\nbuilding: 20s so far\n"; said.String() != want {
			t.Errorf("said %q", said.String())
		}
	})
}

func TestFreePortIsFree(t *testing.T) {
	t.Parallel()
	var errs []error
	for range 5 { // somebody else may be quicker, but hardly each time
		port, err := FreePort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if port < lowestPort || port >= highestPort {
			t.Errorf("port %d is one that a connection may have", port)
		}
		if err = CheckPort(t.Context(), port); err == nil {
			return
		}
		errs = append(errs, err)
	}
	t.Error(errors.Join(errs...))
}
