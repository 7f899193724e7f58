package httpapi

import (
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// patientListener accepts connections that may be kept in store. Go's server counts the time for
// the headers of a connection's first request from when it was opened. Proxies, and Go's own
// client, open connections that they do not use at once: closed so soon, one would be closed just
// as a request is put on it, and who sent that cannot tell whether it was taken. So the first byte
// has as long as the next request of a connection has, and the headers have their time from that
// byte on.
type patientListener struct {
	net.Listener
	unused, headers time.Duration
}

func (l patientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at what kind of error it is
	}
	return &patientConn{Conn: conn, unused: l.unused, headers: l.headers}, nil
}

type patientConn struct {
	net.Conn
	unused, headers time.Duration
	begun           atomic.Bool // the first byte was read
}

// SetReadDeadline leaves the deadline of the first request's headers for when that has begun.
func (c *patientConn) SetReadDeadline(at time.Time) error {
	if now := time.Now(); !c.begun.Load() && at.After(now) {
		at = now.Add(c.unused)
	}
	return c.Conn.SetReadDeadline(at) //nolint:wrapcheck // net/http's own connection, to net/http
}

func (c *patientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.begun.CompareAndSwap(false, true) {
		if err := c.Conn.SetReadDeadline(time.Now().Add(c.headers)); err != nil {
			return n, fmt.Errorf("bound the time for the headers: %w", err)
		}
	}
	return n, err //nolint:wrapcheck // as above
}
