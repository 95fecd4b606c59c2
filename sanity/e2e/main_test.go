package e2e

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"millrace.io/millrace/sanity/machines"
)

func TestMain(m *testing.M) {
	machines.Main()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	shared.ctx = ctx //nolint:fatcontext // It is the whole run's.
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the cluster:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}
