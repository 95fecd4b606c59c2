package sweep_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/driver/sweep"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// leave makes a file as a worker leaves it.
func leave(t *testing.T, parts ...string) {
	t.Helper()
	name := filepath.Join(parts...)
	must(t, os.MkdirAll(filepath.Dir(name), 0o700))
	must(t, os.WriteFile(name, []byte("block"), 0o600))
}

func isThere(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// TestRemove removes one Dataset's directory beside those of others, and that of its namespace when it is empty. What a
// link leads to stays.
func TestRemove(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	leave(t, elsewhere, "precious")
	for i := range 3000 {
		leave(t, dir, "ns/one/alluxioworker", strconv.Itoa(i))
	}
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "ns/one/link")))
	must(t, os.Symlink("/nowhere", filepath.Join(dir, "ns/one/dangling")))
	leave(t, dir, "ns/two/block")
	leave(t, dir, "other/one/block")
	must(t, sweep.Remove(dir, "ns", "one"))
	for name, there := range map[string]bool{
		filepath.Join(dir, "ns/one"): false, filepath.Join(dir, "ns/two/block"): true,
		filepath.Join(dir, "other/one/block"): true,
		filepath.Join(elsewhere, "precious"):  true,
	} {
		if isThere(name) != there {
			t.Errorf("%s is there: %v", name, !there)
		}
	}
	must(t, sweep.Remove(dir, "ns", "two"))
	if isThere(filepath.Join(dir, "ns")) {
		t.Error("the directory of an empty namespace stays")
	}
	for _, name := range []string{"ns", "one", "nothing"} {
		must(t, sweep.Remove(dir, name, "one"))
	}
	must(t, sweep.Remove(filepath.Join(dir, "nowhere"), "ns", "one"))
}

// TestLinksLeadNowhere has a tenant put links where the directories should be.
func TestLinksLeadNowhere(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	leave(t, elsewhere, "one/precious")
	must(t, os.Symlink(elsewhere, filepath.Join(dir, "ns")))
	if err := sweep.Remove(dir, "ns", "one"); err == nil {
		t.Error("a link in the place of a namespace is followed")
	}
	must(t, os.MkdirAll(filepath.Join(dir, "other"), 0o700))
	must(t, os.Symlink(filepath.Join(elsewhere, "one"), filepath.Join(dir, "other/one")))
	must(t, sweep.Remove(dir, "other", "one"))
	if !isThere(filepath.Join(elsewhere, "one/precious")) || isThere(filepath.Join(dir, "other")) {
		t.Error("a link in the place of a Dataset is followed, or stays")
	}
	for _, bad := range [][2]string{
		{"..", "one"},
		{"ns", ".."},
		{"", "one"},
		{"ns", ""},
		{"ns/x", "one"},
		{"ns", "a/../.."},
	} {
		if err := sweep.Remove(dir, bad[0], bad[1]); err == nil || !strings.Contains(err.Error(), "accepted are") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestSweepsMeet has several sweeps remove the same at once.
func TestSweepsMeet(t *testing.T) {
	dir := t.TempDir()
	for i := range 2000 {
		leave(t, dir, "ns/one", strconv.Itoa(i%10), strconv.Itoa(i))
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := sweep.Remove(dir, "ns", "one"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if isThere(filepath.Join(dir, "ns")) {
		t.Error("something is left")
	}
}

// TestOtherFileSystemsStay mounts one below the Dataset's directory.
func TestOtherFileSystemsStay(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: mount(2)")
	}
	dir := t.TempDir()
	at := filepath.Join(dir, "ns/one/mounted")
	must(t, os.MkdirAll(at, 0o700))
	must(t, unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"))
	defer func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) }()
	leave(t, at, "precious")
	if err := sweep.Remove(dir, "ns", "one"); err == nil ||
		!strings.Contains(err.Error(), "ns/one/mounted is another file system") {
		t.Errorf("the error is %v", err)
	}
	if !isThere(filepath.Join(at, "precious")) {
		t.Error("another file system was entered")
	}
}
