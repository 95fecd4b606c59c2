package rpc

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// below is a cluster of one master, and a directory with the sources a, b and c in it, the first with a directory sub.
func below(t *testing.T) (c *cluster.Cluster, conn *Cluster, dir string) {
	t.Helper()
	pace.Long(t)
	c = cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true})
	dir = t.TempDir()
	for _, name := range []string{"a/sub", "b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return c, connect(t, addresses(c)...), dir
}

// TestDirectoriesForMounts has a real master make directories for a mount, keep a note of them, and remove them again.
func TestDirectoriesForMounts(t *testing.T) {
	c, conn, dir := below(t)
	ctx := within(t, 30*time.Second)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	mount := Mount{Path: "/deep/x", Source: filepath.Join(dir, "a"), ReadOnly: true}
	if err := conn.Mount(ctx, mount); err == nil {
		t.Error("Alluxio makes the directories of mounts by itself now")
	}
	if err := conn.MakeDir(ctx, "/none/deep"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory in one that is not there: %v", err)
	}
	must("the note", conn.SetNote(ctx, "/", "test", []byte("/deep")))
	must("making the directory", conn.MakeDir(ctx, "/deep"))
	must("making it again", conn.MakeDir(ctx, "/deep"))
	must("the mount", conn.Mount(ctx, mount))
	if err := conn.RemoveDir(ctx, "/deep"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory with a mount in it is removed: %v", err)
	}
	// Another master that leads has not made the directory in its own root.
	must("taking it out of the root", os.Remove(filepath.Join(c.UFS(), "deep")))
	must("comparing all", conn.Load(ctx, "/", AlwaysSync))
	for path, mode := range map[string]int32{"/deep": 0o755, "/deep/x/sub": 0o755} {
		info, err := conn.Status(ctx, path, AlwaysSync)
		must(path, err)
		if !info.GetFolder() || info.GetMode() != mode {
			t.Errorf("%s is %v", path, info)
		}
	}
	root, err := conn.Status(ctx, "/", AlwaysSync)
	must("the root", err)
	if string(root.GetXattr()["test"]) != "/deep" {
		t.Errorf("the note is %q", root.GetXattr())
	}
	must("the unmount", conn.Unmount(ctx, "/deep/x"))
	must("removing the directory", conn.RemoveDir(ctx, "/deep"))
	if err := conn.RemoveDir(ctx, "/deep"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removing it again: %v", err)
	}
	// A master that led before may have it in its root still.
	must("making it in the root", os.Mkdir(filepath.Join(c.UFS(), "deep"), 0o755))
	must("comparing all", conn.Load(ctx, "/", AlwaysSync))
	must("removing both", conn.RemoveDir(ctx, "/deep"))
	if left, err := os.ReadDir(c.UFS()); err != nil || len(left) > 0 {
		t.Errorf("in the root are %v, %v", left, err)
	}
}

// TestMountsInMounts holds what the controller's plan rests on: a mount that has another inside cannot be taken away,
// and a mount in a directory that its outer mount's source has not is written into that source.
func TestMountsInMounts(t *testing.T) {
	_, conn, dir := below(t)
	ctx := within(t, 30*time.Second)
	if err := conn.Mount(ctx, Mount{Path: "/outer", Source: filepath.Join(dir, "a")}); err != nil {
		t.Fatal(err)
	}
	inner := Mount{Path: "/outer/sub/inner", Source: filepath.Join(dir, "b"), ReadOnly: true}
	if err := conn.Mount(ctx, inner); err == nil {
		t.Error("Alluxio looks for the directories of mounts in sources by itself now")
	}
	if _, err := conn.Status(ctx, "/outer/sub", AlwaysSync); err != nil {
		t.Fatal(err)
	}
	if err := conn.Mount(ctx, inner); err != nil {
		t.Fatal(err)
	}
	if err := conn.Unmount(ctx, "/outer"); err == nil {
		t.Error("a mount with another inside is taken away")
	}
	if err := conn.Unmount(ctx, "/outer/sub/inner"); err != nil {
		t.Fatal(err)
	}
	if err := conn.MakeDir(ctx, "/outer/none"); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "a/none")
	if _, err := os.Stat(made); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory of Alluxio's is in the source: %v", err)
	}
	inner.Path = "/outer/none/inner"
	if err := conn.Mount(ctx, inner); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(made); err != nil {
		t.Errorf("Alluxio writes into no source for a mount any more: %v", err)
	}
	err := conn.Mount(ctx, Mount{Path: "/outer/sub", Source: filepath.Join(dir, "c"), ReadOnly: true})
	if err == nil {
		t.Error("a mount takes the place of what the source around it has")
	}
}
