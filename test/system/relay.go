package system

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// DatabaseRelay stands between a program and PostgreSQL. It can be cut, as a network can, and it
// can keep PostgreSQL's answer to a statement from the program for a while: what a program does
// not know to have happened is what the hardest moments are made of.
type DatabaseRelay struct {
	target   string
	dsn      string
	listener net.Listener
	serving  sync.WaitGroup

	mu       sync.Mutex
	cut      bool
	closed   bool
	asked    func(sql string)
	answered func(sql string)
	open     map[net.Conn]bool
}

// RelayDatabase starts a relay to the database that the DSN names. It ends with the test.
func RelayDatabase(t testing.TB, dsn string) *DatabaseRelay {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal("the database's address is not a URL")
	}
	r := &DatabaseRelay{target: u.Host, open: map[net.Conn]bool{}}
	if r.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	u.Host = r.listener.Addr().String()
	query := u.Query()
	query.Set("sslmode", "disable") // the relay has to read along
	u.RawQuery = query.Encode()
	r.dsn = u.String()
	r.serving.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

// DSN is the address of the database by way of the relay.
func (r *DatabaseRelay) DSN() string { return r.dsn }

// Cut breaks all connections and refuses new ones until Mend.
func (r *DatabaseRelay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = true
	r.drop()
}

// Mend ends what Cut began.
func (r *DatabaseRelay) Mend() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = false
}

// OnAnswer has f called for each statement that PostgreSQL has answered, before the program gets
// the answer: a commit has happened by then and the program does not know. The program waits for f.
// The end of a transaction is the statement "commit". Nil ends it.
func (r *DatabaseRelay) OnAnswer(f func(sql string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answered = f
}

// OnStatement has f called for each statement of the program's before PostgreSQL gets it, and waits
// for f. Nil ends it.
func (r *DatabaseRelay) OnStatement(f func(sql string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = f
}

func (r *DatabaseRelay) close() {
	r.mu.Lock()
	r.closed, r.asked, r.answered = true, nil, nil
	r.drop()
	r.mu.Unlock()
	_ = r.listener.Close() // it was open
	r.serving.Wait()
}

// drop closes all connections. The caller holds the lock.
func (r *DatabaseRelay) drop() {
	for conn := range r.open {
		_ = conn.Close() // both ends hear of it
	}
	clear(r.open)
}

func (r *DatabaseRelay) accept() {
	for {
		program, err := r.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", r.target)
		if err != nil {
			_ = program.Close()
			continue
		}
		r.mu.Lock()
		refused := r.cut || r.closed
		if !refused {
			r.open[program], r.open[server] = true, true
		}
		r.mu.Unlock()
		if refused {
			_, _ = program.Close(), server.Close()
			continue
		}
		r.relay(program, server)
	}
}

// relay passes messages on in both directions until one side has gone.
func (r *DatabaseRelay) relay(program, server net.Conn) {
	c := &relayed{relay: r, prepared: map[string]string{}}
	done := func() {
		_, _ = program.Close(), server.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.open, program)
		delete(r.open, server)
	}
	r.serving.Go(func() {
		defer done()
		_ = c.forth(program, server) // a side that has gone is how it ends
	})
	r.serving.Go(func() {
		defer done()
		_ = c.back(server, program)
	})
}

// relayed is one connection: which statements its program waits for.
type relayed struct {
	relay    *DatabaseRelay
	prepared map[string]string // SQL by the name that the program gave it; used by forth alone

	mu      sync.Mutex
	waiting []string // several where they were sent in one go
}

var errNotPostgres = errors.New("not PostgreSQL's protocol")

// forth passes on what the program says and notes the statements in it.
func (c *relayed) forth(program io.Reader, server io.Writer) error {
	var length [4]byte
	if _, err := io.ReadFull(program, length[:]); err != nil {
		return err
	}
	// The first message has no type.
	if err := passStart(server, program, length); err != nil {
		return err
	}
	var head [5]byte
	for {
		if _, err := io.ReadFull(program, head[:]); err != nil {
			return err
		}
		size := binary.BigEndian.Uint32(head[1:])
		if size < 4 || size > 1<<26 {
			return errNotPostgres
		}
		body := make([]byte, size-4)
		if _, err := io.ReadFull(program, body); err != nil {
			return err
		}
		c.note(head[0], body)
		if _, err := server.Write(append(head[:], body...)); err != nil {
			return err
		}
	}
}

func passStart(to io.Writer, from io.Reader, length [4]byte) error {
	if _, err := to.Write(length[:]); err != nil {
		return err
	}
	_, err := io.CopyN(to, from, int64(binary.BigEndian.Uint32(length[:]))-4)
	return err
}

func (c *relayed) note(kind byte, body []byte) {
	first, rest, _ := bytes.Cut(body, []byte{0})
	second, _, _ := bytes.Cut(rest, []byte{0})
	var sql string
	switch kind {
	case 'P': // name, SQL
		c.prepared[string(first)] = string(second)
		return
	case 'B': // portal, name
		sql = c.prepared[string(second)]
	case 'Q': // SQL
		sql = string(first)
	default:
		return
	}
	c.mu.Lock()
	c.waiting = append(c.waiting, sql)
	c.mu.Unlock()
	c.relay.mu.Lock()
	f := c.relay.asked
	c.relay.mu.Unlock()
	if f != nil {
		f(sql)
	}
}

// readyForQuery is how every answer of PostgreSQL's ends: idle, in a transaction, or in a failed
// one.
const readyForQuery = "Z\x00\x00\x00\x05"

// back passes on what PostgreSQL says. The end of an answer waits for whoever wants to know of it.
func (c *relayed) back(server io.Reader, program io.Writer) error {
	chunk := make([]byte, 64<<10)
	for {
		n, err := server.Read(chunk)
		if n > 0 {
			if n >= 6 && string(chunk[n-6:n-1]) == readyForQuery {
				c.answered()
			}
			if _, err := program.Write(chunk[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

func (c *relayed) answered() {
	c.mu.Lock()
	waiting := c.waiting
	c.waiting = nil
	c.mu.Unlock()
	c.relay.mu.Lock()
	f := c.relay.answered
	c.relay.mu.Unlock()
	if f == nil {
		return
	}
	for _, sql := range waiting {
		f(sql)
	}
}
