package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

func statError(err error) func(context.Context, string) error {
	return func(context.Context, string) error { return err }
}

// TestRandomReads: what is read is what the source has, whatever is read beside.
func TestRandomReads(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	content := pattern(20<<20 + 12345)
	write(t, source, "big", content)
	write(t, source, "empty", nil)
	write(t, source, "small", content[:3])
	for _, mode := range []string{"copy", "passthrough"} {
		t.Run(mode, func(t *testing.T) {
			client := newLocalClient(source)
			client.local.Store(mode == "passthrough")
			s, dir := mountLocal(t, client, nil)
			checkRandomReads(t, filepath.Join(dir, "big"), content)
			for name, want := range map[string][]byte{"empty": nil, "small": content[:3], "big": content} {
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			}
			stats := s.Stats()
			if (mode == "passthrough") != (stats.PassthroughOpens > 0) {
				t.Errorf("opens: %d passthrough, %d copy", stats.PassthroughOpens, stats.CopyOpens)
			}
			if mode == "copy" && stats.ReadBytes < int64(len(content)) {
				t.Errorf("%d bytes read", stats.ReadBytes)
			}
		})
	}
}

func checkRandomReads(t *testing.T, path string, content []byte) {
	t.Helper()
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 1))
			f, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = f.Close() }()
			for range 150 {
				off := rng.IntN(len(content) + 1000)
				buf := make([]byte, 1+rng.IntN(300_000))
				n, err := f.ReadAt(buf, int64(off))
				want := content[min(off, len(content)):min(off+len(buf), len(content))]
				if !bytes.Equal(buf[:n], want) || (err != nil) != (len(want) < len(buf)) {
					t.Errorf("%d bytes from %d: %d bytes, %v", len(buf), off, n, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// TestDirectReads reads past the page cache.
func TestDirectReads(t *testing.T) {
	source := t.TempDir()
	content := pattern(3<<20 + 100)
	write(t, source, "f", content)
	_, dir := mountLocal(t, newLocalClient(source), nil)
	fd, err := unix.Open(filepath.Join(dir, "f"), unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 4<<20)
	got := 0
	for {
		n, err := unix.Pread(fd, buf[got:], int64(got))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
		got += n
	}
	if !bytes.Equal(buf[:got], content) {
		t.Errorf("%d bytes of %d", got, len(content))
	}
}

// TestLargeFile: offsets beyond 4 GiB.
func TestLargeFile(t *testing.T) {
	source := t.TempDir()
	const size = 5<<30 + 17
	path := filepath.Join(source, "sparse")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Skip("needs a file system with sparse files:", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 1<<32 - 2, size - 4} {
		if _, err := f.WriteAt([]byte("mark"), off); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	_, dir := mountLocal(t, newLocalClient(source), nil)
	m, err := os.Open(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	for _, off := range []int64{0, 1<<32 - 2, size - 4} {
		buf := make([]byte, 8)
		n, err := m.ReadAt(buf, off)
		if (err != nil && err != io.EOF) || !strings.HasPrefix(string(buf[:n]), "mark") {
			t.Errorf("at %d: %q %v", off, buf[:n], err)
		}
	}
}

// TestMapping reads through mmap, in another process: a process that serves a mount must not
// fault on it.
func TestMapping(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("needs python3:", err)
	}
	source := t.TempDir()
	content := pattern(4<<20 + 5)
	write(t, source, "f", content)
	const script = `
import mmap, sys, hashlib
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
f.close()
print(hashlib.sha256(m).hexdigest())`
	want, err := run(t, "sha256sum", filepath.Join(source, "f"))
	if err != nil {
		t.Fatal(err)
	}
	for _, local := range []bool{false, true} {
		client := newLocalClient(source)
		client.local.Store(local)
		_, dir := mountLocal(t, client, nil)
		out, err := run(t, "python3", "-c", script, filepath.Join(dir, "f"))
		if err != nil || !strings.HasPrefix(want, out) || len(out) != 64 {
			t.Errorf("local %v: %q %v, want %q", local, out, err, want)
		}
	}
}

// TestPrograms: what people do with files works.
func TestPrograms(t *testing.T) {
	source := t.TempDir()
	for i := range 30 {
		write(t, source, fmt.Sprintf("tree/d%d/e/f %d", i%5, i), pattern(i*1111))
	}
	binary, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Skip("needs /bin/true:", err)
	}
	write(t, source, "true", binary)
	if err := os.Chmod(filepath.Join(source, "true"), 0o755); err != nil {
		t.Fatal(err)
	}
	client := newLocalClient(source)
	_, dir := mountLocal(t, client, nil)
	out := t.TempDir()
	for _, c := range []string{
		"cp -r $M/tree $O/cp && diff -r $S/tree $O/cp",
		"tar -C $M -cf $O/t.tar tree && mkdir $O/tar && tar -C $O/tar -xf $O/t.tar && diff -r $S/tree $O/tar/tree",
		"grep -rc nosuchthing $M/tree > /dev/null; test $? = 1",
		"(cd $S && find tree -type f -exec sha256sum {} +) | (cd $M && sha256sum -c --quiet)",
		"$M/true",
		"! which rsync || (rsync -a $M/tree/ $O/rsync && diff -r $S/tree $O/rsync)",
		"! which git || (git init -q --bare $S/r.git && git clone -q $M/r.git $O/clone)",
	} {
		script := strings.NewReplacer("$M", dir, "$S", source, "$O", out).Replace(c)
		if text, err := run(t, "sh", "-c", script); err != nil {
			t.Errorf("%s: %v\n%s", c, err, text)
		}
	}
}

// blockReads has READs of the client wait until their context ends or release is called.
func blockReads(client *localClient) (entered chan struct{}, release func()) {
	entered = make(chan struct{}, 100)
	gate := make(chan struct{})
	client.mu.Lock()
	client.onRead = func(ctx context.Context, _ string, _ int64, _ int) error {
		entered <- struct{}{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}
	client.mu.Unlock()
	return entered, sync.OnceFunc(func() { close(gate) })
}

// TestInterruptedRead: a process that waits for a slow source ends at once when it is told
// to, read past the page cache (the kernel waits for the reply) or through it, and after a while where it handles that.
func TestInterruptedRead(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(1<<20))
	for _, c := range []struct {
		name   string
		direct bool
		signal syscall.Signal
	}{
		{"buffered, killed", false, syscall.SIGKILL},
		{"buffered, interrupted", false, syscall.SIGINT},
		{"direct, killed", true, syscall.SIGKILL},
		{"direct, terminated", true, syscall.SIGTERM},
		{"direct, told to quit", true, syscall.SIGQUIT},
		// dd catches it to print its counts before it ends.
		{"direct, interrupted", true, syscall.SIGINT},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := newLocalClient(source)
			_, dir := mountLocal(t, client, func(c *Config) { c.interruptPatience = time.Second })
			entered, release := blockReads(client)
			defer release()
			cmd := exec.Command("cat", filepath.Join(dir, "f"))
			if c.direct {
				cmd = exec.Command("dd", "if="+filepath.Join(dir, "f"), "of=/dev/null", "bs=1M", "iflag=direct")
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-entered
			start := time.Now()
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			select {
			case <-ended:
				pace.Within(t, "ending the reader", time.Since(start), 2*time.Second)
			case <-time.After(pace.Limit(30 * time.Second)):
				t.Error("the process hangs")
				release()
				<-ended
			}
		})
	}
}

// TestInterruptedOpen: of several that wait for one first open, the interrupted one ends
// and the others get the file.
func TestInterruptedOpen(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", []byte("content"))
	client := newLocalClient(source)
	gate := make(chan struct{})
	entered := make(chan struct{}, 10)
	client.onOpen = func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}
	_, dir := mountLocal(t, client, nil)
	path := filepath.Join(dir, "f")
	first := exec.Command("cat", path)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	<-entered
	second := exec.Command("cat", path)
	var out bytes.Buffer
	second.Stdout = &out
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	_ = first.Process.Kill()
	_ = first.Wait()
	<-entered
	close(gate)
	if err := second.Wait(); err != nil || out.String() != "content" {
		t.Errorf("%q, %v", out.String(), err)
	}
	if n := client.opens.Load(); n != 2 {
		t.Errorf("%d opens", n)
	}
}

// TestStallsDoNotSpread: files wait for their source alone; all else goes on.
func TestStallsDoNotSpread(t *testing.T) {
	source := t.TempDir()
	for i := range 20 {
		write(t, source, fmt.Sprintf("f%d", i), pattern(100))
	}
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	entered, release := blockReads(client)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if out, err := exec.Command("cat", filepath.Join(dir,
				fmt.Sprintf("f%d", i))).CombinedOutput(); err != nil || !bytes.Equal(out, pattern(100)) {
				t.Errorf("f%d: %d bytes, %v", i, len(out), err)
			}
		})
	}
	for range 20 {
		<-entered
	}
	if n := s.Stats().InFlight; n < 20 {
		t.Errorf("%d in flight", n)
	}
	if out, err := run(t, "ls", "-l", dir); err != nil {
		t.Error(out, err)
	}
	if op := s.Stats().OldestOp; op != "read" {
		t.Errorf("oldest %q", op)
	}
	release()
	group.Wait()
	eventually(t, "surplus workers end", func() bool { return s.idle.Load() <= idleWorkers && s.Stats().InFlight == 0 })
}

