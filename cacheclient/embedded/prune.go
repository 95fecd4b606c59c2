package embedded

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// prunedPrefix begins the name of a source's directory that is being removed.
const prunedPrefix = ".pruned-"

// SourceDir is the name of the directory below a tier in which a source's files are: of ufs.Store.Identity and of
// Config.Scope.
func SourceDir(identity, scope string) string {
	if scope != "" {
		identity += "\x00" + scope
	}
	sum := sha256.Sum256([]byte(identity))
	return hex.EncodeToString(sum[:sourceDirLen/2])
}

const sourceDirLen = 16

// isSourceDir reports whether a name can be SourceDir's.
func isSourceDir(name string) bool {
	_, err := hex.DecodeString(name)
	return err == nil && len(name) == sourceDirLen && name == strings.ToLower(name)
}

// Prune removes directories of sources below the tier directory root, the one that was used longest ago first, until
// what the sources take there is at most so many bytes. Those for whose name (SourceDir) keep is true stay, and those
// that a Cache of any process has open. It returns the bytes that were freed, also with an error.
func Prune(root string, keep func(name string) bool, most int64) (freed int64, err error) {
	names, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("tier directory %s cannot be read: %w", root, err)
	}
	var all []tenant
	var used int64
	for _, n := range names {
		path := filepath.Join(root, n.Name())
		switch {
		case !n.IsDir():
		case strings.HasPrefix(n.Name(), prunedPrefix):
			// Another pruning was stopped half way.
			freed += usedBelow(path)
			err = errors.Join(err, os.RemoveAll(path))
		case isSourceDir(n.Name()):
			t := tenant{path: path, bytes: usedBelow(path), used: lastUse(path)}
			used += t.bytes
			if !keep(n.Name()) {
				all = append(all, t)
			}
		}
	}
	slices.SortFunc(all, func(a, b tenant) int { return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.path, b.path)) })
	for _, t := range all {
		if used <= most {
			break
		}
		gone, evictErr := t.evict()
		err = errors.Join(err, evictErr)
		if gone {
			used -= t.bytes
			freed += t.bytes
		}
	}
	if err != nil {
		return freed, fmt.Errorf("prune the tier directory %s: %w", root, err)
	}
	return freed, nil
}

// tenant is the directory of a source on a tier.
type tenant struct {
	path  string
	bytes int64
	used  time.Time
}

// evict removes the directory if no process has it open. It is moved away while its lock is held, so that what comes
// meanwhile makes a new one.
func (t tenant) evict() (bool, error) {
	f, err := lockDir(t.path)
	if errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	away := filepath.Join(filepath.Dir(t.path), prunedPrefix+filepath.Base(t.path)+"-"+
		strconv.FormatInt(time.Now().UnixNano(), 36))
	err = os.Rename(t.path, away)
	_ = f.Close()
	if err != nil {
		return false, err
	}
	return true, os.RemoveAll(away)
}

// lockDir locks the directory of a source that is there; EWOULDBLOCK when another has.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// usedBelow is what the files of a directory take, in bytes.
func usedBelow(dir string) int64 {
	f, err := os.Open(dir)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	names, _ := f.Readdirnames(-1)
	var bytes int64
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

// lastUse is when a source's directory was opened, closed or changed last.
func lastUse(dir string) time.Time {
	var last time.Time
	for _, name := range []string{dir, filepath.Join(dir, lockName)} {
		if fi, err := os.Lstat(name); err == nil && fi.ModTime().After(last) {
			last = fi.ModTime()
		}
	}
	return last
}
