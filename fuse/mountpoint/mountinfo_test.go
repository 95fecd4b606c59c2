package mountpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"
)

// TestParse reads lines as the kernel writes them: escapes, spaces that it leaves as they are, no source, and any
// number of optional fields.
func TestParse(t *testing.T) {
	long := "/" + strings.Repeat("d/", 2040) + "end"
	lines := []string{
		`22 1 8:1 / / rw,relatime shared:1 master:2 propagate_from:3 - ext4 /dev/sda1 rw`,
		`23 22 0:40 /a\040b /mnt/a\040b\011c\134d\043e ro - fuse.millrace a,b\040c\134d ro,user_id=0`,
		`24 22 0:41 / /mnt/none rw unbindable - tmpfs  rw`,
		"25 22 0:42 / /mnt/n\u00a0b\u2003m\rx\f rw - tmpfs s\u00a0t rw",
		`26 22 0:43 / ` + long + ` rw - tmpfs ` + long + ` rw,lowerdir=` + long,
		"27 22 0:44 / /mnt/latin-\xa0 rw - tmpfs \\377 rw",
		`28 22 0:45 / /mnt/-/\04 rw - tmpfs - rw`,
	}
	mounts, err := parse(strings.Join(lines, "\n") + "\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []mount.MountInfo{
		{ID: 22, ParentID: 1, Major: 8, Minor: 1, Root: "/", MountPoint: "/", FsType: "ext4", Source: "/dev/sda1"},
		{
			ID: 23, ParentID: 22, Minor: 40, Root: "/a b", MountPoint: "/mnt/a b\tc\\d#e", FsType: FSType,
			Source: `a,b c\d`,
		},
		{ID: 24, ParentID: 22, Minor: 41, Root: "/", MountPoint: "/mnt/none", FsType: "tmpfs", Source: emptySource},
		{
			ID: 25, ParentID: 22, Minor: 42, Root: "/", MountPoint: "/mnt/n\u00a0b\u2003m\rx\f", FsType: "tmpfs",
			Source: "s\u00a0t",
		},
		{ID: 26, ParentID: 22, Minor: 43, Root: "/", MountPoint: long, FsType: "tmpfs", Source: long},
		{ID: 27, ParentID: 22, Minor: 44, Root: "/", MountPoint: "/mnt/latin-\xa0", FsType: "tmpfs", Source: "\xff"},
		{ID: 28, ParentID: 22, Minor: 45, Root: "/", MountPoint: `/mnt/-/\04`, FsType: "tmpfs", Source: "-"},
	}
	if len(mounts) != len(want) {
		t.Fatalf("%d mounts, not %d", len(mounts), len(want))
	}
	for i, m := range mounts {
		m.MountOptions, m.OptionalFields, m.SuperOptions = nil, nil, nil
		if !reflect.DeepEqual(m, want[i]) {
			t.Errorf("%q\nis read as %#v", lines[i], m)
		}
	}
	if got := mounts[0].OptionalFields; !slices.Equal(got, []string{"shared:1", "master:2", "propagate_from:3"}) {
		t.Error(got)
	}
	if _, err := parse("22 1 8:1 / / rw\n"); err == nil {
		t.Error("half a line is read")
	}
}

// TestTable finds mounts with odd names, and one without a source, which hides no other.
func TestTable(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	for name, source := range map[string]string{
		"a b#c\\d": "x y", "n\u00a0b": "n\u00a0s", "r\rx": "r", "empty": "",
		"tab\tnl\n": "t",
	} {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(source, dir, "tmpfs", 0, "size=4k"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = Detach(dir, Lazily) })
		m, err := At(dir)
		if source == "" {
			source = emptySource
		}
		if err != nil || m == nil || m.FsType != "tmpfs" || m.Source != source {
			t.Errorf("%q: %+v, %v", dir, m, err)
		}
	}
	if below, err := Below(base); err != nil || len(below) != 5 {
		t.Error(len(below), err)
	}
}

// TestTableWhileItChanges: a mount that stays is found in each reading while others come and go.
func TestTableWhileItChanges(t *testing.T) {
	needRoot(t)
	stays := t.TempDir()
	if err := unix.Mount("stays", stays, "tmpfs", 0, "size=4k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = Detach(stays, Lazily) }()
	stop := make(chan struct{})
	var changing sync.WaitGroup
	for range 2 {
		dir := t.TempDir()
		changing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := unix.Mount("goes", dir, "tmpfs", 0, "size=4k"); err != nil {
					t.Error(err)
					return
				}
				if err := unix.Unmount(dir, 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		if m, err := At(stays); err != nil || m == nil {
			t.Error(m, err)
			break
		}
	}
	close(stop)
	changing.Wait()
}

// TestCorrupted: what kubelet calls corrupted is stale, but for a mount that is another user's.
func TestCorrupted(t *testing.T) {
	for _, errno := range []unix.Errno{
		unix.ENOTCONN, unix.ESTALE, unix.EIO, unix.EHOSTDOWN, unix.EWOULDBLOCK,
		unix.ENODEV,
	} {
		if stale, err := corrupted(errno); !stale || err != nil {
			t.Error(errno, stale, err)
		}
	}
	for _, errno := range []unix.Errno{unix.EACCES, unix.ENOENT, unix.ENOTDIR} {
		if stale, err := corrupted(errno); stale || err == nil {
			t.Error(errno, stale, err)
		}
	}
	if stale, err := corrupted(nil); stale || err != nil {
		t.Error(stale, err)
	}
}

// BenchmarkParse reads a table of 200 mounts, as a node with many pods has.
func BenchmarkParse(b *testing.B) {
	var table strings.Builder
	for i := range 200 {
		fmt.Fprintf(&table, "%d 22 0:%d / /var/lib/kubelet/pods/%036d/volumes/kubernetes.io~csi/pvc-%d/mount "+
			"ro,nosuid,nodev,relatime shared:%d - "+
			"fuse.millrace https://source.example.com/data ro,user_id=0,group_id=0,default_permissions,allow_other\n",
			i+100, i+40, i, i, i)
	}
	for b.Loop() {
		if mounts, err := parse(table.String()); err != nil || len(mounts) != 200 {
			b.Fatal(len(mounts), err)
		}
	}
}
