package mountpoint

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/sanity/pace"
)

// TestAttachAndDetach: a mount without a server is found without asking it, is stale once its device is closed, and
// goes. A lazy unmount takes one in use out of sight.
func TestAttachAndDetach(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	if _, err := Prepare(filepath.Join(dir, "missing")); err == nil {
		t.Error("a mount point that does not exist was taken")
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, "f")); err != nil {
		t.Fatal(err)
	}
	prepared, err := Prepare(dir)
	if err != nil {
		t.Fatal(err)
	}
	device, err := Attach(t.Context(), Options{Dir: prepared, Source: "a,b c", AllowOther: true})
	if err != nil {
		t.Fatal(err)
	}
	at, fstype, source, err := Of(filepath.Join(prepared))
	if err != nil || at != prepared || fstype != FSType || source != "a,b c" {
		t.Error(at, fstype, source, err)
	}
	_ = device.Close()
	if stale, err := IsStale(prepared); !stale || err != nil {
		t.Error(stale, err)
	}
	if err := Unmount(prepared, false); err != nil {
		t.Error(err)
	}
	if m, err := At(prepared); m != nil || err != nil {
		t.Error(m, err)
	}
	if err := Unmount(prepared, true); err == nil || !strings.Contains(err.Error(), "not a mount point") {
		t.Error(err)
	}
}

// TestBind: a bind is read-only where asked, covers what is below the source, and goes lazily while it is in use.
func TestBind(t *testing.T) {
	needRoot(t)
	source, target := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Bind(source, filepath.Join(target, "missing"), false); err == nil {
		t.Error("bound to a directory that does not exist")
	}
	for _, readOnly := range []bool{false, true} {
		if err := Bind(source, target, readOnly); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(filepath.Join(target, "g"), nil, 0o600)
		if readOnly != errors.Is(err, unix.EROFS) {
			t.Errorf("read-only %v: %v", readOnly, err)
		}
		held, err := os.Open(filepath.Join(target, "f"))
		if err != nil {
			t.Fatal(err)
		}
		if err := Detach(target, Plainly); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		if err := Detach(target, Lazily); err != nil {
			t.Error(err)
		}
		if m, err := At(target); m != nil || err != nil {
			t.Error(m, err)
		}
		_ = held.Close()
	}
}

// TestAbort: a request to a connection without a server waits until the connection is aborted, also where the control
// file system is mounted nowhere. A connection that has another's minor number is left alone.
func TestAbort(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	device, err := Attach(t.Context(), Options{Dir: dir, Source: "hangs"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	defer func() { _ = Detach(dir, Lazily) }()
	m, err := At(dir)
	if err != nil || m == nil {
		t.Fatal(m, err)
	}
	answer := make(chan error, 1)
	go func() {
		var st unix.Stat_t
		answer <- unix.Stat(filepath.Join(dir, "f"), &st)
	}()
	select {
	case err := <-answer:
		t.Fatal("answered by nobody:", err)
	case <-time.After(50 * time.Millisecond):
	}
	c, err := ConnectionOf(m.Minor)
	if err != nil {
		t.Skip("needs the FUSE control file system:", err)
	}
	for _, other := range []Connection{
		{Minor: c.Minor},
		{Minor: c.Minor, Inode: c.Inode, Made: c.Made - 1},
		{Minor: c.Minor, Inode: c.Inode + 1, Made: c.Made},
	} {
		if err := other.Abort(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v is not %+v: %v", other, c, err)
		}
	}
	if err := (Connection{}).Abort(); !errors.Is(err, ErrUnknown) || errors.Is(err, os.ErrNotExist) {
		t.Error("a connection that is not known:", err)
	}
	select {
	case err := <-answer:
		t.Fatal("another connection was aborted, and this one ended:", err)
	case <-time.After(50 * time.Millisecond):
	}
	if err := c.Abort(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-answer:
		if !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, unix.ECONNABORTED) {
			t.Error(err)
		}
	case <-time.After(pace.Limit(30 * time.Second)):
		t.Error("the request still waits")
	}
}

// TestControlIsTriedAgain: what could not be opened for want of descriptors is opened later.
func TestControlIsTriedAgain(t *testing.T) {
	needRoot(t)
	var had unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &had); err != nil {
		t.Fatal(err)
	}
	var c controlFS
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: had.Max}); err != nil {
		t.Fatal(err)
	}
	_, err := c.open()
	if again := unix.Setrlimit(unix.RLIMIT_NOFILE, &had); again != nil {
		t.Fatal(again)
	}
	if err == nil {
		t.Fatal("it was opened without a descriptor")
	}
	if dir, err := c.open(); errors.Is(err, unix.EMFILE) {
		t.Error("it is not tried again:", err)
	} else if err == nil {
		_ = dir.Close()
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if !HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse:", err)
	}
}
