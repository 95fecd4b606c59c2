package embedded

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

const (
	// resumeGrace is how long versions that a newer one has replaced are kept after the start: readers whom the former
	// process served may have them open, and come back by Resume.
	resumeGrace = 30 * time.Second
	// adoptAtOnce is how many entries are put into the index without letting go of Cache.mu.
	adoptAtOnce = 256
)

// adoption is the taking over of what an earlier process left on the tiers. It goes on in the background, so
// that a process that starts can serve at once; an entry that is asked for meanwhile is looked for by its name. Until
// it is over nothing is evicted, and what waits to be taken over counts by an estimate.
// D-019 says why.
type adoption struct {
	// sized is closed when each level has its estimate, done when all is in the index.
	sized, done chan struct{}

	// The rest is guarded by Cache.mu.

	// over says that done is closed.
	over bool
	// touched has the entries that were asked for before the end: they are not for the background any more.
	touched map[uint64]struct{}
	// replaced are idle versions that are not the latest of their path, until the grace ends.
	replaced []*entry
	// graceEnds is when they go.
	graceEnds time.Time
}

func newAdoption() *adoption {
	return &adoption{sized: make(chan struct{}), done: make(chan struct{}), touched: make(map[uint64]struct{})}
}

// found is a cached file that an earlier process left, and when it was used last.
type found struct {
	e    *entry
	l    *level
	used time.Time
}

// junk is what does not hold on a level: a damaged state, or data without one.
type junk struct {
	l       *level
	id      uint64
	damaged bool
}

// adopt takes over what is on the levels.
func (c *Cache) adopt() {
	defer c.work.Done()
	names := make([][]uint64, len(c.levels))
	for i, l := range c.levels {
		var bytes int64
		if l.lock != nil {
			names[i], bytes = c.survey(l)
		}
		c.mu.Lock()
		l.left = max(0, bytes-l.used)
		c.mu.Unlock()
	}
	close(c.left.sized)
	var all []found
	var bad []junk
	for i, l := range c.levels {
		for _, id := range names[i] {
			if c.ctx.Err() != nil {
				break
			}
			e, used, err := c.load(l, id)
			switch {
			case err == nil:
				all = append(all, found{e, l, used})
			case !errors.Is(err, fs.ErrNotExist) || !used.IsZero():
				bad = append(bad, junk{l, id, errors.Is(err, errBadState)})
			}
		}
	}
	c.settleAll(all, bad)
	select {
	case c.evictor <- struct{}{}:
	default:
	}
}

