//go:build unix

package localstack

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// passwordFile lies in the data directory and holds the superuser's password.
const passwordFile = "clerk-stripe-sync.password"

// dataDir is a data directory that is ready to be served.
type dataDir struct {
	path     string
	binaries string
	user     *syscall.Credential // nil: this process's own
	password string
}

// prepareData finds the place, the user and the binaries, makes the data on first
// use, and ends a server that an earlier copy left running on them.
func prepareData(ctx context.Context, opts PostgresOptions, throwaway bool) (*dataDir, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, fmt.Errorf("find PostgreSQL's data: %w", err)
	}
	data := &dataDir{}
	if data.user, err = serverUser(dir); err != nil {
		return nil, err
	}
	if data.path, err = place(dir, data.user); err != nil {
		return nil, err
	}
	version, err := os.ReadFile(filepath.Join(data.path, "PG_VERSION"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read PostgreSQL's data (were they made by another user?): %w", err)
	}
	if data.binaries, err = findBinaries(ctx, strings.TrimSpace(string(version)), opts.Out); err != nil {
		return nil, err
	}
	if version == nil {
		if err := data.initialise(ctx, throwaway); err != nil {
			return nil, err
		}
	}
	password, err := os.ReadFile(filepath.Join(data.path, passwordFile))
	if err != nil {
		return nil, fmt.Errorf("read PostgreSQL's password: %w", err)
	}
	data.password = string(password)
	return data, stopLeftover(ctx, data.path)
}

// serverUser decides who runs the server: whoever owns the data, if they exist,
// else postgres or nobody. It answers nil for a process that is not root, which
// has no choice.
func serverUser(dir string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	if info, err := os.Stat(dir); err == nil {
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 0 {
			return &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}, nil
		}
	}
	for _, name := range []string{"postgres", "nobody"} {
		account, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(account.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(account.Gid, 10, 32)
		if uidErr == nil && gidErr == nil && uid != 0 {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody")
}

// place answers where the data of dir really are. That is dir itself, unless its
// parents are closed to the server's user, as they are below /root: then it is a
// directory under /var/tmp, named after dir's path, and dir is a link to it.
func place(dir string, as *syscall.Credential) (string, error) {
	parent := filepath.Dir(dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("make a place for PostgreSQL's data: %w", err)
	}
	info, err := os.Lstat(dir)
	linked := err == nil && info.Mode()&fs.ModeSymlink != 0
	if !linked && reachable(parent, as) {
		return dir, nil
	}
	if err == nil && !linked {
		return "", fmt.Errorf("PostgreSQL's user may not reach the data in %s; remove them or open the directories above", dir)
	}
	elsewhere := sharedPath(dir)
	target := filepath.Join(elsewhere, "postgres")
	if linked {
		pointed, err := filepath.EvalSymlinks(dir)
		if errors.Is(err, fs.ErrNotExist) {
			pointed, err = os.Readlink(dir) // the place has been cleared: make it anew
		}
		if err != nil {
			return "", fmt.Errorf("find PostgreSQL's data: %w", err)
		}
		if pointed != target {
			return pointed, nil
		}
		return target, makeShared(elsewhere)
	}
	if err := makeShared(elsewhere); err != nil {
		return "", err
	}
	if err := os.Symlink(target, dir); err != nil {
		return "", fmt.Errorf("link to PostgreSQL's data: %w", err)
	}
	return target, nil
}

// sharedPath is a place outside of anybody's home, with a name that only dir has.
// /var/tmp outlives a reboot.
func sharedPath(dir string) string {
	base := "/var/tmp"
	if _, err := os.Stat(base); err != nil {
		base = os.TempDir()
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(base, "clerk-stripe-sync-"+hex.EncodeToString(sum[:8]))
}

// makeShared makes a directory that every user can pass through and only this
// one can change.
func makeShared(path string) error {
	err := os.Mkdir(path, 0o711)
	if err == nil {
		err = os.Chmod(path, 0o711) // whatever the umask says
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make a place for PostgreSQL's data: %w", err)
	}
	// Anybody can make names there, so do not trust one that was there before.
	info, err := os.Lstat(path)
	if err != nil {
		return fmt.Errorf("make a place for PostgreSQL's data: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t); !info.IsDir() || owner.Uid != uint32(os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s exists and is not a directory that only this user can write; remove it", path)
	}
	return nil
}

// reachable tells whether the user may pass through dir and all above it.
func reachable(dir string, as *syscall.Credential) bool {
	if as == nil {
		return true
	}
	for {
		info, err := os.Stat(dir)
		if err != nil {
			return false
		}
		owner := info.Sys().(*syscall.Stat_t)
		pass := fs.FileMode(0o001)
		switch {
		case owner.Uid == as.Uid:
			pass = 0o100
		case owner.Gid == as.Gid:
			pass = 0o010
		}
		if info.Mode()&pass == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
}

// throwawayDir makes a temporary directory that other users can pass through, in a directory or,
// with "", where temporary files are.
func throwawayDir(in, prefix string) (string, error) {
	dir, err := os.MkdirTemp(in, prefix)
	if err == nil {
		err = os.Chmod(dir, 0o711)
	}
	if err == nil && os.Geteuid() == 0 {
		var as *syscall.Credential
		if as, err = serverUser(dir); err == nil && !reachable(dir, as) {
			// A private TMPDIR: use the machine's own.
			_ = os.RemoveAll(dir)
			if dir, err = os.MkdirTemp("/var/tmp", prefix); err == nil {
				err = os.Chmod(dir, 0o711)
			}
		}
	}
	if err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", err)
	}
	return dir, nil
}

// sweepThrowaway removes the data of throwaway servers in a directory whose programs were killed
// before they could: in memory they would be there until the machine starts again. Nobody holds the
// lock of such data, nor is about to take it: they are not new.
func sweepThrowaway(ctx context.Context, in, prefix string) {
	// The pattern is well formed, so there is no error to see.
	left, _ := filepath.Glob(filepath.Join(in, prefix+"*"))
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		lock, err := tryLock(throwawayData(dir) + ".lock")
		if err != nil {
			continue // in use, or another user's
		}
		// The server has a signal that its program is gone, and may not be done.
		if stopLeftover(ctx, throwawayData(dir)) == nil {
			_ = os.RemoveAll(dir) // what is left of it the next one tries to remove
		}
		lock.release()
	}
}

// throwawayData is where a throwaway server's data lie in its directory.
func throwawayData(dir string) string { return filepath.Join(dir, "data") }

// initialise makes a new database cluster. It is made beside its place and moved
// there when it is whole, so that being killed halfway leaves nothing that looks
// like data.
func (d *dataDir) initialise(ctx context.Context, throwaway bool) error {
	half := d.path + ".new"
	if err := os.RemoveAll(half); err != nil {
		return fmt.Errorf("clear a half-made database cluster: %w", err)
	}
	if err := d.ownedDir(half); err != nil {
		return err
	}
	password := []byte(rand.Text())
	given := password
	if throwaway {
		secret, err := quickSecret(string(password))
		if err != nil {
			return err
		}
		given = []byte(secret)
	}
	file, err := d.passwordForInitdb(given)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()

	args := []string{"-D", half, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", file, "-E", "UTF8", "--locale", "C"}
	if throwaway {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(d.binaries, "initdb"), args...)
	cmd.Dir = "/" // the server's user may not see where we are
	cmd.Env = serverEnv()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.user}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make a database cluster with %s: %w\n%s", cmd.Path, err, strings.TrimSpace(said.String()))
	}
	if err := os.WriteFile(filepath.Join(half, passwordFile), password, 0o600); err != nil {
		return fmt.Errorf("keep PostgreSQL's password: %w", err)
	}
	if err := os.Rename(half, d.path); err != nil {
		return fmt.Errorf("put the database cluster in its place: %w", err)
	}
	return nil
}

// quickSecret is what PostgreSQL keeps of a password (RFC 5803), hashed once where it hashes 4096
// times: that makes guessing slow, which a random password does not need, and with the race
// detector takes longer than all else that a connection needs. Some drivers refuse it, so it is for
// servers that only our own tests connect to.
func quickSecret(password string) (string, error) {
	const iterations = 1
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // it answers no error
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("hash PostgreSQL's password: %w", err)
	}
	keyed := func(name string) []byte {
		mac := hmac.New(sha256.New, salted)
		mac.Write([]byte(name))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed("Client Key"))
	text := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, text(salt), text(stored[:]), text(keyed("Server Key"))), nil
}

