package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

const (
	// maxIdle is how many idle entries keep their files open and mapped, so that opening them
	// again costs nothing.
	maxIdle = 128
	// sizedPatience is how long a fetch waits to hear how full the tiers are that an earlier process left.
	sizedPatience = time.Second
)

// reserve charges e's level for what r brings, finding a level, making room and the files first. It
// returns false when the bytes must stay in memory.
func (c *Cache) reserve(ctx context.Context, e *entry, r run) bool {
	ctx, cancel := context.WithTimeout(ctx, sizedPatience)
	defer cancel()
	return waitFor(ctx, c.left.sized) == nil && c.reserveNow(e, r)
}

func (c *Cache) reserveNow(e *entry, r run) bool {
	e.admit.Lock()
	defer e.admit.Unlock()
	if e.unkept || c.attachAdmitted(e) != nil {
		return false
	}
	n := e.price(r)
	for range len(c.levels) {
		l, lack := c.charge(e, n)
		if lack.l != nil {
			c.reclaim(lack.l, lack.bytes)
			l, _ = c.charge(e, n)
		}
		if l == nil {
			return false
		}
		err := e.create(l)
		if err == nil {
			return true
		}
		err = fmt.Errorf("%w: %w", errTierWrite, err)
		whose := blameOf(err)
		switch whose {
		case ofTier:
			c.blockLevel(e, err)
		case ofFile:
			e.refuse(err)
		}
		c.leave(e)
		if whose != ofTier {
			return false
		}
	}
	return false
}

// refuse notes that no tier can keep the file; admit is held.
func (e *entry) refuse(err error) {
	if !e.unkept {
		e.c.log.Warn("a file is read past the tiers, which cannot keep it", "file", e.info.Path, "error", err)
	}
	e.unkept = true
}

// refused puts the blame for a write of e that a tier refused.
func (c *Cache) refused(e *entry, err error) {
	if blameOf(err) != ofFile {
		c.blockLevel(e, err)
		return
	}
	e.admit.Lock()
	defer e.admit.Unlock()
	e.refuse(err)
}

// lack is the room that a level does not have, in bytes; without a level there is none to be made.
type lack struct {
	l     *level
	bytes int64
}

// charge finds the level for n more bytes of e and counts them; nil when none has room.
func (c *Cache) charge(e *entry, n int64) (*level, lack) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := e.level
	if l == nil {
		if l = c.choose(e.info.Size); l == nil {
			return nil, lack{}
		}
		n += statePage
	}
	// n may be as large as a source claims.
	if !l.open(time.Now()) || n > l.high || e.charged+n > l.high {
		return nil, lack{}
	}
	if used := l.used + l.left; used+n > l.quota {
		if !c.left.over {
			// Nothing is evicted as long as something is to be taken over.
			return nil, lack{}
		}
		return nil, lack{l, used + n - l.low}
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
	return l, lack{}
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
		n = min(n, e.charged)
		e.level.used -= n
		e.charged -= n
	}
}

// recount charges e for what its files have.
func (c *Cache) recount(e *entry, charge int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.level != nil {
		e.level.used += charge - e.charged
		e.charged = charge
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
	if l := c.block(e, err); l != nil {
		c.log.Warn("a tier refused a write; reads go on without it", "tier", l.dir, "error", err)
	}
}

// block blocks e's level, and returns it unless that is no news.
func (c *Cache) block(e *entry, err error) *level {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := e.level
	if l == nil || !l.open(time.Now()) {
		return nil
	}
	l.block(err)
	return l
}

// levelOf is the level of an entry, nil where no tier has any of it.
func (c *Cache) levelOf(e *entry) *level {
	c.mu.Lock()
	defer c.mu.Unlock()
	return e.level
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
		for _, l := range c.levels {
			if over, excess := c.excess(l); over {
				c.reclaim(l, excess)
			}
		}
	}
}

// excess is what a level has above its low mark, once it is past the high one.
func (c *Cache) excess(l *level) (over bool, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return l.used > l.high, l.used - l.low
}

// acquire returns the entry of a version with a reference, and its files open. latest says that it is the
// version that the source has now, as far as is known.
func (c *Cache) acquire(ctx context.Context, info cacheclient.Info, latest bool) (*entry, error) {
	if err := border.Size(info.Size); err != nil {
		return nil, fmt.Errorf("open %q: %w", info.Path, err)
	}
	for {
		if err := c.recall(ctx, info.ID); err != nil {
			return nil, fmt.Errorf("open %q: %w", info.Path, err)
		}
		e, wait, replaced := c.reference(info, latest)
		c.sweep(replaced)
		if e != nil {
			c.attach(e)
			return e, nil
		}
		if err := waitFor(ctx, wait); err != nil {
			return nil, fmt.Errorf("open %q: %w", info.Path, err)
		}
	}
}