// settleAll ends the adoption.
func (c *Cache) settleAll(all []found, bad []junk) {
	slices.SortFunc(all, func(a, b found) int { return b.used.Compare(a.used) })
	for part := range slices.Chunk(all, adoptAtOnce) {
		c.mu.Lock()
		for _, f := range part {
			c.settleOne(f)
		}
		c.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, j := range bad {
		if _, live := c.left.touched[j.id]; !live && c.entries[j.id] == nil {
			c.sweepAway(j)
		}
	}
	for _, l := range c.levels {
		l.left = 0
	}
	c.left.over, c.left.touched = true, nil
	close(c.left.done)
}

// sweepAway removes what does not hold.
func (c *Cache) sweepAway(j junk) {
	if j.damaged {
		c.count.discarded.Add(1)
	}
	removeFiles(j.l, j.id)
}

// settleOne puts an entry into the index as one that was used before all that are there. Of two copies of a
// version, which a demotion that was cut off leaves, the one with more of it stays. c.mu is held.
func (c *Cache) settleOne(f found) {
	if _, live := c.left.touched[f.e.info.ID]; live {
		return
	}
	if old := c.entries[f.e.info.ID]; old != nil {
		if old.charged >= f.e.charged {
			removeFiles(f.l, f.e.info.ID)
			return
		}
		old.level.idle.Remove(old.idle)
		old.idle = nil
		c.drop(old)
	}
	c.index(f.e, f.l)
	f.e.idle = f.l.idle.PushFront(f.e)
	if c.byPath[f.e.info.Path] != f.e {
		c.left.replaced = append(c.left.replaced, f.e)
	}
}

// index makes a loaded entry known; c.mu is held.
func (c *Cache) index(e *entry, l *level) {
	e.level = l
	l.used += e.charged
	l.left = max(0, l.left-e.charged)
	c.entries[e.info.ID] = e
	if c.byPath[e.info.Path] == nil {
		c.byPath[e.info.Path] = e
	}
	r := record{info: e.info, at: e.confirmed}
	old, known := c.meta.get(e.info.Path)
	if r.at.Before(time.Now()) && (!known || !old.missing && old.at.Before(r.at)) {
		c.meta.put(e.info.Path, r)
	}
}

// confirm notes for the next process that the source has this version now.
func (c *Cache) confirm(info cacheclient.Info) {
	c.mu.Lock()
	var data string
	if e := c.entries[info.ID]; e != nil && e.level != nil {
		data = e.level.path(info.ID, dataSuffix)
	}
	c.mu.Unlock()
	if data != "" {
		now := time.Now()
		// On a tier that cannot be written to, the next process asks the source.
		_ = os.Chtimes(data, now, now)
	}
}

// find looks for a version that an earlier process may have left and the background has not come to; c.mu is
// held, also while its state is read.
func (c *Cache) find(id uint64) *entry {
	if c.left.over {
		return nil
	}
	if _, again := c.left.touched[id]; again {
		return nil
	}
	c.left.touched[id] = struct{}{}
	var best *entry
	var at *level
	for _, l := range c.levels {
		if l.lock == nil {
			continue
		}
		e, used, err := c.load(l, id)
		switch {
		case errors.Is(err, fs.ErrNotExist) && used.IsZero():
		case err != nil:
			c.sweepAway(junk{l, id, errors.Is(err, errBadState)})
		case best != nil && best.charged >= e.charged:
			removeFiles(l, id)
		default:
			if best != nil {
				removeFiles(at, id)
			}
			best, at = e, l
		}
	}
	if best != nil {
		c.index(best, at)
		best.idle = at.idle.PushBack(best)
	}
	return best
}

// survey lists the cached files of a level by their identities, and says about how many bytes they take. Names that
// can be no cached file's are removed.
func (c *Cache) survey(l *level) (ids []uint64, bytes int64) {
	dir, err := os.Open(l.dir)
	if err != nil {
		c.log.Warn("a tier cannot be read; what an earlier process left there stays unused", "tier", l.dir, "error", err)
		return nil, 0
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		c.log.Warn("a tier cannot be read to its end; some of what an earlier process left there stays unused", "tier", l.dir, "error", err)
	}
	for _, name := range names {
		ext := filepath.Ext(name)
		if ext != dataSuffix && ext != stateSuffix {
			continue
		}
		id, err := strconv.ParseUint(strings.TrimSuffix(name, ext), 16, 64)
		if err != nil || filepath.Base(l.path(id, ext)) != name {
			_ = os.Remove(filepath.Join(l.dir, name))
			continue
		}
		ids = append(ids, id)
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			bytes += st.Blocks * 512
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), bytes
}

// load reads one state and checks that its data is there. The error is fs.ErrNotExist where there is no
// state; a time with it says that there is data nevertheless.
func (c *Cache) load(l *level, id uint64) (*entry, time.Time, error) {
	data, dataErr := os.Lstat(l.path(id, dataSuffix))
	f, err := os.Open(l.path(id, stateSuffix))
	if err != nil {
		var used time.Time
		if dataErr == nil {
			used = data.ModTime()
		}
		return nil, used, err
	}
	defer func() { _ = f.Close() }()
	_, h, slots, err := openState(f)
	if err != nil || dataErr != nil || h.info().ID != id || data.Size() != h.Size || !data.Mode().IsRegular() {
		return nil, time.Time{}, errBadState
	}
	e := newEntry(c, h.info())
	// What was written came in answer to a request for this version, and confirm sets it since.
	e.confirmed = data.ModTime()
	e.charged = statePage
	for b := range slots {
		e.charged += run{b, b + 1}.charge(h.Size)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, errBadState
	}
	return e, st.ModTime(), nil
}

// adopted waits until all that was left is in the index.
func (c *Cache) adopted(ctx context.Context) error { return waitFor(ctx, c.left.done) }

// waitFor waits until the channel is closed or the context ends.
func waitFor(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	default:
	}
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// replace takes an idle version off that another has replaced, when the grace ends; c.mu is held.
func (c *Cache) replace(old *entry) {
	if time.Now().Before(c.left.graceEnds) {
		c.left.replaced = append(c.left.replaced, old)
		return
	}
	old.level.idle.Remove(old.idle)
	old.idle = nil
	c.detachIdle(old)
	c.drop(old)
}

// endGrace drops the replaced versions that nobody came back for.
func (c *Cache) endGrace() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.left.replaced {
		if e.idle != nil && c.byPath[e.info.Path] != e && c.entries[e.info.ID] == e {
			e.level.idle.Remove(e.idle)
			e.idle = nil
			c.detachIdle(e)
			c.drop(e)
		}
	}
	c.left.replaced = nil
}
