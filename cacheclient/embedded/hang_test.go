package embedded_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// hung mounts a file system that answers nothing, as NFS without its server, until the function is called.
func hung(t *testing.T) (dir string, end func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts a file system that hangs")
	}
	dev, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skipf("needs /dev/fuse: %v", err)
	}
	dir = t.TempDir()
	if err := unix.Mount("hung", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0",
		dev)); err != nil {
		_ = unix.Close(dev)
		t.Fatal(err)
	}
	end = sync.OnceFunc(func() {
		// Without its device all that waits for the file system fails.
		if err := errors.Join(unix.Close(dev), unix.Unmount(dir, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return dir, end
}

// TestHungFileSystem has a local source whose system calls do not return: callers and Close do.
func TestHungFileSystem(t *testing.T) {
	pace.Long(t)
	dir, end := hung(t)
	store, err := ufs.Open(t.Context(), filepath.Join(dir, "data"), ufs.Options{Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	cfg := embedded.Config{Levels: tier(t.TempDir(), 64<<20), Timeout: time.Minute}
	c, err := embedded.New(store, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for what, f := range requests(ctx, c) {
		all.Go(func() {
			if err := f(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v, want %v", what, err, context.DeadlineExceeded)
			}
		})
	}
	all.Wait()
	began := time.Now()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > pace.Limit(2*time.Second) {
		t.Errorf("close took %v", took)
	}
	// The tier is free for a successor, which the requests left behind do not disturb.
	next, err := ufs.Open(t.Context(), filepath.Join(dir, "data"), ufs.Options{Deferred: true})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Timeout = 300 * time.Millisecond
	successor, err := embedded.New(next, cfg)
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, err := successor.Stat(t.Context(), "x"); !errors.Is(err, cacheclient.ErrUnavailable) {
		t.Errorf("stat in a file system that is gone: %v", err)
	}
	if err := successor.Close(); err != nil {
		t.Error(err)
	}
}
