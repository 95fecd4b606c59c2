package mountpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// controlDir is where the FUSE control file system belongs, and controlMagic its number in statfs(2).
const (
	controlDir   = "/sys/fs/fuse/connections"
	controlMagic = 0x65735543
)

// Connection is a FUSE connection as the control file system knows it. Minor numbers are used again as soon as a mount
// is gone, by any other mount of the machine, so one alone does not say whose connection is meant. The zero value is
// none that is known.
type Connection struct {
	// Minor is the minor number of the mount's device.
	Minor int `json:"minor"`
	// Inode and Made are the number and the birth, in Unix nanoseconds, of the connection's directory.
	Inode uint64 `json:"inode"`
	Made  int64  `json:"made"`
}

// ErrNoControl says that there is no FUSE control file system, and that this process may not have one.
var ErrNoControl = errors.New("the FUSE control file system is not there")

// ErrUnknown is a connection of which it is not known which one it is.
var ErrUnknown = errors.New("it is not known which connection it is")

// errOther is a connection that is another one by now.
var errOther = fmt.Errorf("the connection has ended: %w", fs.ErrNotExist)

// control is the directory of all connections, open for as long as the process lives: a control file system that
// is not mounted goes with its last user, and what identifies connections with it.
var control controlFS

// controlFS is a control file system that is opened by the first use; one that cannot be opened now, for want
// of descriptors, is tried again by the next.
type controlFS struct {
	// mu guards dir.
	mu  sync.Mutex
	dir *os.File
}

// open is the directory of all connections.
func (c *controlFS) open() (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.dir == nil {
		c.dir, err = openControl()
	}
	return c.dir, err
}

// lasts reports whether the control file system outlives this process.
func (c *controlFS) lasts() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dir != nil && c.dir.Name() == controlDir
}

// openControl opens the control file system where the machine has it mounted, else one that is mounted nowhere.
func openControl() (*os.File, error) {
	if fd, err := unix.Open(controlDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
		var st unix.Statfs_t
		if unix.Fstatfs(fd, &st) == nil && st.Type == controlMagic {
			return os.NewFile(uintptr(fd), controlDir), nil
		}
		_ = unix.Close(fd)
	}
	config, err := unix.Fsopen("fusectl", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("%w, and cannot be opened: %w", ErrNoControl, err)
	}
	defer func() { _ = unix.Close(config) }()
	if err := unix.FsconfigCreate(config); err != nil {
		return nil, fmt.Errorf("%w, and cannot be made: %w", ErrNoControl, err)
	}
	const harmless = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	fd, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, harmless)
	if err != nil {
		return nil, fmt.Errorf("%w, and cannot be mounted: %w", ErrNoControl, err)
	}
	return os.NewFile(uintptr(fd), "fusectl"), nil
}

// ConnectionOf finds the connection of a mount that is there, by the minor number of its device.
func ConnectionOf(minor int) (Connection, error) {
	dir, c, err := openConnection(minor)
	if err == nil {
		_ = dir.Close()
	}
	return c, err
}

// openConnection opens the directory of the connection that has the minor number now.
func openConnection(minor int) (*os.File, Connection, error) {
	all, err := control.open()
	if err != nil {
		return nil, Connection{}, err
	}
	name := strconv.Itoa(minor)
	fd, err := unix.Openat(int(all.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, Connection{}, fmt.Errorf("connection %d: %w", minor, err)
	}
	dir := os.NewFile(uintptr(fd), name)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		_ = dir.Close()
		return nil, Connection{}, fmt.Errorf("connection %d: %w", minor, err)
	}
	return dir, Connection{Minor: minor, Inode: st.Ino, Made: st.Ctim.Nano()}, nil
}

// Abort ends the connection: requests in flight fail with ENOTCONN. Another one that has its minor number by now is
// left alone, which is fs.ErrNotExist. The zero value is ErrUnknown.
func (c Connection) Abort() error {
	if c == (Connection{}) {
		return ErrUnknown
	}
	dir, now, err := openConnection(c.Minor)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if now != c {
		return errOther
	}
	// Below the directory that was compared: should the connection end now, this one has no such file.
	fd, err := unix.Openat(int(dir.Fd()), "abort", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("connection %d: %w", c.Minor, err)
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.Write(fd, []byte("1"))
	return err
}

// Ended reports whether the connection is gone: no mount of it is left, in any namespace. Of the zero value that is not
// known. Where the machine has not mounted the control file system, one that has its minor number by now is taken for
// it: what tells the two apart went with the process that noted it.
func (c Connection) Ended() bool {
	if c == (Connection{}) {
		return false
	}
	now, err := ConnectionOf(c.Minor)
	return errors.Is(err, fs.ErrNotExist) || err == nil && now != c && control.lasts()
}
