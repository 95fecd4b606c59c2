package embedded

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// survey finds out what is on a level, and about how many bytes it takes. Until that is known the level takes no data.
func (c *Cache) survey(l *level) (remains, error) {
	r := remains{l: l}
	if l.lock == nil {
		return r, nil
	}
	var err error
	if r.told, err = readSnapshot(l); err != nil {
		r.ids, r.bytes, err = listFiles(l)
	}
	for _, f := range r.told {
		r.bytes += f.charged
	}
	if c.surveyed(r, err) {
		c.log.Warn("a tier cannot be listed at present; reads go on without it", "tier", l.dir, "error", err)
	}
	return r, err
}

// surveyed notes what was found out about a level, and reports whether it takes no data from now on.
func (c *Cache) surveyed(r remains, err error) (blocked bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := r.l
	l.left = max(0, r.bytes-l.used)
	if err == nil {
		return false
	}
	blocked = l.open(time.Now())
	l.problem, l.blockedUntil = err, never
	return blocked
}

// listFiles lists the cached files of a level by their identities, and says about how many bytes they take. Names that
// can be no cached file's are removed.
func listFiles(l *level) (ids []uint64, bytes int64, err error) {
	dir, err := os.Open(l.dir)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = dir.Close() }()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		if base, made, _ := strings.Cut(name, ".new-"); made != "" {
			if !strings.HasSuffix(name, unfinished) && base != "" {
				_ = os.Remove(filepath.Join(l.dir, name))
			}
			continue
		}
		ext := filepath.Ext(name)
		if ext != dataSuffix && ext != stateSuffix {
			continue
		}
		id, err := strconv.ParseUint(strings.TrimSuffix(name, ext), 16, 64)
		if err != nil || filepath.Base(l.path(id, ext)) != name {
			_ = os.Remove(filepath.Join(l.dir, name))
			continue
		}
		ids = append(ids, id)
		var st unix.Stat_t
		if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			bytes += st.Blocks * 512
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), bytes, nil
}

// load reads one state and checks that its data is there. The error is fs.ErrNotExist where there is neither, and
// errBadState where what is there is proven not to hold. With any other, what is found counts by an estimate.
func load(l *level, id uint64) (found, error) {
	f := found{stub: stub{id: id, level: l.index}}
	data, dataErr := os.Lstat(l.path(id, dataSuffix))
	h, confirmed, used, charged, err := loadState(l, id)
	switch {
	case errors.Is(err, fs.ErrNotExist) && errors.Is(dataErr, fs.ErrNotExist):
		return found{}, fs.ErrNotExist
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errBadState), errors.Is(dataErr, fs.ErrNotExist):
		return found{}, errBadState
	case err != nil || dataErr != nil:
		f.charged = 2 * statePage
		if dataErr == nil {
			f.charged += allocated(data)
		}
		return f, errors.Join(err, dataErr)
	case data.Size() != h.Size || !data.Mode().IsRegular():
		return found{}, errBadState
	}
	name := string(h.Path)
	f.path, f.dir, f.confirmed, f.used, f.charged = pathKey(name), parentOf(name), confirmed, used, charged
	return f, nil
}

// allocated is what a file takes of its file system, in bytes.
func allocated(fi os.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}

// loadState reads what the index needs of a state.
func loadState(l *level, id uint64) (h header, confirmed, used, charged int64, err error) {
	f, err := os.OpenFile(l.path(id, stateSuffix), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		err = errBadState
	}
	if err != nil {
		return h, 0, 0, 0, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return h, 0, 0, 0, err
	}
	s, h, at, err := readHeader(f)
	if err == nil && h.info().ID != id || errors.Is(err, unix.EISDIR) {
		err = errBadState
	}
	if err != nil {
		return h, 0, 0, 0, err
	}
	slots, err := s.slots(blocksIn(h.Size))
	if err != nil {
		return h, 0, 0, 0, err
	}
	charged = statePage
	for b := range slots {
		charged += run{b, b + 1}.charge(h.Size)
	}
	if !at.IsZero() {
		confirmed = at.UnixNano()
	}
	return h, confirmed, fi.ModTime().UnixNano(), charged, nil
}
