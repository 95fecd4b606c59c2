package driver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// locks lets one operation at a time work on a volume. Repairs in the background give way to what takes a
// volume away, which has to end in bounded time whatever hangs.
type locks struct {
	// mu guards volumes.
	mu sync.Mutex
	// volumes are the locks that an operation holds or waits for.
	volumes map[string]*volumeLock
}

// volumeLock is the lock of one volume.
type volumeLock struct {
	// held has a token while no operation works on the volume.
	held chan struct{}
	// users is how many hold it or wait for it, and urgent those of them that no repair may delay; guarded by
	// locks.mu.
	users, urgent int
	// yield ends the context of the repair that holds it, nil where none does; guarded by locks.mu.
	yield context.CancelFunc
}

func newLocks() *locks { return &locks{volumes: make(map[string]*volumeLock)} }

// take waits until no other operation works on the volume. Where the context ends first, the error is a status of
// Aborted, which tells the orchestrator to come back later.
func (l *locks) take(ctx context.Context, id string) (release func(), err error) {
	v := l.enter(id)
	select {
	case <-v.held:
		return func() { l.leave(id, v, true) }, nil
	default:
	}
	select {
	case <-v.held:
		return func() { l.leave(id, v, true) }, nil
	case <-ctx.Done():
		l.leave(id, v, false)
		return nil, status.Errorf(codes.Aborted, "another operation works on volume %s", id)
	}
}

// seize is take for what a repair of the volume has to give way to.
func (l *locks) seize(ctx context.Context, id string) (release func(), err error) {
	v := l.enter(id)
	l.mu.Lock()
	v.urgent++
	if v.yield != nil {
		v.yield()
	}
	l.mu.Unlock()
	release, err = l.take(ctx, id)
	l.mu.Lock()
	v.urgent--
	l.mu.Unlock()
	l.leave(id, v, false)
	return release, err
}

// repair is take for a repair, which waits no longer than patience. The context that it gives ends when the repair
// has to give way, too.
func (l *locks) repair(ctx context.Context, id string, patience time.Duration) (context.Context, func(), error) {
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	release, err := l.take(waiting, id)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	l.mu.Lock()
	v := l.volumes[id]
	v.yield = cancel
	if v.urgent > 0 {
		cancel()
	}
	l.mu.Unlock()
	return ctx, func() {
		l.mu.Lock()
		v.yield = nil
		l.mu.Unlock()
		cancel()
		release()
	}, nil
}

// enter counts a user in.
func (l *locks) enter(id string) *volumeLock {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.volumes[id]
	if v == nil {
		v = &volumeLock{held: make(chan struct{}, 1)}
		v.held <- struct{}{}
		l.volumes[id] = v
	}
	v.users++
	return v
}

// leave counts a user out, which gives the lock back where it had it.
func (l *locks) leave(id string, v *volumeLock, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held {
		v.held <- struct{}{}
	}
	if v.users--; v.users == 0 {
		delete(l.volumes, id)
	}
}
