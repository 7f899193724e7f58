//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// errLocked says that another process holds a lock.
var errLocked = errors.New("held by another process")

// fileLock is an exclusive lock that the kernel gives back when its holder dies.
type fileLock struct{ file *os.File }

// tryLock takes the lock named by path, or answers errLocked.
//
// The holder removes the file when it is done, so that nothing is left lying
// about; somebody who waited on the removed file must start again with the new
// one, which the comparison at the end is for.
func tryLock(path string) (*fileLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the lock's directory: %w", err)
	}
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the lock: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, errLocked)
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		held, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if named, err := os.Stat(path); err == nil && os.SameFile(held, named) {
			return &fileLock{file: f}, nil
		}
		_ = f.Close()
	}
}

// waitLock takes the lock named by path, waiting for as long as ctx allows. It
// calls waiting once if the lock is not free at once.
func waitLock(ctx context.Context, path string, waiting func()) (*fileLock, error) {
	var lock *fileLock
	said := false
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		var err error
		lock, err = tryLock(path)
		if errors.Is(err, errLocked) {
			if !said {
				waiting()
				said = true
			}
			return false, nil
		}
		return err == nil, err
	})
	return lock, err
}

// release gives the lock back and removes its file. It may be called on nil.
func (l *fileLock) release() {
	if l == nil {
		return
	}
	// Removed while still held: whoever opened it meanwhile sees that it is not
	// the file of that name any more.
	_ = os.Remove(l.file.Name())
	_ = l.file.Close()
}
