//go:build faults && linux

package faults_test

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/delivery"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/faults"
	"github.com/nepfy/clerk-stripe-sync/internal/sandbox/stripesim"
	"github.com/nepfy/clerk-stripe-sync/test/system"
)

// faultID is a kind of fault, by its place in the list of all.
type faultID uint

// faultSet is several of them.
type faultSet uint64

func (s faultSet) has(f faultID) bool { return s&(1<<f) != 0 }

func (s faultSet) each() iter.Seq[faultID] {
	return func(yield func(faultID) bool) {
		for f := range faultID(64) {
			if s.has(f) && !yield(f) {
				return
			}
		}
	}
}

// breakage is a kind of fault.
type breakage struct {
	name string
	// what may be in one fault's hands only at a time.
	needs string
	// begin breaks something for about that long, and answers what mends it.
	begin func(dice *rand.Rand, length time.Duration) (mend func() error, err error)
	// apart is what nobody may hold when it begins and when it ends; "" for nothing.
	apart string
	// lasts is how long it lasts, where that is not as long as others do.
	lasts time.Duration
	// brief is set where nothing lasts but the return: the length is that of being away.
	brief bool
}

// breakages are all faults.
func (s *stage) breakages() []breakage {
	all := []breakage{
		{name: "one starter-api is killed", needs: system.ProgramAPI, brief: true, begin: s.killing(system.ProgramAPI, 1)},
		{name: "both starter-api are killed", needs: system.ProgramAPI, brief: true, begin: s.killing(system.ProgramAPI, 2)},
		{name: "one worker is killed", needs: system.ProgramWorker, brief: true, begin: s.killing(system.ProgramWorker, 1)},
		{name: "both workers are killed", needs: system.ProgramWorker, brief: true, begin: s.killing(system.ProgramWorker, 2)},
		{name: "Temporal is killed", needs: "temporal", brief: true, begin: func(*rand.Rand, time.Duration) (func() error, error) {
			return s.ground.startTemporal, s.ground.killTemporal()
		}},
		{name: "Temporal cannot be reached", needs: "temporal", begin: func(dice *rand.Rand, _ time.Duration) (func() error, error) {
			s.ground.link.set([]linkState{linkCut, linkSilent}[dice.IntN(2)])
			return func() error { s.ground.link.set(linkOpen); return nil }, nil
		}},
		{name: "PostgreSQL is killed", needs: "postgres", brief: true, begin: func(*rand.Rand, time.Duration) (func() error, error) {
			return s.ground.startPostgres, s.ground.killPostgres()
		}},
		{name: "PostgreSQL is restarted", needs: "postgres", brief: true, begin: func(*rand.Rand, time.Duration) (func() error, error) {
			return s.ground.startPostgres, s.ground.stopPostgres()
		}},
		{name: "PostgreSQL is restored as it was", needs: "copy", apart: "postgres", lasts: s.backup, begin: s.restoring},
		{name: "the number sequence is set back", needs: "numbers", apart: "postgres", brief: true, begin: s.renumbering},
		{name: "the disk of the inbox is full", needs: "postgres", begin: func(*rand.Rand, time.Duration) (func() error, error) {
			return s.emptyDisk, s.fillDisk()
		}},
		{name: "deliveries are doubled", needs: "deliveries", begin: s.delivering(delivery.Faults{Double: 1, Unheard: 0.3})},
		{name: "deliveries are reordered", needs: "deliveries", begin: s.delivering(delivery.Faults{Reorder: 1, Delay: 3 * time.Second})},
		{name: "deliveries are lost", needs: "deliveries", begin: s.delivering(delivery.Faults{Lose: 1})},
		{name: "Stripe's clock jumps", needs: "clock", brief: true, begin: func(dice *rand.Rand, _ time.Duration) (func() error, error) {
			jump := time.Duration(24+dice.IntN(24)) * time.Hour
			return func() error { return nil }, s.Sandbox.Stripe.Advance(context.Background(), jump)
		}},
		{name: "customers are deleted in the dashboard", needs: "customers", brief: true, begin: s.customersDeleted},
		{name: "schedules are made, and their users deleted", needs: "schedules", brief: true, begin: s.schedulesBefore},
		{name: "users are deleted, and schedules made for them", needs: "schedules", brief: true, begin: s.schedulesAfter},
		{name: "Stripe stores 500s", needs: "posts", lasts: s.backup / 5, begin: s.storing(stripesim.Breakage{})},
		{name: "Stripe does what it stores 500s for", needs: "posts", lasts: s.backup / 5, begin: s.storing(stripesim.Breakage{Done: true})},
		{name: "a hundred times the load", needs: "load", begin: func(_ *rand.Rand, length time.Duration) (func() error, error) {
			return s.crowd.rush(min(length, 10*time.Second)), nil
		}},
	}
	for _, p := range []struct {
		name     string
		injector *faults.Injector
	}{{"Stripe", s.Sandbox.StripeFaults}, {"Clerk", s.Sandbox.ClerkFaults}} {
		for _, f := range []struct {
			name  string
			rules []faults.Rule
		}{
			{"is down", []faults.Rule{{DropBefore: true}}},
			// One in ten is answered when nobody waits any more.
			{"is slow", []faults.Rule{{Latency: 3 * time.Second}, {LatencyAfter: 2 * providerTimeout, Probability: 0.1}}},
			{"answers 429", []faults.Rule{{Status: http.StatusTooManyRequests, RetryAfter: 2 * time.Second}}},
			{"answers HTML", []faults.Rule{{Status: http.StatusOK, HTML: true, Probability: 0.5}, {Status: http.StatusBadGateway, HTML: true}}},
			{"breaks off its answers", []faults.Rule{{DropMidway: true, Probability: 0.7}}},
		} {
			all = append(all, breakage{name: p.name + " " + f.name, needs: p.name, begin: func(*rand.Rand, time.Duration) (func() error, error) {
				removing := make([]func(), len(f.rules))
				for i, rule := range f.rules {
					removing[i] = p.injector.Add(rule)
				}
				return func() error {
					for _, remove := range removing {
						remove()
					}
					return nil
				}, nil
			}})
		}
	}
	return all
}

