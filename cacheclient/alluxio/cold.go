package alluxio

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// errOther says that the source has another version than the one asked for, in a way that the masters do not see.
var errOther = errors.New("the source tells of the file differently than Alluxio does")

// askSource asks the source for the version in the background: a file that no worker has is opened to be read, and
// then needs that, and the connection.
func (f *file) askSource() {
	c := f.c
	if c.cfg.WorkersRead || !c.begin() {
		return
	}
	go func() {
		defer c.work.Done()
		if _, _, err := c.sources.find(f.info.Path); err == nil {
			// Who reads meets the same error.
			_, _ = c.direct.Stat(f.life, f.info.Path)
		}
	}()
}

// source is the version as the source tells of it. It is ErrStale where the source has another, and errOther where the
// masters, asked to compare, say that it is this one.
func (f *file) source(ctx context.Context) (cacheclient.Info, error) {
	c := f.c
	if c.cfg.WorkersRead {
		return cacheclient.Info{}, errNoSource
	}
	if _, _, err := c.sources.find(f.info.Path); err != nil {
		return cacheclient.Info{}, err
	}
	info, err := c.direct.Stat(ctx, f.info.Path)
	if same, _ := sameVersion(f.info, info); isGone(err) || err == nil && !same {
		// What was known of the source may be old, and one answer that it is gone may be of a server that lags behind.
		c.direct.Forget(f.info.Path)
		info, err = c.direct.Stat(ctx, f.info.Path)
	}
	same, sure := sameVersion(f.info, info)
	switch {
	case err != nil && isGone(err):
		return info, f.compare(ctx, cacheclient.ErrStale)
	case err != nil:
		return info, err
	case !same:
		return info, f.compare(ctx, cacheclient.ErrStale)
	case !sure:
		return info, f.confirm(ctx, info)
	}
	return info, nil
}

// confirm has the masters say whether a version of the source is this one, where the times leave that open: it is
// if they see no change, and it is the source's version still after that. Without an answer it is taken for this one.
func (f *file) confirm(ctx context.Context, info cacheclient.Info) error {
	if f.isConfirmed(info.ID) {
		return nil
	}
	if err := f.compare(ctx, nil); !errors.Is(err, errOther) {
		return err
	}
	f.c.direct.Forget(f.info.Path)
	again, err := f.c.direct.Stat(ctx, f.info.Path)
	if err != nil {
		return err
	}
	if again.ID != info.ID {
		return f.compare(ctx, cacheclient.ErrStale)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.confirmed = info.ID
	return nil
}

func (f *file) isConfirmed(id uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.confirmed == id
}

// compare has the masters compare the file with the source. It returns ErrStale where they have another version after
// that, errOther where they have the same, and otherwise what is known without them: then the path is looked for anew,
// at the source if need be.
func (f *file) compare(ctx context.Context, otherwise error) error {
	ctx, cancel := context.WithTimeout(ctx, f.c.cfg.Timeout)
	defer cancel()
	now, err := f.c.cluster.Status(ctx, f.c.store.absolute(f.info.Path), rpc.AlwaysSync)
	switch {
	case isGone(err):
	case err != nil:
		if otherwise != nil {
			f.outdated()
		}
		return otherwise
	case now.GetFileId() == f.l.fileID && now.GetLength() == f.l.size:
		return errOther
	}
	f.outdated()
	return cacheclient.ErrStale
}

// outdated forgets what is known of the path, which has another version now.
func (f *file) outdated() {
	f.c.store.suspect(f.info.Path)
	f.c.names.Forget(f.info.Path)
}

// sourceChanged has the masters learn of a change that a read from the source has met.
func (f *file) sourceChanged(err error) error {
	if errors.Is(err, cacheclient.ErrStale) {
		f.c.direct.Forget(f.info.Path)
		f.outdated()
	}
	return err
}

// readDirect reads a span from the source, past all workers.
func (f *file) readDirect(ctx context.Context, s span, info cacheclient.Info) (cacheclient.Data, error) {
	direct, err := f.inSource(ctx, info)
	if err != nil {
		return cacheclient.Data{}, err
	}
	d, err := direct.Read(ctx, int64(s.k)*f.l.blockSize+s.off, int(s.n))
	if err == nil && int64(d.Len()) != s.n {
		d.Release()
		return cacheclient.Data{}, fmt.Errorf("the source has %d bytes where the version has %d: %w", d.Len(), s.n,
			cacheclient.ErrStale)
	}
	d.Origin = cacheclient.OriginSource
	return d, err
}

// inSource is the file as it is open in its source.
func (f *file) inSource(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	if direct := f.opened(); direct != nil {
		return direct, nil
	}
	opened, err := f.c.direct.Open(ctx, info)
	if err != nil {
		return nil, err
	}
	kept, err := f.keepOpen(opened, false)
	if kept != opened {
		_ = opened.Close()
	}
	return kept, err
}

// opened is the file as it is open in its source, nil where it is not.
func (f *file) opened() cacheclient.File {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.direct
}

// keepOpen keeps an open file, and returns the one that is kept: with anew in the place of another, which those that
// read from it go on with.
func (f *file) keepOpen(opened cacheclient.File, anew bool) (cacheclient.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed.Load():
		return nil, cacheclient.ErrClosed
	case f.direct == nil:
		f.direct = opened
	case anew:
		f.former = append(f.former, f.direct)
		f.direct = opened
	}
	return f.direct, nil
}

