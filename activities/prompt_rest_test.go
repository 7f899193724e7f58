package activities

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// One publish that fails keeps the next from trying for a moment, and many that fail for longer,
// but never for more than ten seconds; those that fail side by side are one. The first that
// succeeds ends it.
func TestPublishersRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &PromptPublisher{}
		failed := errors.New("late")
		for _, want := range []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
			if p.rests() {
				t.Fatalf("it rests longer than before %s", want)
			}
			for range 5 {
				p.saw(failed)
			}
			time.Sleep(want - time.Nanosecond)
			if !p.rests() {
				t.Errorf("it rests for less than %s", want)
			}
			time.Sleep(time.Nanosecond)
		}
		p.saw(nil)
		p.saw(failed)
		time.Sleep(250 * time.Millisecond)
		if p.rests() {
			t.Error("what has succeeded does not count")
		}
	})
}
