package driver

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestLocksOneAtATime(t *testing.T) {
	l := newLocks()
	var inside, others, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 64 {
		id := "a"
		count := &inside
		if i%4 == 0 {
			id, count = "b", &others
		}
		wg.Go(func() {
			release, err := l.take(t.Context(), id)
			if err != nil {
				t.Error(err)
				return
			}
			defer release()
			most.Store(max(most.Load(), count.Add(1)))
			count.Add(-1)
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d at once", most.Load())
	}
	if len(l.volumes) != 0 {
		t.Errorf("%d locks were left behind", len(l.volumes))
	}
}

func TestLocksWaitEndsWithContext(t *testing.T) {
	l := newLocks()
	release, err := l.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.take(ctx, "a"); status.Code(err) != codes.Aborted {
		t.Error("a lock that is held:", err)
	}
	if other, err := l.take(ctx, "b"); err != nil {
		t.Error("a lock that is free, of another volume:", err)
	} else {
		other()
	}
	release()
	if len(l.volumes) != 0 {
		t.Errorf("%d locks were left behind", len(l.volumes))
	}
}

func TestLocksRepairGivesWay(t *testing.T) {
	l := newLocks()
	ctx, done, err := l.repair(t.Context(), "a", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var seized atomic.Bool
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		release, err := l.seize(t.Context(), "a")
		if err != nil {
			t.Error(err)
			return
		}
		seized.Store(true)
		release()
	}()
	<-ctx.Done()
	if seized.Load() {
		t.Error("the lock was taken before the repair had given it back")
	}
	done()
	<-ended
	// An operation that is no repair is not interrupted.
	release, err := l.take(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.seize(waiting, "a"); status.Code(err) != codes.Aborted {
		t.Error("seizing what an operation holds:", err)
	}
	release()
}
