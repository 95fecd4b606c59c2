package liar

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
	if bin = os.Getenv("MILLRACE_LIAR_BIN"); bin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "millrace-liar-bin-")
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

// needsMount skips the test where the program is not built or cannot mount.
func needsMount(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds the program and mounts with it: make test")
	}
	if why := session.CanMount(); why != "" {
		t.Skip(why)
	}
}
