//go:build unix

package devstack

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// screen is where the person looks. It may be written to by several goroutines, a line at a time.
type screen struct {
	mu      sync.Mutex
	out     io.Writer
	colours bool
}

// newScreen uses colours on a terminal, unless NO_COLOR is set; anything else gets plain lines.
func newScreen(out io.Writer, environ map[string]string) *screen {
	s := &screen{out: out}
	if file, ok := out.(*os.File); ok && environ["NO_COLOR"] == "" && environ["TERM"] != "dumb" {
		info, err := file.Stat()
		s.colours = err == nil && info.Mode()&os.ModeCharDevice != 0 && file.Name() != os.DevNull
	}
	return s
}

// Write implements io.Writer, for those who report progress.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s, format+"\n", args...)
}

// The styles that a terminal can show.
const (
	bold  = "1"
	green = "32"
)

func (s *screen) styled(style, text string) string {
	if !s.colours {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}
