// Package app wires the programs together: configuration in, a value that runs out. The
// programs' main functions, the development program and the end-to-end tests start the same
// values.
package app
