package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
)

// caches are the caches of an agent. Volumes that read the same (ufs.Store.Identity) and keep it in the same place
// share one, whatever they wish of it. D-162 says whose wish counts.
type caches struct {
	// mu guards byKey, and of each cache its wishes and closing.
	mu    sync.Mutex
	byKey map[string]*sharedCache
}

// sharedCache is a cache and what its users wish of it.
type sharedCache struct {
	key   string
	store *renewable
	// ready is closed when cache and err are set.
	ready   chan struct{}
	cache   *embedded.Cache
	err     error
	wishes  map[*cacheUse]embedded.Tuning
	closing bool
	// gone is closed when the cache has been closed.
	gone chan struct{}
	// tuning serializes changes of the settings, so that the last one counts.
	tuning sync.Mutex
}

// cacheUse is one volume's use of a cache; its Close ends the use.
type cacheUse struct {
	*embedded.Cache
	caches *caches
	of     *sharedCache
	once   sync.Once
	err    error
}

// open begins the use of the cache above the store, which begin opens unless it is open; one that is closing is waited
// for. The store belongs to open: it is closed where another stands for it.
func (c *caches) open(
	ctx context.Context, store *renewable, wish embedded.Tuning, begin func() (*embedded.Cache, error),
) (*cacheUse, error) {
	key := filepath.Clean(wish.Level.Dir) + "\x00" + store.Identity()
	for {
		use, first, closing := c.enter(key, wish)
		if closing != nil {
			select {
			case <-closing:
				continue
			case <-ctx.Done():
				_ = store.Close()
				return nil, fmt.Errorf("the cache of another volume of this source is closing: %w: %w",
					cacheclient.ErrUnavailable, ctx.Err())
			}
		}
		if first {
			use.of.store = store
			use.of.cache, use.of.err = begin()
			if use.of.err != nil {
				c.remove(use.of)
			}
			close(use.of.ready)
		}
		if !first || use.of.err != nil {
			_ = store.Close()
		}
		if err := use.begin(ctx); err != nil {
			return nil, err
		}
		return use, nil
	}
}

// enter counts a use of the cache of a key; first says that the caller is the one to open it. Of a cache that is
// closing it returns what is closed at its end.
func (c *caches) enter(key string, wish embedded.Tuning) (use *cacheUse, first bool, closing <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.byKey[key]
	if s != nil && s.closing {
		return nil, false, s.gone
	}
	if first = s == nil; first {
		s = &sharedCache{
			key: key, ready: make(chan struct{}), gone: make(chan struct{}),
			wishes: make(map[*cacheUse]embedded.Tuning),
		}
		if c.byKey == nil {
			c.byKey = make(map[string]*sharedCache)
		}
		c.byKey[key] = s
	}
	use = &cacheUse{caches: c, of: s}
	s.wishes[use] = wish
	return use, first, nil
}

// remove takes a cache out of the table.
func (c *caches) remove(s *sharedCache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byKey[s.key] == s {
		delete(c.byKey, s.key)
	}
}

// begin waits for the cache to be open, and sets it as its users wish.
func (u *cacheUse) begin(ctx context.Context) error {
	select {
	case <-u.of.ready:
	case <-ctx.Done():
		_ = u.Close()
		return fmt.Errorf("the cache is being opened for another volume: %w: %w", cacheclient.ErrUnavailable, ctx.Err())
	}
	if u.of.err != nil {
		_ = u.Close()
		return u.of.err
	}
	u.Cache = u.of.cache
	if err := u.caches.retune(u.of); err != nil {
		_ = u.Close()
		return err
	}
	return nil
}

// Close ends the use, and closes the cache after the last one.
func (u *cacheUse) Close() error {
	u.once.Do(func() { u.err = u.caches.leave(u) })
	return u.err
}

func (c *caches) leave(u *cacheUse) error {
	s := u.of
	c.mu.Lock()
	delete(s.wishes, u)
	s.closing = len(s.wishes) == 0
	last := s.closing
	c.mu.Unlock()
	if !last {
		select {
		case <-s.ready:
			return c.retune(s)
		default:
			return nil
		}
	}
	defer close(s.gone)
	defer c.remove(s)
	if s.cache == nil {
		// It did not open.
		return nil
	}
	return s.cache.Close()
}

// retune sets the cache as its present users wish.
func (c *caches) retune(s *sharedCache) error {
	s.tuning.Lock()
	defer s.tuning.Unlock()
	c.mu.Lock()
	together, some := agreed(s.wishes)
	c.mu.Unlock()
	if !some || s.err != nil {
		return nil
	}
	return s.cache.Retune(together)
}

// agreed is what several wish together: the shortest belief, for each was promised to see changes in its time, and the
// largest quota, for each was promised as much. some is false where there is no wish.
func agreed(wishes map[*cacheUse]embedded.Tuning) (together embedded.Tuning, some bool) {
	for _, w := range wishes {
		if !some {
			together, some = w, true
			continue
		}
		together.TTL, together.NameTTL = min(together.TTL, w.TTL), min(together.NameTTL, w.NameTTL)
		if w.Level.Quota > together.Level.Quota {
			together.Level = w.Level
		}
	}
	return together, some
}
