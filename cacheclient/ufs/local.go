package ufs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rclone/rclone/fs/config/configmap"
	"github.com/rclone/rclone/fs/config/configstruct"
	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// listBatch is how many entries of a directory are in memory at once.
const listBatch = 1024

// localStore is a directory of this machine. Its versions are those of localversion.go.
//
// Each request enters the directory anew (beneath.go), so that it may be published by replacing it or a link to it.
//
// System calls on a file system that hangs, as NFS can, do not end with their context.
type localStore struct {
	src    source
	opt    localOptions
	follow bool
	// within are the resolved directories that the source must be in, any if there are none.
	within   []string
	identity string
	marks    marks
	// left is Options.Left, and looped remembers that the log has been told.
	left   func(device uint64) bool
	looped flag
	log    *slog.Logger
}

func newLocalStore(src source, values configmap.Simple, opts Options) (*localStore, error) {
	s := &localStore{src: src, follow: opts.FollowLinks, left: opts.Left, log: opts.Log}
	if err := configstruct.Set(values, &s.opt); err != nil {
		return nil, err
	}
	var err error
	if s.marks.timeOnly, err = timeOnly(s.opt.Validate); err != nil {
		return nil, err
	}
	if s.follow && len(opts.Within) > 0 {
		return nil, errors.New("FollowLinks and Within exclude each other: a link may lead anywhere")
	}
	for _, dir := range opts.Within {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dir = resolved
		}
		s.within = append(s.within, filepath.Clean(dir))
	}
	// What is allowed decides what is read, and so does where links may lead.
	within := strings.Join(slices.Sorted(slices.Values(s.within)), "\x00")
	s.identity = identityOf(src, localTable, values, fmt.Sprintf("follow=%t", s.follow), "within="+within)
	if opts.Deferred {
		return s, nil
	}
	fi, err := os.Stat(src.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &plainError{what: "it does not exist", err: err}
	case err != nil:
		return nil, fmt.Errorf("it cannot be read: %w", bare(err))
	case !fi.IsDir():
		return nil, &plainError{what: src.isFile(), err: cacheclient.ErrNotDir}
	}
	return s, nil
}

// String is the directory.
func (s *localStore) String() string { return s.src.show }

// Identity is the directory, as it is named, and how it is shown.
func (s *localStore) Identity() string { return s.identity }

// Close does nothing: a directory has no connections.
func (s *localStore) Close() error { return nil }

// Stat describes what is at the path now.
func (s *localStore) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	t, err := s.enter(ctx, path)
	if err != nil {
		return cacheclient.Info{}, err
	}
	defer t.close()
	st, err := s.statLinked(t, path)
	if err == nil && !s.shown(t, path, &st) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return cacheclient.Info{}, localError(path, err)
	}
	return s.info(path, &st, func() (int, error) { return t.openat(path, unix.O_PATH) }), nil
}

// statLinked follows links where the options say so. A link to a directory that
// holds it is as one that leads nowhere: a walk of the tree would not end.
func (s *localStore) statLinked(t *root, path string) (unix.Stat_t, error) {
	st, err := t.stat(path, unix.O_NOFOLLOW)
	if err != nil || !isKind(&st, unix.S_IFLNK) {
		return st, err
	}
	return s.linked(t, path)
}

// linked describes what a link leads to.
func (s *localStore) linked(t *root, path string) (unix.Stat_t, error) {
	if !s.opt.CopyLinks {
		return unix.Stat_t{}, fs.ErrNotExist
	}
	st, err := t.stat(path, 0)
	if err == nil && isKind(&st, unix.S_IFDIR) && s.above(t, path, &st) {
		return unix.Stat_t{}, fs.ErrNotExist
	}
	return st, err
}

// above reports whether one of the directories above the path is dir.
func (s *localStore) above(t *root, path string, dir *unix.Stat_t) bool {
	for path != "" {
		path = path[:max(0, strings.LastIndexByte(path, '/'))]
		if st, err := t.stat(path, 0); err == nil && sameFile(&st, dir) {
			return true
		}
	}
	if !t.follow {
		return false
	}
	for parent := s.src.dir; parent != filepath.Dir(parent); {
		parent = filepath.Dir(parent)
		var st unix.Stat_t
		if unix.Stat(parent, &st) == nil && sameFile(&st, dir) {
			return true
		}
	}
	return false
}

// shown reports whether a mount shows it: files and directories, not pipes, sockets and devices, with
// one_file_system no directory of another, and no mount that may show the source again.
func (s *localStore) shown(t *root, path string, st *unix.Stat_t) bool {
	switch {
	case !isKind(st, unix.S_IFDIR) && !isKind(st, unix.S_IFREG):
		return false
	case st.Dev == t.device:
		return true
	case s.opt.OneFileSystem && isKind(st, unix.S_IFDIR):
		return false
	case s.left == nil || !s.left(st.Dev):
		return true
	}
	if !s.looped.Swap(true) {
		s.log.Warn("a mount of millrace inside the source is not shown", "source", s.src.show, "path", path)
	}
	return false
}

