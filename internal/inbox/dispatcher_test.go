package inbox_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/account"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/inbox"
)

type dispatching struct {
	*inbox.Dispatcher
	stop func()
}

func dispatch(t *testing.T, o *outbox, p *poker) *dispatching {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &dispatching{Dispatcher: inbox.NewDispatcher(inbox.DispatcherOptions{Outbox: o, Poker: p, Logger: silent()})}
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	d.stop = func() { cancel(); <-done }
	t.Cleanup(d.stop)
	return d
}

// Everything that is due is poked once, with its job, by as many at once as are good for the
// server.
func TestDispatcher(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{takes: 50 * time.Millisecond}
		for i := range 150 {
			o.ask(fmt.Sprintf("customer/cus_%d", i), account.JobSync, 0)
		}
		o.ask("user/user_1", account.JobOffboard, 0)
		dispatch(t, o, p)
		pass(5 * time.Second)
		entities, tries, most := p.sum()
		if entities != 151 || tries != 151 || o.due() != 0 {
			t.Errorf("%d entities poked in %d tries, %d left", entities, tries, o.due())
		}
		if user, customer := p.jobOf("user/user_1"), p.jobOf("customer/cus_1"); user != account.JobOffboard || customer != account.JobSync {
			t.Errorf("jobs %v and %v", user, customer)
		}
		if most != 16 {
			t.Errorf("%d pokes at once, want 16", most)
		}
	})
}

// Of a wave so many are poked as can be looked at; what somebody waits for goes past it, whenever
// it comes, and finds fewer under way if it is not the first. Nobody asks the database all the time
// for that, and nothing is left.
func TestDispatcherWindow(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{}
		o.slow = true
		const wave, window = 1000, 32
		for i := range wave {
			o.ask(fmt.Sprintf("customer/cus_%d", i), account.JobSync, 0)
		}
		d := dispatch(t, o, p)
		pass(time.Second)
		before := o.looks()
		for second := range 5 {
			if entities, _, _ := p.sum(); entities != window+second*11 {
				t.Errorf("%d were poked, and %d are done with, after %d s", entities, second*11, second)
			}
			o.looked(11)
			pass(time.Second)
		}
		for second := range 10 {
			if n := o.looking(); second > 2 && n != window/8 {
				t.Errorf("%d are under way while somebody waits", n)
			}
			name := fmt.Sprintf("customer/cus_new_%d", second)
			o.askUrgently(name)
			d.Wake()
			synctest.Wait()
			if p.count(name) != 1 {
				t.Errorf("%s stands behind the wave", name)
			}
			if !p.hurried(name) || p.hurried("customer/cus_0") {
				t.Errorf("its poke says of %s that it is urgent: %t, and of what is routine: %t", name, p.hurried(name), p.hurried("customer/cus_0"))
			}
			o.looked(11)
			pass(time.Second)
		}
		if n := o.looks() - before; n > 15*25 {
			t.Errorf("it has looked %d times in 15 seconds", n)
		}
		pass(10 * time.Second)
		if n := o.looking(); n != window {
			t.Errorf("%d are under way when nobody waits any more", n)
		}
		// Each commit wakes it, and a wave comes in many.
		before = o.routines()
		for range 1000 {
			d.Wake()
			pass(time.Millisecond)
		}
		if n := o.routines() - before; n > 25 {
			t.Errorf("it has counted what is under way %d times in a second", n)
		}
		for range wave {
			o.looked(window)
			pass(100 * time.Millisecond)
		}
		if entities, tries, _ := p.sum(); entities != wave+10 || tries != wave+10 || o.due() != 0 {
			t.Errorf("%d entities poked in %d tries, %d left", entities, tries, o.due())
		}
		// What comes by itself waits for nothing.
		o.ask("customer/cus_alone", account.JobSync, 0)
		d.Wake()
		synctest.Wait()
		if p.count("customer/cus_alone") != 1 {
			t.Error("one alone waits")
		}
	})
}

