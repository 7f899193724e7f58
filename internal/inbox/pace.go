package inbox

import (
	"time"

	"golang.org/x/time/rate"

	"github.com/nepfy/clerk-stripe-sync/internal/store"
)

// pace spreads routine pokes over time. After a quiet while a claim's worth goes at once.
type pace struct {
	limiter *rate.Limiter
	// least is for how many at a time it is worth asking the database.
	least int
}

// asksASecond is how often a wave has the database asked for its next pokes.
const asksASecond = 10

func newPace(perSecond float64) *pace {
	if perSecond <= 0 {
		return &pace{limiter: rate.NewLimiter(rate.Inf, claimLimit), least: 1}
	}
	return &pace{limiter: rate.NewLimiter(rate.Limit(perSecond), claimLimit), least: min(max(int(perSecond/asksASecond), 1), claimLimit)}
}

// allowed is how many routine pokes may be claimed now.
func (p *pace) allowed() int {
	if p.limiter.Limit() == rate.Inf {
		return claimLimit
	}
	n := int(p.limiter.Tokens())
	if n < p.least {
		return 0
	}
	return n
}

// took counts those that were claimed.
func (p *pace) took(claimed []store.Poke) {
	n := 0
	for _, c := range claimed {
		if !c.Urgent {
			n++
		}
	}
	p.limiter.ReserveN(time.Now(), n)
}

// wait is how long until the next may be claimed.
func (p *pace) wait() time.Duration {
	if p.allowed() > 0 {
		return 0
	}
	missing := float64(p.least) - p.limiter.Tokens()
	return max(time.Duration(missing/float64(p.limiter.Limit())*float64(time.Second)), time.Millisecond)
}
