package liar

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls on a mount. Whatever serves the source is in this process, so that none of them may hold up its garbage
// collector: a page of a mapping is touched by the kernel within a system call, and never by this code.

// openRaw opens a path. It does not try again, so that EINTR shows.
func openRaw(path string, flags int) (int, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_RDONLY, 0)
	return fd, err
}

// sizeOf is what fstat says.
func sizeOf(fd int) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return st.Size, err
}

// peek copies bytes of a mapping. A page that cannot be had is EFAULT, where a program would get SIGBUS.
func peek(mapped []byte, off int64, p []byte) error {
	local := []unix.Iovec{{Base: &p[0]}}
	local[0].SetLen(len(p))
	remote := []unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&mapped[0])) + uintptr(off), Len: len(p)}}
	n, err := unix.ProcessVMReadv(unix.Getpid(), local, remote, 0)
	if err == nil && n < len(p) {
		err = unix.EFAULT
	}
	return err
}

// aligned is memory that O_DIRECT accepts.
func aligned(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

// errDirent says that the kernel gave an entry that is none.
var errDirent = errors.New("an entry of getdents is cut")

// Offsets in a struct linux_dirent64.
const (
	direntLength = 16
	direntKind   = 18
	direntName   = 19
)

// parseDirents takes entries from what getdents gave.
func parseDirents(buf []byte, seen []Seen) ([]Seen, error) {
	for len(buf) > 0 {
		if len(buf) < direntName {
			return seen, errDirent
		}
		n := int(binary.NativeEndian.Uint16(buf[direntLength:]))
		if n < direntName || n > len(buf) {
			return seen, errDirent
		}
		name, _, _ := bytes.Cut(buf[direntName:n], []byte{0})
		if e := (Seen{Name: string(name), Kind: kindOf(buf[direntKind])}); e.Name != "." && e.Name != ".." {
			seen = append(seen, e)
		}
		buf = buf[n:]
	}
	return seen, nil
}

func kindOf(d byte) string {
	switch d {
	case unix.DT_DIR:
		return "directory"
	case unix.DT_REG:
		return "file"
	case unix.DT_UNKNOWN:
		return ""
	}
	return fmt.Sprintf("thing of d_type %d", d)
}