// It is woken by a commit in this program and by one elsewhere, looks by itself when something
// falls due, and does not look all the time.
func TestDispatcherLooks(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{}
		d := dispatch(t, o, p)
		synctest.Wait()
		before := o.looks()
		pass(time.Minute)
		if n := o.looks() - before; n < 5 || n > 7 {
			t.Errorf("it looked %d times in an idle minute, want every 10 s", n)
		}
		pass(time.Second)
		o.ask("customer/cus_1", account.JobSync, 0)
		d.Wake()
		synctest.Wait()
		if p.count("customer/cus_1") != 1 {
			t.Error("it was not woken")
		}
		o.ask("customer/cus_2", account.JobSync, 0)
		o.changed <- struct{}{}
		synctest.Wait()
		if p.count("customer/cus_2") != 1 {
			t.Error("it was not woken from elsewhere")
		}
		o.ask("customer/cus_3", account.JobSync, 3*time.Second)
		d.Wake()
		pass(3 * time.Second)
		synctest.Wait()
		if p.count("customer/cus_3") != 1 {
			t.Error("what fell due was not poked at its time")
		}
		for range 100 {
			d.Wake() // never blocks
		}
	})
}

// What is asked for while something else is being poked is poked right after it.
func TestDispatcherWokenDuringPokes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{takes: time.Second}
		o.ask("customer/cus_1", account.JobSync, 0)
		d := dispatch(t, o, p)
		pass(500 * time.Millisecond)
		o.ask("customer/cus_1", account.JobSync, 0)
		o.ask("customer/cus_2", account.JobSync, 0)
		d.Wake()
		pass(1500 * time.Millisecond)
		synctest.Wait()
		if p.count("customer/cus_1") != 2 || p.count("customer/cus_2") != 1 {
			t.Errorf("poked %d and %d times", p.count("customer/cus_1"), p.count("customer/cus_2"))
		}
	})
}

// While Temporal is down it is asked now and then, ever more rarely, also by who is woken; when it
// is back everything is poked, once, without anyone's help.
func TestDispatcherTemporalDown(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		down := func(account.Entity) error { return errors.New("unavailable") }
		o, p := newOutbox(), &poker{fail: down}
		for i := range 10 {
			o.ask(fmt.Sprintf("customer/cus_%d", i), account.JobSync, 0)
		}
		d := dispatch(t, o, p)
		for range 600 {
			d.Wake()
			pass(100 * time.Millisecond)
		}
		if _, tries, _ := p.sum(); tries < 100 || tries > 200 {
			t.Errorf("%d pokes in a minute without Temporal, want 10 about every 5 s", tries)
		}
		p.setFail(nil)
		pass(10 * time.Second)
		for i := range 10 {
			if n := p.count(fmt.Sprintf("customer/cus_%d", i)); n != 1 {
				t.Errorf("cus_%d was poked %d times", i, n)
			}
		}
		// And the pause is short again.
		p.setFail(down)
		o.ask("customer/cus_next", account.JobSync, 0)
		d.Wake()
		synctest.Wait()
		p.setFail(nil)
		pass(time.Second)
		if p.count("customer/cus_next") != 1 {
			t.Error("after a recovery the first failure costs a long pause")
		}
	})
}

// One entity that cannot be poked keeps nobody else from it.
func TestDispatcherOneFails(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o := newOutbox()
		p := &poker{fail: func(e account.Entity) error {
			switch e {
			case "customer/cus_bad":
				return errors.New("unavailable")
			case "customer/cus_never":
				return failure.New(failure.Permanent, "temporal", "poke", "no_such_entity", nil)
			default:
				return nil
			}
		}}
		for _, name := range []string{"bad", "never", "1", "2"} {
			o.ask("customer/cus_"+name, account.JobSync, 0)
		}
		dispatch(t, o, p)
		synctest.Wait()
		if p.count("customer/cus_1") != 1 || p.count("customer/cus_2") != 1 {
			t.Error("two good entities were not poked")
		}
		// As long as others can be poked, the one that cannot slows nobody down.
		for i := range 30 {
			entity := fmt.Sprintf("customer/cus_good_%d", i)
			o.ask(entity, account.JobSync, 0)
			pass(500 * time.Millisecond)
			if p.count(entity) != 1 {
				t.Fatalf("%s still waits after half a second", entity)
			}
		}
		pass(time.Minute)
		if o.due() != 1 {
			t.Errorf("%d left, want the one that fails", o.due())
		}
		// What is asked for meanwhile waits no longer than a pause.
		o.ask("customer/cus_3", account.JobSync, 0)
		pass(5 * time.Second)
		synctest.Wait()
		if p.count("customer/cus_3") != 1 {
			t.Error("an entity waits behind one that fails")
		}
	})
}

