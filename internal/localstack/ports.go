//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// PortTakenError says that a port of 127.0.0.1 is in use.
type PortTakenError struct {
	// Port is the number that was asked for.
	Port int
	// Holder tells which program listens there, as "name (process 123)"; empty
	// when this user may not know.
	Holder string
}

func (e *PortTakenError) Error() string {
	if e.Holder == "" {
		return fmt.Sprintf("port %d is taken by another program", e.Port)
	}
	return fmt.Sprintf("port %d is taken by %s", e.Port, e.Holder)
}

// CheckPort answers a [*PortTakenError] when something listens on the port of
// 127.0.0.1. What it finds may change at any time: it makes a good message, not
// a reservation.
func CheckPort(ctx context.Context, port int) error {
	_, err := tryPort(ctx, port)
	if errors.Is(err, syscall.EADDRINUSE) {
		return &PortTakenError{Port: port, Holder: portHolder(ctx, port)}
	}
	return err
}

// Ports from lowestPort up to highestPort are below those from which systems take the local ports
// of connections, so that no connection has one in the moment in which a server is to listen on it.
const (
	lowestPort  = 20000
	highestPort = 32000
)

// FreePort finds a port of 127.0.0.1 on which nothing listens. Another program
// may take it before the caller does.
func FreePort(ctx context.Context) (int, error) {
	const attempts = 50
	for range attempts {
		port, err := tryPort(ctx, lowestPort+rand.N(highestPort-lowestPort))
		if !errors.Is(err, syscall.EADDRINUSE) {
			return port, err
		}
	}
	return tryPort(ctx, 0)
}

// tryPort listens on a port for a moment, on any free one for zero, and answers which it was.
func tryPort(ctx context.Context, port int) (int, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0, fmt.Errorf("try port %d: %w", port, err)
	}
	port = listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return 0, fmt.Errorf("try port %d: %w", port, err)
	}
	return port, nil
}

// choosePort is the port that the caller asked for, if it is free, or any free
// one for zero.
func choosePort(ctx context.Context, asked int) (int, error) {
	if asked == 0 {
		return FreePort(ctx)
	}
	return asked, CheckPort(ctx, asked)
}
