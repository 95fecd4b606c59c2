package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// maxAttached is how many idle entries keep their files open and mapped, so that opening them
// again costs nothing.
const maxAttached = 128

// reserve charges e's level for n more bytes, finding a level, making room and the files first. It
// returns false when the bytes must stay in memory.
func (c *Cache) reserve(ctx context.Context, e *entry, n int64) bool {
	if waitFor(ctx, c.left.sized) != nil {
		return false
	}
	c.mu.Lock()
	over := c.left.over
	c.mu.Unlock()
	if c.reserveNow(e, n) {
		return true
	}
	// Nothing was evicted as long as something was to be taken over.
	return !over && c.adopted(ctx) == nil && c.reserveNow(e, n)
}

func (c *Cache) reserveNow(e *entry, n int64) bool {
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
	if l.used+n > l.quota && c.left.over {
		c.reclaim(l, l.used+n-l.low)
	}
	if l.used+l.left+n > l.quota {
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
	slots, err := src.state.slots(blocksIn(e.info.Size))
	if err != nil {
		return err
	}
	for b, sum := range slots {
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

// evict is the background that brings levels from the high mark to the low one, once all that an earlier process
// left is known.
func (c *Cache) evict() {
	defer c.work.Done()
	if c.adopted(c.ctx) != nil {
		return
	}
	grace := time.NewTimer(resumeGrace)
	defer grace.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-grace.C:
			c.endGrace()
			continue
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

// acquire returns the entry of a version with a reference, and its files open. latest says that it is the
// version that the source has now, as far as is known.
func (c *Cache) acquire(ctx context.Context, info cacheclient.Info, latest bool) (*entry, error) {
	for {
		c.mu.Lock()
		e := c.entries[info.ID]
		if e != nil && e.moving != nil {
			wait := e.moving
			c.mu.Unlock()
			if err := waitFor(ctx, wait); err != nil {
				return nil, fmt.Errorf("open %q: %w", info.Path, err)
			}
			continue
		}
		e = c.known(e, info, latest)
		e.refs.Add(1)
		if e.idle != nil {
			e.level.idle.Remove(e.idle)
			e.idle = nil
		}
		c.detachIdle(e)
		c.mu.Unlock()
		err := c.attach(e)
		if err == nil {
			return e, nil
		}
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			// The process lacks something; the files are as good as before.
			c.release(e)
			return nil, fmt.Errorf("open %q: %w", info.Path, err)
		}
		c.discard(e, err)
	}
}

// known makes sure that the version is in the index, where e is what the index has of it; c.mu is held.
func (c *Cache) known(e *entry, info cacheclient.Info, latest bool) *entry {
	if e == nil {
		e = c.find(info.ID)
	} else if !c.left.over {
		c.left.touched[info.ID] = struct{}{}
	}
	if e == nil {
		e = newEntry(c, info)
		c.entries[info.ID] = e
	}
	if latest || c.byPath[info.Path] == nil {
		c.supersede(e)
	}
	return e
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
		c.replace(old)
	}
}

// drop removes an entry without references, files and all; c.mu is held.
func (c *Cache) drop(e *entry) {
	e.detach()
	if l := e.level; l != nil {
		l.used -= e.charged
		if !c.shut {
			removeFiles(l, e.info.ID)
		}
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
	if c.shut {
		e.detach()
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
