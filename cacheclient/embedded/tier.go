package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace.io/millrace/cacheclient"
)

// maxAttached is how many idle entries keep their files open and mapped, so that opening them
// again costs nothing.
const maxAttached = 128

// reserve charges e's level for n more bytes, finding a level, making room and the files first. It
// returns false when the bytes must stay in memory.
func (c *Cache) reserve(e *entry, n int64) bool {
	e.admit.Lock()
	defer e.admit.Unlock()
	for range len(c.levels) {
		l := c.charge(e, n)
		if l == nil {
			return false
		}
		err := e.create(l)
		if err == nil {
			return true
		}
		c.blockLevel(e, fmt.Errorf("%w: %w", errTierWrite, err))
		c.leave(e)
	}
	return false
}

// charge finds the level for n more bytes of e and counts them; nil when none has room.
func (c *Cache) charge(e *entry, n int64) *level {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := e.level
	if l == nil {
		if l = c.choose(e.info.Size); l == nil {
			return nil
		}
		n += statePage
	}
	if !l.open(time.Now()) || e.charged+n > l.high {
		return nil
	}
	if l.used+n > l.quota {
		c.reclaim(l, l.used+n-l.low)
	}
	if l.used+n > l.quota {
		return nil
	}
	e.level = l
	l.used += n
	e.charged += n
	if l.used > l.high {
		select {
		case c.evictor <- struct{}{}:
		default:
		}
	}
	return l
}

// choose picks the first level that could hold a file of that size whole, else the first that
// takes data at all; c.mu is held.
func (c *Cache) choose(size int64) *level {
	var first *level
	for _, l := range c.levels {
		if !l.open(time.Now()) {
			continue
		}
		if size+statePage <= l.high {
			return l
		}
		if first == nil {
			first = l
		}
	}
	return first
}

// uncharge takes n bytes of e back.
func (c *Cache) uncharge(e *entry, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.level != nil {
		e.level.used -= n
		e.charged -= n
	}
}

// leave takes an entry that has no files off its level.
func (c *Cache) leave(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := e.level; l != nil {
		l.used -= e.charged
		e.charged, e.level = 0, nil
	}
}

// blockLevel keeps data away from e's level for a while.
func (c *Cache) blockLevel(e *entry, err error) {
	c.mu.Lock()
	l := e.level
	news := l != nil && l.open(time.Now())
	if news {
		l.block(err)
	}
	c.mu.Unlock()
	if news {
		c.log.Warn("a tier refused a write; reads go on without it", "tier", l.dir, "error", err)
	}
}

// reclaim frees at least n bytes of the level, or all that is idle. c.mu is held, and let go while
// files are moved or removed.
func (c *Cache) reclaim(l *level, n int64) {
	for n > 0 {
		e := l.idle.oldest()
		if e == nil {
			return
		}
		l.idle.Remove(e.idle)
		e.idle = nil
		c.detachIdle(e)
		e.moving = make(chan struct{})
		n -= e.charged
		c.mu.Unlock()
		e.detach()
		moved := c.demote(e, l)
		if !moved {
			removeFiles(l, e.info.ID)
		}
		c.mu.Lock()
		c.settle(e, l, moved)
	}
}

// settle ends the move of an entry; c.mu is held.
func (c *Cache) settle(e *entry, from *level, moved bool) {
	if !moved {
		from.used -= e.charged
		c.count.evictedFiles.Add(1)
		c.count.evictedBytes.Add(e.charged)
		c.forget(e)
	}
	close(e.moving)
	e.moving = nil
}

// detachIdle takes an entry off the list of idle ones with open files; c.mu is held.
func (c *Cache) detachIdle(e *entry) {
	if e.attached != nil {
		c.attached.Remove(e.attached)
		e.attached = nil
	}
}

// forget takes an entry out of the index; c.mu is held.
func (c *Cache) forget(e *entry) {
	if c.entries[e.info.ID] == e {
		delete(c.entries, e.info.ID)
	}
	if c.byPath[e.info.Path] == e {
		delete(c.byPath, e.info.Path)
	}
	e.level, e.charged = nil, 0
}

