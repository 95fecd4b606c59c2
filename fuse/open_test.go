package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

// TestOneModeAtATime: a file that becomes local while it is open is copied on to each that opens
// it, and passed through once it is open nowhere.
func TestOneModeAtATime(t *testing.T) {
	source := t.TempDir()
	content := pattern(3 << 20)
	write(t, source, "f", content)
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	path := filepath.Join(dir, "f")
	first, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	client.local.Store(true)
	for range 3 {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("beside an open handle: %d bytes, %v", len(got), err)
		}
	}
	if st := s.Stats(); st.PassthroughOpens != 0 || st.OpenFiles != 1 {
		t.Fatalf("%d passthrough opens, %d open files", st.PassthroughOpens, st.OpenFiles)
	}
	_ = first.Close()
	eventually(t, "RELEASE", func() bool { return s.Stats().OpenFiles == 0 })
	handles := make([]*os.File, 3)
	for i := range handles {
		if handles[i], err = os.Open(path); err != nil {
			t.Fatal(err)
		}
		// The way back: what was open in passthrough mode stays there.
		client.local.Store(false)
	}
	if st := s.Stats(); st.PassthroughOpens != 3 {
		t.Fatalf("%d passthrough opens", st.PassthroughOpens)
	}
	for _, h := range handles {
		if got, err := io.ReadAll(h); err != nil || !bytes.Equal(got, content) {
			t.Errorf("passed through: %d bytes, %v", len(got), err)
		}
		_ = h.Close()
	}
	eventually(t, "RELEASE", func() bool { return s.Stats().OpenFiles == 0 })
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("copied again: %d bytes, %v", len(got), err)
	}
	if n := client.open.Load(); n > 1 {
		t.Errorf("%d files of the client", n)
	}
}

// TestModesUnderLoad opens and reads one file from all sides while it is now local, now
// not: the kernel answers a wrong mode with EIO.
func TestModesUnderLoad(t *testing.T) {
	source := t.TempDir()
	content := pattern(300_000)
	write(t, source, "f", content)
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	read := func() bool {
		got, err := os.ReadFile(filepath.Join(dir, "f"))
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		return err == nil
	}
	// The load alone may keep the file open, and so in its first mode, from beginning to end.
	for _, local := range []bool{true, false} {
		eventually(t, "RELEASE", func() bool { return s.Stats().OpenFiles == 0 })
		client.local.Store(local)
		read()
	}
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for i := range 150 {
				client.local.Store(i%7 < 4)
				if !read() {
					return
				}
			}
		})
	}
	group.Wait()
	st := s.Stats()
	if st.PassthroughOpens == 0 || st.CopyOpens == 0 {
		t.Errorf("%d passthrough opens, %d copy opens: not both", st.PassthroughOpens, st.CopyOpens)
	}
}

func TestNoPassthrough(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(1000))
	client := newLocalClient(source)
	client.local.Store(true)
	s, dir := mountLocal(t, client, func(c *Config) { c.NoPassthrough = true })
	if got, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || !bytes.Equal(got, pattern(1000)) {
		t.Error(len(got), err)
	}
	if st := s.Stats(); st.PassthroughOpens != 0 || st.Kernel.Passthrough {
		t.Errorf("%+v", st.Kernel)
	}
}

// TestStackedLocalFile: a local file that the kernel refuses to pass through, as it is on a
// stacked file system itself, is copied.
func TestStackedLocalFile(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(5000))
	_, lower := mountLocal(t, newLocalClient(source), nil)
	client := newLocalClient(lower)
	client.local.Store(true)
	s, dir := mountLocal(t, client, nil)
	// Another process, since the client maps files of the mount below.
	if out, err := run(t, "cmp", filepath.Join(source, "f"), filepath.Join(dir, "f")); err != nil {
		t.Error(out, err)
	}
	if st := s.Stats(); st.PassthroughOpens != 0 || st.CopyOpens != 1 {
		t.Errorf("%d passthrough opens, %d copy opens", st.PassthroughOpens, st.CopyOpens)
	}
}

