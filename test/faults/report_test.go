//go:build faults && linux

package faults_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
)

// The lines between which the page has the table of a run.
const (
	reportBegins = "<!-- the table of a run: FAULTS_REPORT=write -->"
	reportEnds   = "<!-- the end of the table -->"
)

// writeReport puts a run's table into the page.
func writeReport(table string, lasts time.Duration, seed uint64) error {
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		return err
	}
	page := filepath.Join(root, "docs", "reliability.md")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, begins := strings.Cut(string(text), reportBegins)
	_, tail, ends := strings.Cut(rest, reportEnds)
	if !begins || !ends {
		return fmt.Errorf("%s has no place for the table", page)
	}
	command := fmt.Sprintf("```\nFAULTS_SEED=%d make test-faults FAULTS_FOR=%s\n```\n", seed, short(lasts))
	return os.WriteFile(page, []byte(head+reportBegins+"\n\n"+command+"\n"+table+"\n"+reportEnds+tail), 0o644)
}

// short is a duration without what is nought in it.
func short(d time.Duration) string {
	text := d.String()
	for _, nought := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, nought) {
			text = text[:len(text)-2]
		}
	}
	return text
}
