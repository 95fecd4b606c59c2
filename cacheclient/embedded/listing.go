package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/errgroup"

	"millrace.io/millrace/cacheclient"
)

const (
	// maxListings is how many directories a cache remembers, and maxListed how many bytes of them
	// are in memory, of all caches that share a Budget.
	maxListings = 32 << 10
	maxListed   = 16 << 20
	// listedShare is which part of the quota long listings may take together, and leastSpilled what they may take in
	// any case, in bytes.
	listedShare  = 8
	leastSpilled = 1 << 20
	// spilledElsewhere is what they may take where there is no tier.
	spilledElsewhere = 64 << 20
)

// listed is what is remembered of a directory: its listing and the one before, for readers in the middle of it.
type listed struct {
	latest, before *listing
	// outdated says that the directory has changed since.
	outdated bool
}

// listings remembers the directories that were read lately. Long ones are in files (listingfile.go), whose bytes are
// bounded and count against the quota (spill.go).
type listings struct {
	// mu guards the rest.
	mu   sync.Mutex
	lru  *simplelru.LRU[string, listed]
	part part
	// spilled is what is in files, in bytes, and mostSpilled bounds it.
	spilled, mostSpilled int64
	// newest is the directory that was put last: it is never forgotten for another.
	newest string
	// dropped are those to be closed once mu is free.
	dropped []*listing
	// closed says that nothing is remembered any more.
	closed bool
}

func newListings(most *bound, mostSpilled int64) (*listings, error) {
	ls := &listings{part: part{of: most}, mostSpilled: mostSpilled}
	var err error
	ls.lru, err = simplelru.NewLRU(maxListings, func(dir string, l listed) {
		ls.account(dir, l.latest, -1)
		ls.account(dir, l.before, -1)
	})
	return ls, err
}

// mostSpilled is how many bytes of listings may be in files beside these tiers.
func mostSpilled(levels []LevelConfig) int64 {
	if len(levels) == 0 {
		return spilledElsewhere
	}
	return max(levels[0].Quota/listedShare, leastSpilled)
}

// account adds a listing to the sums, or takes it off and has it closed; mu is held.
func (ls *listings) account(dir string, l *listing, sign int64) {
	if l == nil {
		return
	}
	ls.part.add(sign * (l.weight() + int64(len(dir))))
	if l.file != nil {
		ls.spilled += sign * l.size
	}
	if sign < 0 {
		ls.dropped = append(ls.dropped, l)
	}
}

// unlock lets go of mu, with mu held, and closes what was dropped: that may take a while.
func (ls *listings) unlock() {
	dropped := ls.dropped
	ls.dropped = nil
	ls.mu.Unlock()
	for _, l := range dropped {
		l.close()
	}
}

// get is the latest listing of a directory.
func (ls *listings) get(dir string) (*listing, bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, ok := ls.lru.Get(dir)
	return l.latest, ok && !l.outdated
}

// version is the listing of a directory in a version, nil where it is gone.
func (ls *listings) version(dir string, version uint64) *listing {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, ok := ls.lru.Get(dir)
	switch {
	case ok && l.latest.version == version:
		return l.latest
	case ok && l.before != nil && l.before.version == version:
		return l.before
	}
	return nil
}

// put remembers a directory, and forgets others if they take too much.
func (ls *listings) put(dir string, l *listing) {
	ls.mu.Lock()
	defer ls.unlock()
	if ls.closed {
		ls.dropped = append(ls.dropped, l)
		return
	}
	now := listed{latest: l}
	if old, ok := ls.lru.Peek(dir); ok {
		now.before = old.latest
		if old.latest.version == l.version {
			now.before = old.before
			ls.account(dir, old.latest, -1)
		} else {
			ls.account(dir, old.before, -1)
		}
	}
	// Add replaces what was there without the callback.
	ls.lru.Add(dir, now)
	ls.account(dir, l, 1)
	ls.newest = dir
	for ls.shrink() {
		continue
	}
}

// shrink forgets something if the listings take too much, and reports whether it did; mu is held.
func (ls *listings) shrink() bool {
	return ls.part.tooMuch() && ls.dropOldest(false) || ls.spilled > ls.mostSpilled && ls.dropOldest(true)
}

// dropOldest forgets the directory that was read the longest ago, of those whose listing is in a file if spilled. The
// last one loses what came before its listing only. It is false where nothing is left to forget; mu is held.
func (ls *listings) dropOldest(spilled bool) bool {
	oldest, l, _ := ls.lru.GetOldest()
	if spilled {
		for _, dir := range ls.lru.Keys() {
			if oldest, l = dir, ls.peek(dir); l.spilled() {
				break
			}
		}
	}
	newest := ls.newest == oldest
	if !newest {
		return ls.lru.Remove(oldest)
	}
	if l.before == nil {
		return false
	}
	ls.account(oldest, l.before, -1)
	l.before = nil
	ls.lru.Add(oldest, l)
	return true
}

// peek is what is remembered of a directory, with mu held.
func (ls *listings) peek(dir string) listed {
	l, _ := ls.lru.Peek(dir)
	return l
}

// spilled reports whether some of it is in a file.
func (l listed) spilled() bool {
	return l.latest.file != nil || l.before != nil && l.before.file != nil
}

// outdate has the next reader of a directory ask the source. One in the middle of it goes on.
func (ls *listings) outdate(dir string) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if l, ok := ls.lru.Peek(dir); ok {
		l.outdated = true
		ls.lru.Add(dir, l)
	}
}

