//go:build unix && !linux

package localstack

// inMemory answers that there is no file system in memory.
func inMemory() string { return "" }
