package mountpoint

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"
)

// FSType is the type of the mounts in mountinfo; PRUNEFS of updatedb takes it too.
const FSType = "fuse." + subtype

const subtype = "millrace"

// probeTime is how long IsStale waits for an answer.
const probeTime = 5 * time.Second

// Of finds the mount that the path lies in: where it is mounted, its type and its
// source. It asks no file system below a mount point that is the path itself, so that a
// mount that does not answer can be looked up.
func Of(path string) (dir, fstype, source string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", "", err
	}
	mounts, err := Table(nil)
	if err != nil {
		return "", "", "", err
	}
	m := above(mounts, abs)
	if m == nil || m.MountPoint != abs {
		resolved, err := filepath.EvalSymlinks(abs)
		if err != nil {
			return "", "", "", err
		}
		m = above(mounts, resolved)
	}
	if m == nil {
		return "", "", "", fmt.Errorf("%s is in no mount", path)
	}
	return m.MountPoint, m.FsType, m.Source, nil
}

// above is the mount with the longest mount point that path is in or at; of several
// at the same place the last, which covers the others.
func above(mounts []mount.MountInfo, path string) *mount.MountInfo {
	var best *mount.MountInfo
	for i := range mounts {
		m := &mounts[i]
		if !below(path, m.MountPoint) {
			continue
		}
		if best == nil || len(m.MountPoint) >= len(best.MountPoint) {
			best = m
		}
	}
	return best
}

// below reports whether a clean path is the directory dir or below it.
func below(path, dir string) bool {
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// Layers are the mounts whose mount point is the directory, the lowest first.
func Layers(dir string) ([]mount.MountInfo, error) {
	return Table(func(m *mount.MountInfo) bool { return m.MountPoint == dir })
}

// Below are the mounts at the directory and below it.
func Below(dir string) ([]mount.MountInfo, error) {
	return Table(func(m *mount.MountInfo) bool { return below(m.MountPoint, dir) })
}

// At is the uppermost of the Layers of the directory, nil where there is none.
func At(dir string) (*mount.MountInfo, error) {
	mounts, err := Layers(dir)
	if err != nil || len(mounts) == 0 {
		return nil, err
	}
	return &mounts[len(mounts)-1], nil
}

// IsStale reports whether the directory is a FUSE mount whose server is gone, by what kubelet calls corrupted. It asks
// the server past the kernel's caches, in a goroutine that stays behind where the server does not answer within five
// seconds; that is an error.
func IsStale(dir string) (bool, error) {
	abs, err := Path(dir)
	if err != nil {
		return false, err
	}
	m, err := At(abs)
	if err != nil || m == nil || !strings.HasPrefix(m.FsType, "fuse") {
		return false, err
	}
	answer := make(chan error, 1)
	go func() {
		err := ask(abs)
		if errors.Is(err, unix.ECONNABORTED) {
			// The connection ended under the question.
			err = ask(abs)
		}
		answer <- err
	}()
	select {
	case err := <-answer:
		return corrupted(err)
	case <-time.After(probeTime):
		return false, fmt.Errorf("%s does not answer within %s", dir, probeTime)
	}
}

// ask asks the server of a mount for its root, past the kernel's caches.
func ask(dir string) error {
	var st unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, dir, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
}

// corrupted judges what the root of a FUSE mount was answered with as kubelet does, but for EACCES: the kernel says
// that of another user's mount, which may be well and must not be taken away. D-122 says why.
func corrupted(err error) (bool, error) {
	if mount.IsCorruptedMnt(err) && !errors.Is(err, unix.EACCES) {
		return true, nil
	}
	return false, err
}

// Path is the absolute path of a directory without symbolic links. The directory
// itself is not asked, as it may be a mount that does not answer.
func Path(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if m, err := At(abs); err != nil || m != nil {
		return abs, err
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil {
		return resolved, nil
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}
