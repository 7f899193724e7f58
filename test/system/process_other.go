//go:build !linux

package system

import (
	"errors"
	"syscall"
)

// ownGroup gives a process a group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func peakMemory(int) (int64, error) { return 0, errors.ErrUnsupported }
