// Package session is what the demo, the benchmarks and the tests of the whole program share: a stretch
// of work with directories, child processes and mounts that are all gone when it ends,
// however it ends.
//
// Everything that must be undone is pushed on the session's stack as it is made; [Session.Close]
// undoes it, the last first. The session's context ends with SIGINT and SIGTERM, and every
// command runs under it and under a time limit of its own, so that an interrupted run
// falls through to its deferred Close. Commands run in process groups of their own: a Ctrl-C at
// the terminal reaches the program, which then takes them down in order.
package session

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Session owns what a run leaves behind until Close.
type Session struct {
	ctx  context.Context
	stop context.CancelFunc

	// mu guards undo.
	mu   sync.Mutex
	undo []func()
}

// New begins a session whose context ends with the parent, with SIGINT and with SIGTERM.
func New(parent context.Context) *Session {
	ctx, stop := signal.NotifyContext(parent, syscall.SIGINT, syscall.SIGTERM)
	return &Session{ctx: ctx, stop: stop}
}

// Context ends when the run is to be given up.
func (s *Session) Context() context.Context { return s.ctx }

// Defer pushes what undoes something that was just done.
func (s *Session) Defer(undo func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.undo = append(s.undo, undo)
}

// Close undoes everything, the last first. Signals stay caught meanwhile, so that an impatient
// second Ctrl-C does not leave mounts behind. It may be called twice.
func (s *Session) Close() {
	for {
		s.mu.Lock()
		n := len(s.undo)
		if n == 0 {
			s.mu.Unlock()
			break
		}
		last := s.undo[n-1]
		s.undo = s.undo[:n-1]
		s.mu.Unlock()
		last()
	}
	s.stop()
}

// TempDir makes a directory in base ("" is the system's own place) that goes with the session.
func (s *Session) TempDir(base, pattern string) (string, error) {
	dir, err := os.MkdirTemp(base, pattern)
	if err != nil {
		return "", fmt.Errorf("a directory to work in: %w", err)
	}
	s.Defer(func() { _ = os.RemoveAll(dir) })
	return dir, nil
}
