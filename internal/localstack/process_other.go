//go:build unix && !linux

package localstack

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// detach gives cmd a process group of its own. There is no signal for orphans
// on these systems; the next start ends what was left running.
func detach(cmd *exec.Cmd, _ syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

// commandLine is the command line of a running process, empty if there is none.
func commandLine(pid int) string {
	text, err := exec.Command("ps", "-ww", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
