package embedded

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// spill is a file without a name that a long listing is in: on the first tier that has room for it, where its bytes
// count against the quota, else in the directory for temporary files. It is written by one goroutine and then read by
// many.
type spill struct {
	c    *Cache
	size int64
	// places are where it may go next, best first.
	places []spillPlace
	// at is where it is, and file the file; nil before the first write.
	at     spillPlace
	file   *os.File
	closed sync.Once
}

// spillPlace is a directory for spills; level is nil where nothing counts.
type spillPlace struct {
	dir   string
	level *level
}

// spills makes the files of a listing.
func (c *Cache) spills() func() *spill {
	return func() *spill {
		s := &spill{c: c}
		for _, l := range c.levels {
			s.places = append(s.places, spillPlace{l.dir, l})
		}
		s.places = append(s.places, spillPlace{dir: os.TempDir()})
		return s
	}
}

// Write appends, at the next place where this one has no room.
func (s *spill) Write(p []byte) (int, error) {
	var tried error
	for s.file == nil || !s.append(p, &tried) {
		if err := s.move(); err != nil {
			return 0, fmt.Errorf("no place for a listing of more than %d bytes: %w", max(s.size, spillAt),
				errors.Join(tried, err))
		}
	}
	return len(p), nil
}

// append writes at the present place, and counts it; false where there is no room.
func (s *spill) append(p []byte, tried *error) bool {
	n := int64(len(p))
	if !s.c.takeRoom(s.at.level, n) {
		*tried = fmt.Errorf("the quota of %s is used up", s.at.dir)
		return false
	}
	if _, err := s.file.WriteAt(p, s.size); err != nil {
		s.c.giveRoom(s.at.level, n)
		*tried = err
		return false
	}
	s.size += n
	return true
}

// move goes to the next place, with what there is.
func (s *spill) move() error {
	if len(s.places) == 0 {
		return unix.ENOSPC
	}
	next := s.places[0]
	s.places = s.places[1:]
	f, err := os.OpenFile(next.dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if err != nil {
		if len(s.places) == 0 {
			return err
		}
		return s.move()
	}
	if s.file == nil {
		s.at, s.file = next, f
		return nil
	}
	if !s.c.takeRoom(next.level, s.size) {
		_ = f.Close()
		return s.move()
	}
	if _, err := io.Copy(f, io.NewSectionReader(s.file, 0, s.size)); err != nil {
		s.c.giveRoom(next.level, s.size)
		_ = f.Close()
		return s.move()
	}
	_ = s.file.Close()
	s.c.giveRoom(s.at.level, s.size)
	s.at, s.file = next, f
	return nil
}

// ReadAt implements io.ReaderAt.
func (s *spill) ReadAt(p []byte, off int64) (int, error) {
	if s.file == nil {
		return 0, io.EOF
	}
	return s.file.ReadAt(p, off)
}

// close gives the file and its room back. A reader of it meanwhile meets os.ErrClosed.
func (s *spill) close() {
	s.closed.Do(func() {
		if s.file != nil {
			_ = s.file.Close()
			s.c.giveRoom(s.at.level, s.size)
		}
	})
}

// mostElsewhere is how many bytes of listings a cache has in files outside of its tiers.
const mostElsewhere = 1 << 30

// takeRoom counts n bytes of a listing against the level, for which idle files make room; false where there is none.
func (c *Cache) takeRoom(l *level, n int64) bool {
	ok, excess := c.tryRoom(l, n)
	if !ok && excess > 0 {
		c.reclaim(l, excess)
		ok, _ = c.tryRoom(l, n)
	}
	return ok
}

// tryRoom is takeRoom without reclaiming; excess is what would have to go first, 0 where nothing may. Listings take the
// place of cached files only as far as they may be kept, a listing and what it is sorted from.
func (c *Cache) tryRoom(l *level, n int64) (ok bool, excess int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false, 0
	}
	if l == nil {
		if c.elsewhere+n > mostElsewhere {
			return false, 0
		}
		c.elsewhere += n
		return true, 0
	}
	if !l.open(time.Now()) {
		return false, 0
	}
	if l.used+l.left+n > l.quota {
		if c.left.over && l.listed+n <= 2*max(l.quota/listedShare, leastSpilled) {
			excess = l.used + n - l.low
		}
		return false, excess
	}
	l.used += n
	l.listed += n
	if l.used > l.high {
		select {
		case c.evictor <- struct{}{}:
		default:
		}
	}
	return true, 0
}

// giveRoom takes back what takeRoom counted.
func (c *Cache) giveRoom(l *level, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l == nil {
		c.elsewhere -= n
		return
	}
	l.used -= n
	l.listed -= n
}
