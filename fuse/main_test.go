package fuse

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
)

// childMode is the environment variable that makes the test binary serve a mount instead of
// testing.
const childMode = "MILLRACE_TEST_CHILD"

// mountsBelow is where all tests mount, so that leftovers are found.
var mountsBelow string

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		os.Exit(childMain(mode))
	}
	var err error
	mountsBelow, err = os.MkdirTemp("", "millrace-fuse-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Other users mount below it too.
	_ = os.Chmod(mountsBelow, 0o755)
	code := m.Run()
	if left := leftoverMounts(); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "mounts were left behind:", left)
		code = 1
	}
	_ = os.RemoveAll(mountsBelow)
	os.Exit(code)
}

// leftoverMounts unmounts and names what the tests left mounted.
func leftoverMounts() []string {
	mounts, _ := mountpoint.Below(mountsBelow)
	var left []string
	for _, m := range mounts {
		left = append(left, m.MountPoint)
		_ = mountpoint.Unmount(m.MountPoint, true)
	}
	return left
}

// childMain serves until it is unmounted or killed: "serve SOURCE DIR".
func childMain(mode string) int {
	if mode == "resume" {
		return resumeMain(os.Args[1:]...)
	}
	client := newLocalClient(os.Args[2])
	s, err := Mount(context.Background(), Config{
		Client: client, Source: "a,b\\c d", Dir: os.Args[3], Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("mounted")
	if mode == "serve-unmount" {
		_, _ = os.Stdin.Read(make([]byte, 1))
		if err := s.Unmount(false); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := s.Wait(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func needMount(tb testing.TB) {
	tb.Helper()
	if !mountpoint.HasSysAdmin() {
		tb.Skip("needs root: mount(2) and passthrough")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		tb.Skip("needs /dev/fuse:", err)
	}
}

// notShort skips a test that takes seconds, where an answer is wanted soon.
func notShort(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("takes more than two seconds: make test")
	}
}

// mountPoint makes an empty directory to mount on.
func mountPoint(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp(mountsBelow, "mnt-") //nolint:usetesting // leftovers are looked for below it
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// mountLocal mounts a client of the test's own; it is unmounted and checked at the end.
func mountLocal(tb testing.TB, client *localClient, change func(*Config)) (*Session, string) {
	tb.Helper()
	needMount(tb)
	dir := mountPoint(tb)
	cfg := Config{Client: client, Source: "test", Dir: dir}
	if change != nil {
		change(&cfg)
	}
	s, err := Mount(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Unmount(true); err != nil {
			tb.Error("unmount:", err)
		}
		if err := s.Wait(); err != nil {
			tb.Error("wait:", err)
		}
		if n := client.open.Load(); n != 0 {
			tb.Error("files of the client left open:", n)
		}
	})
	return s, dir
}

// write makes a file below root.
func write(tb testing.TB, root, name string, content []byte) {
	tb.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		tb.Fatal(err)
	}
}

// pattern is n bytes that differ everywhere.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint64(n)*2 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// run runs a command, which must end within a short time.
func run(tb testing.TB, name string, args ...string) (string, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), pace.Limit(60*time.Second))
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// eventually waits until the condition holds.
func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(pace.Limit(30 * time.Second)); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if condition() {
			return
		}
	}
	tb.Fatal("did not happen:", what)
}
