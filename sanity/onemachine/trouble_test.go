package onemachine_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/rootstat"
	"millrace.io/millrace/sanity/session"
)

// TestSourceGoesAndComesBack: what is cached reads on while the source is down, the rest fails in time, and
// reads work again when it is back, all on one mount.
func TestSourceGoesAndComesBack(t *testing.T) {
	needsMount(t)
	t.Parallel()
	const patience = 2 * time.Second
	source := t.TempDir()
	cached, fresh := random(1, 5<<20+1), random(2, 3<<20+1)
	write(t, source, "cached.bin", cached)
	write(t, source, "fresh.bin", fresh)
	r := newRig(t, source, "--timeout", patience.String(), "--revalidate", "1s")
	same := func(name string, want []byte) error {
		got, err := readFile(t, filepath.Join(r.dir, name))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: other bytes", name)
		}
		return err
	}
	if err := same("cached.bin", cached); err != nil {
		t.Fatal(err)
	}
	roots := rootstat.Watch(t, r.dir)
	if err := r.server.Stop(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond) // attributes are no longer believed without asking
	if err := same("cached.bin", cached); err != nil {
		t.Errorf("cached, the source down: %v", err)
	}
	begin := time.Now()
	if err := same("fresh.bin", fresh); !errors.Is(err, syscall.EIO) {
		t.Errorf("not cached, the source down: %v, not EIO", err)
	}
	// The lookup and the read may each wait.
	pace.Within(t, "the error without a source", time.Since(begin), 2*patience+5*time.Second)
	if _, err := r.server.Start(r.addr); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(pace.Limit(15 * time.Second))
	err := same("fresh.bin", fresh)
	for err != nil && time.Now().Before(end) {
		time.Sleep(100 * time.Millisecond)
		err = same("fresh.bin", fresh)
	}
	if err != nil {
		t.Errorf("the source is back and the mount says %v", err)
	}
	if err := same("cached.bin", cached); err != nil {
		t.Errorf("cached, the source back: %v", err)
	}
	roots.End()
	r.unmount()
}

// TestKilledAndMountedAgain: after kill -9 the stale mount is replaced, and what was cached is not asked
// for again.
func TestKilledAndMountedAgain(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := t.TempDir()
	content := random(3, 20<<20+11)
	write(t, source, "a.bin", content)
	write(t, source, "dir/b.txt", []byte("b"))
	r := newRig(t, source)
	sameTree(t, source, r.dir)
	// The process that serves and the one that would replace it.
	for _, pid := range session.PidsWithArgument(r.dir) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := readFile(t, filepath.Join(r.dir, "a.bin")); err == nil {
		t.Log("the kernel still has the file")
	}
	before := r.server.Stats()
	r.mount()
	sameTree(t, source, r.dir)
	// A new process asks for a byte once, to see whether the server's HEAD tells what its GET does.
	if sent := r.server.Stats().Sub(before).BodyBytes; sent > 1 {
		t.Errorf("the cache is not warm: %d bytes came from the source", sent)
	}
	r.unmount()
	if session.Mounted(r.dir) {
		t.Error("a mount is left below the new one")
	}
}

// TestUnmountInUse is refused with a sentence, and done with --force.
func TestUnmountInUse(t *testing.T) {
	needsMount(t)
	t.Parallel()
	source := t.TempDir()
	write(t, source, "a.bin", random(4, 1<<20))
	r := newRig(t, source)
	f, err := os.Open(filepath.Join(r.dir, "a.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	out, err := r.millrace.Run(commandLimit, "unmount", r.dir)
	if err == nil {
		t.Fatal("unmounted under a reader")
	}
	said := strings.TrimSpace(out.Stderr)
	if !strings.Contains(said, r.dir) || strings.Contains(said, "\n") {
		t.Errorf("the refusal is %q, not one line that names the directory", said)
	}
	if !session.Mounted(r.dir) {
		t.Fatal("refused, and unmounted all the same")
	}
	if _, err := r.millrace.Run(commandLimit, "unmount", "--force", r.dir); err != nil {
		t.Errorf("with --force: %v", err)
	}
	if session.Mounted(r.dir) {
		t.Error("still mounted after --force")
	}
}

// TestTierFullAndUnwritable: with no room for another block, and where nothing may be written, files are read from the
// source and the mount stays well.
func TestTierFullAndUnwritable(t *testing.T) {
	needsMount(t)
	t.Parallel()
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: it mounts a small file system for the tier")
	}
	source, tier := t.TempDir(), t.TempDir()
	files := map[string][]byte{"a.bin": random(5, 6<<20), "b.bin": random(6, 24<<20+5), "c.bin": random(7, 6<<20+1)}
	for name, content := range files {
		write(t, source, name, content)
	}
	if err := unix.Mount("tier", tier, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mountpoint.Detach(tier, mountpoint.Lazily) })
	r := newRig(t, source, "--tier-dir", tier, "--quota", "12Mi")
	// What else is on the file system leaves the tier no room to grow to its quota.
	if err := os.WriteFile(filepath.Join(tier, "foreign"), random(8, 9<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	roots := rootstat.Watch(t, r.dir)
	same := func(name string) {
		t.Helper()
		got, err := readFile(t, filepath.Join(r.dir, name))
		if err != nil || !bytes.Equal(got, files[name]) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	same("a.bin")
	same("b.bin")
	// Files that are open keep a tier from becoming read-only; its directory is one from here on.
	if err := unix.Mount("unwritable", tier, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mountpoint.Detach(tier, mountpoint.Lazily) })
	same("c.bin")
	roots.End()
	r.unmount()
}