func removeFiles(l *level, id uint64) {
	_ = os.Remove(l.path(id, stateSuffix))
	_ = os.Remove(l.path(id, dataSuffix))
}

// demote moves the files of an entry that nobody uses to the next level; false when there is
// none, or no room there.
func (c *Cache) demote(e *entry, from *level) bool {
	if from.index+1 >= len(c.levels) {
		return false
	}
	to := c.levels[from.index+1]
	c.mu.Lock()
	n := e.charged
	ok := to.open(time.Now()) && n <= to.high
	if ok && to.used+n > to.high {
		c.reclaim(to, to.used+n-to.low)
	}
	if ok = ok && to.used+n <= to.quota; ok {
		to.used += n
	}
	c.mu.Unlock()
	if !ok {
		return false
	}
	err := copyEntry(e, from, to)
	if err != nil {
		removeFiles(to, e.info.ID)
	} else {
		removeFiles(from, e.info.ID)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		to.used -= n
		return false
	}
	from.used -= n
	e.level = to
	e.idle = to.idle.PushBack(e)
	return true
}

// copyEntry copies what from has of e to another level: the data, then the word for it.
func copyEntry(e *entry, from, to *level) error {
	src := newEntry(e.c, e.info)
	if err := src.attach(from); err != nil {
		return err
	}
	defer src.detach()
	dst := newEntry(e.c, e.info)
	if err := dst.create(to); err != nil {
		return err
	}
	defer dst.detach()
	buf := make([]byte, BlockSize)
	for b, sum := range src.unverified {
		n := run{b, b + 1}.bytes(e.info.Size)
		if _, err := src.data.ReadAt(buf[:n], b*BlockSize); err != nil {
			return err
		}
		if _, err := dst.data.WriteAt(buf[:n], b*BlockSize); err != nil {
			return err
		}
		if err := dst.state.set(b, sum); err != nil {
			return err
		}
	}
	return nil
}

// evict is the background that brings levels from the high mark to the low one.
func (c *Cache) evict() {
	defer c.work.Done()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-c.evictor:
		}
		c.mu.Lock()
		for _, l := range c.levels {
			if l.used > l.high {
				c.reclaim(l, l.used-l.low)
			}
		}
		c.mu.Unlock()
	}
}

// found is a cached file that an earlier process left, and when it was used last.
type found struct {
	e    *entry
	l    *level
	used time.Time
}

// scan finds what an earlier process left on a level. Whatever does not hold is removed.
func (c *Cache) scan(l *level) ([]found, error) {
	names, err := os.ReadDir(l.dir)
	if err != nil {
		return nil, fmt.Errorf("tier directory %s cannot be read: %w", l.dir, err)
	}
	var all []found
	states := make(map[string]bool, len(names)/2)
	for _, n := range names {
		id, ok := strings.CutSuffix(n.Name(), stateSuffix)
		if !ok {
			continue
		}
		if e, used := c.load(l, id); e != nil {
			states[id] = true
			all = append(all, found{e, l, used})
		}
	}
	for _, n := range names {
		ext := filepath.Ext(n.Name())
		if id := strings.TrimSuffix(n.Name(), ext); (ext == dataSuffix || ext == stateSuffix) && !states[id] {
			_ = os.Remove(filepath.Join(l.dir, n.Name()))
		}
	}
	return all, nil
}

// load reads one state and checks that its data is there; nil when it does not hold.
func (c *Cache) load(l *level, id string) (*entry, time.Time) {
	want, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return nil, time.Time{}
	}
	f, err := os.Open(l.path(want, stateSuffix))
	if err != nil {
		return nil, time.Time{}
	}
	defer func() { _ = f.Close() }()
	_, h, slots, err := openState(f)
	data, derr := os.Stat(l.path(want, dataSuffix))
	if err != nil || derr != nil || h.info().ID != want || data.Size() != h.Size || !data.Mode().IsRegular() {
		c.count.discarded.Add(1)
		return nil, time.Time{}
	}
	e := newEntry(c, h.info())
	e.charged = statePage
	for b := range slots {
		e.charged += run{b, b + 1}.charge(h.Size)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, time.Time{}
	}
	return e, st.ModTime()
}

