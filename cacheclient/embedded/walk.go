package embedded

import (
	"path"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/semaphore"
)

const (
	// walkAhead is how many directories are listed ahead of a walk.
	walkAhead = 2
	// walkPlaces is how many directories' places are remembered, of all walks.
	walkPlaces = 256
	// walkLook is how many entries are looked at for the next directory, and walkUp how far up the tree.
	// walkPage is how many of them are decoded at a time.
	walkLook = 256
	walkUp   = 16
	walkPage = 16
)

// walks are the readers that go through a tree (ls -R, find, cp -r, tar): they list one directory after the other, and
// each time wait for the source. A reader that lists a directory that comes next in a tree, below the last one or
// beside it, is on a walk, and the directories that come next then are listed meanwhile. D-026 says why.
type walks struct {
	// slots are the listings that no reader waits for yet.
	slots *semaphore.Weighted
	// places has the directories that a walk would list next, or has listed, and where each stands in the
	// listing of the directory that it is in.
	places *lru.Cache[string, uint64]
}

func newWalks() (*walks, error) {
	places, err := lru.New[string, uint64](walkPlaces)
	return &walks{slots: semaphore.NewWeighted(walkAhead), places: places}, err
}

// walked notes that a directory is being read.
func (c *Cache) walked(dir string, l *listing) {
	if c.meta.ttl.Load() <= 0 {
		// What was listed ahead would not be believed.
		return
	}
	_, walk := c.walks.places.Get(dir)
	for _, next := range c.following(dir, l) {
		if walk {
			c.listAhead(next)
		}
	}
}

// following are the directories that a walk lists after this one, as far as listings tell: those in it, those beside
// it, and those beside the ones that it is in.
func (c *Cache) following(dir string, l *listing) []string {
	next := c.dirsFrom(dir, l, l.firstDir, walkAhead)
	for range walkUp {
		at, ok := c.walks.places.Get(dir)
		if !ok || len(next) == walkAhead {
			break
		}
		dir = parentOf(dir)
		above, ok := c.lists.get(dir)
		if !ok {
			break
		}
		next = append(next, c.dirsFrom(dir, above, at+1, walkAhead-len(next))...)
	}
	return next
}

// dirsFrom are the first directories of a listing from the at-th entry on, at most so many, and their places are noted.
func (c *Cache) dirsFrom(dir string, l *listing, at uint64, most int) []string {
	var found []string
	for looked := 0; looked < walkLook && len(found) < most; {
		entries, err := l.page(dir, at, walkPage)
		if err != nil || len(entries) == 0 {
			break
		}
		for _, e := range entries {
			if e.Dir && len(found) < most {
				found = append(found, e.Path)
				c.walks.places.Add(e.Path, at)
			}
			at++
		}
		looked += len(entries)
	}
	return found
}

// listAhead lists a directory that no reader has asked for yet.
func (c *Cache) listAhead(dir string) {
	l, known := c.lists.get(dir)
	slow, _ := c.health.hearing()
	if known && c.current(l) || slow || c.health.isDown() || !c.walks.slots.TryAcquire(1) {
		return
	}
	if !c.begin() {
		c.walks.slots.Release(1)
		return
	}
	go func() {
		defer c.work.Done()
		defer c.walks.slots.Release(1)
		// The reader that comes to it meets the same error, and tells.
		_, _ = once(c.ctx, c, listKey(dir), func() (*listing, error) { return c.listDir(dir) })
	}()
}

// parentOf is the directory that a path is in; the root's is itself.
func parentOf(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}
