package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/renameio/v2"
	mount "k8s.io/mount-utils"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
)

// runtimeVar names the runtime directory, for tests and for several agents side by side.
const runtimeVar = "MILLRACE_RUNTIME_DIR"

// Entry is one mount in the registry, and one JSON file in the runtime directory.
type Entry struct {
	Dir    string `json:"dir"`
	Socket string `json:"socket"`
	PID    int    `json:"pid"`
	// Keeper is the process that replaces PID when it dies, 0 where there is none.
	Keeper  int       `json:"keeper,omitempty"`
	Source  string    `json:"source"`
	Started time.Time `json:"started"`
	// Dead says that the process has gone and left its mount behind, and no other replaces it. It is found out
	// when the entry is read, not written.
	Dead bool `json:"-"`
}

// Registry is the list of this user's mounts. Each entry has one writer, the process that
// serves it; files appear and change by rename, so that a reader never sees half of one.
type Registry struct {
	dir string
}

// RuntimeDir gives the directory for registry entries, sockets and logs, and makes it,
// 0700, where it is missing: $MILLRACE_RUNTIME_DIR, else /run/millrace for root, else
// $XDG_RUNTIME_DIR/millrace, else /tmp/millrace-UID. A directory that belongs to another user,
// or that others may write to, is an error: its owner could answer in our name.
func RuntimeDir() (string, error) {
	dir := runtimeDir(os.Getenv, os.Geteuid())
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("the runtime directory %q (from $%s or $XDG_RUNTIME_DIR) must be an absolute path", dir,
			runtimeVar)
	}
	if err := PrivateDir(dir); err != nil {
		return "", fmt.Errorf("runtime directory: %w", err)
	}
	return dir, nil
}

func runtimeDir(env func(string) string, uid int) string {
	switch {
	case env(runtimeVar) != "":
		return filepath.Clean(env(runtimeVar))
	case uid == 0:
		return "/run/millrace"
	case env("XDG_RUNTIME_DIR") != "":
		return filepath.Join(env("XDG_RUNTIME_DIR"), "millrace")
	default:
		return "/tmp/millrace-" + strconv.Itoa(uid)
	}
}

// PrivateDir makes sure that dir is a directory of this user that no other may write
// to, making it 0700 where it is missing.
func PrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return fmt.Errorf("%s is not a directory", dir)
	case !ok || int(sys.Uid) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case st.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s has the mode %04o: others may write to it", dir, st.Mode().Perm())
	}
	return nil
}

// OpenRegistry is the registry in dir, as RuntimeDir gave it.
func OpenRegistry(dir string) Registry { return Registry{dir: dir} }

// File is the path of a file that belongs to the mount on dir: the entry has the extension
// .json, the socket .sock, the log .log. The last element of dir makes it readable, a hash of all
// of dir makes it unique.
func (r Registry) File(dir, ext string) string {
	return filepath.Join(r.dir, MountName(dir)+ext)
}

// MountName is a short name for the mount on dir, safe as a file's name and a metric's label.
func MountName(dir string) string {
	const longest = 40
	sum := sha256.Sum256([]byte(dir))
	base := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' {
			return c
		}
		return '_'
	}, filepath.Base(dir))
	return base[:min(len(base), longest)] + "-" + hex.EncodeToString(sum[:4])
}

// Put writes the entry, over one for the same directory.
func (r Registry) Put(e Entry) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	if err := renameio.WriteFile(r.File(e.Dir, ".json"), append(data, '\n'), 0o600,
		renameio.WithTempDir(r.dir)); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

// Remove takes the entry for dir out if it is there and belongs to the process pid.
func (r Registry) Remove(dir string, pid int) error {
	e, err := readEntry(r.File(dir, ".json"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && e.PID != pid {
		return nil
	}
	if err := os.Remove(r.File(dir, ".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("registry: %w", err)
	}
	return nil
}

// List gives the entries in order of their directories. Those of processes that have gone are
// removed with their sockets, unless their mount is still there: these are Dead.
func (r Registry) List() ([]Entry, error) {
	files, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	mounted, err := mountedDirs()
	if err != nil {
		return nil, fmt.Errorf("registry: %w", err)
	}
	var entries []Entry
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".json" || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		if e, keep := r.check(filepath.Join(r.dir, f.Name()), mounted); keep {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Dir, b.Dir) })
	return entries, nil
}

// Find gives the entry for the mount on dir.
func (r Registry) Find(dir string) (Entry, bool, error) {
	entries, err := r.List()
	for _, e := range entries {
		if e.Dir == dir {
			return e, true, err
		}
	}
	return Entry{}, false, err
}

// check reads one entry and removes it when nothing stands behind it.
func (r Registry) check(file string, mounted map[string]bool) (Entry, bool) {
	e, err := readEntry(file)
	if err != nil || r.File(e.Dir, ".json") != file {
		// Entries appear whole, by rename: this is none of ours, or damaged.
		_ = os.Remove(file)
		return Entry{}, false
	}
	if alive(e.PID) && socket.Answers(e.Socket) {
		return e, true
	}
	if mounted[e.Dir] {
		return succeeded(file, e), true
	}
	_ = os.Remove(file)
	if st, err := os.Lstat(e.Socket); err == nil && st.Mode().Type() == fs.ModeSocket {
		_ = os.Remove(e.Socket)
	}
	return Entry{}, false
}

// successorPatience is how long a process that died may take to be replaced.
const successorPatience = 3 * time.Second

// succeeded is the entry of the process that replaces the entry's, which has gone, as soon as it answers; or the entry,
// Dead, where there is no keeper that would replace it, or none does in time.
func succeeded(file string, e Entry) Entry {
	for deadline := time.Now().Add(successorPatience); alive(e.Keeper) &&
		time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if next, err := readEntry(file); err == nil && next.Dir == e.Dir && alive(next.PID) &&
			socket.Answers(next.Socket) {
			return next
		}
	}
	e.Dead = true
	return e
}

func readEntry(file string) (Entry, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Entry{}, err
	}
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, err
	}
	return e, nil
}

// alive reports whether a process with this id exists, ours or not.
func alive(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// mountedDirs are the directories with a millrace mount in this mount namespace, live or
// not. It reads the kernel's table and asks no file system.
func mountedDirs() (map[string]bool, error) {
	infos, err := mountpoint.Table(func(m *mount.MountInfo) bool { return m.FsType == mountpoint.FSType })
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]bool, len(infos))
	for _, m := range infos {
		dirs[m.MountPoint] = true
	}
	return dirs, nil
}
