package rpc

import (
	"bytes"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/sanity/pace"
)

// TestLocateKeepsNoLock asks for the files of more blocks than the worker has locks, many times each.
func TestLocateKeepsNoLock(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	const blockSize, blocks, calls, goroutines = 4 << 10, 2 * blockLocks, 3000, 8
	dir, path := mountBlocks(t, m, blockSize)
	s := newSourceIn(t, m, dir, path, blocks*blockSize)
	w := workerAt(t, m, c.Workers()[0])
	for k := range blocks {
		s.cache(t, w, k)
	}
	begin := time.Now()
	var next atomic.Int64
	var callers sync.WaitGroup
	for range goroutines {
		callers.Go(func() {
			for i := next.Add(1); i <= calls; i = next.Add(1) {
				k := int(i) % blocks
				path, err := w.Locate(within(t, 20*time.Second), s.block(k))
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
				if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, s.bytes(k)) {
					t.Errorf("block %d is not in its file: %v", k, err)
				}
			}
		})
	}
	callers.Wait()
	t.Logf("%d calls for %d blocks took %v, with %d locks", calls, blocks, time.Since(begin).Round(time.Millisecond),
		blockLocks)
	if _, err := w.Locate(within(t, 5*time.Second), s.block(0)+blocks); !NotCached(err) {
		t.Errorf("a block that is not there: %v", err)
	}
	// Nothing of them is locked: each can be removed at once.
	begin = time.Now()
	for k := range blocks {
		if err := w.Remove(within(t, 10*time.Second), s.block(k)); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took > pace.Limit(10*time.Second) {
		t.Errorf("removing the blocks took %v", took)
	}
}

// TestFetch has a worker copy a block from another, and finds it there at once.
func TestFetch(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	s := newSource(t, c, m, 2<<20)
	from, to := workerAt(t, m, c.Workers()[0]), workerAt(t, m, c.Workers()[1])
	if err := to.Fetch(within(t, 20*time.Second), s.block(0), 2<<20, from); err == nil {
		t.Error("a block that nobody has could be copied")
	}
	s.cache(t, from, 0)
	if err := to.Fetch(within(t, 20*time.Second), s.block(0), 2<<20, from); err != nil {
		t.Fatal(err)
	}
	path, err := to.Locate(within(t, 5*time.Second), s.block(0))
	if err != nil {
		t.Fatal(err)
	}
	if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, s.content) {
		t.Errorf("the copy differs: %v", err)
	}
}

// TestCopy has a worker copy a block from another.
func TestCopy(t *testing.T) {
	c := shared.Get(t)
	noMoreGoroutines(t)
	m := connect(t, addresses(c)...)
	s := newSource(t, c, m, 2<<20)
	from, to := workerAt(t, m, c.Workers()[0]), workerAt(t, m, c.Workers()[1])
	s.cache(t, from, 0)
	if err := to.Copy(within(t, 20*time.Second), s.block(0), 2<<20, from); err != nil {
		t.Fatal(err)
	}
	for ctx := within(t, 20*time.Second); ; sleep(ctx, 20*time.Millisecond) {
		path, err := to.Locate(ctx, s.block(0))
		if NotCached(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if content, err := os.ReadFile(path); err != nil || !bytes.Equal(content, s.content) {
			t.Errorf("the copy differs: %v", err)
		}
		return
	}
}
