package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"millrace.io/millrace/cacheclient/backoff"
)

const (
	// callPatience bounds a call whose context has no deadline.
	callPatience = 30 * time.Second
	// suspectAfter is how long a call may go without an answer before the masters are asked beside it whether
	// another leads by now. They are asked again after twice that, and so on up to longestSuspicion.
	suspectAfter     = 1500 * time.Millisecond
	longestSuspicion = 3 * time.Second
	// firstPause and longestPause bound the pauses between attempts.
	firstPause   = 100 * time.Millisecond
	longestPause = 500 * time.Millisecond
)

// Masters are the masters of a cluster, of which one leads.
type Masters struct {
	addrs     []string
	endpoints []*Endpoint
	log       *slog.Logger
	// turn has one answer that is longer than usual be taken at a time.
	turn *semaphore.Weighted
	// odd are the directories whose names were told to be left out.
	odd noted

	// life ends with the cluster, and with it the search, whose goroutines work counts.
	life context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	// mu guards search, the search for the leader.
	mu sync.Mutex
	search
}

func newMasters(addrs []string, who identity, log *slog.Logger) (*Masters, error) {
	m := &Masters{addrs: addrs, log: log, turn: semaphore.NewWeighted(1)}
	m.life, m.end = context.WithCancel(context.Background())
	m.news = make(chan struct{})
	for _, addr := range addrs {
		if err := checkHostPort(addr); err != nil {
			return nil, fmt.Errorf("master %q %w", addr, err)
		}
		m.endpoints = append(m.endpoints, newEndpoint(addr, who, usualAnswer))
	}
	return m, nil
}

// close ends the search and the connections, and all calls with them.
func (m *Masters) close() {
	m.stop()
	closeAll(m.endpoints)
	m.work.Wait()
}

// stop ends the search, and tells its waiters.
func (m *Masters) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end()
	m.tell()
}

// Leader is the address of the leading master.
func (m *Masters) Leader(ctx context.Context) (string, error) {
	t, err := m.lead(ctx)
	if err != nil {
		return "", err
	}
	return t.addr, nil
}

// repeat reports whether a call that may have been carried out may be made again.
type repeat bool

const (
	safely repeat = true
	once   repeat = false
)

// call makes a call that has one answer, at the leader, and again at the next one while that is safe and the context
// lasts.
func (m *Masters) call(ctx context.Context, again repeat, f func(context.Context, *grpc.ClientConn) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callPatience)
		defer cancel()
	}
	return m.lasting(ctx, again, f)
}

// lasting is call for as long as the context lasts: its answer may come in parts.
func (m *Masters) lasting(ctx context.Context, again repeat, f func(context.Context, *grpc.ClientConn) error) error {
	var row refusals
	for pauses := firstPauses; ; {
		t, err := m.lead(ctx)
		if err != nil {
			return err
		}
		made, err := m.attempt(ctx, t, f)
		if err == nil {
			return nil
		}
		// A master that does not know the call has not carried it out.
		refused := errors.Is(err, errNoSuchCall)
		if !refused && !unavailable(err) {
			return m.judge(ctx, t, err)
		}
		switch first := row.count(t); {
		case busy(err):
		case first:
			m.forget(t)
		default:
			// It was asked since whether it leads, and said so: others go on with it meanwhile.
			m.doubt(t)
		}
		if again == once && made && !refused || !sleep(ctx, pauses.Next()) {
			return m.judge(ctx, t, row.explain(err))
		}
	}
}

// refusals are the failures in a row of one call at one leader.
type refusals struct {
	by *term
	n  int
}

// count counts a failure, and reports whether it is the first of this leader.
func (r *refusals) count(t *term) (first bool) {
	if r.by != t {
		*r = refusals{by: t}
	}
	r.n++
	return r.n == 1
}

// refusedAfter failures at a leader that says each time that it leads are its answer to this call.
const refusedAfter = 3

// explain has an error that is a leader's answer to this call say so.
func (r *refusals) explain(err error) error {
	if r.n < refusedAfter {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// attempt makes the call once at the leader of the term, and ends it when the term ends: a leader that hangs neither
// answers nor closes its connections. made says that the call was sent, or may have been.
func (m *Masters) attempt(ctx context.Context, t *term, f func(context.Context, *grpc.ClientConn) error) (
	made bool, err error,
) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(t.over, func() { cancel(errLeaderChanged) })()
	defer m.suspect(ctx, t, suspectAfter)()
	err = t.Do(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		made = true
		return f(ctx, conn)
	})
	if err != nil && errors.Is(context.Cause(ctx), errLeaderChanged) {
		if m.life.Err() != nil {
			return made, errReleased
		}
		return made, &Unreachable{Addr: t.addr, Why: "did not answer, and another master leads by now"}
	}
	return made, t.explain(err)
}

var errLeaderChanged = errors.New("another master leads by now")

// suspect has the masters asked who leads if ctx lasts for so long, and longer. stop ends that.
func (m *Masters) suspect(ctx context.Context, t *term, after time.Duration) (stop func() bool) {
	return time.AfterFunc(after, func() {
		if ctx.Err() == nil {
			m.doubt(t)
			m.suspect(ctx, t, min(2*after, longestSuspicion))
		}
	}).Stop
}

// judge makes the deadline of a caller the server's fault: it had the time to answer.
func (m *Masters) judge(ctx context.Context, t *term, err error) error {
	switch {
	case errors.Is(err, errNoSuchCall):
		return &Unreachable{Addr: t.addr, Why: "is no Alluxio master of a version that is supported: " + err.Error()}
	case errors.Is(err, context.DeadlineExceeded) && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Unreachable{Addr: t.addr, Why: "did not answer in time"}
	case errors.Is(context.Cause(ctx), errQuiet):
		return &Unreachable{Addr: t.addr, Why: fmt.Sprintf("told nothing more of a directory for %v", callPatience)}
	}
	return err
}

// errQuiet says that a listing brought nothing for callPatience. How long it takes does not matter while it brings
// something.
var errQuiet = errors.New("nothing came")

// untilQuiet is a context that ends when heard was not called for so long. stop gives it back.
func untilQuiet(ctx context.Context, patience time.Duration) (quiet context.Context, heard, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(patience, func() { cancel(errQuiet) })
	return ctx, func() { silence.Reset(patience) }, func() {
		silence.Stop()
		cancel(nil)
	}
}

// firstPauses are those between attempts, before the first: ten thousand agents that lost their leader at once do not
// ask at once.
var firstPauses = backoff.Pauses{First: firstPause, Longest: longestPause, Factor: 1.5, Spread: 0.5}

// jitter cuts a time by up to a half, for the same reason.
func jitter(pause time.Duration) time.Duration { return pause - rand.N(pause/2) } //nolint:gosec // No secret.

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
