package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// headerTimeout bounds the reading of a request's headers, from the first of its bytes.
	headerTimeout = 5 * time.Second
	// idleTimeout is how long a connection is kept for the next request, or the first; longer than
	// load balancers keep theirs, so that it is not we who close one that is about to be used.
	idleTimeout = 2 * time.Minute
	// writeTimeout bounds an answer, counted from the end of the headers. A handler that streams, or
	// takes longer, lifts it with http.ResponseController.
	writeTimeout = 2 * time.Minute
	// maxHeader is the most bytes of headers; session cookies fit many times over.
	maxHeader = 64 << 10
	// defaultShutdownTimeout is how long requests in progress may take to end.
	defaultShutdownTimeout = 20 * time.Second
)

// ServerOptions is what a Server stands on.
type ServerOptions struct {
	Logger *slog.Logger
	// ShutdownTimeout is how long requests in progress may take to end; 0 stands for 20 s.
	ShutdownTimeout time.Duration
	// ShutdownDelay is how long requests are taken still after the server was told to stop: who sends
	// them here has to hear first that it is about to go.
	ShutdownDelay time.Duration
	// OnStop, if set, is called when the server was told to stop, before the delay.
	OnStop func()
}

// Server is an HTTP server that has its address already.
type Server struct {
	listener net.Listener
	http     *http.Server
	patience time.Duration
	delay    time.Duration
	onStop   func()
	leaving  atomic.Bool
}

// Listen takes the address, so that one that is taken is an error at once and by name, and so that
// port 0 has become a number before anyone is told the address. Serve answers; Close gives it back.
func Listen(ctx context.Context, addr string, handler http.Handler, o ServerOptions) (*Server, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	if o.ShutdownTimeout <= 0 {
		o.ShutdownTimeout = defaultShutdownTimeout
	}
	s := &Server{listener: listener, patience: o.ShutdownTimeout, delay: o.ShutdownDelay, onStop: o.OnStop}
	s.http = &http.Server{
		Handler:           s.letGo(handler),
		ReadHeaderTimeout: headerTimeout,
		// There is no ReadTimeout: it would go on counting while a handler works. The router bounds
		// the body instead.
		WriteTimeout:   writeTimeout,
		IdleTimeout:    idleTimeout,
		MaxHeaderBytes: maxHeader,
		// What the server itself has to say is about callers' broken connections.
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s, nil
}

// letGo has callers open another connection, which may lead elsewhere, once the server is to stop.
// Those that are idle are left alone: one that is closed may just be about to be used.
func (s *Server) letGo(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
}

// Addr is the address listened on, with its port.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Serve answers requests until ctx ends, and for the delay after that; then it takes no more, lets
// those in progress end, and returns nil. If they do not end in time they are cut off, and that is
// the error.
func (s *Server) Serve(ctx context.Context) error {
	var failure error
	served := make(chan struct{})
	go func() {
		defer close(served)
		failure = s.http.Serve(patientListener{Listener: s.listener, unused: idleTimeout, headers: headerTimeout})
	}()
	select {
	case <-served:
		return fmt.Errorf("serve on %s: %w", s.Addr(), failure)
	case <-ctx.Done():
	}
	s.leaving.Store(true)
	if s.onStop != nil {
		s.onStop()
	}
	select {
	case <-served:
		return fmt.Errorf("serve on %s: %w", s.Addr(), failure)
	case <-time.After(s.delay):
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.patience)
	defer cancel()
	err := s.http.Shutdown(stopping)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop serving on %s, requests were cut off: %w", s.Addr(), err), s.http.Close())
	}
	<-served
	return err
}

// Close gives the address back without waiting for anyone. It is for a server that is not served.
func (s *Server) Close() error {
	if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close %s: %w", s.Addr(), err)
	}
	return nil
}