// TestStaleOpen: an open of a file that changed at the source gets the new version, with no
// error and at once, though the kernel still believes in the old one.
func TestStaleOpen(t *testing.T) {
	source := t.TempDir()
	_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.TTL = time.Hour })
	path := filepath.Join(dir, "f")
	for round := range 5 {
		want := fmt.Appendf(nil, "version %d%s", round, pattern(round*100))
		// A new inode, as the old mapping must not change.
		write(t, source, "f.new", want)
		if err := os.Rename(filepath.Join(source, "f.new"), filepath.Join(source, "f")); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: %q, %v; want %q", round, got, err, want)
		}
		// Held over the next round, in which an open must not get this version.
		held, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			got, err := io.ReadAll(held)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("held since round %d: %q, %v; want %q", round, got, err, want)
			}
			_ = held.Close()
		}()
	}
}

// TestJoinedOpen: a source that fails does not fail the open of a file that is open already, and one
// that has lost the file does.
func TestJoinedOpen(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("x"))
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, func(c *Config) { c.TTL = time.Hour })
	path := filepath.Join(dir, "f")
	held, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = held.Close() }()
	client.mu.Lock()
	client.onOpen = statError(syscall.EIO)
	client.mu.Unlock()
	if got, err := os.ReadFile(path); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	client.mu.Lock()
	client.onOpen = nil
	client.mu.Unlock()
	if err := os.Remove(filepath.Join(source, "f")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// TestConcurrentFirstOpens are one open of the client.
func TestConcurrentFirstOpens(t *testing.T) {
	table := newOpenTable(testState(t))
	starts, gate := 0, make(chan struct{})
	var group sync.WaitGroup
	var mu sync.Mutex
	var handles []uint64
	for range 20 {
		group.Go(func() {
			o, err := table.open(t.Context(), 5, 0, func() (cacheclient.File, int32, error) {
				starts++
				<-gate
				return &localFile{}, 9, nil
			})
			if err != nil || o.io.backing != 9 {
				t.Errorf("%+v, %v", o, err)
			}
			mu.Lock()
			defer mu.Unlock()
			handles = append(handles, o.handle)
		})
	}
	time.Sleep(20 * time.Millisecond)
	close(gate)
	group.Wait()
	if starts != 1 {
		t.Errorf("%d starts", starts)
	}
	for i, number := range handles {
		r := table.release(number)
		if last := i == 19; (r.file != nil) != last || (r.backing == 9) != last {
			t.Errorf("release %d: %+v", i, r)
		}
	}
	if r := table.release(handles[0]); r != (released{}) || table.count() != 0 {
		t.Error("a release too many")
	}
}

// TestFailedFirstOpen: an open that waited for it gets its error, a later one tries anew, also after
// a panic.
func TestFailedFirstOpen(t *testing.T) {
	table := newOpenTable(testState(t))
	failing := func(err error) func() (cacheclient.File, int32, error) {
		return func() (cacheclient.File, int32, error) { return nil, 0, err }
	}
	if _, err := table.open(t.Context(), 5, 0, failing(cacheclient.ErrStale)); !errors.Is(err, cacheclient.ErrStale) {
		t.Error(err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = table.open(t.Context(), 5, 0, func() (cacheclient.File, int32, error) { panic("a bug") })
	}()
	if table.count() != 0 {
		t.Error("a failed open left an entry")
	}
	if _, err := table.open(t.Context(), 5, 0, func() (cacheclient.File, int32, error) {
		return &localFile{}, 0,
			nil
	}); err != nil {
		t.Error(err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	table.files[6] = &openFile{ready: make(chan struct{})}
	if _, err := table.open(canceled, 6, 0, failing(nil)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOpenErrors(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("x"))
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, nil)
	for _, want := range []syscall.Errno{syscall.EACCES, syscall.EIO} {
		client.mu.Lock()
		client.onOpen = statError(want)
		client.mu.Unlock()
		if _, err := os.ReadFile(filepath.Join(dir, "f")); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
}
