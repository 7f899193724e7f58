package kill_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// assassin ends programs once, at a moment of the story, and starts them again a little later.
type assassin struct {
	stage    *stage
	programs []string
	// stop asks the programs to end instead of killing them.
	stop bool
	// pause is how long they stay away.
	pause time.Duration

	statements map[string]*atomic.Int64 // of each program since it was watched

	once  sync.Once
	acted chan struct{} // closed when the programs have ended
	codes map[string]int
	took  time.Duration
	since time.Time
}

// newAssassin makes an assassin who has not acted yet, and who tends the story from now on.
func newAssassin(s *stage, programs ...string) *assassin {
	a := &assassin{stage: s, programs: programs, acted: make(chan struct{}), statements: map[string]*atomic.Int64{}, codes: map[string]int{}}
	for program := range s.relays {
		a.statements[program] = &atomic.Int64{}
	}
	s.tend = a.tend
	s.t.Cleanup(func() { // nothing may wait for an answer of ours when the relays close
		for _, relay := range s.relays {
			relay.OnAnswer(nil)
			relay.OnStatement(nil)
		}
	})
	return a
}

// watch looks at every statement that any of the programs has made, when PostgreSQL has answered it
// and the program does not know so yet, and acts once the condition holds.
func (a *assassin) watch(condition func(program, sql string, count int64) bool) {
	for program, relay := range a.stage.relays {
		relay.OnAnswer(func(sql string) {
			n := a.statements[program].Add(1)
			if !a.hasActed() && condition(program, sql, n) {
				a.act()
			}
		})
	}
}

// act ends the programs, the first time it is called. A process that is killed is gone when it
// returns.
func (a *assassin) act() {
	a.once.Do(func() {
		began := time.Now()
		end := func() {
			var ending sync.WaitGroup
			var mu sync.Mutex
			for _, program := range a.programs {
				p := a.stage.running[program]
				ending.Go(func() {
					if !a.stop {
						p.Kill()
						return
					}
					ctx, cancel := context.WithTimeout(context.Background(), system.Patience())
					defer cancel()
					code, err := p.Stop(ctx)
					if err != nil {
						p.Kill()
					}
					mu.Lock()
					defer mu.Unlock()
					a.codes[program] = code
				})
			}
			ending.Wait()
			a.since, a.took = time.Now(), time.Since(began)
			close(a.acted)
		}
		if a.stop {
			go end() // the program may need the answer that waits for us
			return
		}
		end()
	})
}

func (a *assassin) hasActed() bool {
	select {
	case <-a.acted:
		return true
	default:
		return false
	}
}

// tend starts the programs again once they have been away for long enough.
func (a *assassin) tend() {
	if !a.hasActed() || time.Since(a.since) < a.pause {
		return
	}
	for _, program := range a.programs {
		if a.stage.running[program].Ended() {
			a.stage.start(program)
		}
	}
}

// chance is the dice of one story: the same seed and story give the same moment.
func chance(seed, story uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, story)) }
