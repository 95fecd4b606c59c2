package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestInsideItsSource: a mount point that its source holds is refused, whatever way leads there.
func TestInsideItsSource(t *testing.T) {
	root := t.TempDir()
	source, outside := filepath.Join(root, "src"), filepath.Join(root, "outside")
	for _, dir := range []string{
		filepath.Join(source, "deep/mnt"), filepath.Join(outside, "bound"),
		filepath.Join(root, "srcs"),
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(source, link); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{source, link, "file://" + source, source + "/deep", source + "/deep/mnt/", "/"} {
		if err := checkInside(s, filepath.Join(source, "deep/mnt")); err == nil {
			t.Errorf("the source %s holds the mount point, and it is not refused", s)
		}
	}
	for _, s := range []string{
		filepath.Join(root, "srcs"), outside, "https://host/", "s3://bucket/",
		filepath.Join(root, "missing"),
	} {
		if err := checkInside(s, filepath.Join(source, "deep/mnt")); err != nil {
			t.Errorf("the source %s: %v", s, err)
		}
	}
	bound := filepath.Join(outside, "bound")
	if err := unix.Mount(source, bound, "", unix.MS_BIND, ""); err != nil {
		t.Skip("needs root for a bind mount:", err)
	}
	defer func() { _ = unix.Unmount(bound, unix.MNT_DETACH) }()
	if err := checkInside(source, filepath.Join(bound, "deep/mnt")); err == nil {
		t.Error("a mount point in a bind mount of the source is not refused")
	}
}
