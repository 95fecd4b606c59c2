package fuse

import (
	"log/slog"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// strayBackings is how far from the highest known id the ids may be that a process which died had registered
// without keeping them: one for each request that it was serving.
const strayBackings = 256

// ioctls of /dev/fuse for passthrough, from include/uapi/linux/fuse.h (Linux 6.9).
const (
	iocBackingOpen  = 0x4010e501
	iocBackingClose = 0x4004e502
)

// backing registers local files with the kernel so that it reads them itself. The ids
// belong to the connection, not to the process.
type backing struct {
	dev   *device
	state *stateFile
	log   *slog.Logger
	// off is set for good once the kernel says that this process may not.
	off atomic.Bool
}

// register makes the file known to the kernel and returns its backing id, 0 where the
// kernel does not take it.
func (b *backing) register(file *os.File) int32 {
	if b.off.Load() {
		return 0
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return 0
	}
	var id int32
	var errno syscall.Errno
	err = raw.Control(func(fd uintptr) {
		id, errno = b.ioctlOpen(int32(fd))
	})
	switch {
	case err != nil:
		return 0
	case errno == 0:
		b.state.noteBacking(id)
		return id
	case errno == unix.EPERM || errno == unix.ENOTTY:
		// No CAP_SYS_ADMIN, or a kernel without passthrough.
		if !b.off.Swap(true) {
			b.log.Info("files are read by copying: the kernel does not allow passthrough", "error", errno)
		}
	default:
		// This one file cannot back another: its file system is stacked too deep (ELOOP) or does
		// not support it (EOPNOTSUPP).
		b.log.Debug("a local file cannot be passed through", "error", errno)
	}
	return 0
}

func (b *backing) ioctlOpen(fd int32) (int32, syscall.Errno) {
	m := gofuse.BackingMap{Fd: fd}
	id, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(b.dev.fd), iocBackingOpen, uintptr(unsafe.Pointer(&m)))
	return int32(id), errno
}

// unregister forgets a backing id; handles that are open with it keep working.
func (b *backing) unregister(id int32) {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(b.dev.fd), iocBackingClose, uintptr(unsafe.Pointer(&id)))
	if errno != 0 && errno != unix.ENOENT {
		b.log.Debug("a backing id could not be unregistered", "id", id, "error", errno)
	}
}

// clean unregisters what an earlier process left behind: ids whose files were closed, and ids that it
// registered and had no time to keep, which are near the highest, as the kernel hands them out in rising order
// (idr_alloc_cyclic). Those that open handles name stay.
func (b *backing) clean(closed []*handle, used map[int32]bool) {
	for _, h := range closed {
		if h.backing != 0 && !used[h.backing] {
			b.unregister(h.backing)
		}
	}
	highest := b.state.highestBacking()
	for id := max(1, highest-strayBackings); id <= highest+strayBackings; id++ {
		if !used[id] {
			b.unregister(id)
		}
	}
}
