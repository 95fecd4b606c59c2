package fuse

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy says that a mount is in use and was not unmounted.
var ErrBusy = errors.New("the mount is in use")

const (
	// forceGrace is how long readers of a session may go on after a forced unmount.
	forceGrace = 2 * time.Second
	// severGrace is how long workers may take to end once the device is given up, and
	// wakeInterval the time between two attempts to tell them.
	severGrace   = 5 * time.Second
	wakeInterval = 10 * time.Millisecond
	// fusermountTime bounds a run of fusermount3.
	fusermountTime = 20 * time.Second
)

// Unmount unmounts the directory, whoever serves it. It returns ErrBusy where the mount is
// in use, unless force is set: then the mount goes at once, and what is being read from
// it fails. A user who is not root unmounts through fusermount3.
func Unmount(dir string, force bool) error {
	abs, err := mountPath(dir)
	if err != nil {
		return err
	}
	m, err := mountAt(abs)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%s is not a mount point", dir)
	}
	err = detach(abs, plainly)
	if !force || !errors.Is(err, ErrBusy) {
		return err
	}
	if strings.HasPrefix(m.FSType, "fuse") {
		abortConnection(m.Minor)
	}
	return detach(abs, abruptly)
}

// Ways to unmount, as flags of umount2(2).
const (
	// plainly fails where the mount is in use.
	plainly = unix.UMOUNT_NOFOLLOW
	// lazily takes a mount in use out of sight; it lives until its last user ends.
	lazily = unix.UMOUNT_NOFOLLOW | unix.MNT_DETACH
	// abruptly also ends the connection to the server: what is in flight fails.
	abruptly = lazily | unix.MNT_FORCE
)

// detach unmounts the directory in one of the ways above.
func detach(dir string, way int) error {
	err := unix.Unmount(dir, way)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", dir, ErrBusy)
	case errors.Is(err, unix.EPERM):
		return detachUnprivileged(dir, way != plainly)
	}
	return fmt.Errorf("unmounting %s: %w", dir, err)
}

// detachUnprivileged unmounts through fusermount3.
func detachUnprivileged(dir string, lazy bool) error {
	bin, err := fusermount()
	if err != nil {
		return err
	}
	flags := "-u"
	if lazy {
		flags = "-uz"
	}
	ctx, cancel := context.WithTimeout(context.Background(), fusermountTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, flags, "--", dir)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(string(out))
	if strings.Contains(text, "busy") {
		return fmt.Errorf("%s: %w", dir, ErrBusy)
	}
	return fmt.Errorf("unmounting %s through fusermount3: %w: %s", dir, err, text)
}

// abortConnection ends a FUSE connection by the control file system, where that is mounted and
// the user may: requests in flight fail with ENOTCONN. It does for users what MNT_FORCE does
// for root.
func abortConnection(minor int) {
	file := filepath.Join("/sys/fs/fuse/connections", strconv.Itoa(minor), "abort")
	if f, err := os.OpenFile(file, os.O_WRONLY, 0); err == nil {
		_, _ = f.WriteString("1")
		_ = f.Close()
	}
}

// Unmount ends the session's mount. It returns ErrBusy where the mount is in use, unless
// force is set: then the mount disappears at once, who reads from it may go on for two
// seconds, and then gets an error. It returns when the session has ended.
func (s *Session) Unmount(force bool) error {
	select {
	case <-s.done:
		return nil
	default:
	}
	mounted, err := s.mounted()
	if err != nil {
		return err
	}
	if mounted {
		err = detach(s.dir, plainly)
		if errors.Is(err, ErrBusy) && force {
			err = detach(s.dir, lazily)
		}
		if err != nil {
			return err
		}
	}
	if !force {
		// The last reference goes with the unmount, unless another namespace has a copy.
		return s.awaitEnd(forceGrace, errors.New("unmounted here, but the mount lives on in another mount namespace"))
	}
	if s.awaitEnd(forceGrace, ErrBusy) == nil {
		return nil
	}
	return s.abort()
}

// awaitEnd waits for the session's end and returns err where it does not come in time.
func (s *Session) awaitEnd(grace time.Duration, err error) error {
	select {
	case <-s.done:
		return nil
	case <-time.After(grace):
		return err
	}
}

// mounted tells whether the directory still shows this session's mount.
func (s *Session) mounted() (bool, error) {
	m, err := mountAt(s.dir)
	if err != nil || m == nil {
		return false, err
	}
	return unix.Mkdev(uint32(m.Major), uint32(m.Minor)) == s.devNumber, nil
}

// abort ends the session whether or not the mount has users: it gives up the device,
// whereupon the kernel fails what is left, and waits for the workers.
func (s *Session) abort() error {
	s.cancel()
	if err := s.dev.sever(); err != nil {
		return fmt.Errorf("giving up the device: %w", err)
	}
	for deadline := time.Now().Add(severGrace); time.Now().Before(deadline); {
		wakeThreads()
		if s.awaitEnd(wakeInterval, ErrBusy) == nil {
			return nil
		}
	}
	return errors.New("unmounted, but a request to the cache does not end")
}
