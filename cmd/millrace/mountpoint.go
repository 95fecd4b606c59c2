package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

// pathPatience is how long a path may take to be looked at: one that leads through a mount
// which does not answer would hang for ever.
const pathPatience = 5 * time.Second

// prepareMountpoint checks that a mount can be made on dir and gives its path without symbolic
// links. A mount of ours whose process has gone is detached first. The file that it returns holds a lock
// against another millrace that is about to mount there; closing it ends the lock.
func prepareMountpoint(dir string, log *slog.Logger) (string, *os.File, error) {
	if err := clearMounts(withoutLinksAbove(dir), log); err != nil {
		return "", nil, err
	}
	var lock *os.File
	resolved := ""
	err := within(dir, func() (err error) {
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
	if err := clearMounts(dir, log); err != nil {
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

// clearMounts detaches mounts of ours on dir whose process has gone, and refuses one that is
// alive.
func clearMounts(dir string, log *slog.Logger) error {
	for {
		source, mounted := millraceOn(dir)
		if !mounted {
			return nil
		}
		stale, err := mountpoint.IsStale(dir)
		if err != nil {
			return fmt.Errorf("the mount on %s cannot be looked at: %w", dir, err)
		}
		if !stale {
			return fmt.Errorf("%s is mounted already: it shows %s (millrace unmount %s ends that)", dir, source, dir)
		}
		log.Warn("detaching a mount whose process has gone", "dir", dir, "source", source)
		if err := mountpoint.Unmount(dir, true); err != nil {
			return fmt.Errorf("the stale mount on %s cannot be detached: %w", dir, err)
		}
	}
}

// millraceOn tells whether there is a mount of ours on dir, and what it shows. A dir that cannot
// be looked up has none.
func millraceOn(dir string) (source string, mounted bool) {
	on, fstype, source, err := mountpoint.Of(dir)
	return source, err == nil && on == dir && fstype == mountpoint.FSType
}

// withoutLinksAbove resolves the symbolic links of all but the last element of the absolute
// path dir: so a mount on dir itself is not touched. Where that fails it is dir as given.
func withoutLinksAbove(dir string) string {
	above := ""
	err := within(dir, func() (err error) {
		above, err = filepath.EvalSymlinks(filepath.Dir(dir))
		return err
	})
	if err != nil {
		return filepath.Clean(dir)
	}
	return filepath.Join(above, filepath.Base(dir))
}

// within runs look, which asks the file system about path, and gives up on it after pathPatience: a
// system call that waits for a dead server cannot be taken back, and its goroutine stays
// until the process ends. Nothing that look sets may be used after an error.
func within(path string, look func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- look() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(pathPatience):
		return fmt.Errorf("%s does not answer: %w", path, os.ErrDeadlineExceeded)
	}
}
