//go:build unix

package localstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// oldestPostgres is the first major version with all that the migrations use.
const oldestPostgres = 14

var versionNumber = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// PostgresBinaries answers the directory of this machine's PostgreSQL programs,
// newest version first. Where there are none and this process is root on a
// system with apt-get, it installs them, telling out; elsewhere the error says
// how to get them. A nil out means nobody is told.
func PostgresBinaries(ctx context.Context, out io.Writer) (string, error) {
	return findBinaries(ctx, "", out)
}

// findBinaries is PostgresBinaries for data of a given major version; empty
// means that any will do.
func findBinaries(ctx context.Context, version string, out io.Writer) (string, error) {
	if dir := newestBinaries(ctx, candidateDirs(ctx), version); dir != "" {
		return dir, nil
	}
	if version != "" {
		return "", fmt.Errorf("the local data were made by PostgreSQL %s, which this machine has no more: install it, or remove the data with `make clean`", version)
	}
	if err := installPostgres(ctx, out); err != nil {
		return "", err
	}
	if dir := newestBinaries(ctx, candidateDirs(ctx), version); dir != "" {
		return dir, nil
	}
	return "", fmt.Errorf("PostgreSQL is installed, but no version from %d on was found", oldestPostgres)
}

// candidateDirs lists where distributions put the programs, existing or not.
func candidateDirs(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		// A link on the PATH leads to the directory that has the others too.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	if bindir, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(bindir)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",                                    // Debian, Ubuntu
		"/usr/pgsql-*/bin",                                             // PostgreSQL's own RPMs
		"/usr/libexec/postgresql*",                                     // Alpine
		"/usr/lib/postgresql*/bin",                                     // SUSE
		"/opt/homebrew/opt/postgresql@*/bin",                           // Homebrew on Apple silicon
		"/usr/local/opt/postgresql@*/bin",                              // Homebrew on Intel
		"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",              // Homebrew on Linux
		"/Applications/Postgres.app/Contents/Versions/*/bin",           // Postgres.app
		"/Library/PostgreSQL/*/bin",                                    // EDB's installer
		"/opt/local/lib/postgresql*/bin",                               // MacPorts
		"/usr/local/pgsql/bin",                                         // built from source
		"/usr/bin", "/usr/local/bin", "/opt/homebrew/bin", "/usr/sbin", // Fedora, Arch, BSDs
	} {
		// The patterns are well formed, so there is no error to see.
		found, _ := filepath.Glob(pattern)
		dirs = append(dirs, found...)
	}
	return dirs
}

// newestBinaries is the candidate of the highest version, or of exactly the
// version asked for.
func newestBinaries(ctx context.Context, candidates []string, version string) string {
	type installation struct {
		dir   string
		major int
	}
	var found []installation
	seen := map[string]bool{}
	for _, dir := range candidates {
		if seen[dir] || !executable(filepath.Join(dir, "initdb")) || !executable(filepath.Join(dir, "postgres")) {
			continue
		}
		seen[dir] = true
		said, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
		if err != nil {
			continue
		}
		number := versionNumber.FindSubmatch(said)
		if number == nil || version != "" && string(number[1]) != version {
			continue
		}
		// The expression matches digits only; too many of them read as the maximum.
		if major, _ := strconv.Atoi(string(number[1])); major >= oldestPostgres {
			found = append(found, installation{dir, major})
		}
	}
	if len(found) == 0 {
		return ""
	}
	return slices.MaxFunc(found, func(a, b installation) int { return cmp.Compare(a.major, b.major) }).dir
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// installPostgres installs Debian's PostgreSQL when that can be done without
// asking anybody.
func installPostgres(ctx context.Context, out io.Writer) error {
	if out == nil {
		out = io.Discard
	}
	aptGet, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return errors.New("PostgreSQL is not installed; " + howToInstall(err == nil))
	}
	installer := aptInstaller{
		aptGet: aptGet,
		config: "/etc/postgresql-common/createcluster.conf",
		out:    out,
	}
	return installer.install(ctx)
}

// howToInstall is one line for somebody who has to do it.
func howToInstall(haveApt bool) string {
	switch {
	case haveApt:
		return "install it with `sudo apt-get install postgresql`, or set DATABASE_URL"
	case runtime.GOOS == "darwin":
		return "install it with `brew install postgresql@17`, or set DATABASE_URL"
	default:
		return "install your system's PostgreSQL server package, or set DATABASE_URL"
	}
}

// aptInstaller installs PostgreSQL on Debian and its descendants.
type aptInstaller struct {
	aptGet string
	config string // where Debian's scripts read whether to create a cluster
	out    io.Writer
}

// install gets the programs only: Debian's scripts would also create and start a
// cluster on port 5432, which nobody asked for. That choice is put back the way
// it was, so that the machine's owner gets Debian's usual manner later.
func (a aptInstaller) install(ctx context.Context) error {
	fmt.Fprintln(a.out, "PostgreSQL is not installed: installing it with apt-get (once)")
	if err := a.run(ctx, "update", "-q"); err != nil {
		return err
	}
	if err := a.run(ctx, "install", "-q", "-y", "--no-install-recommends", "postgresql-common"); err != nil {
		return err
	}
	before, err := os.ReadFile(a.config)
	if err != nil {
		return fmt.Errorf("install PostgreSQL without a running cluster: %w", err)
	}
	without := append(slices.Clone(before), "\ncreate_main_cluster = false\n"...)
	if err := os.WriteFile(a.config, without, 0o644); err != nil {
		return fmt.Errorf("install PostgreSQL without a running cluster: %w", err)
	}
	installed := a.run(ctx, "install", "-q", "-y", "--no-install-recommends", "postgresql")
	if err := os.WriteFile(a.config, before, 0o644); err != nil {
		return errors.Join(installed, fmt.Errorf("put %s back: %w", a.config, err))
	}
	return installed
}

func (a aptInstaller) run(ctx context.Context, args ...string) error {
	// Another installation may be under way on a machine that has just started.
	args = append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)
	cmd := exec.CommandContext(ctx, a.aptGet, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	said, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("install PostgreSQL: apt-get %s: %w\n%s", strings.Join(args, " "), err, lastLines(string(said), 8))
	}
	return nil
}
