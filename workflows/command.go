package workflows

import (
	"errors"
	"regexp"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/nepfy/clerk-stripe-sync/activities"
)

// UpdateCommand asks a customer's workflow to do what an operation says, and answers when that has
// ended or the caller's patience has. Its update id is the operation's id, so that asking again, in
// the same run, joins the first.
const UpdateCommand = "command"

// CommandRequest names an operation, which stands in the database with all that is asked for.
type CommandRequest struct {
	OperationID string `json:"operationId"`
	// ExpiresAt is when the operation may not be begun any more.
	ExpiresAt time.Time `json:"expiresAt"`
	// Wait is the caller's patience. What is not done by then is done all the same.
	Wait time.Duration `json:"wait"`
}

// CommandAnswer says how far the operation is; what came of it stands in its row.
type CommandAnswer struct {
	Settled bool `json:"settled"`
}

// longestWait bounds how long an update may keep a run from continuing as new.
const longestWait = 2 * time.Minute

var operationID = regexp.MustCompile(`^op_[a-z0-9]{20,40}$`)

// validateCommand looks at form and expiry only: whether the state allows a command is decided when
// it is known, and with it.
func validateCommand(ctx workflow.Context, in CommandRequest) error {
	switch {
	case !operationID.MatchString(in.OperationID):
		return errors.New("not the id of an operation")
	case in.Wait <= 0 || in.Wait > longestWait:
		return errors.New("not a time to wait")
	case !workflow.Now(ctx).Before(in.ExpiresAt):
		return errors.New("the operation has expired")
	default:
		return nil
	}
}

// command is an operation that this run sees to. It goes on for as long as it takes, whoever waits
// for it: until Stripe has confirmed, by asking again; after that, until Clerk has it, or until it
// is taken back because Clerk refuses for good.
type command struct {
	id string
	// recorded is set while Stripe and our rows have it and only Clerk is left.
	recorded bool
	ended    bool
	// place is where it stands while it waits for its turn to act on the customer, else nil. gaveWay
	// is set once it was given up so that others could.
	place   *place
	gaveWay bool
	// behindLook is set where one of them is a look for which somebody waits. It counts in runs that
	// do not know of changeTurns.
	behindLook bool
	// hurries is set while somebody waits for it who has come since it last had its turn.
	hurries bool
	// repeats is how the step that is under way was begun anew.
	repeats repeats
}

// onCommand answers an update.
func (l *lifecycle) onCommand(ctx workflow.Context, in CommandRequest) (CommandAnswer, error) {
	l.underWay.rouse(ctx, changeRouse) // whatever acts on the customer and sleeps: the command waits for it
	c := l.command(in.OperationID)
	if c.recorded && c.place == nil {
		l.publisher.hurries = true // it waits for Clerk
	} else {
		c.hurries = true
	}
	ended, err := workflow.AwaitWithTimeout(ctx, in.Wait, func() bool { return c.ended })
	return CommandAnswer{Settled: ended}, err
}

// command sees to an operation, unless that is under way.
func (l *lifecycle) command(id string) *command {
	if i := slices.IndexFunc(l.commands, func(c *command) bool { return c.id == id }); i >= 0 {
		return l.commands[i]
	}
	c := &command{id: id, place: l.turns.first()}
	l.commands = append(l.commands, c)
	l.spawn(func(ctx workflow.Context) {
		l.execute(ctx, c)
		c.ended = true
		l.commands = slices.DeleteFunc(l.commands, func(other *command) bool { return other == c })
	})
	return c
}

// execute does what an operation asks for. A failure here is one that no attempt can mend; the
// operation's row says what became of it, and the sweep comes back to one that has not ended.
func (l *lifecycle) execute(ctx workflow.Context, c *command) {
	result, err := l.act(ctx, l.set.commands.ApplyCommand, c)
	if err != nil || !result.Recorded {
		return
	}
	c.recorded = true
	for {
		ticket := l.publisher.ask(awaited(ctx), result.ClerkUserID, false)
		if workflow.Await(ctx, func() bool { return l.publisher.done(ticket) }) != nil || !l.publisher.failed {
			return // cancelled; or Clerk has it, and its row is settled with that
		}
		if !result.Reversible {
			return // it can only go forward, and the sweep sees to that
		}
		// What was done last is taken back first: each undo finds things as its own step left them.
		if workflow.Await(ctx, func() bool { return l.last() == c }) != nil {
			return
		}
		undone, err := l.act(ctx, l.set.commands.UndoCommand, c)
		if err != nil {
			return
		}
		c.recorded = undone.Recorded
		if !c.recorded {
			return // undone, or somebody else's by now; what is to be published is asked for already
		}
		if result = undone; !result.Reversible {
			return
		}
	}
}

