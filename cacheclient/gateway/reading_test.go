package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// slow is a source of one directory that is told when a test says so.
type slow struct {
	ufs.Store
	// tell is closed when the directory may be told.
	tell chan struct{}
	// begun counts listings, and ended those that were given up.
	begun, ended atomic.Int64
}

func (*slow) String() string { return "slow" }

func (s *slow) List(ctx context.Context, _ string, fn func(cacheclient.Info) error) error {
	s.begun.Add(1)
	for i := range 3 {
		select {
		case <-s.tell:
		case <-ctx.Done():
			s.ended.Add(1)
			return context.Cause(ctx)
		}
		if err := fn(cacheclient.Info{Path: fmt.Sprintf("f%d", i), Size: 1}); err != nil {
			return err
		}
	}
	return nil
}

// newSlow is a gateway over a slow source.
func newSlow(t *testing.T) (*slow, *Gateway) {
	t.Helper()
	s := &slow{tell: make(chan struct{})}
	g, err := New(Config{Store: s, Keys: NewKeys(), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.windows.rest)
	return s, g
}

// TestAListingOutlivesItsRequest has a directory take longer than a client waits: it is read on, once, and there when
// the client comes again.
func TestAListingOutlivesItsRequest(t *testing.T) {
	s, g := newSlow(t)
	for range 3 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errBusy)
		if _, err := g.windows.get(ctx, "d", "", false); !errors.Is(err, errBusy) {
			t.Errorf("a directory that is not told yet: %v", err)
		}
		cancel()
	}
	close(s.tell)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(10*time.Second))
	defer cancel()
	w, err := g.windows.get(ctx, "d", "", false)
	if err != nil || len(w.entries) != 3 || s.begun.Load() != 1 {
		t.Fatalf("%+v, %v, listed %d times", w, err, s.begun.Load())
	}
	if w, err = g.windows.get(ctx, "d", "f1\x00", true); err != nil || len(w.since("f1\x00")) != 1 ||
		s.begun.Load() != 1 {
		t.Errorf("the next page: %+v, %v, listed %d times", w, err, s.begun.Load())
	}
}

// TestReadingsEndWithTheGateway leaves no listing behind that asks the source when Serve has returned.
func TestReadingsEndWithTheGateway(t *testing.T) {
	s, g := newSlow(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := g.windows.get(ctx, "d", "", false); err == nil {
		t.Fatal("a directory is listed that was not told")
	}
	g.windows.rest()
	if s.begun.Load() != s.ended.Load() {
		t.Errorf("%d listings have begun and %d ended", s.begun.Load(), s.ended.Load())
	}
}

// TestAReadingThatNobodyWaitsForIsGivenUp tells when that is.
func TestAReadingThatNobodyWaitsForIsGivenUp(t *testing.T) {
	_, g := newSlow(t)
	r := g.windows.join("d", "")
	if g.windows.abandoned(r) {
		t.Error("a reading that somebody waits for is given up")
	}
	g.windows.leave(r)
	if g.windows.abandoned(r) {
		t.Error("a reading is given up at once")
	}
	g.windows.mu.Lock()
	r.left = time.Now().Add(-2 * pageLife)
	g.windows.mu.Unlock()
	if !g.windows.abandoned(r) {
		t.Error("a reading that nobody waits for goes on for ever")
	}
}
