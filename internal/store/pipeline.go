package store

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// pipeline sends a transaction's statements. Those that nobody needs an answer to may wait for the
// next one ([pipeline.Later]): they go to PostgreSQL together with it, in the order in which they
// were given, so that the rows that the transaction has locked are not locked for a way there and
// back for each. Each statement sees what those before it did, whether or not they waited.
type pipeline struct {
	tx      pgx.Tx
	waiting []waiting
}

// mostWaiting bounds what is kept, and sent at once, of a transaction that writes very many rows.
const mostWaiting = 64

type waiting struct {
	operation, sql string
	args           []any
}

// Later has a statement executed before the next one, or before the commit. That it failed is the
// error of whatever it is sent with, under the name of this operation.
func (p *pipeline) Later(ctx context.Context, operation, sql string, args ...any) error {
	p.waiting = append(p.waiting, waiting{operation, sql, args})
	if len(p.waiting) < mostWaiting {
		return nil
	}
	return p.flush(ctx)
}

// Exec executes a statement whose outcome is needed now.
func (p *pipeline) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if len(p.waiting) == 0 {
		return p.tx.Exec(ctx, sql, args...)
	}
	results, err := p.send(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
	if err != nil {
		return pgconn.CommandTag{}, err
	}
	tag, err := results.Exec()
	if closed := results.Close(); err == nil {
		err = closed
	}
	return tag, err
}

// Query asks for rows. As with pgx's own, the rows are never nil and hold the error too.
func (p *pipeline) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if len(p.waiting) == 0 {
		return p.tx.Query(ctx, sql, args...)
	}
	results, err := p.send(ctx, &pgx.QueuedQuery{SQL: sql, Arguments: args})
	if err != nil {
		return &answer{err: err}, err
	}
	rows, err := results.Query()
	return &answer{Rows: rows, results: results}, err
}

// QueryRow asks for one row.
func (p *pipeline) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if len(p.waiting) == 0 {
		return p.tx.QueryRow(ctx, sql, args...)
	}
	rows, _ := p.Query(ctx, sql, args...)
	return oneRow{rows}
}

// SendAll executes a batch whose answers nobody needs.
func (p *pipeline) SendAll(ctx context.Context, batch *pgx.Batch) error {
	results, err := p.send(ctx, batch.QueuedQueries...)
	if err != nil {
		return err
	}
	return results.Close()
}

// flush executes what waits.
func (p *pipeline) flush(ctx context.Context) error {
	if len(p.waiting) == 0 {
		return nil
	}
	return p.SendAll(ctx, &pgx.Batch{})
}

// send sends what waits and these statements behind it, and reads the answers to what waited.
func (p *pipeline) send(ctx context.Context, behind ...*pgx.QueuedQuery) (pgx.BatchResults, error) {
	before := p.waiting
	p.waiting = nil
	all := &pgx.Batch{}
	for _, w := range before {
		all.Queue(w.sql, w.args...)
	}
	all.QueuedQueries = append(all.QueuedQueries, behind...)
	results := p.tx.SendBatch(ctx, all)
	for _, w := range before {
		if _, err := results.Exec(); err != nil {
			_ = results.Close() // it only repeats the error
			return nil, classify(w.operation, err)
		}
	}
	return results, nil
}

// answer are the rows of the last statement of a batch. The connection is free once they are
// closed.
type answer struct {
	pgx.Rows
	results pgx.BatchResults
	err     error
}

func (a *answer) Next() bool { return a.Rows != nil && a.Rows.Next() }

func (a *answer) Close() {
	if a.Rows == nil {
		return
	}
	a.Rows.Close()
	if err := a.results.Close(); a.err == nil {
		a.err = err
	}
}

func (a *answer) Err() error {
	if a.Rows != nil {
		if err := a.Rows.Err(); err != nil {
			return err
		}
	}
	return a.err
}

// oneRow is the first of some rows.
type oneRow struct{ rows pgx.Rows }

func (r oneRow) Scan(into ...any) error {
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(into...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}