// mostFormer bounds how often one handle opens a version anew that its source has called another.
const mostFormer = 8

// reopen opens the version in its source anew, which the source has called another and then this one.
func (f *file) reopen(ctx context.Context, info cacheclient.Info) error {
	if f.reopened() >= mostFormer {
		return errOther
	}
	opened, err := f.c.direct.Open(ctx, info)
	if err != nil {
		return err
	}
	if _, err = f.keepOpen(opened, true); err != nil {
		_ = opened.Close()
	}
	return err
}

func (f *file) reopened() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.former)
}

// check is nil while the source has the version.
func (f *file) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.c.cfg.Timeout)
	defer cancel()
	now, err := f.c.cluster.Status(ctx, f.c.store.absolute(f.info.Path), rpc.AlwaysSync)
	if isGone(err) || err == nil && now.GetFileId() != f.l.fileID {
		f.outdated()
		return fmt.Errorf("read %q: %w", f.info.Path, cacheclient.ErrStale)
	}
	return err
}

// cacheAgain is how long a worker is not asked again to cache a block.
const cacheAgain = 30 * time.Second

// leastCached is how slowly a worker may read its under store, in bytes a second: it says nothing while it does.
const leastCached = 1 << 20

// cachePatience is how long a worker may take to cache a block.
func cachePatience(length int64) time.Duration {
	return cacheAgain + time.Duration(min(length, mostMapped)/leastCached)*time.Second
}

// cacheLater has a worker cache the whole block of which a part was read, so that readers at random places warm it too.
// It reads whatever is at the path: where the version has gone by the end, what it has is removed.
func (f *file) cacheLater(w *rpc.Worker, k int, under *rpc.UnderStore) {
	id := f.l.block(k)
	if f.c.gone.was(id) || !f.c.asked.first(id, cacheAgain) || !f.c.begin() {
		return
	}
	go func() {
		defer f.c.work.Done()
		ctx, cancel := context.WithTimeout(f.c.life, cachePatience(f.l.length(k)))
		defer cancel()
		err := w.Cache(ctx, id, f.l.length(k), *under, false)
		if err == nil {
			err = f.kept(ctx, w, k)
		}
		if err != nil {
			f.c.log.Debug("a worker did not cache a block", "path", f.info.Path, "block", id, "error", err)
		}
	}()
}

// kept has a worker's copy of a block removed if the version went while it was read from the under store.
func (f *file) kept(ctx context.Context, w *rpc.Worker, k int) error {
	err := f.check(ctx)
	if errors.Is(err, cacheclient.ErrStale) {
		f.c.unkeep(ctx, w, f.l.block(k))
	}
	return err
}

// unkeep removes what a worker may have of a block that it read from its under store when that had another version.
func (c *Client) unkeep(ctx context.Context, w *rpc.Worker, id int64) {
	c.dropped(id, w)
	if err := w.Remove(ctx, id); err != nil && !rpc.NotCached(err) {
		c.log.Warn("a block of a version that is gone could not be removed", "worker", w.Addr(), "block", id, "error",
			err)
	}
}

// rank are the workers that could hold a block of this length, the one that should first.
func (c *Client) rank(ctx context.Context, id, length int64) ([]*rpc.Worker, error) {
	live, err := c.cluster.Live(ctx)
	if err != nil {
		return nil, err
	}
	var fit, broken []*rpc.Worker
	for _, w := range rpc.Rank(live, id) {
		switch {
		case w.Capacity() > 0 && w.Capacity() < length:
		case w.Broken():
			broken = append(broken, w)
		default:
			fit = append(fit, w)
		}
	}
	return append(fit, broken...), nil
}

// isGone reports whether an error says that the file is not there.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
