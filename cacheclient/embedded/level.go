package embedded

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
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
	index     uint8
	dir       string
	quota     int64
	high, low int64
	lock      *os.File

	// used is what files and runs under way are charged for, in bytes; left about what an earlier process left that
	// is not among them yet.
	used, left int64
	// listed is how many of the used bytes are listings.
	listed int64
	// problem says why the level takes no data until blockedUntil.
	problem      error
	blockedUntil time.Time
	// strays says that files may be there which the index does not know.
	strays bool
}

// never is after all that a process lives to see.
var never = time.Unix(1<<40, 0)

// openLevel makes and locks the directory of a source on a tier. A directory that cannot be
// written to gives a level that takes nothing: slower, not wrong.
func openLevel(index int, cfg LevelConfig, source string) (*level, error) {
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if index >= maxLevels {
		return nil, fmt.Errorf("tier directory %s is one of more than %d: give fewer", cfg.Dir, maxLevels)
	}
	l := &level{
		index: uint8(index), dir: filepath.Join(cfg.Dir, source), quota: cfg.Quota,
		high: int64(float64(cfg.Quota) * cfg.High), low: int64(float64(cfg.Quota) * cfg.Low),
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil && !takesNothing(err) {
		return nil, fmt.Errorf("tier directory %s cannot be made: %w", cfg.Dir, errors.Unwrap(err))
	}
	if err := checkQuota(cfg); err != nil {
		return nil, err
	}
	err := l.take()
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("tier directory %s already serves this source%s: give another --tier-dir%w", cfg.Dir,
			l.holder(), errInUse)
	case err != nil:
		return l.refused(err, cfg.Dir)
	}
	return l, nil
}

const (
	lockName = "lock"
	// lockTries is how often a lock is tried for, at intervals of lockPause: a pruning has it for a moment.
	lockTries = 10
	lockPause = 10 * time.Millisecond
)

// errInUse says that another process has the source's directory on a tier. It adds no words.
var errInUse = inUseError{}

type inUseError struct{}

func (inUseError) Error() string { return "" }

// take makes the level's directory and locks it; EWOULDBLOCK when another has it.
func (l *level) take() error {
	for try := 1; ; try++ {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return err
		}
		f, err := lockDir(l.dir)
		if err == nil && isAt(f, filepath.Join(l.dir, lockName)) {
			_ = f.Truncate(0)
			_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())), 0)
			l.lock = f
			return nil
		}
		if f != nil {
			_ = f.Close()
		}
		pruned := err == nil || errors.Is(err, fs.ErrNotExist)
		if !pruned && !errors.Is(err, unix.EWOULDBLOCK) || try == lockTries {
			return cmp.Or(err, error(unix.EWOULDBLOCK))
		}
		time.Sleep(lockPause)
	}
}

// isAt reports whether the open file is the one at the path, and not one that was there.
func isAt(f *os.File, path string) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(open, now)
}

// refused turns the failure to set a level up into one that takes nothing, where that is
// what the failure means.
func (l *level) refused(err error, dir string) (*level, error) {
	if !takesNothing(err) && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("tier directory %s cannot be used: %w", dir, err)
	}
	l.problem, l.blockedUntil = err, never
	return l, nil
}

func takesNothing(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// holder names the process that has the level's lock.
func (l *level) holder() string {
	text, _ := os.ReadFile(filepath.Join(l.dir, lockName))
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		return fmt.Sprintf(" for another mount (process %d)", pid)
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
		return fmt.Errorf("the quota of %s is larger than the file system of tier directory %s: "+
			"accepted are at most %d bytes (%s)",
			humanize.IBytes(uint64(cfg.Quota)), cfg.Dir, total, humanize.IBytes(uint64(total)))
	}
	return nil
}

// open reports whether the level takes data now.
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

// unfinished ends the names of files that a process is making: its own, so that those of an earlier one are told apart.
var unfinished = fmt.Sprintf(".new-%x", time.Now().UnixNano())

// blame says whose an error of a tier's files is, and so what is to be left alone because of it.
type blame int

const (
	// ofTier is an error that the next file will meet as well.
	ofTier blame = iota
	// ofFile is an error of one file, such as a size that the file system does not know.
	ofFile
	// ofProcess is the lack of something that another moment may bring.
	ofProcess
)

// blameOf tells whose the error is.
func blameOf(err error) blame {
	for _, own := range []error{
		errNotKept, unix.EFBIG, unix.EINVAL, unix.ENAMETOOLONG, unix.EOVERFLOW, unix.EISDIR, unix.ENOTEMPTY,
		unix.EEXIST,
	} {
		if errors.Is(err, own) {
			return ofFile
		}
	}
	for _, lack := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN, unix.EINTR} {
		if errors.Is(err, lack) {
			return ofProcess
		}
	}
	return ofTier
}

// removeFiles removes what the level has of a cached file: first the word for it.
func removeFiles(l *level, id uint64) error {
	var err error
	for _, suffix := range []string{stateSuffix, dataSuffix} {
		if e := os.Remove(l.path(id, suffix)); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// createFiles makes the files of a version, with no block in them. What has their names already is replaced and not
// reused, since it may have readers: the state first, so that none vouches for data that is not there.
func createFiles(l *level, id uint64, h header) (data *os.File, state *stateFile, err error) {
	names := [2]string{l.path(id, stateSuffix), l.path(id, dataSuffix)}
	defer func() {
		if err != nil {
			_, _ = os.Remove(names[0]+unfinished), os.Remove(names[1]+unfinished)
			if data != nil {
				_ = data.Close()
			}
			if state != nil {
				_ = state.close()
			}
			data, state = nil, nil
		}
	}()
	if state, err = createState(names[0]+unfinished, h); err != nil {
		return nil, nil, err
	}
	if data, err = os.OpenFile(names[1]+unfinished, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, state, err
	}
	if err = data.Truncate(h.Size); err != nil {
		return data, state, err
	}
	for _, name := range names {
		if err = os.Rename(name+unfinished, name); err != nil {
			return data, state, err
		}
	}
	return data, state, nil
}

func (l *level) close() error {
	if l.lock == nil {
		return nil
	}
	// The time of the lock is that of the last use, for Prune.
	now := time.Now()
	_ = os.Chtimes(filepath.Join(l.dir, lockName), now, now)
	return l.lock.Close()
}
