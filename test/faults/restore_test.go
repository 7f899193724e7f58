//go:build faults && linux

package faults_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// forgotten is a time that PostgreSQL knows nothing of any more: from when a copy of its files was
// made until they were put back.
type forgotten struct{ from, to time.Time }

// restoring copies PostgreSQL's files, and puts them back when about that long has passed: a backup
// is restored. Clerk, Stripe and Temporal are where they were, and what was answered meanwhile
// stays answered.
func (s *stage) restoring(*rand.Rand, time.Duration) (func() error, error) {
	copied := time.Now()
	if err := s.ground.whileStopped(s.ground.copyFiles); err != nil {
		return nil, err
	}
	return func() error {
		if err := s.ground.whileStopped(s.ground.putFilesBack); err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.forgotten = append(s.forgotten, forgotten{copied, time.Now()})
		return nil
	}, nil
}

// forgot reports whether PostgreSQL has forgotten some of what happened from one moment to the
// other.
func (s *stage) forgot(from, to time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.forgotten {
		if !from.After(f.to) && !to.Before(f.from) {
			return true
		}
	}
	return false
}

// wasRestored tells whether PostgreSQL was.
func (s *stage) wasRestored() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.forgotten) > 0
}

// numbersBegin is where the number sequence is when a run begins, so far on that a run does not
// catch up with it from its start.
const numbersBegin = 1_000_000_000

// lastRestored is when PostgreSQL was last restored; the beginning of time where it was not.
func (s *stage) lastRestored() (last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.forgotten {
		last = f.to
	}
	return last
}

// renumbering sets the sequence that everything is ordered by back to its start, as a move to
// another server does that leaves sequences out.
func (s *stage) renumbering(*rand.Rand, time.Duration) (func() error, error) {
	return func() error { return nil }, insist(func() error { return s.exec(`SELECT setval('sync_seq', 1)`) })
}

// whileStopped does something while PostgreSQL is down.
func (g *ground) whileStopped(do func() error) error {
	if err := g.stopPostgres(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return g.startPostgres()
}

// files are where PostgreSQL has its data, by the names of their copies.
func (g *ground) files() map[string]string {
	all := map[string]string{"copy": filepath.Join(g.dir, "postgres")}
	if g.inbox != "" {
		all["copy-of-inbox"] = g.inbox
	}
	return all
}

func (g *ground) copyFiles() error {
	for name, of := range g.files() {
		if err := replace(filepath.Join(g.dir, name), of); err != nil {
			return err
		}
	}
	return nil
}

func (g *ground) putFilesBack() error {
	for name, of := range g.files() {
		if err := replace(of, filepath.Join(g.dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// replace makes a folder hold what another holds, owners and all. The folder itself stays, since
// something may be mounted there.
func replace(folder, by string) error {
	folder, err := resolved(folder)
	if err != nil {
		return err
	}
	if by, err = resolved(by); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(folder, entry.Name())); err != nil {
			return err
		}
	}
	if out, err := exec.Command("cp", "-a", by+"/.", folder).CombinedOutput(); err != nil {
		return fmt.Errorf("copying %s: %w\n%s", by, err, out)
	}
	return nil
}

// resolved is a folder's own path; one that is not there is made.
func resolved(folder string) (string, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(folder)
}
