package fuse

import (
	"context"
	"errors"
	"io/fs"
	"syscall"

	"millrace.io/millrace/cacheclient"
)

// errnoTable is the one place where errors become errno; the first match counts. What is
// not in it is EIO: among others cacheclient.ErrUnavailable, cacheclient.ErrClosed and
// context.DeadlineExceeded.
var errnoTable = []struct {
	err   error
	errno syscall.Errno
}{
	{context.Canceled, syscall.EINTR},
	{cacheclient.ErrStale, syscall.ESTALE},
	{cacheclient.ErrNotDir, syscall.ENOTDIR},
	{cacheclient.ErrIsDir, syscall.EISDIR},
	{cacheclient.ErrTooLarge, syscall.EFBIG},
	{cacheclient.ErrUnavailable, syscall.EIO},
	{context.DeadlineExceeded, syscall.EIO},
	{fs.ErrNotExist, syscall.ENOENT},
	{fs.ErrPermission, syscall.EACCES},
}

// errnoOf is what an application sees of err; 0 for nil.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, row := range errnoTable {
		if errors.Is(err, row.err) {
			return row.errno
		}
	}
	return syscall.EIO
}
