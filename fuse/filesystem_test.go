package fuse

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

func TestAttributes(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/plain", pattern(1000))
	write(t, source, "d/script", []byte("#!/bin/sh\n"))
	if err := os.Chmod(filepath.Join(source, "d/script"), 0o755); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1600000000, 987654321)
	if err := os.Chtimes(filepath.Join(source, "d/plain"), when, when); err != nil {
		t.Fatal(err)
	}
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, func(c *Config) { c.UID, c.GID = 12, 34 })
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "d/plain"), &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != 1000 || st.Blocks != 2 || st.Nlink != 1 || st.Mode != unix.S_IFREG|0o444 || st.Uid != 12 ||
		st.Gid != 34 || st.Blksize != blockSize || st.Mtim != unix.NsecToTimespec(when.UnixNano()) {
		t.Errorf("file: %+v", st)
	}
	info, err := client.Stat(t.Context(), "d/plain")
	if err != nil || st.Ino != info.ID {
		t.Errorf("ino %d, id %d, %v", st.Ino, info.ID, err)
	}
	if err := unix.Stat(filepath.Join(dir, "d/script"), &st); err != nil || st.Mode != unix.S_IFREG|0o555 {
		t.Errorf("executable: %o %v", st.Mode, err)
	}
	if err := unix.Stat(filepath.Join(dir, "d"), &st); err != nil || st.Mode != unix.S_IFDIR|0o555 || st.Nlink != 1 {
		t.Errorf("directory: %o %d %v", st.Mode, st.Nlink, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Blocks*uint64(fs.Bsize) != 100<<20 || fs.Bfree*uint64(fs.Bsize) != 60<<20 || fs.Flags&unix.ST_RDONLY == 0 {
		t.Errorf("statfs: %+v", fs)
	}
}

// TestModeZero: permissions of 0 are shown as 0, and the mount's where the source tells none.
func TestModeZero(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/f", pattern(10))
	write(t, source, "g", pattern(10))
	for _, name := range []string{"d", "g"} {
		path := filepath.Join(source, name)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		// A directory without rights cannot be removed by a user that is not root.
		t.Cleanup(func() { _ = os.Chmod(path, 0o700) })
	}
	for _, silent := range []bool{false, true} {
		client := newLocalClient(source)
		client.modeless = silent
		_, dir := mountLocal(t, client, nil)
		want := map[string]uint32{"d": unix.S_IFDIR, "g": unix.S_IFREG}
		if silent {
			want = map[string]uint32{"d": unix.S_IFDIR | defaultDirMode, "g": unix.S_IFREG | defaultFileMode}
		}
		for name, mode := range want {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Mode != mode {
				t.Errorf("%s, modes told: %v: %o, want %o, %v", name, !silent, st.Mode, mode, err)
			}
		}
	}
}

// TestRootWithoutSource: the root and statfs answer whatever the source does.
func TestRootWithoutSource(t *testing.T) {
	client := newLocalClient(filepath.Join(t.TempDir(), "missing"))
	_, dir := mountLocal(t, client, nil)
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		t.Error(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Error(err)
	}
	if client.stats.Load() != 0 {
		t.Error("the client was asked for the root")
	}
}

// TestNames: names of all sorts are found, listed once each, and read.
func TestNames(t *testing.T) {
	source := t.TempDir()
	names := []string{
		"with space", "100%", "%41", "a#b", "a?b", "-dash", "ünïcødé", "日本語", "new\nline", `back\slash`,
		".hidden", "...", "'quote\"", strings.Repeat("n", 255),
	}
	for _, name := range names {
		write(t, source, name, []byte(name))
	}
	_, dir := mountLocal(t, newLocalClient(source), nil)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	sort.Strings(names)
	if fmt.Sprint(got) != fmt.Sprint(names) {
		t.Errorf("listed %q, want %q", got, names)
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(content) != name {
			t.Errorf("%q: %q, %v", name, content, err)
		}
	}
}

func TestNegativeEntries(t *testing.T) {
	client := newLocalClient(t.TempDir())
	_, dir := mountLocal(t, client, nil)
	for range 5 {
		if _, err := os.Stat(filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if n := client.stats.Load(); n != 1 {
		t.Errorf("the client was asked %d times for a name that is not there", n)
	}
}

// TestNegativeEntriesExpire: what is missing may come.
func TestNegativeEntriesExpire(t *testing.T) {
	source := t.TempDir()
	_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.TTL = 50 * time.Millisecond })
	path := filepath.Join(dir, "late")
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	write(t, source, "late", []byte("here"))
	eventually(t, "the name appears", func() bool { _, err := os.Stat(path); return err == nil })
}

// TestNoPhantom: the file that go-fuse has up its sleeve is not there.
func TestNoPhantom(t *testing.T) {
	_, dir := mountLocal(t, newLocalClient(t.TempDir()), nil)
	if _, err := os.Stat(filepath.Join(dir, mountpoint.PollName)); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestLookupErrors(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("x"))
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, nil)
	for _, want := range []syscall.Errno{syscall.EACCES, syscall.EIO} {
		client.mu.Lock()
		client.onStat = statError(want)
		client.mu.Unlock()
		if _, err := os.Stat(filepath.Join(dir, "f")); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	client.mu.Lock()
	client.onStat = nil
	client.mu.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "f")); err != nil {
		t.Error("an error was remembered:", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "f/below")); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
}