// info describes what was looked at; open opens it, for one question about its file system.
func (s *localStore) info(path string, st *unix.Stat_t, open func() (int, error)) cacheclient.Info {
	info := cacheclient.Info{
		Path: path, Dir: isKind(st, unix.S_IFDIR), ModTime: time.Unix(st.Mtim.Unix()),
		Mode: os.FileMode(st.Mode & 0o777), ModeKnown: true,
	}
	if !info.Dir {
		info.Size = st.Size
		info.Version = s.marks.of(st, open)
	}
	return info
}

// List reads the directory in batches. An entry that vanishes, leads nowhere or may not be looked at is left out.
func (s *localStore) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	t, err := s.enter(ctx, dir)
	if err != nil {
		return err
	}
	defer t.close()
	// O_DIRECTORY, so that a pipe is refused and not waited for.
	f, err := t.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return s.listError(t, dir, err)
	}
	defer func() { _ = f.Close() }()
	for {
		// Only names: what else os would tell it looks up by their paths.
		names, err := f.Readdirnames(listBatch)
		for _, name := range names {
			if err := ctx.Err(); err != nil {
				return err
			}
			path := join(dir, name)
			st, statErr := statAt(f, name)
			if statErr == nil && isKind(&st, unix.S_IFLNK) {
				st, statErr = s.linked(t, path)
			}
			if statErr != nil || !s.shown(t, path, &st) {
				continue
			}
			if err := fn(s.info(path, &st, func() (int, error) { return t.openat(path, unix.O_PATH) })); err != nil {
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
func (s *localStore) listError(t *root, dir string, err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		if st, statErr := s.statLinked(t, dir); statErr == nil && !isKind(&st, unix.S_IFDIR) {
			return fmt.Errorf("%q: %w", dir, cacheclient.ErrNotDir)
		}
	}
	return localError(dir, err)
}

// localError makes of what can only mean that nothing is there fs.ErrNotExist; a link out of the source
// leads nowhere.
func localError(path string, err error) error {
	if slices.ContainsFunc([]error{syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.EXDEV},
		func(e error) bool { return errors.Is(err, e) }) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%q: %w", path, bare(err))
}

// Open opens the file and compares the open file, not the path, with the version.
func (s *localStore) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := checkRange(info, off, length); err != nil {
		return nil, err
	}
	t, err := s.enter(ctx, info.Path)
	if err != nil {
		return nil, err
	}
	defer t.close()
	// O_NONBLOCK, so that a pipe in the file's place is not waited for.
	f, err := t.open(info.Path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, localError(info.Path, err)
	}
	b := &localBody{ctx: ctx, file: f, want: info, at: off, end: off + length, store: s}
	if b.conn, err = f.SyscallConn(); err == nil {
		b.look = b.fstat
		err = b.prove()
	}
	if err == nil {
		return &Body{ReadCloser: b, Start: off, End: off + length}, nil
	}
	_ = f.Close()
	return nil, err
}

// localBody reads a range of an open file, and looks after each read whether the file is
// still the version that was asked for.
type localBody struct {
	ctx     context.Context //nolint:containedctx // of the request this body belongs to
	file    *os.File
	conn    syscall.RawConn
	want    cacheclient.Info
	at, end int64
	store   *localStore
	// look is fstat, bound once so that a Read allocates nothing; st and err are its results.
	look func(fd uintptr)
	st   unix.Stat_t
	err  error
	// proved is what fstat told when the file was found to be the version.
	proved unix.Stat_t
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

// prove returns ErrStale unless the open file is the version that was asked for, and waits until a write after now
// would show in its times.
func (b *localBody) prove() error {
	if err := b.stat(); err != nil {
		return err
	}
	b.proved = b.st
	if !isKind(&b.st, unix.S_IFREG) || !b.store.isVersion(b.file, &b.st, b.want) {
		return fmt.Errorf("%q: %w", b.want.Path, cacheclient.ErrStale)
	}
	wait := unsettled(&b.st, time.Now())
	if wait == 0 || b.store.opt.NoCheckUpdated {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
	return b.changed()
}

// changed returns ErrStale if the open file is no longer the version that it was.
func (b *localBody) changed() error {
	if b.store.opt.NoCheckUpdated {
		return nil
	}
	if err := b.stat(); err != nil {
		return err
	}
	// A name that came or went, as when another file takes this one's place, changes the inode and not its bytes.
	relinked := b.st.Nlink != b.proved.Nlink || b.store.marks.timeOnly
	if b.st.Size != b.proved.Size || b.st.Mtim != b.proved.Mtim || b.st.Ctim != b.proved.Ctim && !relinked {
		return fmt.Errorf("%q: %w", b.want.Path, cacheclient.ErrStale)
	}
	return nil
}

// stat looks at the open file.
func (b *localBody) stat() error {
	err := b.conn.Control(b.look)
	if err == nil {
		err = b.err
	}
	if err != nil {
		return localError(b.want.Path, err)
	}
	return nil
}

func (b *localBody) Close() error { return b.file.Close() }
