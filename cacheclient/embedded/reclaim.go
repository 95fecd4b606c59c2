package embedded

import (
	"os"
	"time"
)

// gone is a cached file that was taken off the index, with a claim to its files. They are moved or removed without
// Cache.mu, and then settle ends the claim. D-131 says why.
type gone struct {
	stub

	dir string
	l   *level
	// e is the entry whose files are still open, nil where there is none.
	e *entry
}

// claim has all openers of a cached file wait until unclaim; c.mu is held.
func (c *Cache) claim(id uint64) { c.claims[id] = make(chan struct{}) }

// unclaim ends a claim; c.mu is held.
func (c *Cache) unclaim(id uint64) {
	close(c.claims[id])
	delete(c.claims, id)
}

// takeOff takes a cached file that is not in use off the index, and adds it to those that are to be swept; c.mu is
// held.
func (c *Cache) takeOff(all []gone, id uint64) []gone {
	if _, claimed := c.claims[id]; claimed {
		return all
	}
	var g gone
	if e := c.entries[id]; e != nil {
		if e.idle == nil {
			return all
		}
		g = gone{
			stub: stub{id: id, path: e.path, confirmed: e.confirmed, charged: e.charged},
			dir:  parentOf(e.info.Path), l: e.level, e: e,
		}
		c.idle.Remove(e.idle)
		e.idle, e.level, e.charged = nil, nil, 0
		delete(c.entries, id)
	} else {
		t := c.shelf.get(id)
		if t == nil {
			return all
		}
		dir := c.shelf.dirs.list[t.dir].path
		t2, _ := c.shelf.take(id)
		g = gone{stub: t2, dir: dir, l: c.levels[t2.level]}
	}
	c.claim(id)
	return append(all, g)
}

// sweep removes the files of what was taken off the index.
func (c *Cache) sweep(all []gone) {
	if len(all) == 0 {
		return
	}
	defer c.settleAll(all)
	for _, g := range all {
		c.clear(g)
	}
}

// clear closes and removes the files of what was taken off the index.
func (c *Cache) clear(g gone) {
	if g.e != nil {
		g.e.detach()
	}
	if g.l != nil {
		c.remove(g.l, g.id)
	}
}

// remove removes the files of a cached file, to which the caller has a claim, unless they may be another process's now.
func (c *Cache) remove(l *level, id uint64) {
	removed := false
	if c.begin() {
		defer c.work.Done()
		removed = removeFiles(l, id) == nil
	}
	if !removed {
		c.stray(l)
	}
}

// stray notes that files are on a level which the index does not know.
func (c *Cache) stray(l *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.strays = true
}

// settleAll ends the claims to what was removed.
func (c *Cache) settleAll(all []gone) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range all {
		c.settle(g, nil)
	}
}

// settle ends the claim to a cached file that was moved to another level, or removed; c.mu is held.
func (c *Cache) settle(g gone, to *level) {
	if g.l != nil {
		g.l.used -= g.charged
	}
	if to != nil {
		g.level = to.index
		c.shelf.put(g.stub, g.dir, true)
	} else if c.latest[g.path] == g.id {
		delete(c.latest, g.path)
	}
	c.unclaim(g.id)
}

// reclaim frees at least n bytes of the level, or all that is idle: to the next level, or for good.
func (c *Cache) reclaim(l *level, n int64) {
	for n > 0 {
		g, ok := c.victim(l)
		if !ok {
			return
		}
		n -= g.charged
		c.evictOne(g)
	}
}

// evictOne moves what was taken off the index to the next level, or removes it.
func (c *Cache) evictOne(g gone) {
	var to *level
	defer func() { c.evicted(g, to) }()
	if g.e != nil {
		g.e.detach()
	}
	if to = c.demote(g); to == nil {
		c.clear(g)
	}
}

// evicted ends an eviction.
func (c *Cache) evicted(g gone, to *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to == nil {
		c.count.evictedFiles.Add(1)
		c.count.evictedBytes.Add(g.charged)
	}
	c.settle(g, to)
}

// victim takes the cached file of the level off the index that was used longest ago: stubs were used before all
// entries.
func (c *Cache) victim(l *level) (g gone, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []gone
	if t := c.shelf.oldest(l.index); t != nil {
		all = c.takeOff(nil, t.id)
	}
	for el := c.idle.Front(); el != nil && len(all) == 0; el = el.Next() {
		if e, _ := el.Value.(*entry); e != nil && e.level == l {
			all = c.takeOff(nil, e.info.ID)
			break
		}
	}
	if len(all) == 0 {
		return gone{}, false
	}
	return all[0], true
}

// demote moves the files of what was taken off the index to the next level; nil when there is none, or no room there.
func (c *Cache) demote(g gone) *level {
	if int(g.l.index)+1 >= len(c.levels) || !c.begin() {
		return nil
	}
	defer c.work.Done()
	to := c.levels[g.l.index+1]
	excess, ok := c.fits(to, g.charged)
	if !ok {
		return nil
	}
	c.reclaim(to, excess)
	if !c.enter(to, g.charged) {
		return nil
	}
	if err := copyFiles(g.id, g.l, to); err != nil {
		c.log.Debug("a cached file is not moved to the next tier", "tier", to.dir, "error", err)
		c.remove(to, g.id)
		c.exit(to, g.charged)
		return nil
	}
	c.remove(g.l, g.id)
	return to
}

// fits reports whether a level takes so many bytes, and what must go first.
func (c *Cache) fits(to *level, n int64) (excess int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !to.open(time.Now()) || n > to.high {
		return 0, false
	}
	if to.used+n > to.high {
		excess = to.used + n - to.low
	}
	return excess, true
}

// enter charges a level, if it has the room.
func (c *Cache) enter(to *level, n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to.used+n > to.quota {
		return false
	}
	to.used += n
	return true
}

// exit takes the charge back.
func (c *Cache) exit(to *level, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to.used -= n
}

// copyFiles copies what a level has of a cached file to another level: the data, then the word for it.
func copyFiles(id uint64, from, to *level) error {
	sf, err := os.Open(from.path(id, stateSuffix))
	if err != nil {
		return err
	}
	defer func() { _ = sf.Close() }()
	st, h, confirmed, err := readHeader(sf)
	if err != nil {
		return err
	}
	slots, err := st.slots(blocksIn(h.Size))
	if err != nil {
		return err
	}
	src, err := os.Open(from.path(id, dataSuffix))
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	data, state, err := createFiles(to, id, h)
	if err != nil {
		return err
	}
	defer func() { _, _ = data.Close(), state.close() }()
	if !confirmed.IsZero() {
		_ = state.confirm(confirmed)
	}
	return copyBlocks(src, data, state, h.Size, slots)
}

// copyBlocks copies the blocks that have a checksum.
func copyBlocks(src, data *os.File, state *stateFile, size int64, slots map[int64]uint32) error {
	buf := make([]byte, BlockSize)
	for b, sum := range slots {
		n := run{b, b + 1}.bytes(size)
		if _, err := src.ReadAt(buf[:n], b*BlockSize); err != nil {
			return err
		}
		if _, err := data.WriteAt(buf[:n], b*BlockSize); err != nil {
			return err
		}
		if err := state.set(b, sum); err != nil {
			return err
		}
	}
	return nil
}
