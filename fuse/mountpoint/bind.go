package mountpoint

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Bind shows the mount on source on target as well. Where readOnly is set, that way leads to
// reading only, whatever the mount itself allows.
func Bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding %s to %s: %w", source, target, err)
	}
	if !readOnly {
		return nil
	}
	// mount(2) ignores all other flags beside MS_BIND, so it takes a second call. nosuid and nodev are
	// repeated, because a remount drops what it does not name.
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		_ = Detach(target, Lazily)
		return fmt.Errorf("making %s read-only: %w", target, err)
	}
	return nil
}
