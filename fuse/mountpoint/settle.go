package mountpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PollName is a name in the root of a mount for which the session has a file until it has been asked to
// poll one.
const PollName = ".go-fuse-epoll-hack"

// Settled is what is known of a mount that answers.
type Settled struct {
	// Device is the device number of the mount.
	Device uint64
	// ReadAheadKB is the kernel's read-ahead in KiB, 0 where it could not be found out.
	ReadAheadKB int
}

// Settle is called once for a new mount whose INIT was answered. It asks the mount for its root, which shows
// that it answers, raises the read-ahead, as far as this process may, and has the kernel ask for
// POLL once.
//
// POLL is answered with ENOSYS, so that the kernel never asks again. A Go program that opens a file
// has its runtime put it into epoll(7) without giving up the processor; one that reads a mount that
// it serves itself, as tests do, could not answer.
func Settle(dir string, readAheadKB int) (Settled, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return Settled{}, fmt.Errorf("asking the new mount on %s for its root: %w", dir, err)
	}
	kb := raiseReadAhead(st.Dev, readAheadKB)
	fd, err := unix.Open(filepath.Join(dir, PollName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Settled{}, fmt.Errorf("asking the new mount on %s for a file: %w", dir, err)
	}
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	_ = unix.Close(fd)
	return Settled{Device: st.Dev, ReadAheadKB: kb}, nil
}

// readAheadFile is where the kernel keeps the read-ahead of a mount, in KiB. INIT can only
// lower it from its default of 128.
func readAheadFile(dev uint64) string {
	return fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(dev), unix.Minor(dev))
}

// raiseReadAhead sets the read-ahead of the mount with this device number, and returns what it
// is then; 0 where that cannot be found out. Only root may set it.
func raiseReadAhead(dev uint64, kb int) int {
	file := readAheadFile(dev)
	// Where this process may not, it stays as it is, which the caller sees.
	_ = os.WriteFile(file, []byte(strconv.Itoa(kb)), 0)
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	now, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return now
}
