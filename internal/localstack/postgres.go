//go:build unix

package localstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// PostgresOptions says which private PostgreSQL to run.
type PostgresOptions struct {
	// Dir is where its data live from one start to the next; it is made on first
	// use. If this process is root and the user that PostgreSQL is to run as
	// cannot reach Dir, the data are put below /var/tmp, in a directory that
	// belongs to this Dir alone, and Dir becomes a symbolic link to them.
	//
	// Empty means a throwaway server: its data are in a directory of their own
	// that Stop removes, in memory where Linux has room for them there and TMPDIR
	// is not set, and it never waits for the disk.
	Dir string
	// Database is created if it is missing. Empty means "postgres".
	Database string
	// Port of 127.0.0.1; zero means any free one.
	Port int
	// LogFile is appended to. Empty means Dir with ".log" added.
	LogFile string
	// Settings are configuration parameters added to the command line.
	Settings map[string]string
	// Out is told what takes long, such as an installation. Nil means nobody.
	Out io.Writer
}

// Postgres is a running private PostgreSQL.
type Postgres struct {
	process  *process
	lock     *fileLock
	log      *serverLog
	password string
	database string
	port     int
	remove   string // a throwaway server's directory, to be removed at the end
	inMemory bool   // the data are on no disk
}

// StartPostgres runs PostgreSQL from the binaries of this machine and waits until
// it answers. As root it runs as the owner of existing data, else as the user
// postgres, else as nobody, because PostgreSQL refuses to be root.
//
// The context bounds the start only. A port that is asked for and taken is a
// [*PortTakenError].
func StartPostgres(ctx context.Context, opts PostgresOptions) (_ *Postgres, err error) {
	p := &Postgres{database: opts.Database}
	if p.database == "" {
		p.database = "postgres"
	}
	defer func() {
		if err != nil {
			p.cleanUp()
		}
	}()
	if opts.Port != 0 {
		if err := CheckPort(ctx, opts.Port); err != nil {
			return nil, fmt.Errorf("start PostgreSQL: %w", err)
		}
	}
	if opts.Dir == "" {
		const prefix = "clerk-stripe-sync-postgres-"
		in := inMemory()
		if p.inMemory = in != ""; p.inMemory {
			sweepThrowaway(ctx, in, prefix)
		}
		if p.remove, err = throwawayDir(in, prefix); err != nil {
			return nil, err
		}
		opts.Dir = throwawayData(p.remove)
	}
	if opts.LogFile == "" {
		opts.LogFile = opts.Dir + ".log"
	}
	if p.lock, err = tryLock(opts.Dir + ".lock"); errors.Is(err, errLocked) {
		return nil, fmt.Errorf("start PostgreSQL: the data in %s are in use by another running copy", opts.Dir)
	} else if err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	data, err := prepareData(ctx, opts, p.remove != "")
	if err != nil {
		return nil, err
	}
	p.password = data.password
	if p.log, err = openLog(opts.LogFile); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.start(ctx, data, opts); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.ensureDatabase(ctx); err != nil {
		_ = p.process.stop(context.WithoutCancel(ctx), syscall.SIGINT, syscall.SIGQUIT)
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	return p, nil
}

// DSN is the connection string for the database that the options named, with the
// password in it.
func (p *Postgres) DSN() string { return p.dsn(p.database) }

// Address is the host and port that it listens on.
func (p *Postgres) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// InMemory tells whether the data are on no disk, so that what is not needed any more takes memory.
func (p *Postgres) InMemory() bool { return p.inMemory }

// PID is the process id of the server.
func (p *Postgres) PID() int { return p.process.cmd.Process.Pid }

// Done is closed when the server has ended, asked to or not.
func (p *Postgres) Done() <-chan struct{} { return p.process.done }

// Stop shuts the server down: open transactions are rolled back, the data are
// left clean, and a throwaway server's data are removed. It waits until ctx ends,
// eight seconds if ctx has no deadline; after that the server ends at once and
// recovers at its next start, and Stop answers an error. A second Stop does
// nothing.
func (p *Postgres) Stop(ctx context.Context) error {
	err := p.process.stop(ctx, syscall.SIGINT, syscall.SIGQUIT)
	p.cleanUp()
	return err
}

func (p *Postgres) cleanUp() {
	p.lock.release()
	p.lock = nil
	if p.log != nil {
		p.log.close()
		p.log = nil
	}
	if p.remove != "" {
		_ = os.RemoveAll(p.remove)
		p.remove = ""
	}
}

func (p *Postgres) dsn(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", p.password),
		Host:     p.Address(),
		Path:     database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// start runs the server until it answers. It tries again where time or another
// port helps: a free port can be taken before the server has it, and children of
// a server that was killed need a moment to notice.
func (p *Postgres) start(ctx context.Context, data *dataDir, opts PostgresOptions) error {
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	const attempts = 20
	for attempt := 1; ; attempt++ {
		port, err := choosePort(patience, opts.Port)
		if err != nil {
			return err
		}
		err = p.launch(patience, data, port, opts)
		if err == nil || attempt == attempts {
			return err
		}
		again := p.log.says("pre-existing shared memory block") ||
			opts.Port == 0 && p.log.says("Address already in use")
		if !again {
			return err
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-patience.Done():
			return err
		}
	}
}

func (p *Postgres) launch(ctx context.Context, data *dataDir, port int, opts PostgresOptions) error {
	if err := p.log.begin(); err != nil {
		return err
	}
	args := []string{"-D", data.path, "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-c", "unix_socket_directories="}
	if p.remove != "" {
		// Nobody reads this after a crash. Commits still go through the same code,
		// so that their order and their waits stay what they are in production. To compile
		// a plan takes longer than to run it on what there is here.
		args = append(args, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "jit=off", "-c", "max_connections=300")
	}
	if p.inMemory {
		args = append(args, "-c", "max_wal_size=128MB", "-c", "min_wal_size=32MB")
	}
	for name, value := range opts.Settings {
		args = append(args, "-c", name+"="+value)
	}
	cmd := exec.Command(filepath.Join(data.binaries, "postgres"), args...)
	cmd.Dir = data.path
	cmd.Env = serverEnv()
	cmd.Stdout, cmd.Stderr = p.log.file, p.log.file
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: data.user}
	server, err := startProcess("PostgreSQL", cmd, syscall.SIGINT)
	if err != nil {
		return err
	}
	p.process, p.port = server, port
	if err := p.awaitReady(ctx); err != nil {
		_ = server.stop(context.WithoutCancel(ctx), syscall.SIGINT, syscall.SIGQUIT)
		return fmt.Errorf("%w; %s ends with:\n%s", err, p.log.file.Name(), p.log.tail())
	}
	return nil
}

// awaitReady connects until the server lets us in.
func (p *Postgres) awaitReady(ctx context.Context) error {
	return poll(ctx, 25*time.Millisecond, func() (bool, error) {
		select {
		case <-p.process.done:
			return false, p.process.ended()
		default:
		}
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(attempt, p.dsn("postgres"))
		if err == nil {
			return true, conn.Close(attempt)
		}
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == "28P01" {
			return false, errors.New("it does not know the password that is kept with its data")
		}
		return false, nil
	})
}

func (p *Postgres) ensureDatabase(ctx context.Context) error {
	if p.database == "postgres" {
		return nil
	}
	conn, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{p.database}.Sanitize())
	var refused *pgconn.PgError
	const duplicateDatabase = "42P04"
	if errors.As(err, &refused) && refused.Code == duplicateDatabase {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", p.database, err)
	}
	return nil
}

// serverEnv is this process's environment without what would steer PostgreSQL's
// programs, and with messages in the language that [Postgres.start] reads.
func serverEnv() []string {
	env := []string{"LC_ALL=C"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_") && !strings.HasPrefix(entry, "LANG") {
			env = append(env, entry)
		}
	}
	return env
}
