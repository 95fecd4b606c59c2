package alluxio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// blockFile is a block in a tier of this machine, open and mapped. It stays readable whatever becomes of its name:
// block files never change, and an evicted one is only unlinked.
//
// Whoever uses it holds a reference; the last one to go closes it.
type blockFile struct {
	id   int64
	file *os.File
	// mapped is all of it, read-only; never touched by our own code but lent to system calls, which fail where
	// a damaged tier would fault the process.
	mapped []byte
	refs   atomic.Int64
	// used is when it was read or asked for last, in Unix nanoseconds.
	used atomic.Int64
}

var (
	// errDamaged says that a tier's file is not the block that it should be.
	errDamaged = errors.New("the file in the tier is not the block")
	// errMisnamed says that a worker names what is no block's file. It says nothing of the block.
	errMisnamed = errors.New("the path is no block's")
)

// mostMapped is the largest block that is mapped or filled here, in bytes: what a fill knows of its pieces grows with
// it.
const mostMapped = 64 << 30

// oursToBlame reports whether an error is of this process or machine, and says nothing of the file that was to be
// opened.
func oursToBlame(err error) bool {
	for _, own := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR, unix.EAGAIN} {
		if errors.Is(err, own) {
			return true
		}
	}
	return false
}

// openBlockFile opens the file of a block, which must have the block's length. The path comes from a worker, so it is
// believed only where it looks like a block's: nothing else is ever opened on its word.
func openBlockFile(path string, id, length int64) (*blockFile, error) {
	if !filepath.IsAbs(path) || strings.Contains(path, "\x00") || filepath.Base(path) != strconv.FormatInt(id, 10) {
		return nil, fmt.Errorf("%w: the worker names %q for block %d", errMisnamed, path, id)
	}
	// What is no regular file must not hold up its opener.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Size() != length) {
		err = fmt.Errorf("%w: %q has %d bytes (%v) and the block %d", errDamaged, path, st.Size(), st.Mode(), length)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return mapBlockFile(f, id, length)
}

// mapBlockFile maps an open file, which it closes where that fails. The caller has the first reference.
func mapBlockFile(f *os.File, id, length int64) (*blockFile, error) {
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(length), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("map block %d: %w", id, err)
	}
	b := &blockFile{id: id, file: f, mapped: mapped}
	b.refs.Store(1)
	b.touch()
	return b, nil
}

func (b *blockFile) touch() { b.used.Store(time.Now().UnixNano()) }

// retain adds a reference; the caller has one, or the lock under which one is kept.
func (b *blockFile) retain() *blockFile {
	b.refs.Add(1)
	return b
}

// release gives a reference back.
func (b *blockFile) release() {
	if b.refs.Add(-1) == 0 {
		_ = unix.Munmap(b.mapped)
		_ = b.file.Close()
	}
}

// bytes lends a range.
func (b *blockFile) bytes(off, n int64) []byte { return b.mapped[off : off+n : off+n] }

// spent reports whether the worker has dropped the block, whose memory we alone hold now, or the file has not the
// block's length any more.
func (b *blockFile) spent() bool {
	var st unix.Stat_t
	return unix.Fstat(int(b.file.Fd()), &st) == nil && (st.Nlink == 0 || st.Size != int64(len(b.mapped)))
}
