//go:build unix

package localstack

import (
	"fmt"
	"io"
	"os"
	"time"
)

// progress shows that something long is alive: a turning sign on a terminal, else
// a line every ten seconds.
type progress struct {
	quit, ended chan struct{}
}

// startProgress begins to show what on out, until stop.
func startProgress(out io.Writer, what string) *progress {
	p := &progress{quit: make(chan struct{}), ended: make(chan struct{})}
	if isTerminal(out) {
		go p.run(200*time.Millisecond, func(turn int, elapsed time.Duration) {
			fmt.Fprintf(out, "\r%c %s: %s ", `|/-\`[turn%4], what, elapsed)
		}, func(elapsed time.Duration) {
			fmt.Fprintf(out, "\r  %s: %s\n", what, elapsed)
		})
		return p
	}
	go p.run(10*time.Second, func(_ int, elapsed time.Duration) {
		fmt.Fprintf(out, "%s: %s so far\n", what, elapsed)
	}, func(time.Duration) {})
	return p
}

// stop ends the show, and returns when the last of it is written.
func (p *progress) stop() {
	close(p.quit)
	<-p.ended
}

func (p *progress) run(every time.Duration, show func(turn int, elapsed time.Duration), last func(elapsed time.Duration)) {
	defer close(p.ended)
	start := time.Now()
	elapsed := func() time.Duration { return time.Since(start).Round(time.Second) }
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ticker.C:
			show(turn, elapsed())
		case <-p.quit:
			last(elapsed())
			return
		}
	}
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}