// last is the command that was recorded last, of those whose end is open.
func (l *lifecycle) last() *command {
	for _, c := range slices.Backward(l.commands) {
		if c.recorded {
			return c
		}
	}
	return nil
}

// laterWaits tells whether a command that was asked for after another waits for its turn; nil
// stands for a look, which came before all.
func (l *lifecycle) laterWaits(c *command) bool {
	later := l.commands[slices.Index(l.commands, c)+1:]
	return slices.ContainsFunc(later, func(other *command) bool { return other.place != nil })
}

// wanted tells whether somebody waits for their turn to act on the customer, or for a look at it.
func (l *lifecycle) wanted() bool {
	return l.pokes.press() || l.turns.pressed() || slices.ContainsFunc(l.commands, func(c *command) bool { return c.hurries })
}

// forget has who waits by now wait for whatever comes.
func (l *lifecycle) forget() {
	l.pokes.forget()
	l.turns.forget()
	for _, c := range l.commands {
		c.hurries = false
	}
}

// act runs one step of a command while nothing else may happen to the customer, and takes over what
// the step saw. Its turn ends before Clerk is waited for.
func (l *lifecycle) act(ctx workflow.Context, activity any, c *command) (activities.CommandResult, error) {
	if c.place == nil {
		c.place = l.turns.first()
	}
	for {
		result, roused, err := l.try(ctx, activity, c)
		if !roused {
			return result, err
		}
		c.place = l.turns.last(true)
	}
}

// try is one try at a step. roused is set where it was given up for somebody else's command, or
// because it was asked for again.
func (l *lifecycle) try(ctx workflow.Context, activity any, c *command) (result activities.CommandResult, roused bool, err error) {
	err = l.turns.take(ctx, c.place, true, func() bool {
		// A look that gave way itself does not go before.
		return c.gaveWay && (l.laterWaits(c) || c.behindLook && !l.gaveWay && l.pokes.press())
	})
	c.place, c.hurries, c.behindLook = nil, false, false
	if err != nil {
		return result, false, err
	}
	defer l.turns.end()
	in := activities.CommandInput{OperationID: c.id, CustomerID: l.in.CustomerID, Overdue: l.overdue, GaveWay: c.gaveWay}
	roused, err = l.underWay.execute(urgently(onStripe(ctx)), &c.repeats, &result, activity, in)
	c.hurries = c.hurries && roused // nobody waits for a step that has ended
	if err != nil {
		if ctx.Err() == nil && !roused {
			workflow.GetLogger(ctx).Error("a command failed", "customer", l.in.CustomerID, "operation", c.id, "error", err)
		}
		c.gaveWay = c.gaveWay || roused
		if roused && l.pokes.press() && workflow.GetVersion(ctx, changeRouseLater, workflow.DefaultVersion, 1) != workflow.DefaultVersion {
			c.behindLook, l.gaveWay = true, false
		}
		return result, roused, err
	}
	if result.Looked {
		l.adopt(ctx, result.Record)
		l.showFailure(ctx)
		if result.Record.StopDue {
			l.due = true // the deletion policy has something to stop
		}
		if result.Record.PublishDue {
			l.publisher.ask(awaited(ctx), result.Record.ClerkUserID, false)
		}
	}
	return result, false, nil
}

// awaited has what follows done as what a person waits for.
func awaited(ctx workflow.Context) workflow.Context {
	return prioritized(ctx, activities.PriorityPerson, "command")
}

// urgently puts an activity before others where the server knows priorities, and has it begun again
// soon if its worker dies: a person is waiting.
func urgently(ctx workflow.Context) workflow.Context {
	ctx = prioritized(ctx, activities.PriorityPerson, "command")
	return workflow.WithHeartbeatTimeout(ctx, 12*time.Second)
}
