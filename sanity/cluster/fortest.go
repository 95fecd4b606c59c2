package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// ForTest starts a cluster that stops with the test. Where a program is not installed the test is skipped and says so;
// any other failure fails it.
func ForTest(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	notInShort(tb)
	c, err := Start(tb.Context(), cfg)
	orEnd(tb, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			c.tell(tb)
		}
		if err := c.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// Shared is a cluster for all tests of a package. It starts with the first test that asks for it, and stops in
// TestMain:
//
//	var shared cluster.Shared
//
//	func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }
//
//	func TestReading(t *testing.T) { c := shared.Get(t); … }
type Shared struct {
	// Config is the cluster to start.
	Config Config

	// mu guards the rest.
	mu      sync.Mutex
	cluster *Cluster // nil before the first test that asks, and after a failure
	err     error    // why it could not be started
}

// Run runs the tests and then stops the cluster. It returns the exit code.
func (s *Shared) Run(m *testing.M) int {
	code := m.Run()
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared Alluxio cluster:", err)
		return max(code, 1)
	}
	return code
}

// Stop stops the cluster, if a test has asked for it: for a package with more than one.
func (s *Shared) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		return nil
	}
	return s.cluster.Stop()
}

// readyLimit bounds how long a shared cluster takes to be whole again.
const readyLimit = 3 * time.Minute

// Get is the shared cluster, whole and ready: servers that an earlier test killed or paused run again. Tests that use
// it should not run in parallel when one of them harms servers.
func (s *Shared) Get(tb testing.TB) *Cluster {
	tb.Helper()
	notInShort(tb)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil && s.err == nil {
		// Not under the test's context, which ends before the cluster does.
		s.cluster, s.err = Start(context.WithoutCancel(tb.Context()), s.Config)
	}
	orEnd(tb, s.err)
	ctx, cancel := context.WithTimeout(tb.Context(), readyLimit)
	defer cancel()
	if err := s.cluster.Restore(ctx); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			s.cluster.tell(tb)
		}
	})
	return s.cluster
}

// notInShort skips a test of the quick ring, which has neither Java nor the time.
func notInShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("starts a real Alluxio: make test")
	}
}

// orEnd ends the test where there is no cluster.
func orEnd(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case errors.Is(err, ErrMissing):
		tb.Skip(err)
	case err != nil:
		tb.Fatal(err)
	}
}
