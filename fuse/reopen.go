package fuse

import (
	"context"
	"errors"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
)

const (
	// reopening is how many files of an earlier process are opened at once.
	reopening = 16
	// reopenPause is between two attempts at a file, doubled with each up to longestReopenPause.
	reopenPause        = 500 * time.Millisecond
	longestReopenPause = 30 * time.Second
	// claimPatience is how long the request of a handle that no caller was told of may take to come again. One that comes
	// later gets a handle of its own.
	claimPatience = 5 * time.Second
)

// reopen opens the files that an earlier process had open, in the background: a version that is cached needs no
// source for that. READs of one wait for it, and for no other: one that hangs holds up none of the rest.
func (fs *filesystem) reopen(ctx context.Context, ids []uint64) {
	var files sync.WaitGroup
	places := make(chan struct{}, reopening)
	for _, id := range ids {
		files.Go(func() { fs.reopenFile(ctx, id, places) })
	}
	files.Wait()
}

// reopenFile makes attempts at one file until it is open, cannot be opened, or is not open any more.
func (fs *filesystem) reopenFile(ctx context.Context, id uint64, places chan struct{}) {
	pause := reopenPause
	for first := true; fs.opens.awaited(id); first = false {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		file, err := fs.resume(ctx, id, sync.OnceFunc(func() { <-places }))
		if err != nil && first {
			fs.log.Warn("an open file could not be taken over", "node", id, "path", fs.nodes.pathOf(id), "error", err)
		}
		if !mayPass(err) {
			fs.closeFile(fs.opens.reopened(id, file, err))
			return
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, longestReopenPause)
		case <-ctx.Done():
			return
		}
	}
}

// mayPass reports whether an error of Resume may be gone at the next attempt.
func mayPass(err error) bool {
	return errors.Is(err, cacheclient.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)
}

// resume makes one attempt at a file. The place is free for others after the deadline, also where the client does not
// heed that.
func (fs *filesystem) resume(ctx context.Context, id uint64, free func()) (cacheclient.File, error) {
	defer free()
	defer time.AfterFunc(fs.timeout, free).Stop()
	ctx, cancel := context.WithTimeout(ctx, fs.timeout)
	defer cancel()
	n := fs.nodes.get(id)
	if n == nil {
		return nil, cacheclient.ErrStale
	}
	return fs.client.Resume(ctx, fs.nodes.info(n))
}

// releaseUnclaimed gives back the handles of an earlier process that the kernel does not know of.
func (fs *filesystem) releaseUnclaimed(ctx context.Context) {
	if len(fs.opens.unclaimed()) == 0 && len(fs.dirs.unclaimed()) == 0 {
		return
	}
	select {
	case <-time.After(claimPatience):
	case <-ctx.Done():
		return
	}
	for _, number := range fs.opens.unclaimed() {
		fs.giveBack(fs.opens.releaseUnclaimed(number))
	}
	for _, number := range fs.dirs.unclaimed() {
		fs.dirs.releaseUnclaimed(number)
	}
}
