package fuse

import (
	"errors"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// device is the /dev/fuse descriptor of a session, which owns it. Reads and writes go to the bare number:
// the descriptor is blocking, and the runtime's poller must not have it.
type device struct {
	// file keeps the number ours.
	file *os.File
	fd   int
}

// newDevice takes over a descriptor.
func newDevice(file *os.File) *device { return &device{file: file, fd: int(file.Fd())} }

// read waits for one request. It returns ENODEV when the file system is gone, and no bytes
// when the connection was severed.
func (d *device) read(buf []byte) (int, error) {
	for {
		n, err := unix.Read(d.fd, buf)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR, unix.EAGAIN, unix.ENOENT:
			// ENOENT: the request was taken back before it could be read.
			continue
		}
		return 0, err
	}
}

// write sends one reply in one piece.
func (d *device) write(reply []byte) syscall.Errno {
	for {
		_, err := unix.Write(d.fd, reply)
		if err != unix.EINTR {
			return asErrno(err)
		}
	}
}

// writev sends one reply made of parts, without joining them.
func (d *device) writev(parts [][]byte) syscall.Errno {
	for {
		_, err := unix.Writev(d.fd, parts)
		if err != unix.EINTR {
			return asErrno(err)
		}
	}
}

// sever puts /dev/null in the descriptor's place: the connection loses this holder, and the
// number cannot come to mean another file while a late worker still has it. A worker that waits in
// read(2) does not notice until wakeThreads.
func (d *device) sever() error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(null) }()
	return unix.Dup3(null, d.fd, unix.O_CLOEXEC)
}

// wakeThreads has every system call of the process that waits begin anew, and so a read(2) of a
// descriptor that was severed come to its end. It sends SIGURG, which the Go runtime sends its
// own threads all the time, to each thread, and passes over what is not meant for it; the
// handler is one after which the kernel restarts the call.
func wakeThreads() {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return
	}
	for _, task := range tasks {
		if tid, err := strconv.Atoi(task.Name()); err == nil {
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
		}
	}
}

// close gives the descriptor back. No worker may be left.
func (d *device) close() {
	_ = d.file.Close()
}

func asErrno(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
