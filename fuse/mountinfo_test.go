package fuse

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestMountAbove(t *testing.T) {
	mounts := []*mountinfo.Info{
		{Mountpoint: "/", FSType: "ext4"},
		{Mountpoint: "/data", FSType: "fuse.old"},
		{Mountpoint: "/data", FSType: FSType},
		{Mountpoint: "/data/sub", FSType: "tmpfs"},
	}
	for path, want := range map[string]string{
		"/":            "ext4",
		"/database":    "ext4",
		"/data":        FSType,
		"/data/x/y":    FSType,
		"/data/sub":    "tmpfs",
		"/data/sub/z":  "tmpfs",
		"/data/subway": FSType,
	} {
		if m := mountAbove(mounts, path); m == nil || m.FSType != want {
			t.Errorf("%s: %+v, want %s", path, m, want)
		}
	}
}

func TestMountOf(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/f", []byte("x"))
	_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.Source = `https://host/a path,with\odd` })
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "d"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/", filepath.Join(dir, "d/f"), link} {
		at, fstype, from, err := MountOf(path)
		if err != nil || at != dir || fstype != FSType || from != `https://host/a path,with\odd` {
			t.Errorf("%s: %q %q %q %v", path, at, fstype, from, err)
		}
	}
	if at, _, _, err := MountOf(source); err != nil || at == dir {
		t.Errorf("%s: %q %v", source, at, err)
	}
	if _, _, _, err := MountOf(filepath.Join(source, "missing")); err == nil {
		t.Error("a path that does not exist has a mount")
	}
	if stale, err := IsStale(dir); stale || err != nil {
		t.Errorf("a living mount: stale %v, %v", stale, err)
	}
	if stale, err := IsStale(source); stale || err != nil {
		t.Errorf("a plain directory: stale %v, %v", stale, err)
	}
}
