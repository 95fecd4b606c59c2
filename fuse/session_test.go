package fuse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
)

// child is this test binary, serving a mount in a process of its own.
func child(t *testing.T, mode, source, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", mode, source, dir)
	cmd.Env = append(os.Environ(), childMode+"="+mode)
	cmd.Stderr = os.Stderr
	return cmd
}

// started starts a child and waits until its mount answers.
func started(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "mounted\n" {
		t.Fatalf("the child says %q, %v", line, err)
	}
}

func TestMountRefuses(t *testing.T) {
	needMount(t)
	full := t.TempDir()
	write(t, full, "x", nil)
	file := filepath.Join(full, "x")
	client := newLocalClient(full)
	for name, cfg := range map[string]Config{
		"no client":     {Dir: mountPoint(t)},
		"no directory":  {Client: client, Dir: filepath.Join(full, "missing")},
		"a file":        {Client: client, Dir: file},
		"not empty":     {Client: client, Dir: full},
		"no name given": {Client: client},
	} {
		if s, err := Mount(t.Context(), cfg); err == nil {
			_ = s.Unmount(true)
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q is no sentence", name, err)
		}
	}
}

func TestBusyUnmount(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100_000))
	s, dir := mountLocal(t, newLocalClient(source), nil)
	f, err := os.Open(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(false); !errors.Is(err, mountpoint.ErrBusy) {
		t.Errorf("busy: %v", err)
	}
	if err := mountpoint.Unmount(dir, false); !errors.Is(err, mountpoint.ErrBusy) {
		t.Errorf("busy, by path: %v", err)
	}
	if _, err := f.Read(make([]byte, 10)); err != nil {
		t.Errorf("refusing to unmount broke a reader: %v", err)
	}
	_ = f.Close()
	if err := s.Unmount(false); err != nil {
		t.Error(err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	if err := s.Unmount(false); err != nil {
		t.Error("a second unmount:", err)
	}
}

// TestForcedUnmount ends a session whose reader waits for a source that never answers.
func TestForcedUnmount(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	write(t, source, "f", pattern(1<<20))
	for _, way := range []string{"session", "path"} {
		t.Run(way, func(t *testing.T) {
			client := newLocalClient(source)
			s, dir := mountLocal(t, client, nil)
			entered, release := blockReads(client)
			defer release()
			cmd := exec.Command("cat", filepath.Join(dir, "f"))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-entered
			start := time.Now()
			var err error
			if way == "session" {
				err = s.Unmount(true)
			} else {
				err = mountpoint.Unmount(dir, true)
			}
			if err != nil {
				t.Error(err)
			}
			if err := s.Wait(); err != nil {
				t.Error(err)
			}
			pace.Within(t, "ending the session", time.Since(start), forceGrace+severGrace+2*time.Second)
			if err := cmd.Wait(); err == nil {
				t.Error("the reader was told nothing")
			}
		})
	}
}

// TestForcedUnmountIdle: a reader that holds a file open and does not read keeps no session alive.
func TestForcedUnmountIdle(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	write(t, source, "f", pattern(100_000))
	s, dir := mountLocal(t, newLocalClient(source), nil)
	f, err := os.Open(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := s.Unmount(true); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 0); !errors.Is(err, syscall.ENOTCONN) &&
		!errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("a read after the end: %v", err)
	}
}

// TestForeignUnmount: the session ends when another process unmounts.
func TestForeignUnmount(t *testing.T) {
	s, dir := mountLocal(t, newLocalClient(t.TempDir()), nil)
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// TestStaleMount: what a killed server leaves behind is noticed, and can be replaced.
func TestStaleMount(t *testing.T) {
	needMount(t)
	source := t.TempDir()
	write(t, source, "f", []byte("x"))
	dir := mountPoint(t)
	cmd := child(t, "serve", source, dir)
	started(t, cmd)
	if stale, err := mountpoint.IsStale(dir); stale || err != nil {
		t.Errorf("a living mount: stale %v, %v", stale, err)
	}
	if _, from, source, err := mountpoint.Of(dir); err != nil || from != mountpoint.FSType || source != `a,b\c d` {
		t.Errorf("%q %q %v", from, source, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if stale, err := mountpoint.IsStale(dir); !stale || err != nil {
		t.Errorf("a dead mount: stale %v, %v", stale, err)
	}
	if at, _, _, err := mountpoint.Of(dir); at != dir || err != nil {
		t.Errorf("a dead mount: %q %v", at, err)
	}
	if _, err := Mount(t.Context(), Config{Client: newLocalClient(source), Dir: dir}); err == nil {
		t.Error("mounted over a stale mount")
	}
	if err := mountpoint.Unmount(dir, false); err != nil {
		t.Error(err)
	}
	if stale, err := mountpoint.IsStale(dir); stale || err != nil {
		t.Errorf("unmounted: stale %v, %v", stale, err)
	}
	s, err := Mount(t.Context(), Config{Client: newLocalClient(source), Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Unmount(false); err != nil {
		t.Error(err)
	}
}

// TestNoLeaks: mounts come and go without a trace in the process.
func TestNoLeaks(t *testing.T) {
	needMount(t)
	source := t.TempDir()
	write(t, source, "f", pattern(10_000))
	dir := mountPoint(t)
	round := func() {
		client := newLocalClient(source)
		s, err := Mount(t.Context(), Config{Client: client, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(filepath.Join(dir, "f")); err != nil {
			t.Error(err)
		}
		if err := s.Unmount(false); err != nil {
			t.Error(err)
		}
		if client.open.Load() != 0 {
			t.Error("a file of the client is left open")
		}
	}
	round()
	fds, routines := countFDs(t), runtime.NumGoroutine()
	for range 100 {
		round()
	}
	eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= routines })
	if now := countFDs(t); now > fds {
		t.Errorf("%d file descriptors, %d before", now, fds)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestKernelSettings(t *testing.T) {
	s, dir := mountLocal(t, newLocalClient(t.TempDir()), func(c *Config) { c.ReadAheadKB = 2048 })
	k := s.Stats().Kernel
	if k.MaxRequest != int(pagesLimit())*os.Getpagesize() || k.MaxBackground != maxBackground || !k.Passthrough ||
		k.Protocol == "" {
		t.Errorf("%+v", k)
	}
	if k.ReadAheadKB != 2048 {
		t.Errorf("read-ahead %d KiB", k.ReadAheadKB)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev),
		unix.Minor(st.Dev))); err != nil || strings.TrimSpace(string(text)) != "2048" {
		t.Errorf("%s %v", text, err)
	}
	// The session gives its state back when the mount goes.
	s.handles.Lock()
	defer s.handles.Unlock()
	if len(s.state.init()) < inHeaderSize+16 {
		t.Error("INIT was not kept")
	}
}

// TestLargeRequests: reading on end comes in the largest requests.
func TestLargeRequests(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", make([]byte, 32<<20))
	client := newLocalClient(source)
	largest := 0
	client.onRead = func(_ context.Context, _ string, _ int64, n int) error {
		client.mu.Lock()
		defer client.mu.Unlock()
		largest = max(largest, n)
		return nil
	}
	s, dir := mountLocal(t, client, nil)
	if out, err := run(t, "cat", filepath.Join(dir, "f")); err != nil || len(out) != 0 && len(out) != 32<<20 {
		t.Fatal(len(out), err)
	}
	client.mu.Lock()
	defer client.mu.Unlock()
	if largest != s.Stats().Kernel.MaxRequest {
		t.Errorf("largest request %d, agreed %d", largest, s.Stats().Kernel.MaxRequest)
	}
}

// TestUnprivileged mounts as a user that is not root, through fusermount3. A mount namespace of
// the test's own gives that user a /dev/fuse, wherever the machine keeps it for root.
func TestUnprivileged(t *testing.T) {
	needMount(t)
	for _, tool := range []string{"fusermount3", "unshare", "setpriv", "sh", "mknod"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	source, err := os.MkdirTemp(mountsBelow, "source-") //nolint:usetesting // another user must reach it
	if err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(source, 0o755)
	write(t, source, "f", pattern(200_000))
	dir, binary := mountPoint(t), filepath.Join(source, "test-binary")
	copyExecutable(t, binary)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	script := `set -e
mkdir "$SOURCE/dev"; mknod -m 666 "$SOURCE/dev/fuse" c 10 229; mount --bind "$SOURCE/dev/fuse" /dev/fuse
exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c '
exec 3<>"$0"
"$BINARY" serve-unmount "$SOURCE" "$DIR" <&3 & 
i=0; while ! cmp -s "$SOURCE/f" "$DIR/f"; do i=$((i+1)); test $i -lt 100 || { kill $!; exit 3; }; sleep 0.05; done
grep " $DIR fuse.millrace " /proc/self/mounts
touch "$DIR/x" 2>/dev/null && { kill $!; exit 4; }
echo >&3; wait $!' "$SOURCE/in"
`
	in := filepath.Join(source, "in")
	if err := unix.Mkfifo(in, 0o666); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(in, 0o666)
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", "sh", "-c", script)
	cmd.Env = append(os.Environ(), childMode+"=serve-unmount", "SOURCE="+source, "DIR="+dir, "BINARY="+binary)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// Commas and backslashes in the source survive fusermount3's option list.
	if !strings.Contains(string(out), `a,b\134c\040d `+dir+" fuse.millrace ro,nosuid,nodev") {
		t.Errorf("mounted as\n%s", out)
	}
}

// copyExecutable copies this test binary to a place that other users can reach.
func copyExecutable(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestMountOf looks a living mount up by paths in it.
func TestMountOf(t *testing.T) {
	source := t.TempDir()
	write(t, source, "d/f", []byte("x"))
	_, dir := mountLocal(t, newLocalClient(source), func(c *Config) { c.Source = `https://host/a path,with\odd` })
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(dir, "d"), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, dir + "/", filepath.Join(dir, "d/f"), link} {
		at, fstype, from, err := mountpoint.Of(path)
		if err != nil || at != dir || fstype != mountpoint.FSType || from != `https://host/a path,with\odd` {
			t.Errorf("%s: %q %q %q %v", path, at, fstype, from, err)
		}
	}
	if at, _, _, err := mountpoint.Of(source); err != nil || at == dir {
		t.Errorf("%s: %q %v", source, at, err)
	}
	if _, _, _, err := mountpoint.Of(filepath.Join(source, "missing")); err == nil {
		t.Error("a path that does not exist has a mount")
	}
	if stale, err := mountpoint.IsStale(dir); stale || err != nil {
		t.Errorf("a living mount: stale %v, %v", stale, err)
	}
	if stale, err := mountpoint.IsStale(source); stale || err != nil {
		t.Errorf("a plain directory: stale %v, %v", stale, err)
	}
}