// adopt puts a loaded entry into the index. Of two versions of a path the later used stays, of two
// copies of one version, which a demotion that was cut off leaves, the one with more of it.
func (c *Cache) adopt(e *entry, l *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byPath[e.info.Path]; old != nil {
		if old.info.ID == e.info.ID && old.charged >= e.charged {
			removeFiles(l, e.info.ID)
			return
		}
		old.level.idle.Remove(old.idle)
		c.drop(old)
	}
	e.level = l
	l.used += e.charged
	e.idle = l.idle.PushBack(e)
	c.entries[e.info.ID] = e
	c.byPath[e.info.Path] = e
}

// acquire returns the entry of a version with a reference, and its files open.
func (c *Cache) acquire(info cacheclient.Info) *entry {
	for {
		c.mu.Lock()
		e := c.entries[info.ID]
		if e != nil && e.moving != nil {
			wait := e.moving
			c.mu.Unlock()
			<-wait
			continue
		}
		if e == nil {
			e = newEntry(c, info)
			c.entries[info.ID] = e
			c.supersede(e)
		}
		e.refs.Add(1)
		if e.idle != nil {
			e.level.idle.Remove(e.idle)
			e.idle = nil
		}
		c.detachIdle(e)
		c.mu.Unlock()
		err := c.attach(e)
		if err == nil {
			return e
		}
		c.discard(e, err)
	}
}

// attach opens the files of an entry that has some.
func (c *Cache) attach(e *entry) error {
	e.admit.Lock()
	defer e.admit.Unlock()
	c.mu.Lock()
	l := e.level
	c.mu.Unlock()
	if l == nil {
		return nil
	}
	return e.attach(l)
}

// supersede makes e the version of its path, and drops the one before if nobody uses it;
// c.mu is held.
func (c *Cache) supersede(e *entry) {
	old := c.byPath[e.info.Path]
	c.byPath[e.info.Path] = e
	if old != nil && old != e && old.idle != nil {
		old.level.idle.Remove(old.idle)
		old.idle = nil
		c.detachIdle(old)
		c.drop(old)
	}
}

// drop removes an entry without references, files and all; c.mu is held.
func (c *Cache) drop(e *entry) {
	e.detach()
	if l := e.level; l != nil {
		l.used -= e.charged
		removeFiles(l, e.info.ID)
	}
	c.forget(e)
}

// discard takes an entry whose files do not hold out of the index, with the caller's reference.
func (c *Cache) discard(e *entry, why error) {
	c.log.Warn("a cached file does not hold and is thrown away", "file", e.info.Path, "error", why)
	c.count.discarded.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	e.refs.Add(-1)
	c.drop(e)
}

// release gives a reference back; the last makes the entry idle.
func (c *Cache) release(e *entry) {
	if e.refs.Add(-1) > 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.refs.Load() > 0 || e.idle != nil || e.moving != nil {
		return
	}
	if e.level == nil || c.byPath[e.info.Path] != e || e.charged <= statePage {
		c.drop(e)
		return
	}
	e.idle = e.level.idle.PushBack(e)
	e.attached = c.attached.PushBack(e)
	c.touch(e)
	if c.attached.Len() > maxAttached || c.ctx.Err() != nil {
		oldest := c.attached.oldest()
		c.detachIdle(oldest)
		oldest.detach()
	}
}

// touch notes the use for the order after a restart; a failure costs only that order.
func (c *Cache) touch(e *entry) {
	now := time.Now()
	_ = os.Chtimes(e.level.path(e.info.ID, stateSuffix), now, now)
}
