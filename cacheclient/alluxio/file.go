package alluxio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

// file is one open of a version that Alluxio told of.
type file struct {
	c    *Client
	info cacheclient.Info
	l    layout
	// whole is the one local block that is all of the file, nil where there is none. The reference is the file's
	// until Close.
	whole  *blockFile
	closed atomic.Bool
	// streams are the reads from workers that go on, shared with all who have the version open.
	streams *streams
	// life ends with Close, and with it what reads wait for.
	life context.Context
	end  context.CancelFunc

	// mu guards the rest.
	mu sync.Mutex
	// where is what is known of blocks that are not on this machine, by their numbers.
	where map[int]located
	// trail are the reads by this handle.
	trail trail
	// copied are the blocks that the local worker was asked to copy.
	copied map[int]bool
	// direct is the file in its source, nil until it is needed, and former those that were opened before it.
	direct cacheclient.File
	former []cacheclient.File
	// confirmed is the version of the source that the masters took for this one, by its identity.
	confirmed uint64
}

// located is what is known of a block that is not on this machine.
type located struct {
	// workers have it; none means that it is cold.
	workers []*rpc.Worker
	at      time.Time
}

var _ cacheclient.File = (*file)(nil)

// Open implements cacheclient.Client.
func (c *Client) Open(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	l, ok := layoutOf(info)
	if !ok && !info.Dir {
		// The source told of it when no master did. One that answers by now has its own version.
		if err := c.names.Revalidate(ctx, info); err != nil && !errors.Is(err, cacheclient.ErrUnavailable) {
			return nil, err
		}
		return c.direct.Open(ctx, info)
	}
	if info.Dir {
		return nil, fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrIsDir)
	}
	if err := c.names.Revalidate(ctx, info); err != nil {
		return nil, err
	}
	return c.hold(ctx, info, l)
}

// Resume implements cacheclient.Client.
func (c *Client) Resume(ctx context.Context, info cacheclient.Info) (cacheclient.File, error) {
	l, ok := layoutOf(info)
	if !ok || info.Dir {
		return c.direct.Resume(ctx, info)
	}
	return c.hold(ctx, info, l)
}

// hold opens a version. A file of one block is looked for on this machine at once, so that the kernel can read it
// by itself from the first open.
func (c *Client) hold(ctx context.Context, info cacheclient.Info, l layout) (cacheclient.File, error) {
	if !c.begin() {
		return nil, fmt.Errorf("open %q: %w", info.Path, cacheclient.ErrClosed)
	}
	defer c.work.Done()
	f := &file{c: c, info: cacheclient.Identify(info), l: l, where: make(map[int]located), copied: make(map[int]bool)}
	f.life, f.end = context.WithCancel(c.life)
	switch {
	case l.blocks() == 1 && !c.nowhere(l.block(0)):
		f.whole = c.localBlock(ctx, l.block(0), l.length(0))
	case l.blocks() == 1:
		f.askSource()
	}
	f.streams = c.opened(info.Path, l)
	return f, nil
}

// opened counts a handle of a path, and returns the streams of its version.
func (c *Client) opened(path string, l layout) *streams {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[path]++
	return c.join(l)
}

// left counts a handle of a path less.
func (c *Client) left(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[path]--; c.open[path] <= 0 {
		delete(c.open, path)
	}
}

// Info implements cacheclient.File.
func (f *file) Info() cacheclient.Info { return f.info }

// Local implements cacheclient.File.
func (f *file) Local() (*os.File, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() || f.l.blocks() != 1 {
		return nil, false
	}
	if f.whole == nil {
		// It may have been cached since.
		f.whole = f.c.held.get(f.l.block(0))
	}
	if f.whole == nil {
		return nil, false
	}
	return f.whole.file, true
}

// Close implements cacheclient.File.
func (f *file) Close() error {
	if !f.closed.CompareAndSwap(false, true) {
		return cacheclient.ErrClosed
	}
	f.end()
	f.c.left(f.info.Path)
	f.c.leave(f.l, f.streams)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.whole != nil {
		f.whole.release()
		f.whole = nil
	}
	if f.direct != nil {
		f.former = append(f.former, f.direct)
	}
	for _, direct := range f.former {
		_ = direct.Close()
	}
	return nil
}

// Read implements cacheclient.File.
func (f *file) Read(ctx context.Context, off int64, n int) (cacheclient.Data, error) {
	if f.closed.Load() || f.c.life.Err() != nil {
		return cacheclient.Data{}, cacheclient.ErrClosed
	}
	if off < 0 || n < 0 {
		return cacheclient.Data{}, fmt.Errorf("read %q: offset %d and length %d are not both at least 0", f.info.Path,
			off, n)
	}
	length := min(int64(n), f.l.size-off)
	if length <= 0 {
		return cacheclient.Data{}, nil
	}
	spans := f.l.spans(off, length)
	if len(spans) == 1 {
		return f.serve(ctx, spans[0])
	}
	var all loans
	for _, s := range spans {
		d, err := f.serve(ctx, s)
		if err != nil {
			all.data().Release()
			return cacheclient.Data{}, err
		}
		all.add(d)
	}
	return all.data(), nil
}

// loans are bytes from several blocks, lent as one.
type loans struct {
	parts  [][]byte
	free   []func()
	origin cacheclient.Origin
	reader string
}

func (l *loans) add(d cacheclient.Data) {
	l.parts = append(l.parts, d.Parts...)
	if d.Free != nil {
		l.free = append(l.free, d.Free)
	}
	// The slowest origin is the one that the reader waited for.
	if l.origin == "" || d.Origin == cacheclient.OriginSource ||
		(d.Origin == cacheclient.OriginWorker && l.origin == cacheclient.OriginCache) {
		l.origin, l.reader = d.Origin, d.Reader
	}
}

func (l *loans) data() cacheclient.Data {
	free := l.free
	return cacheclient.Data{Parts: l.parts, Origin: l.origin, Reader: l.reader, Free: func() {
		for _, f := range free {
			f()
		}
	}}
}

// found is where a block is: open on this machine, or at workers, or nowhere.
type found struct {
	local   *blockFile
	workers []*rpc.Worker
	// unasked says that the workers of this machine were not asked: the masters had just said that nobody has it.
	unasked bool
}

// locate finds the block. What is known of one that is not on this machine is believed for a while: that nobody has it,
// until it has been brought.
func (f *file) locate(ctx context.Context, s span) (found, error) {
	id := f.l.block(s.k)
	known, ok := f.knownWhere(s.k)
	if ok && time.Since(known.at) < placeAge && (len(known.workers) > 0 || !f.c.brought.was(id)) {
		return found{workers: known.workers}, nil
	}
	if f.c.nowhere(id) {
		return found{unasked: true}, nil
	}
	if b := f.c.localBlock(ctx, id, f.l.length(s.k)); b != nil {
		return found{local: b}, nil
	}
	workers := f.c.cachedAt(ctx, id)
	if ctx.Err() != nil {
		return found{}, fmt.Errorf("read %q: %w", f.info.Path, ctx.Err())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.where[s.k] = located{workers: workers, at: time.Now()}
	return found{workers: workers}, nil
}

// knownWhere is what is known of a block that is not on this machine.
func (f *file) knownWhere(k int) (located, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	known, ok := f.where[k]
	return known, ok
}

// forget has the block be looked for again.
func (f *file) forget(k int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.where, k)
}
