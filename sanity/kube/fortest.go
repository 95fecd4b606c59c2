package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
)

// Need skips a test, and says why, where the programs are not built yet and that was not asked for: it takes some
// minutes. `make test` builds them, and so does the first test that is run with MILLRACE_KUBE set.
func Need(tb testing.TB) {
	tb.Helper()
	notInShort(tb)
	if os.Getenv("MILLRACE_KUBE") == "" && !Built() {
		tb.Skip("needs a Kubernetes control plane, built once: make test")
	}
}

// ForTest starts a server that stops with the test. Without the go command, which builds it, the test is skipped and
// says so; any other failure fails it.
func ForTest(tb testing.TB, options Options) *Server {
	tb.Helper()
	notInShort(tb)
	s, err := Start(context.WithoutCancel(tb.Context()), options)
	orEnd(tb, err)
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("%s:\n%s", apiserver, lastLines(s.log(apiserver)))
		}
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// Shared is a server for all tests of a package. It starts with the first test that asks for it, and stops in TestMain:
//
//	var shared kube.Shared
//
//	func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }
type Shared struct {
	// Options are of the server to start.
	Options Options

	// mu guards the rest.
	mu     sync.Mutex
	server *Server // nil before the first test that asks, and after a failure
	err    error   // why it could not be started
}

// Run runs the tests and then stops the server. It returns the exit code.
func (s *Shared) Run(m *testing.M) int {
	code := m.Run()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return code
	}
	if err := s.server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared API server:", err)
		return max(code, 1)
	}
	return code
}

// Get is the shared server.
func (s *Shared) Get(tb testing.TB) *Server {
	tb.Helper()
	notInShort(tb)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil && s.err == nil {
		s.server, s.err = Start(context.WithoutCancel(tb.Context()), s.Options)
	}
	orEnd(tb, s.err)
	return s.server
}

// notInShort skips a test of the quick ring, which builds no Kubernetes.
func notInShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("starts a Kubernetes API server: make test")
	}
}

func orEnd(tb testing.TB, err error) {
	tb.Helper()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		tb.Skipf("the API server cannot be built here: %v", err)
	case err != nil:
		tb.Fatal(err)
	}
}