// While the database is away nothing is lost; what was poked and not noted is poked again when its
// lease ends, which changes nothing.
func TestDispatcherDatabaseAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{takes: time.Second}
		o.ask("customer/cus_1", account.JobSync, 0)
		dispatch(t, o, p)
		pass(500 * time.Millisecond)
		o.setAway(true)
		pass(time.Minute)
		if asked := o.looks(); asked > 30 {
			t.Errorf("the database was asked %d times in a minute", asked)
		}
		o.setAway(false)
		pass(10 * time.Second)
		if n := p.count("customer/cus_1"); n != 2 || o.due() != 0 {
			t.Errorf("poked %d times, %d left", n, o.due())
		}
	})
}

// While nobody can be heard it looks by itself, and listens again when it can.
func TestDispatcherListensAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{}
		o.deaf = 3
		dispatch(t, o, p)
		pass(100 * time.Millisecond)
		o.ask("customer/cus_1", account.JobSync, 0)
		pass(10 * time.Second)
		if p.count("customer/cus_1") != 1 {
			t.Error("what was not heard was never looked for")
		}
		pass(time.Second)
		o.ask("customer/cus_2", account.JobSync, 0)
		o.changed <- struct{}{}
		synctest.Wait()
		if p.count("customer/cus_2") != 1 {
			t.Error("it does not listen again")
		}
	})
}

// A stop waits for the pokes under way and gives the others back: the next copy has them at once.
func TestDispatcherStops(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{takes: time.Minute} // Temporal does not answer
		for i := range 60 {
			o.ask(fmt.Sprintf("customer/cus_%02d", i), account.JobSync, 0)
		}
		d := dispatch(t, o, p)
		pass(time.Second)
		started := time.Now()
		d.stop()
		if waited := time.Since(started); waited > 5*time.Second {
			t.Errorf("a stop took %s", waited)
		}
		if _, tries, _ := p.sum(); tries != 16 {
			t.Errorf("%d pokes were begun, want none after the stop", tries)
		}
		pass(time.Second)
		next := &poker{}
		dispatch(t, o, next)
		pass(100 * time.Millisecond) // more are due than may be under way
		if entities, _, _ := next.sum(); entities != 60 {
			t.Errorf("the next copy poked %d of 60", entities)
		}
	})
}

// Two copies share the work: nothing twice, nothing lost, and a copy that died leaves its claims.
func TestDispatchersShare(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		o, p := newOutbox(), &poker{takes: 10 * time.Millisecond}
		for i := range 300 {
			o.ask(fmt.Sprintf("customer/cus_%d", i), account.JobSync, 0)
		}
		// Somebody claimed ten and died.
		if claimed, _, _, err := o.ClaimPokes(t.Context(), 10, 10, 10*time.Second); len(claimed) != 10 || err != nil {
			t.Fatal(claimed, err)
		}
		dispatch(t, o, p)
		dispatch(t, o, p)
		pass(5 * time.Second)
		if entities, tries, _ := p.sum(); entities != 290 || tries != 290 {
			t.Errorf("%d poked in %d tries, want each of 290 once", entities, tries)
		}
		pass(6 * time.Second)
		if entities, tries, _ := p.sum(); entities != 300 || tries != 300 {
			t.Errorf("after the lease %d poked in %d tries, want each of 300 once", entities, tries)
		}
	})
}
