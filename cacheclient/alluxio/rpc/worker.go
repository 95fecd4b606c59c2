package rpc

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"google.golang.org/grpc"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/cacheclient/backoff"
)

const (
	// brokenAfter failures in a row leave a worker alone for breakFor, and twice as long each time that it fails after
	// that, up to longestBreak: whoever tries a worker that hangs waits.
	brokenAfter  = 3
	breakFor     = time.Second
	longestBreak = 8 * time.Second
)

// Worker is one worker, with a breaker.
type Worker struct {
	endpoint *Endpoint

	// mu guards the rest.
	mu sync.Mutex
	// address is what the masters told last, at told: a worker that comes back may have another name and data port.
	address *wire.WorkerNetAddress
	told    time.Time
	// failures are those in a row, until is when a worker with too many is tried again, and breaks are those.
	failures int
	until    time.Time
	breaks   backoff.Pauses
	capacity int64
}

func newWorker(e *Endpoint, a *wire.WorkerNetAddress) *Worker {
	return &Worker{
		endpoint: e, address: a, told: time.Now(),
		breaks: backoff.Pauses{First: breakFor, Longest: longestBreak, Factor: 2},
	}
}

// Addr is host:port.
func (w *Worker) Addr() string { return w.endpoint.addr }

// Host is the name that the worker goes by: locality is told by it.
func (w *Worker) Host() string { return w.named().GetHost() }

// named is the address as the masters told it last; it is not changed.
func (w *Worker) named() *wire.WorkerNetAddress {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.address
}

// rename takes note that the masters have named the worker again.
func (w *Worker) rename(a *wire.WorkerNetAddress) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.address, w.told = a, time.Now()
}

// lastNamed is when the masters last did.
func (w *Worker) lastNamed() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.told
}

// Capacity is the size of its tiers in bytes, 0 where it is not known.
func (w *Worker) Capacity() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.capacity
}

func (w *Worker) setCapacity(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.capacity = bytes
}

// Broken reports whether the worker failed so often that it is left alone for a moment.
func (w *Worker) Broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures >= brokenAfter && time.Now().Before(w.until)
}

// Failed counts a failure that came after a call.
func (w *Worker) Failed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.countFailure()
}

// Stalled counts a stream that brought nothing while a reader waited for long: as many failures as it takes to leave
// the worker alone.
func (w *Worker) Stalled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures = max(w.failures, brokenAfter-1)
	w.countFailure()
}

// countFailure counts a failure; mu is held. Many at once are one reason to leave the worker alone.
func (w *Worker) countFailure() {
	w.failures++
	if now := time.Now(); w.failures >= brokenAfter && now.After(w.until) {
		w.until = now.Add(w.breaks.Next())
	}
}

// outcome counts failures in a row. What a worker says clearly is none, and ends the row.
func (w *Worker) outcome(err error) {
	switch {
	case busy(err):
		// It is there, and has too much to do for this at the moment.
	case unavailable(err), errors.Is(err, context.DeadlineExceeded):
		w.Failed()
	case errors.Is(err, context.Canceled), errors.Is(err, errReleased):
		// It tells nothing of the worker.
	default:
		w.mu.Lock()
		defer w.mu.Unlock()
		w.failures = 0
		w.breaks.Restart()
	}
}

// do makes a call to the worker.
func (w *Worker) do(ctx context.Context, f func(context.Context, *grpc.ClientConn) error) error {
	err := w.endpoint.explain(w.endpoint.Do(ctx, f))
	w.outcome(err)
	return err
}

// Greet connects and authenticates, so that the first call need not.
func (w *Worker) Greet(ctx context.Context) error {
	return w.do(ctx, func(context.Context, *grpc.ClientConn) error { return nil })
}

// NotCached reports whether an error says that a worker does not have a block.
func NotCached(err error) bool { return errors.Is(err, fs.ErrNotExist) }
