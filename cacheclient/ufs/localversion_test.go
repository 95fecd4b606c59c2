package ufs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// normalised gives a file the time that reproducible builds give to all.
func normalised(t *testing.T, name, content string) {
	t.Helper()
	write(t, name, content)
	if err := os.Chtimes(name, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
}

// TestLocalVersions holds what makes another version of a file whose size and modification time stay, and what does
// not.
func TestLocalVersions(t *testing.T) {
	for what, c := range map[string]struct {
		change func(t *testing.T, name string)
		// another says that it is another version, and another by validate=time as well.
		another, byTime bool
	}{
		"replaced": {func(t *testing.T, name string) {
			t.Helper()
			normalised(t, name+".new", "bbbb")
			rename(t, name+".new", name)
		}, true, false},
		"written in place": {func(t *testing.T, name string) { t.Helper(); normalised(t, name, "bbbb") }, true, false},
		"removed and made": {func(t *testing.T, name string) {
			t.Helper()
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
			normalised(t, name, "bbbb")
		}, true, false},
		"its directory renamed and made anew": {func(t *testing.T, name string) {
			t.Helper()
			dir := filepath.Dir(name)
			rename(t, dir, dir+".old")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			normalised(t, name, "bbbb")
		}, true, false},
		"touched": {func(t *testing.T, name string) {
			t.Helper()
			if err := os.Chtimes(name, time.Unix(2, 0), time.Unix(2, 0)); err != nil {
				t.Fatal(err)
			}
		}, true, true},
		"grown": {func(t *testing.T, name string) { t.Helper(); normalised(t, name, "aaaaa") }, true, true},
		"read": {func(t *testing.T, name string) {
			t.Helper()
			if _, err := os.ReadFile(name); err != nil {
				t.Fatal(err)
			}
			if err := unix.Access(name, unix.R_OK); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		"looked at beside new files": {func(t *testing.T, name string) {
			t.Helper()
			write(t, name+".other", "bbbb")
			if _, err := os.ReadDir(filepath.Dir(name)); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		"its directory renamed there and back": {func(t *testing.T, name string) {
			t.Helper()
			dir := filepath.Dir(name)
			rename(t, dir, dir+".old")
			rename(t, dir+".old", dir)
		}, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Helper()
			for validate, another := range map[string]bool{validateAll: c.another, validateTime: c.byTime} {
				dir := filepath.Join(t.TempDir(), "source")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				name := filepath.Join(dir, "f")
				normalised(t, name, "aaaa")
				store := mustOpen(t, dir, Options{Values: map[string]string{"validate": validate}})
				before := statLocal(t, store)
				c.change(t, name)
				after := statLocal(t, store)
				if (before.Mark() != after.Mark()) != another {
					t.Errorf("validate=%s: from %q to %q", validate, before.Mark(), after.Mark())
				}
				_, infos := listNames(t, store, "")
				if !slices.ContainsFunc(infos, func(i cacheclient.Info) bool {
					return i.Path == "f" &&
						i.Mark() == after.Mark()
				}) {
					t.Errorf("validate=%s: the listing tells %+v, a lookup %q", validate, infos, after.Mark())
				}
				_, err := readAll(testContext(t), store, before, 0, 4)
				if errors.Is(err, cacheclient.ErrStale) != another || err != nil && !another {
					t.Errorf("validate=%s: the version that was: %v", validate, err)
				}
				if _, err := readAll(testContext(t), store, after, 0, 4); err != nil {
					t.Errorf("validate=%s: the version that is: %v", validate, err)
				}
			}
		})
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func statLocal(t *testing.T, store Store) cacheclient.Info {
	t.Helper()
	info, err := store.Stat(testContext(t), "f")
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// TestLocalReplacedWhileRead reads on what was opened, whatever takes its name, and notices what is written into it.
func TestLocalReplacedWhileRead(t *testing.T) {
	for what, c := range map[string]struct {
		change func(t *testing.T, name string)
		stale  bool
	}{
		"replaced": {func(t *testing.T, name string) {
			t.Helper()
			normalised(t, name+".new", strings.Repeat("b", 1000))
			rename(t, name+".new", name)
		}, false},
		"linked": {func(t *testing.T, name string) {
			t.Helper()
			if err := os.Link(name, name+".link"); err != nil {
				t.Fatal(err)
			}
		}, false},
		"removed": {func(_ *testing.T, name string) { _ = os.Remove(name) }, false},
		"written in place": {func(t *testing.T, name string) {
			t.Helper()
			normalised(t, name,
				strings.Repeat("b", 1000))
		}, true},
	} {
		name := filepath.Join(t.TempDir(), "f")
		normalised(t, name, strings.Repeat("a", 1000))
		store := mustOpen(t, filepath.Dir(name), Options{})
		body, err := store.Open(testContext(t), statLocal(t, store), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		c.change(t, name)
		got, err := io.ReadAll(body)
		if errors.Is(err, cacheclient.ErrStale) != c.stale ||
			!c.stale && !bytes.Equal(got, bytes.Repeat([]byte("a"), 900)) {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
		}
		_ = body.Close()
	}
}

// TestLocalGrowing reads of a file that grows what it was, and nothing of another one of its name.
func TestLocalGrowing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	write(t, name, "aaaa")
	store := mustOpen(t, filepath.Dir(name), Options{Values: map[string]string{"no_check_updated": "true"}})
	info := statLocal(t, store)
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("aaaa"); err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(testContext(t), store, info, 0, 4); err != nil || string(got) != "aaaa" {
		t.Errorf("%q, %v", got, err)
	}
	write(t, name+".new", "bbbbbbbbbb")
	rename(t, name+".new", name)
	if got, err := readAll(testContext(t), store, info, 0, 4); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("of another file: %q, %v", got, err)
	}
}

// TestWithoutMark serves a reader of a version that an earlier release described by size and time.
func TestWithoutMark(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	normalised(t, name, "aaaa")
	store := mustOpen(t, filepath.Dir(name), Options{})
	info := statLocal(t, store)
	info.Version = ""
	if _, err := readAll(testContext(t), store, info, 0, 4); err != nil {
		t.Error(err)
	}
	info.ModTime = info.ModTime.Add(1)
	if _, err := readAll(testContext(t), store, info, 0, 4); !errors.Is(err, cacheclient.ErrStale) {
		t.Errorf("of another time: %v", err)
	}
}

// TestUnsettled holds how long a body waits for the clock of a file that was written a moment ago.
func TestUnsettled(t *testing.T) {
	now := time.Unix(1_700_000_000, 500)
	at := func(changed time.Time, mtimeNs int64) *unix.Stat_t {
		return &unix.Stat_t{Ctim: unix.NsecToTimespec(changed.UnixNano()), Mtim: unix.Timespec{Sec: 1, Nsec: mtimeNs}}
	}
	for what, c := range map[string]struct {
		st    *unix.Stat_t
		least time.Duration
		most  time.Duration
	}{
		"old":    {at(now.Add(-time.Hour), 0), 0, 0},
		"of now": {at(now, 7), tick, tick},
		"of 5 ms ago": {
			at(now.Add(-5*time.Millisecond), 7), tick - 5*time.Millisecond,
			tick - 5*time.Millisecond,
		},
		"of whole seconds, of now":  {at(now.Truncate(time.Second), 0), coarseTick - time.Microsecond, coarseTick},
		"of a moment to come":       {at(now.Add(time.Millisecond), 7), tick, tick},
		"of another clock's future": {at(now.Add(time.Hour), 7), 0, 0},
	} {
		if got := unsettled(c.st, now); got < c.least || got > c.most {
			t.Errorf("%s: %v", what, got)
		}
	}
}

// TestVolatileInodes leaves inode numbers that a file system makes up out of versions.
func TestVolatileInodes(t *testing.T) {
	for magic, want := range map[int64]bool{
		unix.FUSE_SUPER_MAGIC: true, unix.MSDOS_SUPER_MAGIC: true,
		unix.EXT4_SUPER_MAGIC: false, unix.TMPFS_MAGIC: false,
	} {
		if volatileType(magic) != want {
			t.Errorf("%#x: %v", magic, !want)
		}
	}
	var m marks
	m.volatile.Store(uint64(7), true)
	a, b := &unix.Stat_t{Dev: 7, Ino: 1, Ctim: unix.Timespec{Sec: 5, Nsec: 6}},
		&unix.Stat_t{Dev: 7, Ino: 2, Ctim: unix.Timespec{Sec: 5, Nsec: 6}}
	if m.of(a, nil) != m.of(b, nil) {
		t.Errorf("%q and %q", m.of(a, nil), m.of(b, nil))
	}
	b.Ctim.Nsec++
	if m.of(a, nil) == m.of(b, nil) {
		t.Errorf("%q of two times", m.of(a, nil))
	}
}

// TestFarTimes tells times that nanoseconds of an int64 do not hold, and reads the files.
func TestFarTimes(t *testing.T) {
	dir := t.TempDir()
	store := mustOpen(t, dir, Options{})
	for _, year := range []int{1600, 1677, 1901, 1969, 2038, 2262, 2300, 2446} {
		at := time.Date(year, 7, 1, 2, 3, 4, 0, time.UTC)
		name := filepath.Join(dir, "f")
		write(t, name, "text")
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{{Sec: at.Unix()}, {Sec: at.Unix()}},
			0); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(name, &st); err != nil {
			t.Fatal(err)
		}
		// Not every file system holds them all.
		info := statLocal(t, store)
		if info.ModTime.Unix() != st.Mtim.Sec {
			t.Errorf("%d: told as %v", year, info.ModTime)
		}
		if _, err := readAll(testContext(t), store, info, 0, 4); err != nil {
			t.Errorf("%d: %v", year, err)
		}
	}
}

// TestLoops leaves out what leads back to where it is: links in a circle, and mounts that may show the source.
func TestLoops(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a", "b", "plain"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"self": ".", "a/up": "..", "a/b": "../b", "b/a": "../a", "round": "round",
		"plain/link": "../a",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	store := mustOpen(t, dir, Options{FollowLinks: true})
	var walk func(path string, depth int) int
	walk = func(path string, depth int) int {
		if depth > 8 {
			t.Fatalf("a walk comes to %q", path)
		}
		n := 1
		_, infos := listNames(t, store, path)
		for _, i := range infos {
			if i.Dir {
				n += walk(i.Path, depth+1)
			}
		}
		return n
	}
	// The root, a and b, each in the other, plain, and a and b again behind its link.
	if n := walk("", 0); n > 12 {
		t.Errorf("%d directories", n)
	}
}

// TestMountsThatAreLeft leaves a directory of another device out where the options say so, and tells once.
func TestMountsThatAreLeft(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a tmpfs")
	}
	dir := t.TempDir()
	inside := filepath.Join(dir, "inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", inside, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(inside, unix.MNT_DETACH) })
	write(t, filepath.Join(inside, "f"), "text")
	var st unix.Stat_t
	if err := unix.Stat(inside, &st); err != nil {
		t.Fatal(err)
	}
	log := newLog()
	store := mustOpen(t, dir, Options{Left: func(device uint64) bool { return device == st.Dev }, Log: log.logger})
	for range 2 {
		if names, _ := listNames(t, store, ""); len(names) != 0 {
			t.Errorf("%q are shown", names)
		}
		if info, err := store.Stat(testContext(t), "inside"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v, %v", info, err)
		}
	}
	if n := strings.Count(log.text(), "inside the source is not shown"); n != 1 {
		t.Errorf("told %d times: %s", n, log.text())
	}
	if names, _ := listNames(t, mustOpen(t, dir, Options{}), ""); len(names) != 1 {
		t.Errorf("%q without the option", names)
	}
}