func TestLargeDirectory(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	const files = 10_000
	for i := range files {
		write(t, source, fmt.Sprintf("big/file-%05d", i), nil)
	}
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	big := filepath.Join(dir, "big")
	for round := range 3 {
		entries, err := os.ReadDir(big)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != files {
			t.Fatalf("round %d: %d entries", round, len(entries))
		}
		for i, e := range entries {
			if want := fmt.Sprintf("file-%05d", i); e.Name() != want || e.IsDir() {
				t.Fatalf("entry %d: %s, want %s", i, e.Name(), want)
			}
		}
	}
	// The kernel answers the second and third listing from its own pages.
	lists := client.lists.Load()
	if _, err := os.ReadDir(big); err != nil {
		t.Fatal(err)
	}
	if n := client.lists.Load() - lists; n != 1 {
		t.Errorf("a listing that the kernel has costs %d questions, want that of opendir only", n)
	}
	out, err := run(t, "sh", "-c", "ls -lR "+big+" | wc -l; ls -a "+big+" | head -3; find "+big+" -type f | wc -l")
	if err != nil || out != fmt.Sprintf("%d\n.\n..\nfile-00000\n%d", files+2, files) {
		t.Errorf("ls and find: %q, %v", out, err)
	}
	if nodes := s.Stats().Nodes; nodes != files+2 {
		t.Errorf("%d nodes", nodes)
	}
	// What the kernel drops is dropped here too.
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		t.Skip("needs root to have the kernel forget:", err)
	}
	eventually(t, "FORGET", func() bool { return s.Stats().Nodes < files/2 })
	if entries, err := os.ReadDir(big); err != nil || len(entries) != files {
		t.Errorf("after FORGET: %d entries, %v", len(entries), err)
	}
}

// TestListingSavesLookups: after a listing with attributes no name is asked for again.
func TestListingSavesLookups(t *testing.T) {
	source := t.TempDir()
	for i := range 100 {
		write(t, source, fmt.Sprintf("f%02d", i), []byte("x"))
	}
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, nil)
	if out, err := run(t, "ls", "-l", dir); err != nil || strings.Count(out, "\n") != 100 {
		t.Fatal(out, err)
	}
	if n := client.stats.Load(); n > 0 {
		t.Errorf("%d lookups", n)
	}
}

