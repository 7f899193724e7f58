package app

import (
	"context"
	"errors"
	"io"
	"time"

	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"github.com/nepfy/clerk-stripe-sync/activities"
	"github.com/nepfy/clerk-stripe-sync/internal/config"
	"github.com/nepfy/clerk-stripe-sync/internal/failure"
	"github.com/nepfy/clerk-stripe-sync/internal/httpapi"
	"github.com/nepfy/clerk-stripe-sync/internal/runs"
	"github.com/nepfy/clerk-stripe-sync/internal/store"
	"github.com/nepfy/clerk-stripe-sync/workflows"
)

// Worker runs workflows and activities.
type Worker struct {
	config    config.Worker
	runtime   *runtime
	providers providers
	identity  *identityWatch
	health    *httpapi.Health
	metrics   *httpapi.Server // nil if switched off
}

// NewWorker reads the configuration from environ, takes the metrics address and looks once
// whether the keys belong to the database. The error says all that is wrong.
func NewWorker(ctx context.Context, environ map[string]string, logs io.Writer) (*Worker, error) {
	c, err := config.LoadWorker(environ)
	if err != nil {
		return nil, err
	}
	r, err := newRuntime(ctx, environ, logs, c.Logging, c.Database, c.Policy)
	if err != nil {
		return nil, err
	}
	w := &Worker{config: c, runtime: r, identity: newIdentityWatch(r, c.Providers)}
	w.providers = newProviders(r, c.Providers, w.identity)
	if err := w.identity.start(ctx); err != nil {
		w.Close()
		return nil, err
	}
	w.health = httpapi.NewHealth(httpapi.HealthOptions{Checks: append(checks(r, w.identity), schedulesCheck(r, c.Schedules)), Logger: r.logger})
	w.metrics, err = listenMetrics(ctx, r, c.MetricsAddr, w.health, httpapi.ServerOptions{Logger: r.logger, ShutdownTimeout: c.ShutdownTimeout})
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// MetricsAddr is where /metrics, /healthz and /readyz are served, "" if they are not.
func (w *Worker) MetricsAddr() string {
	if w.metrics == nil {
		return ""
	}
	return w.metrics.Addr()
}

// Close gives back what NewWorker took. It is for a program that is not run.
func (w *Worker) Close() {
	if w.metrics != nil {
		_ = w.metrics.Close() // nothing was served
	}
	w.runtime.close()
}

// Run works until the context ends; activities in progress then have the shutdown timeout to
// end. Metrics and health are served until they have.
func (w *Worker) Run(ctx context.Context) error {
	defer w.runtime.close()
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, w.health.Stop)()
	working, done := context.WithCancel(context.WithoutCancel(ctx))
	defer done()
	if w.metrics != nil {
		group.Go(func() error { return w.metrics.Serve(working) })
	}
	group.Go(func() error { return w.identity.run(ctx) })
	group.Go(func() error { w.runtime.raiseNumbers(ctx); return nil })
	group.Go(func() error { defer done(); w.keepWorking(ctx); return nil })
	err := group.Wait()
	w.runtime.logger.InfoContext(ctx, "worker stopped", "operation", "stop")
	return err
}

// The pauses while Temporal cannot be reached.
const (
	firstRestart = 500 * time.Millisecond
	lastRestart  = 10 * time.Second
)

