package embedded

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// confirm notes for the next process that the source has this version now.
func (c *Cache) confirm(info cacheclient.Info) {
	c.unconfirm(info.Path, info.ID)
	now := time.Now()
	e, l := c.confirmNow(info.ID, now)
	switch {
	case e != nil:
		e.confirm(now)
	case l != nil:
		// On a tier that cannot be written to, the next process asks the source.
		_ = confirmFile(l.path(info.ID, stateSuffix), now)
	}
}

// confirmEvery is how often it is worth a write that the source still has a version.
const confirmEvery = time.Second

// confirmNow notes in the index that the source has a version, and returns where it is to be written: in the state of
// an entry, or on a level.
func (c *Cache) confirmNow(id uint64, now time.Time) (*entry, *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	news := func(at *int64) bool {
		if now.UnixNano()-*at < int64(confirmEvery) {
			return false
		}
		*at = now.UnixNano()
		return true
	}
	if e := c.entries[id]; e != nil {
		if e.level == nil || !news(&e.confirmed) {
			return nil, nil
		}
		return e, nil
	}
	if t := c.shelf.get(id); t != nil && news(&t.confirmed) {
		return nil, c.levels[t.level]
	}
	return nil, nil
}

// confirmFile writes to a state that the source has its version.
func confirmFile(name string, at time.Time) error {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	s, _, _, err := readHeader(f)
	if err != nil {
		return err
	}
	used, err := f.Stat()
	if err != nil {
		return err
	}
	if err := s.confirm(at); err != nil {
		return err
	}
	// The time of the file is that of the last use.
	return os.Chtimes(name, time.Time{}, used.ModTime())
}

// remember returns what is known of a path: what the source told this process, or else an earlier one of what is
// cached.
func (c *Cache) remember(path string) (record, bool) {
	if r, known := c.meta.get(path); known {
		return r, true
	}
	info, confirmed, ok := c.cachedVersion(path)
	if at := time.Unix(0, confirmed); ok && confirmed != 0 && at.Before(time.Now()) {
		return c.meta.refresh(path, record{info: info, at: at, inherited: true}), true
	}
	return record{}, false
}

// cachedInfo is the version of a path that the tiers have.
func (c *Cache) cachedInfo(ctx context.Context, path string) (cacheclient.Info, bool, error) {
	if err := c.adopted(ctx); err != nil {
		return cacheclient.Info{}, false, err
	}
	info, _, ok := c.cachedVersion(path)
	return info, ok, nil
}

// cachedVersion is the latest version of a path that is in the index, and when the source confirmed it.
func (c *Cache) cachedVersion(path string) (info cacheclient.Info, confirmed int64, ok bool) {
	id, l, info, confirmed := c.latestOf(pathKey(path))
	if l != nil {
		h, _, _, _, err := loadState(l, id)
		if err != nil {
			return cacheclient.Info{}, 0, false
		}
		info = h.info()
	}
	return info, confirmed, info.ID != 0 && info.Path == path
}

// latestOf looks for the latest version of a path: its entry tells all, of a stub the level does.
func (c *Cache) latestOf(key uint64) (id uint64, l *level, info cacheclient.Info, confirmed int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id = c.latest[key]
	if e := c.entries[id]; e != nil {
		return id, nil, e.info, e.confirmed
	}
	if t := c.shelf.get(id); t != nil {
		return id, c.levels[t.level], info, t.confirmed
	}
	return id, nil, info, 0
}

// unconfirm forgets that the source had the cached version of a path, unless that is the one with the identity; the
// next process does not take it from the state either.
func (c *Cache) unconfirm(path string, but uint64) {
	id, e, l := c.unconfirmNow(path, but)
	switch {
	case e != nil:
		e.confirm(time.Time{})
	case l != nil:
		_ = confirmFile(l.path(id, stateSuffix), time.Time{})
	}
}

// unconfirmNow forgets it in the index, and returns where it is to be written.
func (c *Cache) unconfirmNow(path string, but uint64) (id uint64, e *entry, l *level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id = c.latest[pathKey(path)]
	if id == but {
		return id, nil, nil
	}
	if e := c.entries[id]; e != nil && e.confirmed != 0 {
		e.confirmed = 0
		return id, e, nil
	}
	if t := c.shelf.get(id); t != nil && t.confirmed != 0 {
		t.confirmed = 0
		return id, nil, c.levels[t.level]
	}
	return id, nil, nil
}