// TestDirectoryChanges: a listing shows a new entry at the next opendir.
func TestDirectoryChanges(t *testing.T) {
	source := t.TempDir()
	write(t, source, "a", nil)
	_, dir := mountLocal(t, newLocalClient(source), nil)
	for want := 1; want < 5; want++ {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != want {
			t.Fatalf("%d entries, want %d: %v", len(entries), want, err)
		}
		write(t, source, fmt.Sprintf("b%d", want), nil)
		// The version of this source is its directory's time, which may tick too slowly for two changes.
		then := time.Now().Add(time.Duration(want) * time.Second)
		if err := os.Chtimes(source, then, then); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadOnly(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("content"))
	write(t, source, "d/g", nil)
	_, dir := mountLocal(t, newLocalClient(source), nil)
	f, d, fresh := filepath.Join(dir, "f"), filepath.Join(dir, "d"), filepath.Join(dir, "new")
	open := func(path string, flags int) error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o644)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	now := []unix.Timeval{{Sec: 1}, {Sec: 1}}
	for name, attempt := range map[string]func() error{
		"open to write":      func() error { return open(f, unix.O_WRONLY) },
		"open to read+write": func() error { return open(f, unix.O_RDWR) },
		"open to truncate":   func() error { return open(f, unix.O_RDONLY|unix.O_TRUNC) },
		"create":             func() error { return open(fresh, unix.O_CREAT|unix.O_WRONLY) },
		"create for reading": func() error { return open(fresh, unix.O_CREAT|unix.O_RDONLY) },
		"tmpfile":            func() error { return open(dir, unix.O_TMPFILE|unix.O_WRONLY) },
		"truncate":           func() error { return unix.Truncate(f, 1) },
		"mkdir":              func() error { return unix.Mkdir(fresh, 0o755) },
		"mknod":              func() error { return unix.Mknod(fresh, unix.S_IFREG|0o644, 0) },
		"fifo":               func() error { return unix.Mkfifo(fresh, 0o644) },
		"unlink":             func() error { return unix.Unlink(f) },
		"rmdir":              func() error { return unix.Rmdir(d) },
		"rename":             func() error { return unix.Rename(f, fresh) },
		"link":               func() error { return unix.Link(f, fresh) },
		"symlink":            func() error { return unix.Symlink("x", fresh) },
		"chmod":              func() error { return unix.Chmod(f, 0o777) },
		"chown":              func() error { return unix.Chown(f, 1, 1) },
		"utimes":             func() error { return unix.Utimes(f, now) },
		"setxattr":           func() error { return unix.Setxattr(f, "user.x", []byte("y"), 0) },
		"removexattr":        func() error { return unix.Removexattr(f, "user.x") },
		"access to write":    func() error { return unix.Access(f, unix.W_OK) },
	} {
		if err := attempt(); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(source, "f")); err != nil || !bytes.Equal(got, []byte("content")) {
		t.Errorf("the source changed: %q %v", got, err)
	}
}

// TestRemountedWritable: also a mount that was made writable refuses writes.
func TestRemountedWritable(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("content"))
	_, dir := mountLocal(t, newLocalClient(source), nil)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_NODEV|unix.MS_NOSUID, ""); err != nil {
		t.Skip("the kernel does not remount it:", err)
	}
	f, fresh := filepath.Join(dir, "f"), filepath.Join(dir, "new")
	for name, attempt := range map[string]func() error{
		"open":    func() error { _, err := unix.Open(f, unix.O_WRONLY, 0); return err },
		"create":  func() error { _, err := unix.Open(fresh, unix.O_CREAT|unix.O_WRONLY, 0o644); return err },
		"mkdir":   func() error { return unix.Mkdir(fresh, 0o755) },
		"unlink":  func() error { return unix.Unlink(f) },
		"rename":  func() error { return unix.Rename(f, fresh) },
		"chmod":   func() error { return unix.Chmod(f, 0o777) },
		"symlink": func() error { return unix.Symlink("x", fresh) },
		"xattr":   func() error { return unix.Setxattr(f, "user.x", make([]byte, 1000), 0) },
	} {
		if err := attempt(); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v, want EROFS", name, err)
		}
	}
}

// TestUnsupportedOnce: what is not served is asked for once for the whole session.
func TestUnsupportedOnce(t *testing.T) {
	source := t.TempDir()
	for i := range 20 {
		write(t, source, fmt.Sprintf("f%d", i), []byte("x"))
	}
	s, dir := mountLocal(t, newLocalClient(source), nil)
	for i := range 20 {
		path := filepath.Join(dir, fmt.Sprintf("f%d", i))
		if _, err := unix.Getxattr(path, "user.x", make([]byte, 10)); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
		if _, err := unix.Listxattr(path, make([]byte, 10)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := run(t, "ls", "-l", dir); err != nil {
		t.Fatal(out, err)
	}
	ops := s.Stats().Ops
	for _, op := range []string{"getxattr", "listxattr", "flush", "access", "statx"} {
		if n := ops[op].Count; n > 1 {
			t.Errorf("%s was asked %d times", op, n)
		}
	}
	if ops["flush"].Count != 1 || ops["getxattr"].Errors != 1 {
		t.Errorf("the counters did not see it: %+v", ops)
	}
}