// keepWorking runs the workers, and starts them again when the server, or the namespace, was
// gone: a worker of the SDK gives up on those.
func (w *Worker) keepWorking(ctx context.Context) {
	pause := firstRestart
	for ctx.Err() == nil {
		started := time.Now()
		err := w.work(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(started) > time.Minute {
			pause = firstRestart
		}
		w.runtime.logger.WarnContext(ctx, "workers stopped and are started again", "operation", "work", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(pause*2, lastRestart)
	}
}

// work runs one worker a task queue until the context ends or one of them fails.
func (w *Worker) work(ctx context.Context) error {
	fatal := make(chan error, 3)
	workers := w.workers(func(err error) {
		select {
		case fatal <- err:
		default:
		}
	})
	running := 0
	defer func() {
		var stopping errgroup.Group
		for _, each := range workers[:running] {
			stopping.Go(func() error { each.Stop(); return nil })
		}
		_ = stopping.Wait() // Stop returns nothing
	}()
	for _, each := range workers {
		if err := each.Start(); err != nil {
			return errors.New("starting a worker: Temporal is not reachable or refuses us")
		}
		running++
	}
	w.runtime.logger.InfoContext(ctx, "worker polls", "operation", "start", "namespace", w.runtime.namespace)
	select {
	case err := <-fatal:
		return err
	case <-ctx.Done():
		return nil
	}
}

// callsPerActivity is how many calls an activity on a provider's queue makes, as a rule: nearly all
// make one. With it the rate of a task queue keeps all workers together below the provider's limit;
// what makes more calls waits for the client's own limiter.
const callsPerActivity = 1.25

// bulkAtOnce is how many entities a bulk sync brings in at the same time: enough to keep a provider
// that takes a quarter of a second to answer at its rate.
const bulkAtOnce = 32

// pollers is how many requests for work each worker keeps open on its task queue.
const pollers = 8

// deadlockAfter is how long a workflow may run without waiting before the SDK takes it for a
// deadlock and fails its task. Our workflows decide and wait, and compute nothing: if one runs for
// the SDK's own limit of a second, the machine is busy or throttled. Ten seconds is Temporal's
// timeout of a workflow task, after which the server retries it anyway.
const deadlockAfter = 10 * time.Second

func (w *Worker) workers(onFatal func(error)) []worker.Worker {
	c, r := w.config, w.runtime
	access := accessOf(c.Policy)
	options := worker.Options{
		// As many pollers as a small server feeds, and always the same: one that an autoscaler takes away
		// in the moment that a task is handed to it loses that task until its timeout. The least is the
		// most for that. The other behaviour, of a fixed number for both queues, leaves the first tasks
		// of new runs alone while runs that are remembered have any: a first checkout would stand behind
		// a wave.
		WorkflowTaskPollerBehavior: worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{
			InitialNumberOfPollers: pollers, MinimumNumberOfPollers: pollers, MaximumNumberOfPollers: pollers,
		}),
		ActivityTaskPollerBehavior:  worker.NewPollerBehaviorSimpleMaximum(worker.PollerBehaviorSimpleMaximumOptions{MaximumNumberOfPollers: pollers}),
		WorkerStopTimeout:           c.ShutdownTimeout,
		DeadlockDetectionTimeout:    deadlockAfter,
		OnFatalError:                onFatal,
		DisableRegistrationAliasing: true,
		Interceptors:                []interceptor.WorkerInterceptor{activities.NewInterceptor(r.logger, w.report)},
	}
	if c.UrgentQueues {
		options.Interceptors = append(options.Interceptors, workflows.NewUrgentQueues())
	}
	if c.BuildID != "" {
		options.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: c.DeploymentName, BuildID: c.BuildID},
			// None is pinned: an entity's next poke may come in a year, when no worker of the version that
			// began it is left, and it would wait for one for ever.
			DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
		}
	}
	onQueue := func(queue string, perSecond float64) worker.Worker {
		o := options
		o.TaskQueueActivitiesPerSecond = perSecond / callsPerActivity
		o.DisableWorkflowWorker = queue != workflows.QueueMain
		return worker.New(r.temporal, queue, o)
	}
	users := &activities.Users{Store: r.store, Clerk: w.providers.clerk, Access: access, Deletion: c.OnUserDeleted, LinkByEmail: c.LinkByEmail, RereadDelay: c.RereadDelay, MissingConfirmedAfter: c.MissingConfirmedAfter}

	recovery := &activities.Recovery{Store: r.store, Stripe: w.providers.stripe, Clerk: w.providers.clerk, Livemode: c.StripeLivemode(),
		Spacing: c.PokeInterval, Observe: r.metrics.Recovered}
	reconciler := &activities.Reconciler{Store: r.store, Stripe: w.providers.stripe, Clerk: w.providers.clerk, Watchers: runs.Server{Client: r.temporal},
		Deletion: c.OnUserDeleted, LinkByEmail: c.LinkByEmail, Repair: c.ReconcileRepair, MaxChanges: c.ReconcileMaxChanges, Settle: c.ReconcileSettle, Observe: r.metrics.Reconciled}

	main := onQueue(workflows.QueueMain, 0)
	workflows.Register(main)
	main.RegisterActivity(users.EraseUser)
	for _, activity := range []any{
		reconciler.BeginReconciliation, reconciler.CompareWatched, reconciler.CompareStored, reconciler.ConcludeComparison,
		reconciler.RepairDrift, reconciler.FinishReconciliation,
	} {
		main.RegisterActivity(activity)
	}

	customers := &activities.Customers{Store: r.store, Stripe: w.providers.stripe, Access: access, LinkByEmail: c.LinkByEmail,
		MissingConfirmedAfter: c.MissingConfirmedAfter, Livemode: c.StripeLivemode(), Compensated: r.metrics.Compensated}
	projections := &activities.Projections{Store: r.store, Clerk: w.providers.clerk}
	subscriptions := &activities.Subscriptions{Store: r.store, Stripe: w.providers.stripe, Prompt: &activities.PromptPublisher{Projections: projections}, Observe: w.observe, Policy: activities.SubscriptionPolicy{
		Access: access, Deletion: c.OnUserDeleted, LinkByEmail: c.LinkByEmail, LinkByEmailAfter: c.LinkByEmailAfter, MissingConfirmedAfter: c.MissingConfirmedAfter, Livemode: c.StripeLivemode(), BoundaryDelay: c.BoundaryDelay, RereadDelay: c.RereadDelay,
	}}
	catalogue := &activities.Catalogue{Store: r.store, Stripe: w.providers.stripe, RereadDelay: c.RereadDelay}
	bulk := &activities.Bulk{Store: r.store, Stripe: w.providers.stripe, Clerk: w.providers.clerk, Users: users, Customers: customers,
		Subscriptions: subscriptions, Projections: projections, Catalogue: catalogue, Deletion: c.OnUserDeleted, LinkByEmail: c.LinkByEmail, Livemode: c.StripeLivemode(), AtOnce: bulkAtOnce}
	main.RegisterActivity(bulk.FinishBulk)
	all := []worker.Worker{main}
	for queue, known := range map[string]struct {
		perSecond  float64
		activities []any
	}{
		workflows.QueueStripe: {c.StripeRate, []any{
			customers, subscriptions, &activities.Commands{Subscriptions: subscriptions, Compensated: r.metrics.Compensated}, catalogue,
			&activities.Disputes{Store: r.store, Stripe: w.providers.stripe},
			bulk.BulkStripe, recovery.RecoverEvents, reconciler.CompareStripe, reconciler.LookAtStripe,
		}},
		workflows.QueueClerk: {c.ClerkRate, []any{
			users.SyncUser, projections, bulk.BulkClerk, recovery.RecoverUsers, reconciler.CompareUsers, reconciler.LookAtUsers,
		}},
	} {
		// What is urgent is taken from its own queue also where it is not given one: another worker may
		// do that.
		for _, name := range []string{queue, workflows.UrgentQueue(queue)} {
			one := onQueue(name, known.perSecond)
			for _, activity := range known.activities {
				one.RegisterActivity(activity)
			}
			all = append(all, one)
		}
	}
	return all
}

func (w *Worker) report(a activities.Report) {
	result := "ok"
	if a.Class != "" {
		result = string(a.Class)
	}
	w.runtime.metrics.Activity(a.Activity, result, a.Took)
	if a.Attempt > 1 {
		w.runtime.metrics.Retried(a.Activity)
	}
	if a.Class == failure.Throttled {
		w.runtime.metrics.Throttled(a.Activity)
	}
}

func (w *Worker) observe(source, eventType string, status store.EventStatus, received time.Time) {
	w.runtime.metrics.Event(source, eventType, string(status))
	w.runtime.metrics.Completed(source, time.Since(received))
}
