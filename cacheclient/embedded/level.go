package embedded

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LevelConfig is one tier directory.
type LevelConfig struct {
	// Dir is created if it is missing; each source gets a directory of its own below it.
	Dir string
	// Quota is the most that the source may occupy there, in bytes.
	Quota int64
	// High and Low are watermarks as shares of the quota: past High the least recently used
	// files leave until Low is reached. Zero means 0.95 and 0.7.
	High, Low float64
}

func (c LevelConfig) withDefaults() LevelConfig {
	if c.High == 0 {
		c.High = 0.95
	}
	if c.Low == 0 {
		c.Low = 0.7
	}
	return c
}

func (c LevelConfig) check() error {
	switch {
	case c.Dir == "":
		return errors.New("the tier directory is empty: give a path")
	case c.Quota <= 0:
		return fmt.Errorf("the quota %d of tier directory %s is not a positive number of bytes", c.Quota, c.Dir)
	case !(c.High > 0 && c.High <= 1 && c.Low > 0 && c.Low < c.High):
		return fmt.Errorf("the watermarks high %v and low %v of tier directory %s are not 0 < low < high <= 1",
			c.High, c.Low, c.Dir)
	}
	return nil
}

// queue is a list of entries, the one that was used longest ago first.
type queue struct{ list.List }

// oldest is the first entry, nil of an empty queue.
func (q *queue) oldest() *entry {
	el := q.Front()
	if el == nil {
		return nil
	}
	e, _ := el.Value.(*entry)
	return e
}

// retryTier is how long a tier that refused a write is left alone.
const retryTier = 10 * time.Second

// level is a tier directory in use. Its fields below lock are guarded by Cache.mu.
type level struct {
	index     int
	dir       string
	quota     int64
	high, low int64
	lock      *os.File

	// used is what files and runs under way are charged for, in bytes.
	used int64
	// idle holds the entries that nobody has open, the least recently used first.
	idle queue
	// problem says why the level takes no data until blockedUntil.
	problem      error
	blockedUntil time.Time
}

// openLevel makes and locks the directory of a source on a tier. A directory that cannot be
// written to gives a level that takes nothing: slower, not wrong.
func openLevel(index int, cfg LevelConfig, source string) (*level, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := &level{
		index: index, dir: filepath.Join(cfg.Dir, source), quota: cfg.Quota,
		high: int64(float64(cfg.Quota) * cfg.High), low: int64(float64(cfg.Quota) * cfg.Low),
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil && !takesNothing(err) {
		return nil, fmt.Errorf("tier directory %s cannot be made: %w", cfg.Dir, errors.Unwrap(err))
	}
	if err := checkQuota(cfg); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.dir, 0o700); err != nil {
		return l.refused(err, cfg.Dir)
	}
	f, err := os.OpenFile(filepath.Join(l.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return l.refused(err, cfg.Dir)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder := lockHolder(f)
		_ = f.Close()
		return nil, fmt.Errorf("tier directory %s already serves this source%s: give another --tier-dir", cfg.Dir, holder)
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
	l.lock = f
	return l, nil
}

// refused turns the failure to set a level up into one that takes nothing, where that is
// what the failure means.
func (l *level) refused(err error, dir string) (*level, error) {
	if !takesNothing(err) && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("tier directory %s cannot be used: %w", dir, err)
	}
	l.problem, l.blockedUntil = err, time.Unix(1<<40, 0)
	return l, nil
}

func takesNothing(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

func lockHolder(f *os.File) string {
	buf := make([]byte, 16)
	n, _ := f.ReadAt(buf, 0)
	if pid := strings.TrimSpace(string(buf[:n])); pid != "" {
		return " for another mount (process " + pid + ")"
	}
	return " for another mount"
}

// checkQuota refuses a quota that the file system could never hold.
func checkQuota(cfg LevelConfig) error {
	var st unix.Statfs_t
	if err := unix.Statfs(cfg.Dir, &st); err != nil {
		return fmt.Errorf("tier directory %s cannot be used: %w", cfg.Dir, err)
	}
	if total := int64(st.Blocks) * st.Bsize; cfg.Quota > total {
		return fmt.Errorf("the quota of %d bytes is larger than the file system of tier directory %s, which has %d bytes",
			cfg.Quota, cfg.Dir, total)
	}
	return nil
}

// open tells whether the level takes data now.
func (l *level) open(now time.Time) bool {
	if l.problem != nil && now.After(l.blockedUntil) {
		l.problem = nil
	}
	return l.problem == nil
}

// block keeps data away from a level that refused a write.
func (l *level) block(err error) {
	l.problem, l.blockedUntil = err, time.Now().Add(retryTier)
}

func (l *level) path(id uint64, suffix string) string {
	return filepath.Join(l.dir, fmt.Sprintf("%016x%s", id, suffix))
}

func (l *level) close() error {
	if l.lock == nil {
		return nil
	}
	return l.lock.Close()
}
