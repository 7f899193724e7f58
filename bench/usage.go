//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ticks is in what /proc counts time: hundredths of a second, on every Linux that Go runs on.
const ticks = 100

// cpuOf is the time that a process has used, with that of its children that have ended where they
// are counted too.
func cpuOf(pid int, ended bool) (time.Duration, int, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0, fmt.Errorf("reading what a process used: %w", err)
	}
	// Behind the name, which may hold anything, in parentheses.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	const parent, user, system, childUser, childSystem = 1, 11, 12, 13, 14
	of := []int{user, system}
	if ended {
		of = append(of, childUser, childSystem)
	}
	sum := 0
	for _, field := range of {
		n, err := strconv.Atoi(fields[field])
		if err != nil {
			return 0, 0, fmt.Errorf("reading what a process used: %w", err)
		}
		sum += n
	}
	by, err := strconv.Atoi(fields[parent])
	if err != nil {
		return 0, 0, fmt.Errorf("reading a process's parent: %w", err)
	}
	return time.Duration(sum) * time.Second / ticks, by, nil
}

// cpuOfServer is the time that PostgreSQL has used: its first process, the others, and those that
// have ended.
func cpuOfServer(pid int) (time.Duration, error) {
	sum, _, err := cpuOf(pid, true)
	if err != nil {
		return 0, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, fmt.Errorf("listing processes: %w", err)
	}
	for _, path := range all {
		child, _ := strconv.Atoi(filepath.Base(path)) // the pattern is of digits
		if used, parent, err := cpuOf(child, false); err == nil && parent == pid {
			sum += used
		}
	}
	return sum, nil
}

// forgetPeak has the most memory of a process counted from now on.
func forgetPeak(pid int) error {
	if err := os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0); err != nil {
		return fmt.Errorf("forgetting a peak: %w", err)
	}
	return nil
}

// peakMemory is the most memory that a process has had, in MiB.
func peakMemory(pid int) (float64, error) { return memoryOf(pid, "VmHWM:") }

// memoryOf is one of the figures that Linux has of a process's memory, in MiB.
func memoryOf(pid int, which string) (float64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, fmt.Errorf("reading a process's memory: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, which); ok {
			kilobytes, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			if err != nil {
				return 0, fmt.Errorf("reading a process's memory: %w", err)
			}
			return float64(kilobytes) / 1024, nil
		}
	}
	return 0, fmt.Errorf("a process has no memory")
}
