package localstack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// portHolder tells which program listens on the port: the kernel's table of
// sockets names the socket, and the open files of all processes that may be
// looked at name its owner.
func portHolder(_ context.Context, port int) string {
	socket := listeningSocket(port)
	if socket == "" {
		return ""
	}
	// The pattern is well formed, so there is no error to see.
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err != nil || target != "socket:["+socket+"]" {
			continue
		}
		pid := strings.Split(link, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}

// listeningSocket is the inode of the socket that listens on the port.
func listeningSocket(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		if inode := findListener(table, fmt.Sprintf(":%04X", port)); inode != "" {
			return inode
		}
	}
	return ""
}

func findListener(table, suffix string) string {
	f, err := os.Open(table)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const listening = "0A"
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], suffix) {
			return fields[9]
		}
	}
	return ""
}
