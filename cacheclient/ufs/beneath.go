package ufs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// root is the source's directory while one request looks into it. Unless links are to be followed wherever
// they lead, the kernel resolves every path beneath it (openat2(2), RESOLVE_BENEATH): no link, absolute or with "..",
// and none that is swapped in meanwhile, leads out.
type root struct {
	fd     int
	device uint64
	follow bool
}

// enter opens the source's directory for a request about a path.
func (s *localStore) enter(ctx context.Context, path string) (*root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !validPath(path) {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	fd, err := unix.Open(s.src.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		// Its files may be there again in a moment, so that they must not be called missing.
		return nil, &plainError{
			what: fmt.Sprintf("the directory %s cannot be entered: %v", s.src.dir, err),
			err:  cacheclient.ErrUnavailable,
		}
	}
	t := &root{fd: fd, follow: s.follow}
	st, err := fstat(fd)
	if err == nil {
		t.device, err = st.Dev, s.allowed(fd)
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// allowed reports whether the open directory is where the source may be. It is the directory itself that is asked
// for its place, so that a link in its path cannot be another than a moment before.
func (s *localStore) allowed(fd int) error {
	if len(s.within) == 0 {
		return nil
	}
	at, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return fmt.Errorf("the place of the directory %s is not known: %w", s.src.dir, bare(err))
	}
	for _, root := range s.within {
		if at == root || strings.HasPrefix(at, strings.TrimSuffix(root, "/")+"/") {
			return nil
		}
	}
	return &plainError{
		what: fmt.Sprintf("the directory %s is in none of the allowed directories %s", s.src.dir,
			strings.Join(s.within, ", ")),
		err: fs.ErrPermission,
	}
}

func (t *root) close() { _ = unix.Close(t.fd) }

// openat opens a path of the source, "" being the directory itself.
func (t *root) openat(path string, flags int) (int, error) {
	if path == "" {
		path = "."
	}
	flags |= unix.O_CLOEXEC
	how := unix.OpenHow{Flags: uint64(flags), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	for tries := 0; ; tries++ {
		var fd int
		var err error
		if t.follow {
			fd, err = unix.Openat(t.fd, path, flags, 0)
		} else {
			fd, err = unix.Openat2(t.fd, path, &how)
		}
		// EAGAIN: a directory was renamed meanwhile, so that the kernel cannot tell whether the path stayed beneath.
		if !errors.Is(err, unix.EINTR) && (!errors.Is(err, unix.EAGAIN) || tries >= 16) {
			return fd, err
		}
	}
}

// open opens a path of the source as a file of os.
func (t *root) open(path string, flags int) (*os.File, error) {
	fd, err := t.openat(path, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// stat describes what is at a path; flags may have O_NOFOLLOW, for a link itself.
func (t *root) stat(path string, flags int) (unix.Stat_t, error) {
	fd, err := t.openat(path, unix.O_PATH|flags)
	if err != nil {
		return unix.Stat_t{}, err
	}
	defer func() { _ = unix.Close(fd) }()
	return fstat(fd)
}

func fstat(fd int) (st unix.Stat_t, err error) {
	err = unix.Fstat(fd, &st)
	return st, err
}

// statAt describes an entry of an open directory, a link itself where it is one.
func statAt(dir *os.File, name string) (st unix.Stat_t, err error) {
	raw, err := dir.SyscallConn()
	if err != nil {
		return st, err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.Fstatat(int(fd), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	return st, errors.Join(controlErr, err)
}

func isKind(st *unix.Stat_t, kind uint32) bool { return st.Mode&unix.S_IFMT == kind }

func sameFile(a, b *unix.Stat_t) bool { return a.Dev == b.Dev && a.Ino == b.Ino }
