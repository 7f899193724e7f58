// Package base builds the programs of an earlier commit, so that they can be measured beside those
// of this tree.
package base

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build builds packages of a commit of the repository at root, and returns the folder in which the
// programs are. Their source is taken out of git into a folder inside of dir: neither the working
// tree nor its index is touched, and changes that are not committed are not in it. An error names
// the commit, and what git or the compiler said.
func Build(ctx context.Context, root, commit, dir string, packages ...string) (string, error) {
	source, programs := filepath.Join(dir, "source"), filepath.Join(dir, "bin")
	if _, err := command(ctx, root, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", commit+"^{commit}"); err != nil {
		return "", fmt.Errorf("the base %s is not a commit of this repository: fetch it (a shallow clone lacks it: git fetch --unshallow), or name another in the marks: %w", commit, err)
	}
	archive, err := command(ctx, root, "git", "archive", "--format=tar", commit)
	if err != nil {
		return "", fmt.Errorf("taking the base %s out of git: %w", commit, err)
	}
	if err := unpack(archive, source); err != nil {
		return "", fmt.Errorf("taking the base %s out of git: %w", commit, err)
	}
	build := append([]string{"build", "-trimpath", "-buildvcs=false", "-o", programs + string(filepath.Separator)}, packages...)
	if _, err := command(ctx, source, "go", build...); err != nil {
		return "", fmt.Errorf("the base %s cannot be built, so that nothing can be measured beside it: %w", commit, err)
	}
	return programs, nil
}

// command runs a program and returns what it printed; an error has what it said of why it failed.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &said
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, args[0], err, strings.TrimSpace(said.String()))
	}
	return out.Bytes(), nil
}

// unpack writes an archive's files, of which none may lie outside of dir.
func unpack(archive []byte, dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making room: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening a folder: %w", err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for reader := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading an archive: %w", err)
		}
		name := filepath.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o700)
		case tar.TypeReg:
			var content []byte
			if content, err = io.ReadAll(reader); err == nil {
				err = errors.Join(root.MkdirAll(filepath.Dir(name), 0o700), root.WriteFile(name, content, 0o600))
			}
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
	}
}
