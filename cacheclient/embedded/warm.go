package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient"
)

// errNoRoom says that a file cannot be kept.
var errNoRoom = errors.New("the tiers have no room for it")

// warmAhead is how many runs of one file are fetched side by side by Warm.
const warmAhead = 4

// Warm implements cacheclient.Client.
func (c *Cache) Warm(ctx context.Context, path string, progress func(int64)) error {
	info, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	f, err := c.openFile(ctx, info)
	if errors.Is(err, cacheclient.ErrStale) {
		if info, err = c.Stat(ctx, path); err == nil {
			f, err = c.openFile(ctx, info)
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	e := f.e
	if progress == nil {
		progress = func(int64) {}
	}
	ctx, stop := context.WithCancel(ctx)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		e.report(ctx, progress)
	}()
	err = e.fetchAll(ctx)
	stop()
	<-reported
	progress(e.cached())
	return err
}

// report tells the progress twice a second until the context ends.
func (e *entry) report(ctx context.Context, progress func(int64)) {
	for sleep(ctx, 500*time.Millisecond) {
		progress(e.cached())
	}
}

// fetchAll brings every block into a tier.
func (e *entry) fetchAll(ctx context.Context) error {
	if err := e.c.adopted(ctx); err != nil {
		return fmt.Errorf("warm %q: %w", e.info.Path, err)
	}
	e.tryTiers()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(warmAhead)
	n := blocksIn(e.info.Size)
	for b := int64(0); b < n && ctx.Err() == nil; b += maxRun {
		r := run{b, min(b+maxRun, n)}
		g.Go(func() error { return e.bring(ctx, r) })
	}
	return g.Wait()
}

// tryTiers forgets that the tiers had no room.
func (e *entry) tryTiers() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bypass = false
}

// bring waits until the blocks of r are in a tier.
func (e *entry) bring(ctx context.Context, r run) error {
	for ctx.Err() == nil {
		e.verify(r)
		block, have, bypass := e.lacks(r)
		switch {
		case have:
			return nil
		case bypass || len(e.c.levels) == 0:
			return fmt.Errorf("warm %q: %w", e.info.Path, errNoRoom)
		}
		if err := e.awaitBytes(ctx, min((block+1)*BlockSize, e.info.Size), r); err != nil {
			return err
		}
	}
	return fmt.Errorf("warm %q: %w", e.info.Path, ctx.Err())
}

// lacks is the first block of r that the tier does not have, unless it has all, and whether the last fetch found no
// room. Such a block that is whole in memory would not be fetched: it is forgotten there.
func (e *entry) lacks(r run) (block int64, have, bypass bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for b := r.first; b < r.last; b++ {
		if !e.have.has(b) {
			if e.staged[b] != nil && !e.partly(b) && !e.bypass {
				delete(e.staged, b)
			}
			return b, false, e.bypass
		}
	}
	return r.last - 1, true, e.bypass
}

// cached is how many bytes of the file the tiers have.
func (e *entry) cached() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.have.count * BlockSize
	if last := blocksIn(e.info.Size) - 1; last >= 0 && e.have.has(last) {
		n += e.info.Size - (last+1)*BlockSize
	}
	return n
}

// Free implements cacheclient.Client.
func (c *Cache) Free(ctx context.Context, path string) (int64, error) {
	if err := c.adopted(ctx); err != nil {
		return 0, fmt.Errorf("free %q: %w", path, err)
	}
	var freed int64
	for end := time.Now().Add(freePatience); ; {
		n, busy := c.freeIdle(path)
		freed += n
		if !busy || time.Now().After(end) || !sleep(ctx, freePause) {
			return freed, nil
		}
	}
}

const (
	// freePatience is how long Free waits for work on files that are not open, such as the end of a fetch, and
	// freePause the time between two looks.
	freePatience = time.Second
	freePause    = 5 * time.Millisecond
)

// freeIdle drops what is cached below the path and not in use, and reports whether there is more that has no handle.
func (c *Cache) freeIdle(path string) (freed int64, busy bool) {
	taken, busy := c.takeIdle(path)
	for chunk := 0; ; chunk++ {
		for _, g := range taken {
			freed += g.charged
		}
		c.sweep(taken)
		var more bool
		if taken, more = c.takeShelved(path, chunk); !more {
			return freed, busy
		}
	}
}

// takeIdle takes the idle entries below the path off the index, and reports whether there are others without a handle.
func (c *Cache) takeIdle(path string) (taken []gone, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.entries {
		switch {
		case !below(path, e.info.Path):
		case e.idle != nil:
			taken = c.takeOff(taken, id)
		default:
			busy = busy || e.level != nil && e.handles.Load() == 0
		}
	}
	return taken, busy || len(c.claims) > len(taken)
}

// takeShelved takes those of one chunk of the shelf off the index that are below the path, and reports whether there is
// such a chunk.
func (c *Cache) takeShelved(path string, chunk int) (taken []gone, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if chunk >= len(c.shelf.chunks) {
		return nil, false
	}
	for _, id := range c.shelf.below(path, chunk) {
		taken = c.takeOff(taken, id)
	}
	return taken, true
}

// below reports whether p is the path or in the tree below it.
func below(path, p string) bool {
	return path == "" || p == path || strings.HasPrefix(p, path+"/")
}

// Blocks implements cacheclient.Client. Neighbours in the same place are told as one.
func (c *Cache) Blocks(ctx context.Context, path string) ([]cacheclient.Block, error) {
	info, err := c.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	if info.Dir {
		return nil, fmt.Errorf("blocks of %q: %w", path, cacheclient.ErrIsDir)
	}
	e, err := c.acquire(ctx, info, true)
	if err != nil {
		return nil, err
	}
	defer c.release(e)
	where := []string{}
	if l := c.levelOf(e); l != nil {
		where = append(where, l.dir)
	}
	return e.places(where), nil
}

// places tells which parts of the file are where the tier is. It takes as long as what is cached is, not as the file.
func (e *entry) places(where []string) []cacheclient.Block {
	e.mu.Lock()
	defer e.mu.Unlock()
	blocks := []cacheclient.Block{}
	add := func(r run, where []string) {
		if r.len() > 0 {
			blocks = append(blocks, cacheclient.Block{
				Offset: r.first * BlockSize, Length: r.bytes(e.info.Size),
				Where: where,
			})
		}
	}
	next := int64(0)
	for _, r := range e.have.runs() {
		add(run{next, r.first}, []string{})
		add(r, where)
		next = r.last
	}
	add(run{next, e.blocks()}, []string{})
	return blocks
}
