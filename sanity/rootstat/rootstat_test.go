package rootstat

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
)

// TestCorruptedIsSeen watches a mount whose server goes, and one directory that is well.
func TestCorruptedIsSeen(t *testing.T) {
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	dir := t.TempDir()
	device, err := mountpoint.Attach(t.Context(), mountpoint.Options{Dir: dir, Source: "goes"})
	if err != nil {
		t.Skip("needs /dev/fuse:", err)
	}
	_ = device.Close()
	defer func() { _ = mountpoint.Detach(dir, mountpoint.Lazily) }()
	inner := &recorder{TB: t}
	w := Watch(inner, dir)
	w.users.Wait()
	if !inner.failed.Load() {
		t.Error("a mount without a server is well")
	}
	w.End()
	if err := asKubelet(dir); !errors.Is(err, unix.ENOTCONN) {
		t.Error(err)
	}
	well := Watch(t, t.TempDir())
	for well.asked.Load() < 10 {
		if _, err := os.Stat(t.TempDir()); err != nil {
			t.Fatal(err)
		}
	}
	well.End()
}

// recorder takes failures for the test.
type recorder struct {
	testing.TB
	failed atomic.Bool
}

func (r *recorder) Errorf(string, ...any) { r.failed.Store(true) }
