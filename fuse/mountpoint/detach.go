package mountpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy says that a mount is in use and was not unmounted.
var ErrBusy = errors.New("the mount is in use")

// fusermountTime bounds a run of fusermount3.
const fusermountTime = 20 * time.Second

// Unmount unmounts the directory, whichever process serves it. It returns ErrBusy where the mount is
// in use, unless force is set: then the mount goes at once, and what is being read from
// it fails. A user that is not root unmounts through fusermount3.
func Unmount(dir string, force bool) error {
	abs, err := Path(dir)
	if err != nil {
		return err
	}
	m, err := At(abs)
	if err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("%s is not a mount point", dir)
	}
	err = Detach(abs, Plainly)
	if !force || !errors.Is(err, ErrBusy) {
		return err
	}
	if strings.HasPrefix(m.FsType, "fuse") {
		// It does for users what MNT_FORCE does for root; where it cannot be done, readers go on waiting.
		if c, err := ConnectionOf(m.Minor); err == nil {
			_ = c.Abort()
		}
	}
	if err = Detach(abs, Abruptly); err != nil {
		if m, atErr := At(abs); atErr == nil && m == nil {
			// A server that loses its connection may unmount first.
			return nil
		}
	}
	return err
}

// Way is a way to unmount.
type Way int

// Ways to unmount, as flags of umount2(2).
const (
	// Plainly fails where the mount is in use.
	Plainly Way = unix.UMOUNT_NOFOLLOW
	// Lazily takes a mount in use out of sight; it lives until its last user ends.
	Lazily Way = unix.UMOUNT_NOFOLLOW | unix.MNT_DETACH
	// Abruptly also ends the connection to the server: what is in flight fails.
	Abruptly Way = Lazily | unix.MNT_FORCE
)

// Detach unmounts the uppermost mount of the directory. It returns ErrBusy where the mount is in use
// and the way is Plainly. A user that is not root unmounts through fusermount3.
func Detach(dir string, way Way) error {
	err := unix.Unmount(dir, int(way))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: %w", dir, ErrBusy)
	case errors.Is(err, unix.EPERM):
		return detachUnprivileged(dir, way != Plainly)
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
	cmd := exec.CommandContext(ctx, bin, flags, "--", dir) //nolint:gosec // After "--" is no flag.
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