// reference adds a reference to the entry of a version, which it makes if there is none. While there is a claim to
// its files it returns what is closed when that ends instead. The versions that it replaces are to be swept.
func (c *Cache) reference(info cacheclient.Info, latest bool) (e *entry, wait <-chan struct{}, replaced []gone) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if claim, ok := c.claims[info.ID]; ok {
		return nil, claim, nil
	}
	e = c.entries[info.ID]
	if e == nil {
		e = newEntry(c, info)
		if t, ok := c.shelf.take(info.ID); ok {
			e.level, e.charged, e.confirmed = c.levels[t.level], t.charged, t.confirmed
		}
		c.entries[info.ID] = e
	}
	e.refs.Add(1)
	if e.idle != nil {
		c.idle.Remove(e.idle)
		e.idle = nil
	}
	if latest || c.latest[e.path] == 0 {
		replaced = c.supersede(e)
	}
	return e, nil, replaced
}

// attach opens the files of an entry that has some. While they cannot be opened, though nothing is wrong with them, the
// file is read past the tier.
func (c *Cache) attach(e *entry) {
	e.admit.Lock()
	defer e.admit.Unlock()
	err := c.attachAdmitted(e)
	if err == nil {
		c.unopened.Store(false)
		return
	}
	if c.unopened.CompareAndSwap(false, true) {
		c.log.Warn("a cached file cannot be opened at present; it is read past the tier", "file", e.info.Path, "error",
			err)
	}
}

// attachAdmitted opens the files of an entry that has some. Where they are proven not to hold, they are removed, and
// the entry goes on as one that has none: it stays the only one of its version. e.admit is held.
func (c *Cache) attachAdmitted(e *entry) error {
	l := c.levelOf(e)
	if l == nil {
		return nil
	}
	charge, err := e.attach(l)
	switch {
	case err == nil && charge > 0:
		c.recount(e, charge)
	case errors.Is(err, errBadState):
		c.log.Warn("a cached file does not hold and is thrown away", "file", e.info.Path, "error", err)
		c.count.discarded.Add(1)
		e.empty()
		c.remove(l, e.info.ID)
		c.leave(e)
		return nil
	}
	return err
}

// supersede makes e the version of its path, and takes the one before off the index if it is not in use;
// c.mu is held.
func (c *Cache) supersede(e *entry) []gone {
	old := c.latest[e.path]
	c.latest[e.path] = e.info.ID
	if old == 0 || old == e.info.ID {
		return nil
	}
	if time.Now().Before(c.left.graceEnds) {
		c.left.replaced = append(c.left.replaced, old)
		return nil
	}
	return c.takeOff(nil, old)
}

// release gives a reference back; the last makes the entry idle.
func (c *Cache) release(e *entry) {
	if e.refs.Add(-1) > 0 {
		return
	}
	r := c.rest(e)
	for _, d := range r.detach {
		d.detach()
	}
	c.sweep(r.gone)
	if r.used != "" {
		// For the order after a restart; a failure costs only that order.
		now := time.Now()
		_ = os.Chtimes(r.used, now, now)
	}
}

// rested is what is to be done when an entry came to rest, without the lock.
type rested struct {
	detach []*entry
	gone   []gone
	// used is the state file to be marked as used now.
	used string
}

// rest makes an entry idle that has no reference any more.
func (c *Cache) rest(e *entry) (r rested) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch id := e.info.ID; {
	case e.refs.Load() > 0 || e.idle != nil:
		return r
	case c.shut:
		return rested{detach: []*entry{e}}
	case c.entries[id] != e:
		return r
	case e.level == nil || c.latest[e.path] != id || e.charged <= statePage:
		e.idle = c.idle.PushBack(e)
		return rested{gone: c.takeOff(nil, id)}
	}
	r.used = e.level.path(e.info.ID, stateSuffix)
	e.idle = c.idle.PushBack(e)
	if c.idle.Len() > maxIdle || c.ctx.Err() != nil {
		r.detach = append(r.detach, c.shelve(c.idle.oldest()))
	}
	return r
}

// shelve leaves a stub of an idle entry, whose files the caller closes; c.mu is held.
func (c *Cache) shelve(e *entry) *entry {
	c.idle.Remove(e.idle)
	e.idle = nil
	delete(c.entries, e.info.ID)
	c.shelf.put(stub{
		id: e.info.ID, path: e.path, confirmed: e.confirmed, charged: e.charged, level: e.level.index,
	}, parentOf(e.info.Path), true)
	return e
}
