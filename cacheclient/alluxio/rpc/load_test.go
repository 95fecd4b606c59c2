package rpc

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// load calls Status and List from many goroutines until stop, and keeps when calls began and ended.
type load struct {
	m       *Cluster
	stopped atomic.Bool
	calls   sync.WaitGroup
	// away counts the calls that failed because an election had become an outage.
	away atomic.Int64

	// mu guards the rest.
	mu     sync.Mutex
	done   int
	errs   []error
	ends   []time.Time
	begins []time.Time
}

func startLoad(t *testing.T, m *Cluster, dir string, goroutines int) *load {
	t.Helper()
	l := &load{m: m}
	for i := range goroutines {
		l.calls.Go(func() {
			for !l.stopped.Load() {
				begin := time.Now()
				away := m.outageAt(begin)
				// Longer than any election, so that none of them has a reason to fail.
				ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(60*time.Second))
				var err error
				if i%4 == 0 {
					n := 0
					err = m.List(ctx, dir, NeverSync, func() error { n = 0; return nil },
						func(*wire.FileInfo) error { n++; return nil })
					if err == nil && n != loadFiles {
						err = fmt.Errorf("a listing of %d entries, wanted %d", n, loadFiles)
					}
				} else {
					_, err = m.Status(ctx, fmt.Sprintf("%s/f%d", dir, i%loadFiles), NeverSync)
				}
				cancel()
				if err != nil && (away || m.outageAt(begin)) {
					// The election takes longer than one: calls fail at once, and are made again in a while.
					l.away.Add(1)
					time.Sleep(50 * time.Millisecond)
					continue
				}
				l.mu.Lock()
				l.done++
				l.begins, l.ends = append(l.begins, begin), append(l.ends, time.Now())
				if err != nil {
					l.errs = append(l.errs, err)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// outageAt reports whether a call that began then may fail at once: no master has led for longer than outagePatience.
func (c *Cluster) outageAt(began time.Time) bool {
	c.Masters.mu.Lock()
	defer c.Masters.mu.Unlock()
	return !c.lost.IsZero() && began.Sub(c.lost) > outagePatience
}

const loadFiles = 50

// stop ends the load and checks that no call failed.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.stopped.Store(true)
	l.calls.Wait()
	for _, err := range l.errs {
		t.Errorf("a call failed: %v", err)
	}
	longest := time.Duration(0)
	for i := range l.ends {
		longest = max(longest, l.ends[i].Sub(l.begins[i]))
	}
	t.Logf("%d calls, the longest took %v; %d more failed at once while no master led", l.done,
		longest.Round(time.Millisecond), l.away.Load())
}

// firstEndAfter waits for a call that ends well after a time, and returns when that was.
func (l *load) firstEndAfter(ctx context.Context, t *testing.T, after time.Time) time.Time {
	t.Helper()
	for ctx.Err() == nil {
		l.mu.Lock()
		for i := len(l.ends) - 1; i >= 0; i-- {
			if l.ends[i].After(after) && (i == 0 || !l.ends[i-1].After(after)) {
				defer l.mu.Unlock()
				return l.ends[i]
			}
		}
		l.mu.Unlock()
		sleep(ctx, time.Millisecond)
	}
	t.Fatal("no call ended")
	return time.Time{}
}

// loadDir is a directory of the under store for a load, known to the masters.
func loadDir(t *testing.T, c *cluster.Cluster, m *Cluster) string {
	t.Helper()
	dir := newDir(t, c, loadFiles)
	n := 0
	if err := m.List(within(t, 30*time.Second), dir, AlwaysSync, func() error { n = 0; return nil },
		func(*wire.FileInfo) error { n++; return nil }); err != nil || n != loadFiles {
		t.Fatalf("%d files, %v", n, err)
	}
	return dir
}
