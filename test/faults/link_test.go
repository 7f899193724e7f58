//go:build faults && linux

package faults_test

import (
	"errors"
	"net"
	"sync"
	"time"
)

// link stands between programs and a server, as a network does. It can be cut: connections break
// and new ones are refused. It can be silent: connections stay, and nothing gets through.
type link struct {
	target   string
	listener net.Listener
	serving  sync.WaitGroup

	mu    sync.Mutex
	state linkState
	gate  chan struct{} // closed while bytes may pass
	open  map[net.Conn]bool
}

type linkState int

const (
	linkOpen linkState = iota
	linkCut
	linkSilent
	linkClosed
)

func newLink(target string) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{target: target, listener: listener, gate: make(chan struct{}), open: map[net.Conn]bool{}}
	close(l.gate)
	l.serving.Go(l.accept)
	return l, nil
}

func (l *link) address() string { return l.listener.Addr().String() }

// set changes what the link does with what there is and with what comes.
func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.state
	l.state = state
	if state == linkSilent && was != linkSilent {
		l.gate = make(chan struct{})
	}
	if state != linkSilent && was == linkSilent {
		close(l.gate)
	}
	if state == linkCut || state == linkClosed {
		for conn := range l.open {
			_ = conn.Close()
		}
	}
}

func (l *link) close() {
	l.set(linkClosed)
	_ = l.listener.Close()
	l.serving.Wait()
}

func (l *link) accept() {
	for {
		near, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if !l.track(near) {
			_ = near.Close()
			continue
		}
		l.serving.Go(func() { l.carry(near) })
	}
}

// track notes a connection, unless none is let through.
func (l *link) track(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == linkCut || l.state == linkClosed {
		return false
	}
	l.open[conn] = true
	return true
}

func (l *link) drop(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
}

func (l *link) carry(near net.Conn) {
	defer l.drop(near)
	far, err := net.DialTimeout("tcp", l.target, 5*time.Second)
	if err != nil {
		return
	}
	if !l.track(far) {
		_ = far.Close()
		return
	}
	defer l.drop(far)
	var both sync.WaitGroup
	both.Go(func() { l.pass(near, far) })
	l.pass(far, near)
	both.Wait()
}

// pass carries bytes one way until either side is gone, and then ends both.
func (l *link) pass(to, from net.Conn) {
	defer func() { _ = to.Close(); _ = from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		gate := l.gate
		l.mu.Unlock()
		<-gate
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
