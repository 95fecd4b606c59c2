// Package onemachine_test uses the program as a person with one machine does: the real binary, a real
// web server, a real mount, and the tools that people read files with.
//
// TestMain builds the binary once. Each test serves a tree of its own from a web server in this process
// (sanity/serve), which counts what was asked of it, mounts it with `millrace mount --background`, and
// compares what comes out of the mount with the tree that went in. Whatever may hang, a mount most of
// all, is touched only under a time limit; mounts, processes and directories go with
// the test, passed or failed.
package onemachine_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/sanity/session"
)

// bin is the program under test.
var bin string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

// buildAndRun builds the program as `make build` does, runs the tests and removes it.
func buildAndRun(m *testing.M) int {
	flag.Parse()
	if testing.Short() || session.CanMount() != "" {
		return m.Run() // each test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "millrace-onemachine-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	bin = filepath.Join(dir, "millrace")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := session.Command(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", bin,
		"millrace.io/millrace/cmd/millrace")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := session.RunCmd(ctx, cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