// providerTimeout is PROVIDER_TIMEOUT of the programs.
const providerTimeout = 5 * time.Second

// killing kills copies of a program.
func (s *stage) killing(program string, copies int) func(*rand.Rand, time.Duration) (func() error, error) {
	return func(dice *rand.Rand, _ time.Duration) (func() error, error) {
		first := dice.IntN(copiesOfEach)
		var killed []*replica
		for i := range copies {
			r := s.replicas[program][(first+i)%copiesOfEach]
			r.kill()
			killed = append(killed, r)
		}
		return func() error {
			for _, r := range killed {
				s.spawn(r)
			}
			return nil
		}, nil
	}
}

// storing has Stripe answer each POST with a 500 that it keeps under the request's key.
func (s *stage) storing(b stripesim.Breakage) func(*rand.Rand, time.Duration) (func() error, error) {
	return func(*rand.Rand, time.Duration) (func() error, error) {
		restore := s.Sandbox.Stripe.Break(b)
		return func() error { restore(); return nil }, nil
	}
}

// delivering breaks the webhooks of both providers.
func (s *stage) delivering(f delivery.Faults) func(*rand.Rand, time.Duration) (func() error, error) {
	set := func(f delivery.Faults) {
		s.Sandbox.ClerkWebhooks.SetFaults(f)
		s.Sandbox.StripeWebhooks.SetFaults(f)
	}
	return func(*rand.Rand, time.Duration) (func() error, error) {
		set(f)
		return func() error { set(delivery.Faults{}); return nil }, nil
	}
}

// The room on the file system of the inbox, in bytes: where it is mounted it takes memory only as
// it fills.
const inboxRoom = 4 << 30

// fillDisk leaves no room where the inbox is stored.
func (s *stage) fillDisk() error {
	if s.ground.inbox == "" {
		return s.exec(`CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON webhook_events FOR EACH ROW EXECUTE FUNCTION full_disk()`)
	}
	return s.ground.shrinkInbox()
}

