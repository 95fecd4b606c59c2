package fuse

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// changed is what stat(2) is to tell of a name after a change at the source.
type changed struct {
	mode uint32
	time time.Time
}

// changeAll gives the directory and the file other permissions, and the directory another time.
func changeAll(t *testing.T, source string) map[string]changed {
	t.Helper()
	want := map[string]changed{
		"d":   {0o700 &^ 0o222, time.Unix(1_650_000_000, 5)},
		"d/f": {0, time.Unix(1_600_000_000, 0)},
	}
	if err := errors.Join(
		os.Chmod(filepath.Join(source, "d/f"), 0), os.Chmod(filepath.Join(source, "d"), 0o700),
		os.Chtimes(filepath.Join(source, "d"), want["d"].time, want["d"].time)); err != nil {
		t.Fatal(err)
	}
	return want
}

// sourceOfTwo is a directory and a file in it, both old.
func sourceOfTwo(t *testing.T) string {
	t.Helper()
	source, old := t.TempDir(), time.Unix(1_600_000_000, 0)
	write(t, source, "d/f", pattern(100))
	for _, name := range []string{"d/f", "d"} {
		if err := os.Chtimes(filepath.Join(source, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	return source
}

// modeOf is the permissions of a file, all of them where it is not there.
func modeOf(path string) uint32 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0o7777
	}
	return st.Mode & 0o7777
}

func compare(t *testing.T, what, dir string, want map[string]changed) {
	t.Helper()
	for name, w := range want {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil {
			t.Errorf("%s: %s: %v", what, name, err)
		} else if st.Mode&0o7777 != w.mode || time.Unix(st.Mtim.Unix()) != w.time {
			t.Errorf("%s: %s has the mode %o and the time %v, want %o and %v", what, name, st.Mode&0o7777,
				time.Unix(st.Mtim.Unix()), w.mode, w.time)
		}
	}
}

// TestAttributesFollowTheSource: permissions, and times of directories, change without another version. The kernel,
// which knows the inodes, is told with a lookup, a listing, and when it asks about a directory that is held open.
func TestAttributesFollowTheSource(t *testing.T) {
	before := map[string]changed{"d": {0o555, time.Unix(1_600_000_000, 0)}, "d/f": {0o444, time.Unix(1_600_000_000, 0)}}
	t.Run("lookup", func(t *testing.T) {
		source := sourceOfTwo(t)
		_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.TTL = time.Nanosecond })
		compare(t, "before", dir, before)
		want := changeAll(t, source)
		// The kernel counts in jiffies, and believes what it was told for the rest of this one.
		eventually(t, "the kernel asks again", func() bool {
			return modeOf(filepath.Join(dir,
				"d/f")) == want["d/f"].mode
		})
		compare(t, "after", dir, want)
	})
	t.Run("listing", func(t *testing.T) {
		source := sourceOfTwo(t)
		client := newLocalClient(source)
		_, dir := mountLocal(t, client, func(c *Config) { c.TTL = time.Hour })
		compare(t, "before", dir, before)
		want := changeAll(t, source)
		asked := client.stats.Load()
		for _, name := range []string{".", "d"} {
			if _, err := os.ReadDir(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		compare(t, "after", dir, want)
		if now := client.stats.Load(); now != asked {
			t.Errorf("the client was asked %d times for what the listings told", now-asked)
		}
	})
	t.Run("held directory", func(t *testing.T) {
		source := sourceOfTwo(t)
		client := newLocalClient(source)
		_, dir := mountLocal(t, client, func(c *Config) { c.TTL = time.Nanosecond })
		held, err := os.Open(filepath.Join(dir, "d"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = held.Close() }()
		want := changeAll(t, source)["d"]
		asked := client.stats.Load()
		eventually(t, "the kernel asks again", func() bool {
			_, err := held.Stat()
			return err != nil || client.stats.Load() > asked
		})
		if st, err := held.Stat(); err != nil || uint32(st.Mode().Perm()) != want.mode ||
			!st.ModTime().Equal(want.time) {
			t.Errorf("%v, %v", st, err)
		}
		client.mu.Lock()
		client.onStat = func(context.Context, string) error { return cacheclient.ErrUnavailable }
		client.mu.Unlock()
		if st, err := held.Stat(); err != nil || uint32(st.Mode().Perm()) != want.mode {
			t.Errorf("while the source does not answer: %v, %v", st, err)
		}
	})
}

// knowingClient tells what it knows of paths, as a cache does that was told with a revalidation.
type knowingClient struct{ *localClient }

func (c knowingClient) Known(path string) (cacheclient.Info, bool) {
	st, err := os.Lstat(filepath.Join(c.root, path))
	if err != nil {
		return cacheclient.Info{}, false
	}
	return c.describe(path, st), true
}

// TestAttributesFollowARevalidation: what an open finds out is told, whatever the kernel still believes of the name.
func TestAttributesFollowARevalidation(t *testing.T) {
	source := sourceOfTwo(t)
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, func(c *Config) { c.Client, c.TTL = knowingClient{client}, time.Hour })
	path := filepath.Join(dir, "d/f")
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	asked := client.stats.Load()
	want := map[string]changed{"d/f": changeAll(t, source)["d/f"]}
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	compare(t, "after an open", dir, want)
	if now := client.stats.Load(); now != asked {
		t.Errorf("the client was asked %d times for what it knew", now-asked)
	}
}

// TestAttributesOutliveTheirProcess: the next process tells the attributes that were told last.
func TestAttributesOutliveTheirProcess(t *testing.T) {
	state := testState(t)
	table := newNodeTable(state)
	info := cacheclient.Identify(cacheclient.Info{
		Path: "d", Dir: true, ModTime: time.Unix(1, 2), Mode: 0o700,
		ModeKnown: true,
	})
	if _, err := table.add(table.get(rootID), "d", info); err != nil {
		t.Fatal(err)
	}
	info.Mode, info.ModTime = 0, time.Unix(3, 4)
	if n, err := table.add(table.get(rootID), "d", info); err != nil || n.info() != info {
		t.Fatalf("%+v, %v; want %+v", n.info(), err, info)
	}
	next := newNodeTable(mustSucceed(t, state))
	if err := next.load(); err != nil {
		t.Fatal(err)
	}
	if n := next.get(info.ID); n == nil || n.info() != info {
		t.Errorf("%+v, want %+v", n, info)
	}
}

// TestKindsThatAreNotKnown: an entry whose attributes are not known yet has no kind, so that programs look at it.
func TestKindsThatAreNotKnown(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/inside", nil)
	write(t, source, "f", pattern(100))
	client := newLocalClient(source)
	client.bare = true
	_, dir := mountLocal(t, client, nil)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for _, e := range direntsFrom(t, fd) {
		if want := map[string]uint32{"d": 0, "f": 0, ".": unix.S_IFDIR, "..": unix.S_IFDIR}[e.Name]; e.Mode != want {
			t.Errorf("%s is of the kind %o, want %o", e.Name, e.Mode, want)
		}
	}
	if out, err := run(t, "find", dir, "-name", "inside"); err != nil || out != filepath.Join(dir, "d/inside") {
		t.Errorf("find: %q, %v", out, err)
	}
}
