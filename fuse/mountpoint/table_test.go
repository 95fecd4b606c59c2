package mountpoint

import (
	"testing"

	mount "k8s.io/mount-utils"
)

func TestMountAbove(t *testing.T) {
	mounts := []mount.MountInfo{
		{MountPoint: "/", FsType: "ext4"},
		{MountPoint: "/data", FsType: "fuse.old"},
		{MountPoint: "/data", FsType: FSType},
		{MountPoint: "/data/sub", FsType: "tmpfs"},
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
		if m := above(mounts, path); m == nil || m.FsType != want {
			t.Errorf("%s: %+v, want %s", path, m, want)
		}
	}
}
