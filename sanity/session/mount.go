package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

// CanMount says why this process cannot mount a FUSE file system, "" when it can.
func CanMount() string {
	if _, err := os.Stat("/dev/fuse"); err != nil {
		return "needs /dev/fuse: as root, modprobe fuse"
	}
	if os.Geteuid() == 0 {
		return ""
	}
	if _, err := exec.LookPath("fusermount3"); err != nil {
		return "needs root, or fusermount3: as root, apt-get install fuse3"
	}
	return ""
}

// Mounted reports whether something is mounted on the directory itself. It asks mountinfo, not
// the mount, which may hang.
func Mounted(dir string) bool {
	found, err := mountpoint.Layers(dir)
	return err == nil && len(found) > 0
}

// WaitMounted waits until something is mounted on the directory, or the process ends.
func WaitMounted(ctx context.Context, dir string, limit time.Duration, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !Mounted(dir) {
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("the process ended before it mounted")
		case <-ctx.Done():
			return fmt.Errorf("nothing is mounted: %w", context.Cause(ctx))
		}
	}
	return nil
}

// Detach takes every mount off the directory, also those whose server is dead or hangs.
func Detach(dir string) {
	for range 8 {
		if !Mounted(dir) {
			return
		}
		if os.Geteuid() == 0 {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			continue
		}
		_, _ = Run(context.Background(), 10*time.Second, "fusermount3", "-u", "-z", dir)
	}
}

// PidsWithArgument finds the processes that have the string as one whole argument.
func PidsWithArgument(arg string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil {
			continue
		}
		for a := range bytes.SplitSeq(line, []byte{0}) {
			if string(a) == arg {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}

// FileSystem names the type of the file system that holds the path: "tmpfs", "ext4" and the
// like.
func FileSystem(path string) string {
	_, fstype, _, err := mountpoint.Of(path)
	if err != nil {
		return "an unknown file system"
	}
	return fstype
}

// DropPageCache has the kernel forget the file contents that it holds in memory, those of tmpfs
// excepted. It takes root.
func DropPageCache() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0)
}
