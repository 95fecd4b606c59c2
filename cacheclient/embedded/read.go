package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"millrace.io/millrace/cacheclient"
)

const (
	// largestWindow is how far ahead of a sequential reader to fetch into a tier, in bytes.
	largestWindow = 64 << 20
	// checkPatience is how long an open waits for the check of a file that an earlier process cached and did not seal,
	// so that it can be passed through from the first open: that of some hundred MiB.
	checkPatience = 150 * time.Millisecond
	// staleFor is how long it counts that the source did not have a version, as long as the source is not asked: then a
	// reader that has it open still, and misses something, tries again.
	staleFor = time.Second
)

// file is one open of an entry.
type file struct {
	e      *entry
	closed atomic.Bool
}

var _ cacheclient.File = (*file)(nil)

// Open implements cacheclient.Client.
func (c *Cache) Open(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	f, err := c.openFile(ctx, info)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (c *Cache) openFile(ctx context.Context, info cacheclient.Info) (*file, error) {
	if info.Dir {
		return nil, fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrIsDir)
	}
	if c.ctx.Err() != nil {
		return nil, fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrClosed)
	}
	if err := c.checkVersion(ctx, info); err != nil {
		return nil, err
	}
	f, err := c.hold(ctx, info, true)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(c.recheck(ctx, f.e), f.e.check(ctx, checkPatience)); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// recheck returns ErrStale if the version was gone and the source, asked anew, does not have it. What is known of the
// path may be older than that. The word of an earlier process is enough for a file that is here whole: of another the
// first read would find out.
func (c *Cache) recheck(ctx context.Context, e *entry) error {
	e.mu.Lock()
	e.inspect()
	gone, whole := !e.staleAt.IsZero(), e.whole()
	e.mu.Unlock()
	if gone {
		if err := c.stands(ctx, e.info); errors.Is(err, cacheclient.ErrStale) || ctx.Err() != nil {
			return fmt.Errorf("open: %w", err)
		}
		return nil
	}
	if r, known := c.meta.get(e.info.Path); whole || !known || !r.inherited {
		return nil
	}
	r, err := c.ask(ctx, e.info.Path, record{info: e.info}, true)
	if err != nil {
		return err
	}
	return c.compare(ctx, e.info, r)
}

// Resume implements cacheclient.Client. It waits for no check: blocks are checked one by one when they are
// read, and what the kernel reads by itself needs none.
func (c *Cache) Resume(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	if info.Dir {
		return nil, fmt.Errorf("resume %q: %w", info.Path, cacheclient.ErrIsDir)
	}
	if c.ctx.Err() != nil {
		return nil, fmt.Errorf("resume %q: %w", info.Path, cacheclient.ErrClosed)
	}
	f, err := c.hold(ctx, info, false)
	if err != nil {
		return nil, err
	}
	f.e.resume()
	return f, nil
}

// hold opens the version, whether or not the source still has it.
func (c *Cache) hold(ctx context.Context, info cacheclient.Info, latest bool) (*file, error) {
	e, err := c.acquire(ctx, info, latest)
	if err != nil {
		return nil, err
	}
	e.handles.Add(1)
	return &file{e: e}, nil
}

// Info implements cacheclient.File.
func (f *file) Info() cacheclient.Info { return f.e.info }

// Local implements cacheclient.File. An entry that is open is never evicted, so the answer
// stays true until Close.
func (f *file) Local() (*os.File, bool) {
	if f.closed.Load() {
		return nil, false
	}
	return f.e.local()
}

// Close implements cacheclient.File.
func (f *file) Close() error {
	if !f.closed.CompareAndSwap(false, true) {
		return cacheclient.ErrClosed
	}
	if f.e.handles.Add(-1) == 0 {
		f.e.mu.Lock()
		for _, g := range f.e.fetches {
			g.cancel()
		}
		f.e.mu.Unlock()
	}
	f.e.c.release(f.e)
	return nil
}

// Read implements cacheclient.File.
func (f *file) Read(ctx context.Context, off int64, n int) (cacheclient.Data, error) {
	e := f.e
	if f.closed.Load() || e.c.ctx.Err() != nil {
		return cacheclient.Data{}, cacheclient.ErrClosed
	}
	if off < 0 || n < 0 {
		return cacheclient.Data{}, fmt.Errorf("read %q: offset %d and length %d are not both at least 0", e.info.Path,
			off, n)
	}
	length := min(int64(n), e.info.Size-off)
	if length <= 0 {
		return cacheclient.Data{}, nil
	}
	want := cover(off, off+length, e.info.Size)
	d, until, err := e.gather(off, length)
	if err != nil {
		return d, err
	}
	e.ahead(off, length, want, until > 0)
	if until == 0 {
		e.c.count.hits.Add(1)
		e.c.count.bytesCache.Add(length)
		return d, nil
	}
	e.c.count.misses.Add(1)
	return e.await(ctx, off, length, want)
}

