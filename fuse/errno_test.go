package fuse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"millrace.io/millrace/cacheclient"
)

func TestErrno(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{fs.ErrNotExist, syscall.ENOENT},
		{&os.PathError{Op: "open", Path: "x", Err: syscall.ENOENT}, syscall.ENOENT},
		{fs.ErrPermission, syscall.EACCES},
		{syscall.EPERM, syscall.EACCES},
		{cacheclient.ErrStale, syscall.ESTALE},
		{fmt.Errorf("asked thrice: %w", cacheclient.ErrStale), syscall.ESTALE},
		{cacheclient.ErrNotDir, syscall.ENOTDIR},
		{cacheclient.ErrIsDir, syscall.EISDIR},
		{context.Canceled, syscall.EINTR},
		{fmt.Errorf("range 0-5: %w", context.Canceled), syscall.EINTR},
		{context.DeadlineExceeded, syscall.EIO},
		{cacheclient.ErrUnavailable, syscall.EIO},
		{fmt.Errorf("%w: %w", cacheclient.ErrUnavailable, context.DeadlineExceeded), syscall.EIO},
		{cacheclient.ErrClosed, syscall.EIO},
		{errCollision, syscall.EIO},
		{io.ErrUnexpectedEOF, syscall.EIO},
		{syscall.ECONNREFUSED, syscall.EIO},
		{errors.New("anything"), syscall.EIO},
	} {
		if got := errnoOf(c.err); got != c.want {
			t.Errorf("errno of %v: %v, want %v", c.err, got, c.want)
		}
	}
}

func TestFaultsAreLoggedOnce(t *testing.T) {
	var out logBuffer
	f := &faultLog{log: slog.New(slog.NewTextHandler(&out, nil))}
	for range 5 {
		f.report("read", "a", errors.New("broken"))
	}
	f.report("read", "b", errors.New("broken"))
	f.report("open", "a", errors.New("broken"))
	f.report("read", "a", errors.New("otherwise"))
	if got := strings.Count(out.String(), "\n"); got != 4 {
		t.Errorf("%d lines, want 4:\n%s", got, out.String())
	}
	for i := range 3 * faultMemory {
		f.report("read", strconv.Itoa(i), errors.New("broken"))
	}
	if len(f.last) > faultMemory {
		t.Errorf("%d faults are remembered, more than %d", len(f.last), faultMemory)
	}
}
