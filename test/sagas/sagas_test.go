package sagas_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/internal/localstack"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// atOnce is how many cases are under way at a time.
const atOnce = 6

// Every step of every command fails for good, and meets somebody who changes the same thing: the
// callers are told in time what came of it.
func TestStepsThatFailForGood(t *testing.T) {
	t.Parallel()
	s := setTheStage(t, map[string]string{"COMMAND_WAIT": "8s"})
	s.StartAPI()
	s.StartWorker()
	play(t, s, cells(forGood, portal, portal2), func(c *cell) {
		c.arm()
		c.ask()
		c.mend()
		c.look()
	})
}

// Every step of every command fails for a while: the callers are told that it is being settled, and
// it is.
func TestStepsThatFailForAWhile(t *testing.T) {
	t.Parallel()
	s := setTheStage(t, map[string]string{"COMMAND_WAIT": "2s"})
	s.StartAPI()
	s.StartWorker()
	play(t, s, cells(minute), func(c *cell) {
		c.arm()
		c.ask()
		if c.answer.status != http.StatusAccepted {
			t.Errorf("%s: answered %+v while it failed", c, c.answer)
		}
		c.reached() // on a busy machine the caller's patience may end before the step is begun
		c.mend()
		c.look()
	})
}

// The worker is killed at every step of every command, before and after what it asked for took
// effect; the next one goes on.
func TestWorkerKilledAtEachStep(t *testing.T) {
	t.Parallel()
	s := setTheStage(t, map[string]string{"COMMAND_WAIT": "2s"})
	s.StartAPI()
	worker := s.StartProcess(system.ProgramWorker, nil)
	all := cells(killed, killed2)
	s.sell()
	for i, p := range s.subscribers(len(all)) {
		if err := all[i].prepare(p); err != nil {
			t.Fatal(all[i], err)
		}
	}
	s.settle(all)
	// What waits for the database does not wait long, so it comes last.
	slices.SortStableFunc(all, func(a, b *cell) int { return boolToInt(inDatabase(a.step)) - boolToInt(inDatabase(b.step)) })
	var asking sync.WaitGroup
	for _, c := range all {
		c.arm()
		asking.Go(c.ask)
	}
	for _, c := range all {
		c.reached()
	}
	worker.Kill()
	asking.Wait()
	for _, c := range all {
		c.mend()
	}
	s.StartProcess(system.ProgramWorker, nil)
	for _, c := range all {
		c.look()
	}
	judge(t, all)
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// play plays cases, several at a time, and judges them.
func play(t *testing.T, s *stage, all []*cell, act func(*cell)) {
	t.Helper()
	s.sell()
	for i, p := range s.subscribers(len(all)) {
		if err := all[i].prepare(p); err != nil {
			t.Fatal(all[i], err)
		}
	}
	s.settle(all)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, c := range all {
		group.Go(func() error { act(c); return nil })
	}
	_ = group.Wait() // failures are told as they come
	judge(t, all)
}

// settle waits until everybody is where their command finds them, in all three systems.
func (s *stage) settle(all []*cell) {
	s.t.Helper()
	s.UntilWithin(5*time.Minute, "the cases are prepared", func(ctx context.Context) error {
		for _, c := range all {
			if got := c.p.ends(); got != c.saga.from {
				return fmt.Errorf("%s: it is %q", c, got)
			}
			if err := s.Agreement(ctx, c.p.user, policy()); err != nil {
				return fmt.Errorf("%s: %w", c, err)
			}
		}
		return nil
	})
	s.Rest() // a look that is still under way would meet what is meant for the command
}

// effect waits until a step has taken effect at Stripe, as far as that shows.
func (p *subscriber) effect(step string, g saga) {
	if step != stepChange && step != stepUndo {
		return
	}
	want := g.to
	if step == stepUndo {
		want = g.from
	}
	p.s.Until("the step has taken effect", func(context.Context) error {
		if got := p.ends(); got != want {
			return errors.New(got)
		}
		return nil
	})
}

// ask gives the command.
func (c *cell) ask() {
	answer, err := c.p.asks(http.MethodPost, "/api/subscriptions/"+c.p.subscription+"/"+c.saga.path, c.saga.body)
	if err != nil {
		c.p.s.t.Errorf("%s: %v", c, err)
	}
	c.answer = answer
}

// look waits until all is over and notes what came of it.
func (c *cell) look() {
	c.status = c.p.settled(c.answer.operation)
	c.p.s.UntilWithin(3*time.Minute, fmt.Sprintf("the three systems agree after %s", c), func(ctx context.Context) error {
		return c.p.s.Agreement(ctx, c.p.user, policy())
	})
	c.state, c.story = c.p.ends(), c.p.story()
}

// judge holds what came of the cases against what is promised.
func judge(t *testing.T, all []*cell) {
	t.Helper()
	for _, c := range all {
		bad := func(format string, args ...any) {
			t.Errorf("%s: answered %d %s, ended %s, state %q, audit %q: %s", c, c.answer.status, c.answer.code, c.status, c.state, c.story, fmt.Sprintf(format, args...))
		}
		// The caller was told the truth.
		told := map[int]string{http.StatusOK: "done", http.StatusConflict: "refused superseded", http.StatusBadGateway: "failed undone", http.StatusServiceUnavailable: "failed expired"}
		if c.answer.status != http.StatusAccepted && !strings.Contains(told[c.answer.status], c.status) {
			bad("the answer says something else than the operation")
		}
		// All new, all old, or all as somebody else wanted it.
		byPortal := strings.HasPrefix(c.fault, "the portal")
		switch c.status {
		case "done":
			if c.state != c.saga.to && !(byPortal && c.state == endsByDate) {
				bad("it is done and does not show")
			}
		case "failed", "refused", "undone", "expired":
			if c.state != c.saga.from && !(byPortal && c.state == endsByDate) {
				bad("it is not done and something is left of it")
			}
		case "superseded":
			if !byPortal || c.state != endsByDate {
				bad("nobody has superseded it")
			}
		default:
			bad("it has no end")
		}
		// The audit log tells the same story.
		if last := c.story[strings.LastIndex(c.story, " ")+1:]; last != c.status && !(last == "recorded" && c.status == "done") {
			bad("the audit log tells another story")
		}
	}
	if !t.Failed() {
		document(t, all)
	}
}

// document compares what came of the cases with the table in docs/consistency.md, or, with
// CONSISTENCY=write, writes it there.
func document(t *testing.T, all []*cell) {
	t.Helper()
	root, err := localstack.ProjectRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "docs", "consistency.md")
	tables.Lock()
	defer tables.Unlock()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), tableHead)
	table, after, ended := strings.Cut(rest, "\n\n")
	if !found || !ended {
		t.Fatal("docs/consistency.md has no table")
	}
	rows := map[string]string{}
	for line := range strings.Lines(table) {
		if columns := strings.Split(line, " | "); len(columns) == 6 {
			rows[strings.Join(columns[:3], " | ")] = strings.TrimSpace(line)
		}
	}
	write := os.Getenv("CONSISTENCY") == "write"
	for _, c := range all {
		if has := rows[c.key()]; !c.same(has) {
			if !write {
				t.Errorf("docs/consistency.md has %q, and it came out as %q", has, c.row(c.told()))
			}
			rows[c.key()] = c.row(c.told())
		}
	}
	if !write {
		return
	}
	table = ""
	for _, c := range cells(forGood, minute, killed, killed2, portal, portal2) {
		if row := rows[c.key()]; row != "" {
			table += "\n" + row
		}
	}
	if err := os.WriteFile(path, []byte(before+tableHead+table+"\n\n"+after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tableHead begins the table.
const tableHead = `| command | step | fault | answer | operation | in the end |
| --- | --- | --- | --- | --- | --- |`

func (c *cell) key() string { return fmt.Sprintf("| %s | %s | %s", c.saga.name, c.step, c.fault) }

func (c *cell) row(told string) string {
	return fmt.Sprintf("%s | %s | %s | %s |", c.key(), told, c.status, c.state)
}

// same tells whether a row says what came out. Whether the caller's patience lasted until the end
// is a matter of how busy the machine is.
func (c *cell) same(row string) bool {
	columns := strings.Split(row, " | ")
	if len(columns) != 6 || row != c.row(columns[3]) {
		return false
	}
	return columns[3] == c.told() || c.answer.status == http.StatusAccepted || c.answer.status == http.StatusOK && columns[3] == "202"
}

var tables sync.Mutex

// told is the answer as the table has it.
func (c *cell) told() string {
	if c.answer.status == http.StatusOK || c.answer.status == http.StatusAccepted {
		return fmt.Sprint(c.answer.status)
	}
	return fmt.Sprintf("%d `%s`", c.answer.status, c.answer.code)
}
