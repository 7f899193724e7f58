package kill_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// undisturbed is the story as it goes when nobody interferes: its states, and how many statements
// each program made meanwhile, which is what a moment of it is measured by.
type undisturbed struct {
	once              sync.Once
	customer, deleted state
	statements        map[string]int64
}

var reference undisturbed

// story answers the undisturbed story. The first test that asks plays it.
func (u *undisturbed) story(t *testing.T) *undisturbed {
	t.Helper()
	u.once.Do(func() {
		s := newStage(t)
		observer := newAssassin(s)
		observer.watch(func(string, string, int64) bool { return false })
		customer, deleted := s.play()
		statements := map[string]int64{}
		for program, n := range observer.statements {
			statements[program] = n.Load()
		}
		u.statements, u.customer, u.deleted = statements, customer, deleted
	})
	if u.deleted == nil {
		t.Fatal("the undisturbed story failed")
	}
	return u
}

// Each program, and both at once, is killed at moments that are spread over the whole story, and
// started again. It always ends in the same state.
//
// A moment is an answer of PostgreSQL's that the program gets no more, or that it got a moment ago:
// before and after everything that a program does there is one. KILL_SEED repeats the moments of a
// run, KILL_ROUNDS makes more of them.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed, rounds := seedOf(t), roundsOf(t)
	for kind, victims := range []struct {
		name     string
		programs []string
		rounds   int
	}{
		{system.ProgramWorker, []string{system.ProgramWorker}, rounds},
		{system.ProgramAPI, []string{system.ProgramAPI}, rounds},
		{"both", []string{system.ProgramWorker, system.ProgramAPI}, (rounds + 1) / 2},
	} {
		for round := range victims.rounds {
			t.Run(fmt.Sprintf("%s-%d", victims.name, round), func(t *testing.T) {
				t.Parallel()
				dice := chance(seed, uint64(kind)<<32|uint64(round))
				timing := victims.programs[dice.IntN(len(victims.programs))]
				strike(t, dice, timing, round, victims.rounds, victims.programs, false)
			})
		}
	}
}

// A program that is asked to stop, at any moment, answers what it has begun, refuses nothing for
// good and ends with 0; what it leaves is done by the next.
func TestStoppedAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed, rounds := seedOf(t), (roundsOf(t)+2)/3
	for kind, program := range []string{system.ProgramWorker, system.ProgramAPI} {
		for round := range rounds {
			t.Run(fmt.Sprintf("%s-%d", program, round), func(t *testing.T) {
				t.Parallel()
				dice := chance(seed, uint64(kind+8)<<32|uint64(round))
				a := strike(t, dice, program, round, rounds, []string{program}, true)
				if code := a.codes[program]; code != 0 {
					t.Errorf("%s ended with %d", program, code)
				}
				// What is left then is cut off. On a busy machine a process takes a while beside that.
				if limit := shutdownTimeout + system.Patience()/9; a.took > limit {
					t.Errorf("%s took %s to end", program, a.took)
				}
				a.stage.refusedNothing()
			})
		}
	}
}

// shutdownTimeout is SHUTDOWN_TIMEOUT in the environment that the programs are given.
const shutdownTimeout = 5 * time.Second

// strike plays the story, ends programs at a moment in one slice of it, and compares the ends. The
// moment is counted by the statements of one of the programs.
func strike(t *testing.T, dice *rand.Rand, timing string, round, rounds int, programs []string, stop bool) *assassin {
	t.Helper()
	want := reference.story(t)
	slice := float64(want.statements[timing]) / float64(rounds)
	moment := int64((float64(round) + dice.Float64()) * slice)
	delay := time.Duration(0)
	if dice.IntN(2) == 0 { // half of them while the program waits for the answer
		delay = time.Duration(dice.Int64N(int64(20 * time.Millisecond)))
	}
	s := newStage(t)
	a := newAssassin(s, programs...)
	a.stop, a.pause = stop, time.Duration(dice.Int64N(int64(500*time.Millisecond)))
	t.Logf("after %d of %d statements of %s, and %s; away for %s", moment, want.statements[timing], timing, delay, a.pause)
	a.watch(func(program, sql string, count int64) bool {
		if program != timing || count != moment+1 {
			return false
		}
		t.Logf("after %q", fmt.Sprintf("%.60s", sql))
		if delay > 0 {
			time.AfterFunc(delay, a.act)
		}
		return delay == 0
	})
	a.ends(want)
	return a
}

// ends plays the story, sees to it that the assassin has acted, and compares the ends.
func (a *assassin) ends(want *undisturbed) {
	s := a.stage
	s.t.Helper()
	customer, deleted := s.play()
	if !a.hasActed() {
		// The story took fewer statements than the undisturbed one: the moment is after its end.
		a.act()
		<-a.acted
		s.settled()
		deleted = s.state()
	}
	customer.differsFrom(s.t, "before the deletion", want.customer)
	deleted.differsFrom(s.t, "in the end", want.deleted)
}

func seedOf(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if given := os.Getenv("KILL_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatalf("KILL_SEED: %v", err)
		}
	}
	t.Logf("KILL_SEED=%d", seed)
	return seed
}

func roundsOf(t *testing.T) int {
	t.Helper()
	rounds := 6
	if given := os.Getenv("KILL_ROUNDS"); given != "" {
		var err error
		if rounds, err = strconv.Atoi(given); err != nil || rounds < 1 {
			t.Fatal("KILL_ROUNDS is not a number from 1")
		}
	}
	return rounds
}

// refusedNothing fails the test for a delivery that was refused for good, or with anything that a
// provider could take for that: it may only have found nobody, or been told to come again.
func (s *stage) refusedNothing() {
	s.t.Helper()
	for _, attempt := range append(s.Sandbox.ClerkWebhooks.Log(), s.Sandbox.StripeWebhooks.Log()...) {
		switch attempt.Status {
		case 0, 200, 503:
		default:
			s.t.Errorf("a delivery was answered %d: %v", attempt.Status, attempt.Err)
		}
	}
}
