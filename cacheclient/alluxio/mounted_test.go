package alluxio

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/wire"
)

// TestMountIsAdded has a directory be mounted that was asked for before: it is there as soon as the mount table tells,
// and so is each directory on the way to it, whatever was believed for how long.
func TestMountIsAdded(t *testing.T) {
	f := newFaked(t, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
			t.Error(err)
		}
	}, nil, func(c *Config) { c.TTL, c.NameTTL = time.Hour, time.Hour })
	table := func(paths ...string) map[string]*wire.MountPointInfo {
		all := map[string]*wire.MountPointInfo{"/": {}}
		for _, p := range paths {
			all[p] = &wire.MountPointInfo{}
		}
		return all
	}
	names := func() int {
		t.Helper()
		page, err := f.List(t.Context(), "", cacheclient.Cursor{}, 10, false)
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Entries)
	}
	f.forgetAround(table())
	for _, p := range []string{"more", "deep", "deep/two"} {
		if _, err := f.Stat(t.Context(), p); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: %v", p, err)
		}
	}
	if n := names(); n != 1 {
		t.Fatalf("%d names before", n)
	}
	for _, p := range []string{"more", "deep/two"} {
		if err := os.MkdirAll(filepath.Join(f.dir, p), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Stat(t.Context(), "more"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("what is not there is not believed: %v", err)
	}
	f.forgetAround(table("/more", "/deep/two"))
	for _, p := range []string{"more", "deep", "deep/two"} {
		if info, err := f.Stat(t.Context(), p); err != nil || !info.Dir {
			t.Errorf("%s: %v", p, err)
		}
	}
	if n := names(); n != 3 {
		t.Errorf("%d names after", n)
	}
	if err := os.Remove(filepath.Join(f.dir, "more")); err != nil {
		t.Fatal(err)
	}
	f.forgetAround(table("/deep/two"))
	if _, err := f.Stat(t.Context(), "more"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was unmounted: %v", err)
	}
}
