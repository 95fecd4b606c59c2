package cacheclient

import (
	"context"
	"time"
)

// patienceKey is the key of what moves the deadline of a patient context.
type patienceKey struct{}

// Patient is a context that ends when nothing has been heard for d, as [Heard] tells it: a listing may come for as long
// as it comes. Its cause is context.DeadlineExceeded then.
func Patient(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	silence := time.AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	ctx = OnHeard(ctx, func() {
		if ctx.Err() == nil {
			silence.Reset(d)
		}
	})
	return ctx, func() {
		silence.Stop()
		cancel(context.Canceled)
	}
}

// OnHeard is a context by which [Heard] calls a function of its own.
func OnHeard(ctx context.Context, heard func()) context.Context {
	return context.WithValue(ctx, patienceKey{}, heard)
}

// Heard tells the waiters of a patient context that something came.
func Heard(ctx context.Context) {
	if heard, ok := ctx.Value(patienceKey{}).(func()); ok {
		heard()
	}
}
