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
	f, err := c.open(ctx, info)
	if errors.Is(err, cacheclient.ErrStale) {
		if info, err = c.Stat(ctx, path); err == nil {
			f, err = c.open(ctx, info)
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
	e.mu.Lock()
	e.bypass = false
	e.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(warmAhead)
	n := blocksIn(e.info.Size)
	for b := int64(0); b < n && ctx.Err() == nil; b += maxRun {
		r := run{b, min(b+maxRun, n)}
		g.Go(func() error { return e.bring(ctx, r) })
	}
	return g.Wait()
}

// bring waits until the blocks of r are in a tier.
func (e *entry) bring(ctx context.Context, r run) error {
	for {
		e.verify(r)
		e.mu.Lock()
		have, bypass := e.have.hasAll(r), e.bypass
		block := r.last - 1
		for b := r.first; b < r.last && !have; b++ {
			if !e.have.has(b) {
				block = b
				break
			}
		}
		e.mu.Unlock()
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
	// freePatience is how long Free waits for work on files that nobody has open, such as the end of a fetch, and
	// freePause the time between two looks.
	freePatience = time.Second
	freePause    = 5 * time.Millisecond
)

// freeIdle drops the idle entries below the path, and tells whether there are others that nobody has open.
func (c *Cache) freeIdle(path string) (freed int64, busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		if !below(path, e.info.Path) {
			continue
		}
		if e.idle == nil {
			busy = busy || e.level != nil && e.handles.Load() == 0
			continue
		}
		freed += e.charged
		e.level.idle.Remove(e.idle)
		e.idle = nil
		c.detachIdle(e)
		c.drop(e)
	}
	return freed, busy
}

// below tells whether p is the path or in the tree below it.
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
	c.mu.Lock()
	where := []string{}
	if e.level != nil {
		where = append(where, e.level.dir)
	}
	c.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	blocks := []cacheclient.Block{}
	last := false
	for b := range blocksIn(info.Size) {
		r := run{b, b + 1}
		have := e.have.has(b)
		if n := len(blocks); n > 0 && have == last {
			blocks[n-1].Length += r.bytes(info.Size)
			continue
		}
		block := cacheclient.Block{Offset: b * BlockSize, Length: r.bytes(info.Size), Where: []string{}}
		if have {
			block.Where = where
		}
		blocks, last = append(blocks, block), have
	}
	return blocks, nil
}
