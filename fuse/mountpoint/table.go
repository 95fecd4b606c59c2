package mountpoint

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
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
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return "", "", "", fmt.Errorf("reading mountinfo: %w", err)
	}
	m := above(mounts, abs)
	if m == nil || m.Mountpoint != abs {
		resolved, err := filepath.EvalSymlinks(abs)
		if err != nil {
			return "", "", "", err
		}
		m = above(mounts, resolved)
	}
	if m == nil {
		return "", "", "", fmt.Errorf("%s is in no mount", path)
	}
	return m.Mountpoint, m.FSType, m.Source, nil
}

// above is the mount with the longest mount point that path is in or at; of several
// at the same place the last, which covers the others.
func above(mounts []*mountinfo.Info, path string) *mountinfo.Info {
	var best *mountinfo.Info
	for _, m := range mounts {
		if !within(path, m.Mountpoint) {
			continue
		}
		if best == nil || len(m.Mountpoint) >= len(best.Mountpoint) {
			best = m
		}
	}
	return best
}

// within tells whether a clean path is the directory dir or below it.
func within(path, dir string) bool {
	if dir == "/" {
		return strings.HasPrefix(path, "/")
	}
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// At is the mount whose mount point is the directory, nil where there is none.
func At(dir string) (*mountinfo.Info, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("reading mountinfo: %w", err)
	}
	if len(mounts) == 0 {
		return nil, nil
	}
	return mounts[len(mounts)-1], nil
}

// IsStale tells whether the directory is a FUSE mount whose server is gone. It asks the server
// past the kernel's caches, in a goroutine that stays behind where the server does not
// answer within five seconds; that is an error.
func IsStale(dir string) (bool, error) {
	abs, err := Path(dir)
	if err != nil {
		return false, err
	}
	m, err := At(abs)
	if err != nil || m == nil || !strings.HasPrefix(m.FSType, "fuse") {
		return false, err
	}
	answer := make(chan error, 1)
	go func() {
		var st unix.Statx_t
		answer <- unix.Statx(unix.AT_FDCWD, abs, unix.AT_STATX_FORCE_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	}()
	select {
	case err := <-answer:
		if errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED) {
			return true, nil
		}
		return false, err
	case <-time.After(probeTime):
		return false, fmt.Errorf("%s does not answer within %s", dir, probeTime)
	}
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