func (ls *listings) close() {
	ls.mu.Lock()
	defer ls.unlock()
	ls.closed = true
	ls.lru.Purge()
}

// List implements cacheclient.Client.
func (c *Cache) List(ctx context.Context, dir string, from cacheclient.Cursor, limit int, attrs bool) (
	cacheclient.Page, error,
) {
	var l *listing
	var at uint64
	var entries []cacheclient.Info
	for begun := false; !begun; {
		var err error
		if l, at, err = c.place(ctx, dir, from); err == nil {
			entries, err = l.page(dir, at, limit)
		}
		switch {
		case err == nil:
			begun = true
		case !errors.Is(err, os.ErrClosed) || c.ctx.Err() != nil || ctx.Err() != nil:
			return cacheclient.Page{}, fmt.Errorf("list %q: %w", dir, err)
		}
		// It made room for another while it was read.
	}
	if at == 0 {
		c.walked(dir, l)
	}
	if err := c.complete(ctx, entries, attrs, l.at); err != nil {
		return cacheclient.Page{}, fmt.Errorf("list %q: %w", dir, err)
	}
	return page(l, at, from.After, entries), nil
}

// page is the entries of a listing from the at-th on, behind the name after.
func page(l *listing, at uint64, after string, entries []cacheclient.Info) cacheclient.Page {
	next := at + uint64(len(entries))
	if len(entries) > 0 {
		after = entries[len(entries)-1].Name()
	}
	return cacheclient.Page{
		Entries: entries, First: at, Count: l.count, End: next >= l.count, Version: l.version,
		Next: cacheclient.Cursor{Version: l.version, Index: next, After: after},
	}
}

// place finds a place in a directory: the listing to read on in, and how many of its entries stand before.
func (c *Cache) place(ctx context.Context, dir string, from cacheclient.Cursor) (*listing, uint64, error) {
	if from.Version != 0 {
		if l := c.lists.version(dir, from.Version); l != nil {
			return l, from.Index, nil
		}
	}
	l, err := c.listing(ctx, dir)
	switch {
	case err != nil:
		return nil, 0, err
	case from.Version == l.version, from.Version == 0 && from.After == "", from.Index == 0 && from.After == "":
		return l, from.Index, nil
	case from.After != "":
		at, err := l.after(from.After)
		return l, at, err
	}
	return nil, 0, fmt.Errorf("the place behind %d entries of an earlier listing: %w", from.Index, cacheclient.ErrStale)
}

// listing returns the directory from memory, or from the source when that is too old.
func (c *Cache) listing(ctx context.Context, dir string) (*listing, error) {
	old, known := c.lists.get(dir)
	if known && c.current(old) {
		return old, nil
	}
	question := func() (*listing, error) { return c.listDir(dir) }
	if known {
		if l, answered, err := orKnown(ctx, c, listKey(dir), question); answered {
			return l, err
		}
		return old, nil
	}
	return once(ctx, c, listKey(dir), question)
}

// listKey names the question of what is in a directory.
func listKey(dir string) string { return "list " + dir }

// current reports whether a listing need not be asked for again yet.
func (c *Cache) current(l *listing) bool { return int64(time.Since(l.at)) < c.meta.ttl.Load() }

// listDir lists a directory, unless another caller has since this one looked.
func (c *Cache) listDir(dir string) (*listing, error) {
	if l, known := c.lists.get(dir); known && c.current(l) {
		return l, nil
	}
	return c.readDir(dir)
}

// readDir reads a directory from the source and remembers it.
func (c *Cache) readDir(dir string) (*listing, error) {
	var l *listing
	left := 0
	err := c.persistently(listKey(dir), func(ctx context.Context, alive func()) error {
		b := newListingBuilder(c.spills())
		defer b.discard()
		err := c.store.List(ctx, dir, func(i cacheclient.Info) error {
			// Each is a word of the source, however slowly they come.
			alive()
			return b.add(i)
		})
		if err == nil {
			l, err = b.finish()
		}
		left = b.left
		return err
	})
	if errors.Is(err, cacheclient.ErrNotDir) || errors.Is(err, fs.ErrNotExist) {
		// What is known of the path is older.
		c.meta.remove(dir)
	}
	if err != nil {
		return nil, err
	}
	if left > 0 {
		c.log.Warn("a directory has entries whose names no file system can hold", "directory", dir, "left out", left)
	}
	c.lists.put(dir, l)
	return l, nil
}

// mostTroubles is how many entries of a page may fail to be described before the rest is not asked for: each may take
// as long as the client waits.
const mostTroubles = 3

// complete gives the entries their identities, asking the source for attributes where attrs says so.
func (c *Cache) complete(ctx context.Context, entries []cacheclient.Info, attrs bool, at time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.cfg.Connections)
	var troubles atomic.Int32
	for i := range entries {
		e := &entries[i]
		if e.Dir || e.Size != cacheclient.UnknownSize {
			*e = c.meta.refresh(e.Path, record{info: cacheclient.Identify(*e), at: at}).info
			continue
		}
		if r, ok := c.meta.get(e.Path); ok && !r.missing && c.meta.good(r) {
			*e = r.info
			continue
		}
		if !attrs || troubles.Load() >= mostTroubles || troubles.Load() > 0 && c.health.isDown() {
			continue
		}
		g.Go(func() error {
			info, err := c.Stat(ctx, e.Path)
			switch {
			case err == nil:
				*e = info
				cacheclient.Heard(ctx)
			case errors.Is(err, cacheclient.ErrUnavailable):
				troubles.Add(1)
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}
