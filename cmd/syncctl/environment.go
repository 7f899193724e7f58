package main

import "github.com/nepfy/clerk-stripe-sync/internal/app"

type setup struct{}

// Run prepares an environment.
func (setup) Run(s *session) error { return app.Setup(s, s.environ, s.out) }

type migrate struct {
	Status migrateStatus `cmd:"" help:"List the migrations."`
	Up     migrateUp     `cmd:"" help:"Apply what is missing."`
	Down   migrateDown   `cmd:"" help:"Take the latest one back, with the data in it."`
}

type migrateStatus struct{}

// Run lists the migrations.
func (migrateStatus) Run(s *session) error { return app.MigrationStatus(s, s.environ, s.out) }

type migrateUp struct{}

// Run brings the schema up to date.
func (migrateUp) Run(s *session) error { return app.Migrate(s, s.environ, s.out) }

type migrateDown struct{}

// Run takes the latest migration back.
func (migrateDown) Run(s *session) error { return app.MigrateDown(s, s.environ, s.out) }

type health struct {
	URL string `arg:"" help:"Address of /healthz or /readyz."`
}

// Run asks a program how it is.
func (h health) Run(s *session) error { return app.CheckHealth(s, h.URL, s.out) }
