//go:build faults && linux

package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// mountInbox makes a file system of its own for the inbox, which a run can fill. Only root may, and
// not in every container.
func (g *ground) mountInbox() error {
	owner, err := os.Stat(filepath.Join(g.dir, "postgres"))
	if err != nil {
		return err
	}
	who := owner.Sys().(*syscall.Stat_t)
	path := filepath.Join(g.dir, "inbox")
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700,uid=%d,gid=%d", inboxRoom, who.Uid, who.Gid)); err != nil {
		return fmt.Errorf("mounting a file system for the inbox: %w", err)
	}
	g.inbox = path
	return nil
}

// shrinkInbox leaves the file system as large as what is in it.
func (g *ground) shrinkInbox() error {
	return insist(func() error {
		var now syscall.Statfs_t
		if err := syscall.Statfs(g.inbox, &now); err != nil {
			return err
		}
		return g.resizeInbox((now.Blocks - now.Bfree) * uint64(now.Bsize))
	})
}

func (g *ground) growInbox() error { return g.resizeInbox(inboxRoom) }

func (g *ground) resizeInbox(size uint64) error {
	if err := syscall.Mount("tmpfs", g.inbox, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size)); err != nil {
		return fmt.Errorf("resizing the inbox's file system to %d bytes: %w", size, err)
	}
	return nil
}
