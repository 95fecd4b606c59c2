package fuse

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

// capSysAdmin is the number of CAP_SYS_ADMIN, which mount(2) and passthrough need.
const capSysAdmin = 21

// attach mounts a new connection on the directory and returns its device.
func attach(ctx context.Context, cfg *Config) (*device, error) {
	if !hasCapability(capSysAdmin) {
		return attachUnprivileged(ctx, cfg)
	}
	dev, err := attachDirect(cfg)
	if errors.Is(err, unix.EPERM) {
		return attachUnprivileged(ctx, cfg)
	}
	return dev, err
}

// attachDirect calls mount(2). The kernel takes no options but these in the data.
func attachDirect(cfg *Config) (*device, error) {
	dev, err := openDevice()
	if err != nil {
		return nil, fmt.Errorf("opening /dev/fuse: %w", err)
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,default_permissions",
		dev.fd, os.Geteuid(), os.Getegid())
	if cfg.AllowOther {
		data += ",allow_other"
	}
	err = unix.Mount(cfg.Source, cfg.Dir, FSType, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID, data)
	if err != nil {
		dev.close()
		return nil, fmt.Errorf("mounting on %s: %w", cfg.Dir, err)
	}
	return dev, nil
}

// attachUnprivileged has fusermount3, which is setuid root, mount the directory and pass the
// device back over a socket whose number is in _FUSE_COMMFD.
func attachUnprivileged(ctx context.Context, cfg *Config) (*device, error) {
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
	cmd := exec.CommandContext(ctx, bin, "-o", fusermountOptions(cfg), "--", cfg.Dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3", "LC_ALL=C")
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	_ = theirs.Close()
	if err != nil {
		return nil, fmt.Errorf("mounting on %s through fusermount3: %w: %s", cfg.Dir, err, strings.TrimSpace(string(out)))
	}
	return receiveDevice(pair[0])
}

// fusermountOptions are the options for fusermount3, which splits them at commas.
func fusermountOptions(cfg *Config) string {
	escape := strings.NewReplacer(`\`, `\\`, `,`, `\,`)
	options := "ro,nosuid,nodev,default_permissions,subtype=" + subtype + ",fsname=" + escape.Replace(cfg.Source)
	if cfg.AllowOther {
		options += ",allow_other"
	}
	return options
}

// receiveDevice takes the device out of the socket. fusermount3 has sent it before it ended.
func receiveDevice(socket int) (*device, error) {
	_ = unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(fusermountTime / time.Second)})
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
	return &device{fd: fds[0]}, nil
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

// hasCapability tells whether the process has a capability in effect.
func hasCapability(number uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	return data[number/32].Effective&(1<<(number%32)) != 0
}