func (s *stage) emptyDisk() error {
	if s.ground.inbox == "" {
		return insist(func() error { return s.exec(`DROP TRIGGER IF EXISTS full_disk ON webhook_events`) })
	}
	return s.ground.growInbox()
}

// director breaks one thing after the other, by the dice of the run's seed.
type director struct {
	stage  *stage
	all    []breakage
	only   string // in the names of the faults that are to happen; "" for all
	counts map[faultID]int
}

// moment is a fault that is to come.
type moment struct {
	at     time.Duration
	fault  faultID
	length time.Duration
	dice   *rand.Rand
}

// script spreads every fault over the run, as often as there is room for.
func (d *director) script(dice *rand.Rand, lasts time.Duration) []moment {
	longest := min(lasts/60, 45*time.Second)
	// Two of the same fault's length apart on average, so that some overlap and most can be told
	// apart.
	rounds := max(1, int(lasts/(time.Duration(len(d.all))*max(longest, 6*time.Second))))
	rounds = min(rounds, maxRounds)
	var order []faultID
	for range rounds {
		for _, i := range dice.Perm(len(d.all)) {
			if strings.Contains(d.all[i].name, d.only) {
				order = append(order, faultID(i))
			}
		}
	}
	if len(order) == 0 {
		d.stage.t.Fatalf("FAULTS_ONLY: no fault has %q in its name", d.only)
	}
	slot := (lasts - lasts/12) / time.Duration(len(order))
	moments := make([]moment, len(order))
	for i, f := range order {
		at := time.Duration(i)*slot + time.Duration(dice.Int64N(int64(slot)))
		length := longest
		if d.all[f].brief {
			length = 200*time.Millisecond + time.Duration(dice.Int64N(int64(longest/2)))
		}
		if own := d.all[f].lasts; own != 0 {
			length = own
			at = min(at, lasts-lasts/12-own) // the run does not last longer for it
		}
		moments[i] = moment{at: at, fault: f, length: length, dice: rand.New(rand.NewPCG(dice.Uint64(), dice.Uint64()))}
	}
	return moments
}

// maxRounds is how often each fault happens at most.
const maxRounds = 3

// ending is a fault under way.
type ending struct {
	at    time.Time
	fault faultID
	mend  func() error
}

// direct plays the script, and mends everything in the end.
func (d *director) direct(script []moment, lasts time.Duration) {
	s := d.stage
	began := time.Now()
	var under []ending
	held := map[string]bool{}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	mend := func(e ending) {
		if err := e.mend(); err != nil {
			s.t.Fatalf("after %q: %v", d.all[e.fault].name, err)
		}
		delete(held, d.all[e.fault].needs)
		s.note(e.fault, false)
		s.t.Logf("%6.1fs mended: %s", time.Since(began).Seconds(), d.all[e.fault].name)
	}
	for range tick.C {
		over := time.Since(began) > lasts
		left := under[:0]
		for _, e := range under {
			if apart := d.all[e.fault].apart; time.Now().After(e.at) && !held[apart] {
				mend(e)
				continue
			}
			left = append(left, e)
		}
		under = left
		if over && len(script) == 0 && len(under) == 0 {
			return
		}
		s.supervise()
		for i, m := range script {
			if time.Since(began) < m.at {
				break
			}
			needs := d.all[m.fault].needs
			if held[needs] || held[d.all[m.fault].apart] {
				continue // its turn comes when that is mended
			}
			s.note(m.fault, true)
			end, err := d.all[m.fault].begin(m.dice, m.length)
			if errors.Is(err, errNobodyYet) && !over {
				s.note(m.fault, false)
				continue // its turn comes when somebody is there
			}
			script = append(script[:i:i], script[i+1:]...)
			s.t.Logf("%6.1fs broken for %s: %s", time.Since(began).Seconds(), m.length.Round(100*time.Millisecond), d.all[m.fault].name)
			if err != nil {
				s.t.Fatalf("at %q: %v", d.all[m.fault].name, err)
			}
			held[needs] = true
			d.counts[m.fault]++
			under = append(under, ending{at: time.Now().Add(m.length), fault: m.fault, mend: end})
			break
		}
	}
}
