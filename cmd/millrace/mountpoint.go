package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

// prepareMountpoint checks that a mount can be made on dir and gives its path without symbolic
// links. A mount of ours whose process has gone is detached first. The file that it returns holds a lock
// against another millrace that is about to mount there; closing it ends the lock.
func prepareMountpoint(dir string, log *slog.Logger) (string, *os.File, error) {
	if err := mountpoint.Clear(mountpoint.WithoutLinksAbove(dir), log); err != nil {
		return "", nil, err
	}
	var lock *os.File
	resolved := ""
	err := mountpoint.Within(dir, func() (err error) {
		if resolved, err = filepath.EvalSymlinks(dir); err != nil {
			return err
		}
		lock, err = os.OpenFile(resolved, os.O_RDONLY|unix.O_DIRECTORY, 0)
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, fmt.Errorf("the directory %s does not exist", dir)
	case errors.Is(err, unix.ENOTDIR):
		return "", nil, fmt.Errorf("%s is not a directory", dir)
	case err != nil:
		return "", nil, fmt.Errorf("the directory %s cannot be used: %w", dir, err)
	}
	if err := checkEmpty(resolved, lock, log); err != nil {
		_ = lock.Close()
		return "", nil, err
	}
	return resolved, lock, nil
}

// checkEmpty takes the lock on the open directory and checks that it is free to mount on.
func checkEmpty(dir string, open *os.File, log *slog.Logger) error {
	if err := unix.Flock(int(open.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("another process is mounting on %s", dir)
	}
	if err := mountpoint.Clear(dir, log); err != nil {
		return err
	}
	switch _, err := open.Readdirnames(1); {
	case err == nil:
		return fmt.Errorf("the directory %s is not empty", dir)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("the directory %s cannot be used: %w", dir, err)
	}
	return nil
}

// checkInside refuses a mount point that its own source holds: the mount would show itself in itself, deeper without
// end, and a walk of it would wait for what it waits for. The directories are compared and not their names, so that
// links and bind mounts lead nowhere else. A source that is no directory of this machine holds none.
func checkInside(source, dir string) error {
	u, err := url.Parse(source)
	switch {
	case strings.HasPrefix(source, "/"):
	case err == nil && strings.EqualFold(u.Scheme, "file"):
		source = u.Path
	default:
		return nil
	}
	root, err := os.Stat(source)
	if err != nil {
		return nil //nolint:nilerr // opening it tells that better
	}
	for at := dir; ; at = filepath.Dir(at) {
		if st, err := os.Stat(at); err == nil && os.SameFile(st, root) {
			const sentence = "%s is inside of the source %s, which would show the mount in itself: mount outside of it"
			return fmt.Errorf(sentence, dir, source)
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}