func TestReadErrors(t *testing.T) {
	source := t.TempDir()
	write(t, source, "f", pattern(100_000))
	client := newLocalClient(source)
	s, dir := mountLocal(t, client, nil)
	path := filepath.Join(dir, "f")
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{cacheclient.ErrStale, syscall.ESTALE},
		{cacheclient.ErrUnavailable, syscall.EIO},
		{os.ErrPermission, syscall.EACCES},
	} {
		client.mu.Lock()
		client.onRead = func(context.Context, string, int64, int) error { return fmt.Errorf("reading: %w", c.err) }
		client.mu.Unlock()
		if _, err := os.ReadFile(path); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	client.mu.Lock()
	client.onRead = func(context.Context, string, int64, int) error { panic("a bug") }
	client.mu.Unlock()
	if _, err := os.ReadFile(path); !errors.Is(err, syscall.EIO) {
		t.Errorf("a panic: %v", err)
	}
	client.mu.Lock()
	client.onRead = nil
	client.onStat = func(context.Context, string) error { panic("another bug") }
	client.mu.Unlock()
	if _, err := os.Stat(filepath.Join(dir, "g")); !errors.Is(err, syscall.EIO) {
		t.Errorf("a panic: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, pattern(100_000)) {
		t.Errorf("after the errors: %d bytes, %v", len(got), err)
	}
	if n := s.Stats().Panics; n < 2 {
		t.Errorf("%d panics counted", n)
	}
}