func (d *dataDir) ownedDir(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil {
		return fmt.Errorf("make PostgreSQL's data directory: %w", err)
	}
	if d.user == nil {
		return nil
	}
	if err := os.Chown(path, int(d.user.Uid), int(d.user.Gid)); err != nil {
		return fmt.Errorf("give PostgreSQL its data directory: %w", err)
	}
	return nil
}

// passwordForInitdb writes the password, or what is kept of it, where only initdb's user can read
// it.
func (d *dataDir) passwordForInitdb(password []byte) (string, error) {
	path := d.path + ".pw"
	if err := os.WriteFile(path, password, 0o600); err != nil {
		return "", fmt.Errorf("hand over PostgreSQL's password: %w", err)
	}
	if d.user != nil {
		if err := os.Chown(path, int(d.user.Uid), int(d.user.Gid)); err != nil {
			return "", fmt.Errorf("hand over PostgreSQL's password: %w", err)
		}
	}
	return path, nil
}

// stopLeftover ends a server that still runs on the data though nobody holds
// their lock: its owner was killed. A stale postmaster.pid of a server that is
// gone is PostgreSQL's own to judge, unless another program has its number by
// now, which PostgreSQL cannot tell.
func stopLeftover(ctx context.Context, path string) error {
	pidFile := filepath.Join(path, "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for a running PostgreSQL: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 {
		return nil
	}
	switch command := commandLine(pid); {
	case command == "":
		return nil
	case !strings.Contains(command, path):
		if err := os.Remove(pidFile); err != nil {
			return fmt.Errorf("remove a stale %s: %w", pidFile, err)
		}
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stop the PostgreSQL left running on %s: %w", path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	err = poll(ctx, 20*time.Millisecond, func() (bool, error) { return commandLine(pid) == "", nil })
	if err != nil {
		return fmt.Errorf("stop the PostgreSQL left running on %s (process %d): %w", path, pid, err)
	}
	return nil
}
