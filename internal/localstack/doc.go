//go:build unix

// Package localstack runs the two servers that a copy of the project needs on
// one machine, PostgreSQL and Temporal's development server, for `make dev`
// and for the tests. Production code does not import it.
//
// Each server is a child of this process and ends with it:
//
//   - Stop asks it to shut down (PostgreSQL: fast shutdown) and waits;
//   - when this process is killed without a chance to do so, Linux sends the
//     child a signal of its own, which is why a child is started and awaited on
//     one locked thread;
//   - on other systems a killed parent leaves the servers running, and the next
//     start on the same data ends PostgreSQL first.
//
// A data directory is held by a file lock beside it, so that two copies never
// run on the same data, and the lock goes with the process that held it.
//
// Everything listens on 127.0.0.1 only, and PostgreSQL asks for a password that
// was made with its data: other users of the machine stay out.
//
// The package works on Unix systems.
package localstack
