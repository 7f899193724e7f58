package localstack

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// memoryDir is where Linux has a file system in memory for every user.
const memoryDir = "/dev/shm"

// What has to be free, in bytes, for a throwaway server to have its data in memory: of the file
// system, and of the machine. The tests that need most have some hundred megabytes there, and
// packages run beside each other.
const (
	roomInMemoryDir = 4 << 30
	roomInMemory    = 8 << 30
)

// inMemory answers a directory in memory that has room for a throwaway server's data, "" where
// there is none, or where TMPDIR says what to use. To make and to remove a database's hundreds of
// files there takes a fraction of what a disk's file system takes.
func inMemory() string {
	const tmpfs = 0x01021994
	var fs syscall.Statfs_t
	if os.Getenv("TMPDIR") != "" || syscall.Statfs(memoryDir, &fs) != nil || fs.Type != tmpfs {
		return ""
	}
	if fs.Bavail*uint64(fs.Bsize) < roomInMemoryDir || availableMemory() < roomInMemory {
		return ""
	}
	return memoryDir
}

// availableMemory is how many bytes the kernel could give away without swapping, 0 where it does
// not tell.
func availableMemory() int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if number, found := strings.CutPrefix(lines.Text(), "MemAvailable:"); found {
			kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(number), " kB"), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}
