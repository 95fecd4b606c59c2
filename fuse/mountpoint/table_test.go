package mountpoint

import (
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
		if m := above(mounts, path); m == nil || m.FSType != want {
			t.Errorf("%s: %+v, want %s", path, m, want)
		}
	}
}
