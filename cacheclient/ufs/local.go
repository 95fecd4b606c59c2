package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// listBatch is how many entries of a directory are in memory at once.
const listBatch = 1024

// localStore is a directory of this machine. A version is a size and a modification time in nanoseconds.
//
// System calls on a file system that hangs, as NFS can, do not end with their context.
type localStore struct {
	src source
	opt localOptions
	// device is the root's file system, for the option one_file_system.
	device uint64
}

func newLocalStore(src source, values configmap.Simple) (*localStore, error) {
	s := &localStore{src: src}
	if err := configstruct.Set(values, &s.opt); err != nil {
		return nil, err
	}
	fi, err := os.Stat(src.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &plainError{what: "it does not exist", err: err}
	case err != nil:
		return nil, fmt.Errorf("it cannot be read: %w", bare(err))
	case !fi.IsDir():
		return nil, &plainError{what: "it is not a directory", err: cacheclient.ErrNotDir}
	}
	s.device = device(fi)
	return s, nil
}

// String is the directory.
func (s *localStore) String() string { return s.src.show }

// Close does nothing: a directory has no connections.
func (s *localStore) Close() error { return nil }

// locate is the path in the machine's file system.
func (s *localStore) locate(path string) (string, error) {
	if !validPath(path) {
		return "", &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return filepath.Join(s.src.dir, path), nil
}

// Stat describes what is at the path now.
func (s *localStore) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if err := ctx.Err(); err != nil {
		return cacheclient.Info{}, err
	}
	name, err := s.locate(path)
	if err != nil {
		return cacheclient.Info{}, err
	}
	fi, err := s.stat(name, path == "")
	if err != nil {
		return cacheclient.Info{}, localError(path, err)
	}
	if !s.shown(fi) {
		return cacheclient.Info{}, localError(path, fs.ErrNotExist)
	}
	return localInfo(path, fi), nil
}

// stat follows links where the options say so. The root is followed in any case. A link to a directory that
// holds it is as one that leads nowhere: who walks the tree would walk for ever.
func (s *localStore) stat(name string, root bool) (os.FileInfo, error) {
	fi, err := os.Lstat(name)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return fi, err
	}
	if !s.opt.CopyLinks && !root {
		return nil, fs.ErrNotExist
	}
	fi, err = os.Stat(name)
	if err == nil && fi.IsDir() && !root && inside(name, fi) {
		return nil, fs.ErrNotExist
	}
	return fi, err
}

// inside tells whether one of the directories above name is dir.
func inside(name string, dir os.FileInfo) bool {
	for parent := filepath.Dir(name); ; parent = filepath.Dir(parent) {
		if fi, err := os.Stat(parent); err == nil && os.SameFile(fi, dir) {
			return true
		}
		if parent == filepath.Dir(parent) {
			return false
		}
	}
}

// shown tells whether a mount shows it: files and directories, not pipes, sockets and devices, and
// with one_file_system no directory of another.
func (s *localStore) shown(fi os.FileInfo) bool {
	if fi.IsDir() {
		return !s.opt.OneFileSystem || device(fi) == s.device
	}
	return fi.Mode().IsRegular()
}

func localInfo(path string, fi os.FileInfo) cacheclient.Info {
	info := cacheclient.Info{Path: path, Dir: fi.IsDir(), ModTime: fi.ModTime(), Mode: fi.Mode().Perm()}
	if !info.Dir {
		info.Size = fi.Size()
	}
	return info
}

func device(fi os.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Dev
	}
	return 0
}

// List reads the directory in batches. An entry that vanishes, leads nowhere or may not be looked at is left out.
func (s *localStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	name, err := s.locate(dir)
	if err != nil {
		return err
	}
	// O_DIRECTORY, so that a pipe is refused and not waited for.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return s.listError(dir, name, err)
	}
	defer func() { _ = f.Close() }()
	for {
		entries, err := f.ReadDir(listBatch)
		for _, entry := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			fi, statErr := s.stat(filepath.Join(name, entry.Name()), false)
			if statErr != nil || !s.shown(fi) {
				continue
			}
			if err := fn(localInfo(join(dir, entry.Name()), fi)); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return localError(dir, err)
		}
	}
}

