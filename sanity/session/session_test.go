package session_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/session"
)

func TestCloseUndoesInReverseOrder(t *testing.T) {
	s := session.New(t.Context())
	dir, err := s.TempDir(t.TempDir(), "x-")
	if err != nil {
		t.Fatal(err)
	}
	var order []int
	for i := range 3 {
		s.Defer(func() {
			order = append(order, i)
			if _, err := os.Stat(dir); err != nil {
				t.Errorf("the directory went before what was made after it: %v", err)
			}
		})
	}
	s.Close()
	s.Close()
	if !slices.Equal(order, []int{2, 1, 0}) {
		t.Errorf("undone in the order %v", order)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestACommandEndsWithItsLimit(t *testing.T) {
	begin := time.Now()
	// The shell's child holds the pipe: killing the shell alone would not do.
	_, err := session.Run(t.Context(), 200*time.Millisecond, "sh", "-c", "sleep 60; true")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	pace.Within(t, "ending the command", time.Since(begin), 4*time.Second)
}

func TestASignalEndsTheContext(t *testing.T) {
	s := session.New(t.Context())
	defer s.Close()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Context().Done():
	case <-time.After(pace.Limit(30 * time.Second)):
		t.Fatal("the context goes on")
	}
}

func TestAProcessGoesWithItsSession(t *testing.T) {
	s := session.New(t.Context())
	mark := filepath.Join(t.TempDir(), "mark")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// A program that makes no other process, not even for a moment.
	p, err := s.Start(io.Discard, "tail", "-f", mark)
	if err != nil {
		t.Fatal(err)
	}
	if pids := session.PidsWithArgument(mark); !slices.Equal(pids, []int{p.Pid()}) {
		t.Errorf("found %v, started %d", pids, p.Pid())
	}
	s.Close()
	select {
	case <-p.Ended():
	default:
		t.Error("the process still runs")
	}
}
