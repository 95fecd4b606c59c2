package alluxio

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// warmAhead is how many blocks of one file are brought side by side by Warm.
	warmAhead = 3
	// reportEvery is how often Warm tells its progress.
	reportEvery = 500 * time.Millisecond
)

// errNotKept says that a block was read and is not cached.
var errNotKept = errors.New("no worker has kept it; its tiers may be full or pinned")

// Warm implements cacheclient.Client.
func (c *Client) Warm(ctx context.Context, path string, progress func(int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	info, err := c.Stat(ctx, path)
	if err != nil {
		return err
	}
	opened, err := c.Open(ctx, info)
	if errors.Is(err, cacheclient.ErrStale) {
		if info, err = c.Stat(ctx, path); err == nil {
			opened, err = c.Open(ctx, info)
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = opened.Close() }()
	f, ok := opened.(*file)
	if !ok {
		return fmt.Errorf("warm %q: %w: no master answers", path, cacheclient.ErrUnavailable)
	}
	var cached atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(warmAhead)
	reporting, stop := context.WithCancel(ctx)
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		for sleep(reporting, reportEvery) {
			progress(cached.Load())
		}
	}()
	for k := range f.l.blocks() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			if err := f.warm(ctx, k); err != nil {
				return fmt.Errorf("warm %q: block at %d: %w", path, int64(k)*f.l.blockSize, err)
			}
			cached.Add(f.l.length(k))
			return nil
		})
	}
	err = g.Wait()
	stop()
	<-reported
	progress(cached.Load())
	if err == nil {
		c.awaitUse(context.WithoutCancel(ctx), func(used int64) bool { return used >= f.l.size })
	}
	return err
}

// warmTries is how often Warm brings a block that nobody has after that: a worker that has just come back may refuse
// it, or have made room for another since. warmPause is between two of them.
const (
	warmTries = 3
	warmPause = 500 * time.Millisecond
)

// warm brings one block into a worker: by this process where it reads the source, else by the worker.
func (f *file) warm(ctx context.Context, k int) error {
	var last error
	for try := 0; ; try++ {
		there, err := f.cached(ctx, k)
		if there {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if try == warmTries {
			return errors.Join(errNotKept, err, last)
		}
		if try > 0 {
			// Masters learn of a block, and of the removal of a damaged one, with the worker's next heartbeat.
			if !sleep(ctx, warmPause) {
				return ctx.Err()
			}
			if there, err := f.cached(ctx, k); there {
				return nil
			} else if err == nil {
				f.dropUnknown(ctx, k)
			}
		}
		if !f.c.awaitReported(ctx, f.l.block(k)) {
			return ctx.Err()
		}
		if last = f.bringBlock(ctx, k); errors.Is(last, cacheclient.ErrStale) {
			return last
		}
	}
}

// cached reports whether a worker has a block, as far as this machine and the masters know.
func (f *file) cached(ctx context.Context, k int) (bool, error) {
	if b := f.c.localBlock(ctx, f.l.block(k), f.l.length(k)); b != nil {
		b.release()
		return true, nil
	}
	workers, err := f.c.askPlace(ctx, f.l.block(k))
	return len(workers) > 0, err
}

// bringBlock brings a cold block into a worker, and returns when it is there or will not be.
func (f *file) bringBlock(ctx context.Context, k int) error {
	info, err := f.source(ctx)
	if err == nil {
		err = f.bringOwn(ctx, k, info)
	}
	if err == nil || errors.Is(err, cacheclient.ErrStale) {
		return err
	}
	return f.haveCached(ctx, k)
}

// bringOwn has this process bring a block from the source into a worker.
func (f *file) bringOwn(ctx context.Context, k int, info cacheclient.Info) error {
	if fl, err := f.c.fillOf(ctx, f, k, info); err == nil {
		err = fl.await(ctx)
		if !errors.Is(err, errNotMade) {
			return err
		}
		if b := f.c.localBlock(ctx, f.l.block(k), f.l.length(k)); b != nil {
			// Somebody else was faster.
			b.release()
			return nil
		}
	}
	if p := f.c.pushFor(ctx, f, k, info); p != nil {
		return p.awaitPushed(ctx)
	}
	return errNoPush
}

// await has the whole block come, and waits for it.
func (fl *fill) await(ctx context.Context) error {
	fl.goOn()
	select {
	case <-fl.ended:
		_, _, err := fl.missing()
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// haveCached has the worker that should have a block read it from its under store.
func (f *file) haveCached(ctx context.Context, k int) error {
	c := f.c
	now, err := c.cluster.Status(ctx, c.store.absolute(f.info.Path), rpc.AlwaysSync)
	if err != nil {
		return err
	}
	if now.GetFileId() != f.l.fileID {
		f.outdated()
		return cacheclient.ErrStale
	}
	workers, err := c.rank(ctx, f.l.block(k), f.l.length(k))
	if err != nil {
		return err
	}
	err = error(&rpc.Unreachable{Addr: c.cfg.Address.String(), Why: "has no worker that could hold the block"})
	for _, w := range workers {
		if err = w.Cache(ctx, f.l.block(k), f.l.length(k), *f.l.underStore(k, now), false); err == nil {
			c.bad.forget(f.l.block(k))
			return f.kept(ctx, w, k)
		}
	}
	return err
}