// ahead starts fetching what the reader needs now (if it misses something) and soon.
func (e *entry) ahead(off, n int64, want run, misses bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.staleAt.IsZero() || (!misses && e.have.count == blocksIn(e.info.Size)) {
		return
	}
	largest := int64(largestWindow)
	if e.bypass || len(e.c.levels) == 0 {
		largest = e.c.staging.window()
	}
	if e.streams == nil {
		e.streams = new(streams)
	}
	until := e.streams.read(off, n, largest)
	soon := cover(want.first*BlockSize, until, e.info.Size)
	if soon.last <= want.last && !misses {
		return
	}
	if misses {
		e.demand(want, soon)
		return
	}
	e.prefetch(run{want.last, soon.last})
}

// demand starts what is missing of want, and what soon adds; mu is held.
func (e *entry) demand(want, soon run) {
	if e.noRanges {
		e.demandWhole(want)
		return
	}
	for _, r := range missing(want, maxRun, e.busy) {
		e.start(r, r, func() {})
	}
	if soon.last > want.last {
		e.prefetch(run{want.last, soon.last})
	}
}

// prefetch starts what is missing of r, in whole runs so that the source sees few large
// requests, and only as many at once as leave connections for readers that wait; mu is held.
func (e *entry) prefetch(r run) {
	if e.noRanges {
		return
	}
	longest := min(maxRun, max(1, r.len()/4))
	for _, m := range missing(r, longest, e.busy) {
		atEnd := m.last == blocksIn(e.info.Size)
		if (m.len() < longest && !atEnd && m.last == r.last) || !e.c.ahead.TryAcquire(1) {
			return
		}
		e.start(m, m, func() { e.c.ahead.Release(1) })
	}
}

// await waits until [off, off+n) is here, starting again what failed for want of room.
func (e *entry) await(ctx context.Context, off, n int64, want run) (cacheclient.Data, error) {
	for waited := false; ; waited = true {
		e.verify(want)
		d, until, err := e.gather(off, n)
		if err != nil {
			return d, err
		}
		if until == 0 {
			e.c.count.bytesCache.Add(n)
			if waited {
				d.Origin = cacheclient.OriginSource
			}
			return d, nil
		}
		if err := e.awaitBytes(ctx, until, want); err != nil {
			return cacheclient.Data{}, err
		}
	}
}

// awaitBytes waits for the bytes of a block before the offset until, starting a fetch if none is
// under way. It may return early; the caller looks again.
func (e *entry) awaitBytes(ctx context.Context, until int64, want run) error {
	block := (until - 1) / BlockSize
	f, w, err := e.queue(block, until, want)
	if f == nil {
		return err
	}
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = fmt.Errorf("read %q: %w", e.info.Path, ctx.Err())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.waiters = slices.DeleteFunc(e.waiters, func(v *waiter) bool { return v == w })
		return err
	}
	if f.done && f.err != nil && !again(f.err) && !e.have.has(block) {
		return f.err
	}
	return nil
}

// queue makes the reader wait for a fetch, which is nil where there is nothing to wait for.
func (e *entry) queue(block, until int64, want run) (*fetch, *waiter, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f, err := e.fetchFor(block, until, want)
	if f == nil {
		return nil, nil, err
	}
	w := &waiter{until: until, ready: make(chan struct{})}
	if f.run.last <= block || f.run.first > block {
		w.until = min(f.run.last*BlockSize, e.info.Size)
	}
	e.waiters = append(e.waiters, w)
	return f, w, err
}

// fetchFor returns the fetch that brings a block, or one whose end allows another try; nil when
// the bytes are here already, or cannot come. mu is held.
func (e *entry) fetchFor(block, until int64, want run) (*fetch, error) {
	if e.inTier(block, until) {
		return nil, nil
	}
	if f := e.fetchOf(block); f != nil && (f.pass == nil || e.partly(block) && f.pass.more == nil) {
		return f, nil
	}
	switch {
	case e.c.ctx.Err() != nil:
		// First: a block in memory whose last use ends after Close is gone, though the entry still names it.
		return nil, cacheclient.ErrClosed
	case e.have.has(block) || e.staged[block] != nil:
		return nil, nil
	case !e.staleAt.IsZero() && time.Since(e.staleAt) < staleFor:
		return nil, fmt.Errorf("read %q: %w", e.info.Path, cacheclient.ErrStale)
	}
	e.demand(run{block, max(want.last, block+1)}, run{})
	if f := e.fetchOf(block); f != nil {
		if f.pass != nil && f.pass.more != nil {
			// Another fetch was about to bring it, and may not.
			f.pass.extend(run{block, block + 1})
		}
		return f, nil
	}
	if len(e.fetches) == 0 {
		return nil, cacheclient.ErrClosed
	}
	// A fetch of other blocks has to end before one of all can begin.
	return e.fetches[max(0, slices.IndexFunc(e.fetches, func(f *fetch) bool { return f.pass == nil }))], nil
}

// again reports whether a fetch failed in a way that another, started now, will not.
func again(err error) bool {
	return errors.Is(err, errTierWrite) || errors.Is(err, errNoRanges) || errors.Is(err, context.Canceled)
}
