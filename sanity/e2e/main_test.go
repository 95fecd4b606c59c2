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

// TestMillrace has all tests, in their order: the walkthrough finds a cluster that is new.
func TestMillrace(t *testing.T) {
	get(t)
	t.Run("Walkthrough", testWalkthrough)
	t.Run("Faults", testFaults)
	t.Run("API", testAPI)
	t.Run("Placed", testPlaced)
	t.Run("Ready", testReady)
	t.Run("Shown", testShown)
	t.Run("Hands", testHands)
	t.Run("Networks", testNetworks)
}

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
