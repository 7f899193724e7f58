package system

import "go.uber.org/goleak"

// Leftover is what a stopped worker of the SDK may leave behind, for goleak to overlook: the
// coroutine of an update that came with the last task of a run. The SDK makes it before it runs the
// rest of the task, and when the run ends in that task, or the worker stops, it closes the
// coroutines that had their turn, and this one had none. It holds nothing but its stack.
func Leftover() goleak.Option {
	return goleak.IgnoreTopFunction("go.temporal.io/sdk/internal.(*coroutineState).initialYield")
}
