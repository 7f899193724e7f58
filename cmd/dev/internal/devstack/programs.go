//go:build unix

package devstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/nepfy/clerk-stripe-sync/internal/app"
)

// programs are starter-api and worker, running in this process.
type programs struct {
	addr   string // of the API
	cancel context.CancelFunc
	ended  []chan error
	logs   []*os.File
}

// startPrograms starts both. When one ends although nobody stopped it, fail is told.
func startPrograms(ctx context.Context, s *settings, variables map[string]string, fail func(error)) (_ *programs, err error) {
	p := &programs{cancel: func() {}}
	defer func() {
		if err != nil {
			p.closeLogs()
		}
	}()
	with := func(metrics port) map[string]string {
		v := maps.Clone(variables)
		if !s.metricsAreOff {
			v["METRICS_ADDR"] = metrics.addr()
		}
		return v
	}
	apiLog, err := p.openLog(s.path("logs", "starter-api.log"))
	if err != nil {
		return nil, err
	}
	workerLog, err := p.openLog(s.path("logs", "worker.log"))
	if err != nil {
		return nil, err
	}
	api, err := app.NewAPI(ctx, with(s.apiMetrics), apiLog)
	if err != nil {
		return nil, fmt.Errorf("starter-api: %w", err)
	}
	worker, err := app.NewWorker(ctx, with(s.workerMetrics), workerLog)
	if err != nil {
		api.Close()
		return nil, fmt.Errorf("worker: %w", err)
	}
	p.addr = api.Addr()
	// They end when they are stopped, in their turn, and not with the signal.
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.run(ctx, "starter-api", api.Run, fail)
	p.run(ctx, "worker", worker.Run, fail)
	return p, nil
}

func (p *programs) openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a program's log: %w", err)
	}
	p.logs = append(p.logs, f)
	return f, nil
}

func (p *programs) closeLogs() {
	for _, f := range p.logs {
		_ = f.Close() // whatever was written is in it
	}
}

func (p *programs) run(ctx context.Context, name string, program func(context.Context) error, fail func(error)) {
	ended := make(chan error, 1)
	p.ended = append(p.ended, ended)
	go func() {
		err := program(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
		if ctx.Err() == nil {
			fail(cmpError(err, fmt.Errorf("%s ended by itself", name)))
		}
		ended <- err
	}()
}

func cmpError(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}

// stop ends both at once. They bound it themselves, by SHUTDOWN_TIMEOUT.
func (p *programs) stop() error {
	p.cancel()
	var failures []error
	for _, ended := range p.ended {
		failures = append(failures, <-ended)
	}
	p.closeLogs()
	return errors.Join(failures...)
}

// awaitReady asks the API until it misses nothing.
func awaitReady(ctx context.Context, base string) error {
	last := "it does not answer"
	return await(ctx, readyPatience, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("ask whether the API is ready: %w", err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return fmt.Errorf("the API is not ready: %s", last)
		}
		defer func() { _ = answer.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<16))
		if answer.StatusCode == http.StatusOK || err != nil {
			return err
		}
		last = strings.TrimSpace(string(body))
		return fmt.Errorf("the API is not ready: %s", last)
	})
}

// await asks for a condition until it holds, and answers what it said last if it does not in time.
func await(ctx context.Context, patience time.Duration, condition func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := condition(bounded)
		if err == nil {
			return nil
		}
		// What was cut short by the bound says nothing about the condition.
		if bounded.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-bounded.Done():
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("waited %s in vain: %w", patience, cmpError(last, bounded.Err()))
		}
	}
}