// listError tells a file from a path that goes through one; both are ENOTDIR.
func (s *localStore) listError(dir, name string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		if fi, statErr := os.Stat(name); statErr == nil && !fi.IsDir() {
			return fmt.Errorf("%q: %w", dir, cacheclient.ErrNotDir)
		}
	}
	return localError(dir, err)
}

// localError makes of what can only mean that nothing is there fs.ErrNotExist.
func localError(path string, err error) error {
	if slices.ContainsFunc([]error{syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG}, func(e error) bool { return errors.Is(err, e) }) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%q: %w", path, bare(err))
}

// Open opens the file and compares the open file, not the path, with the version.
func (s *localStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := s.locate(info.Path)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK, so that a pipe in the file's place is not waited for.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, localError(info.Path, err)
	}
	b := &localBody{ctx: ctx, file: f, want: info, at: off, end: off + length, unchecked: s.opt.NoCheckUpdated}
	fi, err := f.Stat()
	if err == nil {
		b.conn, err = f.SyscallConn()
	}
	switch {
	case err != nil:
	case !fi.Mode().IsRegular() || !s.isVersion(fi, info):
		err = cacheclient.ErrStale
	default:
		b.look = b.fstat
		return &Body{ReadCloser: b, Start: off, End: off + length}, nil
	}
	_ = f.Close()
	return nil, localError(info.Path, err)
}

// isVersion tells whether the open file is the version that was asked for. With no_check_updated a file that
// grew is as good.
func (s *localStore) isVersion(fi os.FileInfo, info cacheclient.Info) bool {
	if s.opt.NoCheckUpdated {
		return fi.Size() >= info.Size
	}
	return fi.Size() == info.Size && fi.ModTime().Equal(info.ModTime)
}

// localBody reads a range of an open file, and looks after each read whether the file is
// still the version that was asked for.
type localBody struct {
	ctx     context.Context //nolint:containedctx // of the request this body belongs to
	file    *os.File
	conn    syscall.RawConn
	want    cacheclient.Info
	at, end int64
	// unchecked is the option no_check_updated: a file that grows is read as far as it was.
	unchecked bool
	// look is fstat, bound once so that a Read allocates nothing; st and err are its results.
	look func(fd uintptr)
	st   unix.Stat_t
	err  error
}

func (b *localBody) fstat(fd uintptr) { b.err = unix.Fstat(int(fd), &b.st) }

func (b *localBody) Read(p []byte) (int, error) {
	if b.at >= b.end {
		return 0, io.EOF
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := b.file.ReadAt(p[:min(int64(len(p)), b.end-b.at)], b.at)
	if n == 0 && errors.Is(err, io.EOF) {
		// The range was within the file when it was opened.
		return 0, fmt.Errorf("%q was cut: %w", b.want.Path, cacheclient.ErrStale)
	}
	if n == 0 && err != nil {
		return 0, localError(b.want.Path, err)
	}
	if err := b.changed(); err != nil {
		return 0, err
	}
	b.at += int64(n)
	return n, nil
}

func (b *localBody) changed() error {
	if b.unchecked {
		return nil
	}
	if err := b.conn.Control(b.look); err != nil {
		return localError(b.want.Path, err)
	}
	if b.err != nil {
		return localError(b.want.Path, b.err)
	}
	if b.st.Size != b.want.Size || b.st.Mtim.Nano() != b.want.ModTime.UnixNano() {
		return fmt.Errorf("%q: %w", b.want.Path, cacheclient.ErrStale)
	}
	return nil
}

func (b *localBody) Close() error { return b.file.Close() }
