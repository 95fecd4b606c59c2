package embedded

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"
)

const (
	// resumeGrace is how long versions that a newer one has replaced are kept after the start: readers whom the former
	// process served may have them open, and come back by Resume.
	resumeGrace = 30 * time.Second
	// adoptAtOnce is how many cached files are put into the index, or taken off it, without letting go of Cache.mu.
	adoptAtOnce = 256
)

// adoption is the taking over of what an earlier process left on the tiers. It goes on in the background, so that a
// process that starts can serve at once; a cached file that is asked for meanwhile is looked for by its name. Until it
// is over nothing is evicted, and what waits to be taken over counts by an estimate.
// D-019 says why.
type adoption struct {
	// sized is closed when each level has its estimate, done when all is in the index.
	sized, done chan struct{}

	// The rest is guarded by Cache.mu.

	// over says that done is closed.
	over bool
	// touched has the files that were asked for before the end: they are not for the background any more.
	touched map[uint64]struct{}
	// replaced are versions that are not the latest of their path, until the grace ends.
	replaced []uint64
	// graceEnds is when they go.
	graceEnds time.Time
}

func newAdoption() *adoption {
	return &adoption{sized: make(chan struct{}), done: make(chan struct{}), touched: make(map[uint64]struct{})}
}

// found is a cached file that an earlier process left.
type found struct {
	stub

	dir string
	// used is when it was used last, in nanoseconds since 1970.
	used int64
}

// remains is what an earlier process left on a level: the files that its snapshot tells, or only their names.
type remains struct {
	l    *level
	told []found
	ids  []uint64
	// bytes is about what they take.
	bytes int64
}

// adopt takes over what is on the levels. What cannot be read at present is tried again, for as long as it takes.
func (c *Cache) adopt() {
	defer c.work.Done()
	var all []remains
	var unlisted []*level
	for _, l := range c.levels {
		r, err := c.survey(l)
		if err != nil {
			unlisted = append(unlisted, l)
		}
		all = append(all, r)
	}
	close(c.left.sized)
	unread := c.takeOver(all)
	c.endAdoption()
	for len(unlisted)+len(unread) > 0 && sleep(c.ctx, retryTier) {
		unlisted, unread = c.takeOverRest(unlisted, unread)
	}
}

// takeOver puts what is left into the index, those first that were used last, and returns what could not be read.
func (c *Cache) takeOver(all []remains) (unread []found) {
	var whole []found
	for _, r := range all {
		whole = append(whole, r.told...)
		for _, id := range r.ids {
			if c.ctx.Err() != nil {
				return nil
			}
			f, err := load(r.l, id)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				continue
			case errors.Is(err, errBadState):
				c.discard(r.l, id)
				continue
			}
			whole = append(whole, f)
		}
	}
	slices.SortStableFunc(whole, func(a, b found) int {
		switch {
		case a.used > b.used:
			return -1
		case a.used < b.used:
			return 1
		}
		return 0
	})
	for part := range slices.Chunk(whole, adoptAtOnce) {
		c.sweep(c.shelveAll(part))
	}
	for _, t := range whole {
		if t.path == 0 && t.id != 0 {
			unread = append(unread, t)
		}
	}
	return unread
}

// endAdoption lets eviction begin.
func (c *Cache) endAdoption() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.levels {
		l.left = 0
	}
	c.left.over, c.left.touched = true, nil
	close(c.left.done)
	select {
	case c.evictor <- struct{}{}:
	default:
	}
}

// takeOverRest tries again what could not be listed or read, and returns what still cannot.
func (c *Cache) takeOverRest(unlisted []*level, unread []found) (stillUnlisted []*level, stillUnread []found) {
	for _, f := range unread {
		g, err := load(c.levels[f.level], f.id)
		switch {
		case errors.Is(err, errBadState):
			c.discardUnread(f.id)
		case err == nil:
			c.nameUnread(g)
		case !errors.Is(err, fs.ErrNotExist):
			stillUnread = append(stillUnread, f)
		}
	}
	for _, l := range unlisted {
		r, err := c.survey(l)
		if err != nil {
			stillUnlisted = append(stillUnlisted, l)
			continue
		}
		stillUnread = append(stillUnread, c.takeOver([]remains{r})...)
		c.listed(l)
	}
	return stillUnlisted, stillUnread
}

// discardUnread removes a cached file that was not read before and does not hold.
func (c *Cache) discardUnread(id uint64) {
	gone := func() []gone {
		c.mu.Lock()
		defer c.mu.Unlock()
		if t := c.shelf.get(id); t == nil || t.path != 0 {
			return nil
		}
		return c.takeOff(nil, id)
	}()
	c.count.discarded.Add(int64(len(gone)))
	c.sweep(gone)
}

// nameUnread fills in what was not known of a cached file.
func (c *Cache) nameUnread(f found) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.shelf.get(f.id)
	if t == nil || t.path != 0 {
		return
	}
	c.levels[t.level].used += f.charged - t.charged
	c.shelf.name(t, f)
	if c.latest[f.path] == 0 {
		c.latest[f.path] = f.id
	}
}

// listed lets a level take data again.
func (c *Cache) listed(l *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.left, l.problem = 0, nil
}

// discard removes what does not hold on a level, unless it was asked for meanwhile.
func (c *Cache) discard(l *level, id uint64) {
	if !c.claimUnknown(id) {
		return
	}
	defer c.looked(id, found{})
	c.count.discarded.Add(1)
	c.remove(l, id)
}

// looked ends the claim to a cached file, and puts what was found of it into the index.
func (c *Cache) looked(id uint64, f found) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.id != 0 {
		c.index(f, true)
	}
	c.unclaim(id)
}

