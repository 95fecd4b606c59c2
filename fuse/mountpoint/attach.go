package mountpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// capSysAdmin is the number of CAP_SYS_ADMIN, which mount(2) and passthrough need.
const capSysAdmin = 21

// Options say how to mount a new FUSE connection.
type Options struct {
	// Dir is the mount point, as Prepare gave it.
	Dir string
	// Source is shown in mountinfo, to all users: no secrets in it.
	Source string
	// AllowOther lets other users than the process's own in; permissions count as usual.
	AllowOther bool
	// SELinuxContext is the label that everything below the mount has, "" for the policy's default. Only
	// root can set it.
	SELinuxContext string
}

// Prepare makes the path of a mount point absolute and free of symbolic links, and demands an empty
// directory.
func Prepare(dir string) (string, error) {
	resolved, err := filepath.Abs(dir)
	if err == nil {
		resolved, err = filepath.EvalSymlinks(resolved)
	}
	if err != nil {
		return "", fmt.Errorf("the mount point: %w", err)
	}
	entries, err := os.ReadDir(resolved)
	if err != nil {
		return "", fmt.Errorf("the mount point: %w", err)
	}
	if len(entries) > 0 {
		return "", fmt.Errorf("the mount point %s is not empty", dir)
	}
	return resolved, nil
}

// Attach mounts a new connection on the directory and returns its device. Until a process answers
// the connection's INIT, every question to the mount waits.
func Attach(ctx context.Context, opts Options) (*os.File, error) {
	if !HasSysAdmin() {
		return attachUnprivileged(ctx, opts)
	}
	dev, err := attachDirect(opts)
	if errors.Is(err, unix.EPERM) {
		return attachUnprivileged(ctx, opts)
	}
	return dev, err
}

// attachDirect calls mount(2). The kernel takes no options but these in the data.
func attachDirect(opts Options) (*os.File, error) {
	dev, err := openDevice()
	if err != nil {
		return nil, fmt.Errorf("opening /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions",
		dev.Fd(), os.Geteuid(), os.Getegid())
	if opts.AllowOther {
		data += ",allow_other"
	}
	if opts.SELinuxContext != "" {
		// The kernel splits at commas, which a label's categories contain.
		data += ",context=\"" + opts.SELinuxContext + "\""
	}
	err = unix.Mount(opts.Source, opts.Dir, FSType, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, data)
	if err != nil {
		_ = dev.Close()
		return nil, fmt.Errorf("mounting on %s: %w", opts.Dir, err)
	}
	return dev, nil
}

// openDevice opens /dev/fuse for a new connection. The descriptor is blocking, so that the runtime
// leaves it out of its poller.
func openDevice() (*os.File, error) {
	for {
		fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), "/dev/fuse"), nil
		}
		if err != unix.EINTR {
			return nil, err
		}
	}
}

// attachUnprivileged has fusermount3, which is setuid root, mount the directory and pass the
// device back over a socket whose number is in _FUSE_COMMFD.
func attachUnprivileged(ctx context.Context, opts Options) (*os.File, error) {
	bin, err := fusermount()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a socket for fusermount3: %w", err)
	}
	defer func() { _ = unix.Close(pair[0]) }()
	theirs := os.NewFile(uintptr(pair[1]), "fusermount3's end")
	ctx, cancel := context.WithTimeout(ctx, fusermountTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-o", fusermountOptions(opts), "--", opts.Dir) //nolint:gosec // After "--" is no flag.
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	_ = theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("mounting on %s through fusermount3: %w: %s", opts.Dir, err,
			strings.TrimSpace(string(out)))
	}
	return receiveDevice(pair[0])
}

// fusermountOptions are the options for fusermount3, which splits them at commas.
func fusermountOptions(opts Options) string {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	options := "ro,nosuid,nodev,default_permissions,subtype=" + subtype + ",fsname=" + escape.Replace(opts.Source)
	if opts.AllowOther {
		options += ",allow_other"
	}
	return options
}

// receiveDevice takes the device out of the socket. fusermount3 has sent it before it ended.
func receiveDevice(socket int) (*os.File, error) {
	_ = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO,
		&unix.Timeval{Sec: int64(fusermountTime / time.Second)})
	payload := make([]byte, 1)
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(socket, payload, control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("receiving the device from fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("fusermount3 passed no device")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("fusermount3 passed no device")
	}
	return os.NewFile(uintptr(fds[0]), "/dev/fuse"), nil
}

// fusermount finds the program that mounts for users.
func fusermount() (string, error) {
	for _, name := range []string{"fusermount3", "/usr/bin/fusermount3", "/bin/fusermount3"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("fusermount3 is not installed: install the package fuse3, or mount as root")
}

// HasSysAdmin reports whether the process has CAP_SYS_ADMIN in effect.
func HasSysAdmin() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[capSysAdmin/32].Effective&(1<<(capSysAdmin%32)) != 0
}
