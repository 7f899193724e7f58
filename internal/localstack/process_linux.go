package localstack

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// detach gives cmd a process group of its own and has Linux send it signal when
// the thread that starts it ends. The signal survives the change of user,
// because Go sets it after changing the user.
func detach(cmd *exec.Cmd, signal syscall.Signal) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = signal
}

// commandLine is the command line of a running process, empty if there is none.
func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.ReplaceAll(string(text), "\x00", " "))
}
