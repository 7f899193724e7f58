// Command baseline is what a webhook endpoint is compared with: a bare handler of net/http that
// verifies Stripe's signature with the library's ConstructEvent, and, where DATABASE_URL is set,
// makes one insert a request.
//
// The signing secret is read from STRIPE_WEBHOOK_SECRET.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stripe/stripe-go/v76/webhook"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

func run() error {
	addr := flag.String("addr", "127.0.0.1:0", "where to listen")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	h := handler{secret: os.Getenv("STRIPE_WEBHOOK_SECRET")}
	if h.secret == "" {
		return errors.New("STRIPE_WEBHOOK_SECRET is not set")
	}
	if dsn := os.Getenv("DATABASE_URL"); dsn != "" {
		var err error
		if h.pool, err = pgxpool.New(ctx, dsn); err != nil {
			return fmt.Errorf("reading DATABASE_URL: %w", err)
		}
		defer h.pool.Close()
		if _, err = h.pool.Exec(ctx, `CREATE TABLE IF NOT EXISTS bare_events (id text PRIMARY KEY, type text NOT NULL, payload text NOT NULL, received_at timestamptz NOT NULL DEFAULT now())`); err != nil {
			return fmt.Errorf("making the table: %w", err)
		}
	}
	server := &http.Server{Addr: *addr, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		stopped <- server.Shutdown(context.WithoutCancel(ctx))
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", *addr, err)
	}
	return <-stopped
}

type handler struct {
	secret string
	pool   *pgxpool.Pool // nil where nothing is stored
}

// ServeHTTP implements http.Handler.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	event, err := webhook.ConstructEvent(body, r.Header.Get("Stripe-Signature"), h.secret)
	if err != nil {
		http.Error(w, "the signature is not good", http.StatusBadRequest)
		return
	}
	if h.pool != nil {
		if _, err := h.pool.Exec(r.Context(), `INSERT INTO bare_events (id, type, payload) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, event.ID, event.Type, string(body)); err != nil {
			http.Error(w, "not stored", http.StatusServiceUnavailable)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"received":true}`) // who does not wait for it sends again
}