// claimUnknown has a claim to a cached file that is not in the index, if it was not asked for.
func (c *Cache) claimUnknown(id uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, touched := c.left.touched[id]
	_, claimed := c.claims[id]
	if touched || claimed || c.entries[id] != nil || c.shelf.get(id) != nil {
		return false
	}
	c.claim(id)
	return true
}

// shelveAll puts cached files into the index as ones that were used before all that are there. Of two copies of a
// version, which a demotion that was cut off leaves, the one with more of it stays; the other is to be swept.
func (c *Cache) shelveAll(part []found) (extra []gone) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range part {
		_, touched := c.left.touched[f.id]
		_, claimed := c.claims[f.id]
		if touched || claimed || c.entries[f.id] != nil {
			c.levels[f.level].strays = c.levels[f.level].strays || c.left.over
			continue
		}
		if old := c.shelf.get(f.id); old != nil {
			extra = c.extra(extra, old, f)
			continue
		}
		c.index(f, false)
	}
	return extra
}

// extra decides between two copies of a version, on two levels; c.mu is held.
func (c *Cache) extra(all []gone, old *stub, f found) []gone {
	if old.level == f.level {
		return all
	}
	if old.path == 0 || f.path == 0 {
		// What could not be read is not removed.
		c.levels[f.level].strays = true
		return all
	}
	// What goes is no longer the path's.
	if old.charged < f.charged {
		if all = c.takeOff(all, f.id); len(all) > 0 {
			all[len(all)-1].path = 0
		}
		c.indexAt(f, false)
		return all
	}
	c.claim(f.id)
	return append(all, gone{stub: stub{id: f.id, level: f.level}, l: c.levels[f.level]})
}

// index puts a cached file into the index, as the one used last or before all others; c.mu is held.
func (c *Cache) index(f found, last bool) {
	c.indexAt(f, last)
	switch latest := c.latest[f.path]; {
	case f.path == 0:
	case latest == 0:
		c.latest[f.path] = f.id
	case latest == f.id:
	case f.confirmed > c.confirmedAt(latest):
		// A reader of the former process had the older one open, and was here first.
		c.latest[f.path] = f.id
		c.left.replaced = append(c.left.replaced, latest)
	default:
		c.left.replaced = append(c.left.replaced, f.id)
	}
}

// confirmedAt is when the source confirmed a version that is in the index, as far as is known; c.mu is held.
func (c *Cache) confirmedAt(id uint64) int64 {
	if e := c.entries[id]; e != nil {
		return e.confirmed
	}
	if t := c.shelf.get(id); t != nil {
		return t.confirmed
	}
	return 0
}

// indexAt takes a file that was found into the index and its level's account; mu is held.
func (c *Cache) indexAt(f found, last bool) {
	l := c.levels[f.level]
	l.used += f.charged
	l.left = max(0, l.left-f.charged)
	c.shelf.put(f.stub, f.dir, last)
}

// recall looks for a version that an earlier process may have left and the background has not come to, or waits for
// another call that does.
func (c *Cache) recall(ctx context.Context, id uint64) error {
	for {
		wait, mine := c.claimUntouched(id)
		if mine {
			c.look(id)
			return nil
		}
		if wait == nil {
			return nil
		}
		if err := waitFor(ctx, wait); err != nil {
			return err
		}
	}
}

// claimUntouched has a claim to a cached file that is asked for the first time before the adoption is over. Where
// another has, it returns what is closed when that ends.
func (c *Cache) claimUntouched(id uint64) (wait <-chan struct{}, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if claim, ok := c.claims[id]; ok {
		return claim, false
	}
	if c.left.over {
		return nil, false
	}
	_, again := c.left.touched[id]
	c.left.touched[id] = struct{}{}
	if again || c.entries[id] != nil || c.shelf.get(id) != nil {
		return nil, false
	}
	c.claim(id)
	return nil, true
}

// look puts what the levels have of a version into the index, the copy with the most of it, and ends the claim to it.
func (c *Cache) look(id uint64) {
	var best found
	defer func() { c.looked(id, best) }()
	for _, l := range c.levels {
		if l.lock == nil {
			continue
		}
		f, err := load(l, id)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case errors.Is(err, errBadState):
			c.count.discarded.Add(1)
			c.remove(l, id)
		case best.id == 0:
			best = f
		default:
			best = c.better(best, f)
		}
	}
}

// better keeps one of two copies of a version, the one with more of it, and removes the other. What could not be read
// is not removed.
func (c *Cache) better(a, b found) found {
	if b.path != 0 && (a.path == 0 || a.charged < b.charged) {
		a, b = b, a
	}
	if other := c.levels[b.level]; b.path == 0 {
		c.stray(other)
	} else {
		c.remove(other, b.id)
	}
	return a
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

// endGrace drops the replaced versions that no reader came back for.
func (c *Cache) endGrace() {
	for c.dropReplaced() {
	}
}

// dropReplaced drops some of the replaced versions, and reports whether there may be more.
func (c *Cache) dropReplaced() bool {
	gone, more := c.replacedNow()
	c.sweep(gone)
	return more
}

// replacedNow takes some of the replaced versions off the index.
func (c *Cache) replacedNow() (all []gone, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(c.left.replaced), adoptAtOnce)
	for _, id := range c.left.replaced[:n] {
		if !c.isLatest(id) {
			all = c.takeOff(all, id)
		}
	}
	if c.left.replaced = c.left.replaced[n:]; len(c.left.replaced) == 0 {
		c.left.replaced = nil
	}
	return all, n > 0
}

// isLatest reports whether a version is the latest of its path; c.mu is held.
func (c *Cache) isLatest(id uint64) bool {
	if e := c.entries[id]; e != nil {
		return c.latest[e.path] == id
	}
	t := c.shelf.get(id)
	return t != nil && (t.path == 0 || c.latest[t.path] == id)
}
