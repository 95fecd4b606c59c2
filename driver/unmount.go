package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"

	"millrace.io/millrace/fuse/mountpoint"
)

const (
	// unmountTime bounds the unmounting of one path.
	unmountTime = 1500 * time.Millisecond
	// mostLayers is how many mounts on top of each other are taken away from a path.
	mostLayers = 64
	// busyTries and busyPause are how often, and after which pauses, a busy mount is tried again: an
	// indexer or a stat of kubelet is gone in a moment.
	busyTries = 3
	busyPause = 20 * time.Millisecond
)

// errForeign is a mount that is not ours at a path that should be.
var errForeign = errors.New("something else is mounted there")

// bounded runs what may hang in the kernel, and returns when it does or the context ends. The goroutine
// that waits for the kernel stays behind then: nothing can end a system call on a mount whose server does not
// answer, except the answer, or the end of its connection.
func bounded(ctx context.Context, what string, run func() error) error {
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
}

// unmountAll takes all our mounts away from the path, the uppermost first: plainly, and where one is in use, in
// the other way. No mount there is no error; one that is not ours stays and is.
func unmountAll(ctx context.Context, path string, busy mountpoint.Way) error {
	ctx, cancel := context.WithTimeout(ctx, unmountTime)
	defer cancel()
	return bounded(ctx, "unmounting "+path, func() error {
		for range mostLayers {
			m, err := mountpoint.At(path)
			if err != nil || m == nil {
				return err
			}
			if ctx.Err() != nil {
				// The caller has gone, and what is there now may be another's.
				return ctx.Err()
			}
			if m.FsType != mountpoint.FSType {
				return fmt.Errorf("unmounting %s: %w: %s", path, errForeign, m.FsType)
			}
			// EINVAL is a mount that was taken away meanwhile.
			if err := unmountOne(path, busy); err != nil && !errors.Is(err, unix.EINVAL) {
				return err
			}
		}
		return fmt.Errorf("unmounting %s: more than %d mounts lie on top of each other", path, mostLayers)
	})
}

// unmountOne takes the uppermost mount away.
func unmountOne(path string, busy mountpoint.Way) error {
	for range busyTries {
		err := mountpoint.Detach(path, mountpoint.Plainly)
		if !errors.Is(err, mountpoint.ErrBusy) {
			return err
		}
		time.Sleep(busyPause)
	}
	return mountpoint.Detach(path, busy)
}

// layers are our mounts at the path, the lowest first. An uppermost one that is not ours is an error.
func layers(path string) ([]mount.MountInfo, error) {
	mounts, err := mountpoint.Layers(path)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m.FsType != mountpoint.FSType {
			return nil, fmt.Errorf("%s: %w: %s", path, errForeign, m.FsType)
		}
	}
	return mounts, nil
}

// mountedDevice is the minor number of our mount at the path, 0 where there is none.
func mountedDevice(path string) (int, error) {
	mounts, err := layers(path)
	if err != nil || len(mounts) == 0 {
		return 0, err
	}
	return mounts[len(mounts)-1].Minor, nil
}

// isDead reports whether nothing is mounted at the path, or what is mounted has no connection any more. A mount that
// waits for its server is not dead.
func isDead(ctx context.Context, path string) bool {
	if minor, err := mountedDevice(path); err != nil || minor == 0 {
		return err == nil
	}
	ctx, cancel := context.WithTimeout(ctx, unmountTime)
	defer cancel()
	dead := false
	err := bounded(ctx, "asking "+path, func() error {
		stale, err := mountpoint.IsStale(path)
		dead = stale
		return err
	})
	return err == nil && dead
}

// connection is that of a new mount, the zero value where the kernel does not tell: then it is never aborted.
func (d *Driver) connection(minor int) mountpoint.Connection {
	c, err := mountpoint.ConnectionOf(minor)
	if err != nil {
		d.noControl.Do(func() {
			d.log.Warn("connections cannot be aborted: a session that does not end, ends with the agent", "error", err)
		})
	}
	return c
}

// abortSentence tells what became of an attempt to end a connection that nothing else has ended.
func abortSentence(err error) string {
	switch {
	case err == nil:
		return "aborted"
	case errors.Is(err, fs.ErrNotExist):
		return "gone"
	}
	return fmt.Sprintf("ends with the agent: %v", err)
}

// resolvePath makes a path that the orchestrator named absolute and free of symbolic links, as mountinfo shows it.
// The last part is not looked at: it may be a mount that does not answer.
func resolvePath(path string) (string, error) {
	clean := filepath.Clean(path)
	parent, err := filepath.EvalSymlinks(filepath.Dir(clean))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(clean)), nil
}

// makeParent makes the directory that a mount point is to be in where it is missing, and returns the path of the
// mount point as mountinfo will show it.
func makeParent(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(path)), 0o750); err != nil {
		return "", err
	}
	return resolvePath(path)
}

// makeDir makes the directory of a mount point, a path that was resolved, where it is missing.
func makeDir(path string) error {
	if m, err := mountpoint.At(path); err != nil || m != nil {
		return err
	}
	err := os.Mkdir(path, 0o750)
	// Nothing is mounted there, so isDir asks a file system that answers.
	if errors.Is(err, fs.ErrExist) && isDir(path) {
		return nil
	}
	return err
}

// isDir reports whether the path, at which nothing is mounted, is a directory.
func isDir(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.IsDir()
}

// removeDir removes the empty directory of a mount point. It never removes what is in one: a mount that was
// overlooked would lose its data.
func removeDir(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
