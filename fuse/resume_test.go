package fuse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/rootstat"
)

// passing is what the names of files begin with that the resume tests' client gives as local files.
const passing = "pass-"

// deadly is the name of a file whose opening ends the resume tests' process.
const deadly = "deadly"

// besides is the name of a file whose Stat takes a moment, and patient that of one whose opening ends the resume tests'
// process once such a Stat is under way, or does not come.
const besides, patient = "besides", "patient"

// resumeMain is a successor: it serves the devices and the states that it inherited, one for each source, until it is
// killed or the mounts are gone.
func resumeMain(sources ...string) int {
	var beside atomic.Bool
	sessions := make([]*Session, len(sources))
	for i, source := range sources {
		client := newLocalClient(source)
		client.localPrefix = passing
		client.onOpen = func(_ context.Context, path string) error {
			switch filepath.Base(path) {
			case patient:
				for end := time.Now().Add(500 * time.Millisecond); !beside.Load() && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
				os.Exit(3)
			case deadly:
				os.Exit(3)
			}
			return nil
		}
		client.onStat = func(_ context.Context, path string) error {
			if filepath.Base(path) == besides {
				beside.Store(true)
				time.Sleep(300 * time.Millisecond)
			}
			return nil
		}
		var err error
		sessions[i], err = Serve(context.Background(), Config{
			Client: client, Dir: "/nowhere", TTL: time.Hour, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
			// The first request may end the process, before all sessions are there.
			Starting: func() {
				if i == 0 {
					fmt.Println("serving")
				}
			},
		}, os.NewFile(uintptr(3+2*i), "device"), os.NewFile(uintptr(4+2*i), "state"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	for _, s := range sessions {
		if err := s.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return 0
}

// kept is a mount whose server comes and goes: what a holder has.
type kept struct {
	dir, source string
	dev, state  *os.File
	// beside is another mount that the same process serves, nil for none.
	beside *kept
}

// keep mounts the source, serves it in this process for as long as first runs, and then leaves it.
func keep(t *testing.T, source string, first func(dir string)) *kept {
	t.Helper()
	needMount(t)
	client := newLocalClient(source)
	client.localPrefix = passing
	k := &kept{dir: mountPoint(t), source: source}
	s, err := Mount(t.Context(), Config{Client: client, Dir: k.dir, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mountpoint.Unmount(k.dir, true); err != nil {
			t.Error(err)
		}
	})
	first(k.dir)
	if k.dev, k.state, err = s.Handles(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = k.dev.Close(), k.state.Close() })
	if err := s.Leave(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Handles(); err == nil {
		t.Error("a session that has ended gave handles")
	}
	return k
}

// serve starts a successor in another process and returns when it serves.
func (k *kept) serve(t *testing.T) *exec.Cmd {
	t.Helper()
	return k.start(t, os.Stderr)
}

// start starts a successor with a log and returns when it serves.
func (k *kept) start(t *testing.T, log io.Writer) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", k.source)
	cmd.Env = append(os.Environ(), childMode+"=resume")
	cmd.ExtraFiles = []*os.File{k.dev, k.state}
	if k.beside != nil {
		cmd.Args = append(cmd.Args, k.beside.source)
		cmd.ExtraFiles = append(cmd.ExtraFiles, k.beside.dev, k.beside.state)
	}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "serving\n" {
		t.Fatalf("%q, %v, %v", line, err, cmd.Wait())
	}
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestSuccessor: open handles in both modes, a listing half way, names and pages go on in another process, and in
// a third one.
func TestSuccessor(t *testing.T) {
	notShort(t)
	source := t.TempDir()
	copied, passed := pattern(9<<20), pattern(5<<20+77)
	write(t, source, "copied", copied)
	write(t, source, passing+"passed", passed)
	for i := range 3000 {
		write(t, source, fmt.Sprintf("many/name-%04d", i), []byte{byte(i)})
	}
	var a, b, dir *os.File
	half := make([]byte, 4<<20)
	var names []string
	k := keep(t, source, func(mnt string) {
		var err error
		open := func(name string) *os.File {
			f, e := os.Open(filepath.Join(mnt, name))
			err = errors.Join(err, e)
			return f
		}
		a, b, dir = open("copied"), open(passing+"passed"), open("many")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(a, half)
		names, _ = dir.Readdirnames(1000)
		if err != nil || len(names) != 1000 {
			t.Fatal(err, len(names))
		}
	})
	defer func() { _, _, _ = a.Close(), b.Close(), dir.Close() }()
	roots := rootstat.Watch(t, k.dir)
	for round := range 3 {
		cmd := k.serve(t)
		if round == 0 {
			rest, err := io.ReadAll(a)
			if err != nil || !bytes.Equal(slices.Concat(half, rest), copied) {
				t.Fatal("the rest of an open file:", len(rest), err)
			}
			more, err := dir.Readdirnames(-1)
			seen := make(map[string]bool)
			for _, name := range append(names, more...) {
				seen[name] = true
			}
			if err != nil || len(seen) != 3000 || len(names)+len(more) != 3000 {
				t.Fatal("the rest of a listing:", len(more), len(seen), err)
			}
		}
		// A handle in passthrough mode is open: another open must join it.
		for name, want := range map[string][]byte{
			"copied": copied, passing + "passed": passed,
			"many/name-0777": {777 & 0xff},
		} {
			if got, err := os.ReadFile(filepath.Join(k.dir, name)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("round %d: %s: %d bytes, %v", round, name, len(got), err)
			}
		}
		if _, err := b.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, passed) {
			t.Fatal(len(got), err)
		}
		if _, err := os.Stat(filepath.Join(k.dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		kill(cmd)
	}
	cmd := k.serve(t)
	_, _, _ = a.Close(), b.Close(), dir.Close()
	kill(cmd)
	cmd = k.serve(t)
	defer kill(cmd)
	roots.End()
	// With no handle left, a file may be opened in the other mode.
	if err := os.Rename(filepath.Join(source, "copied"), filepath.Join(source, passing+"copied")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(k.dir, passing+"copied")); err != nil || !bytes.Equal(got, copied) {
		t.Error(len(got), err)
	}
}

// TestKilledWhileReading kills the server with -9 again and again under readers of both modes, a walker and an
// opener, which see pauses and no error. $MILLRACE_SOAK makes it longer.
func TestKilledWhileReading(t *testing.T) {
	notShort(t)
	length := 2 * time.Second
	if text := os.Getenv("MILLRACE_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal("$MILLRACE_SOAK:", err)
		}
	}
	source := t.TempDir()
	write(t, source, "copied", pattern(64<<20))
	write(t, source, passing+"passed", pattern(48<<20))
	for i := range 400 {
		write(t, source, fmt.Sprintf("d%d/%sf%d", i%20, []string{"", passing}[i%2], i), pattern(i*37))
	}
	k := keep(t, source, func(string) {})
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var longest atomic.Int64
	var users sync.WaitGroup
	// progress waits until each user has ended what it was at: a request that is in service at two deaths is answered
	// with EIO.
	var ends []*atomic.Int64
	progress := func() {
		for _, e := range ends {
			for was := e.Load(); e.Load() == was && ctx.Err() == nil; {
				time.Sleep(time.Millisecond)
			}
		}
	}
	use := func(name string, step func(r *rand.Rand) error) {
		ended := new(atomic.Int64)
		ends = append(ends, ended)
		users.Go(func() {
			r, steps := rand.New(rand.NewPCG(1, uint64(len(name)))), 0
			for ; ctx.Err() == nil; steps++ {
				ended.Add(1)
				start := time.Now()
				if err := step(r); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				longest.Store(max(longest.Load(), int64(time.Since(start))))
			}
			t.Logf("%s: %d steps", name, steps)
		})
	}
	big := func(name string) func(r *rand.Rand) error {
		want, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1<<20)
		held, err := os.Open(filepath.Join(k.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = held.Close() })
		return func(r *rand.Rand) error {
			off := r.Int64N(int64(len(want) - len(buf)))
			_ = unix.Fadvise(int(held.Fd()), 0, 0, unix.FADV_DONTNEED)
			n, err := held.ReadAt(buf, off)
			if err != nil || !bytes.Equal(buf[:n], want[off:off+int64(n)]) {
				return fmt.Errorf("%d bytes at %d: %w", n, off, err)
			}
			return nil
		}
	}
	roots := rootstat.Watch(t, k.dir)
	cmd := k.serve(t)
	for _, name := range []string{"copied", "copied", passing + "passed", passing + "passed"} {
		use(name, big(name))
	}
	use("walker", func(*rand.Rand) error { return walkAll(k.dir, 423) })
	use("opener", func(r *rand.Rand) error { return openOne(k.dir, source, r.IntN(400)) })
	kills := 0
	for ctx.Err() == nil {
		progress()
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
		kill(cmd)
		cmd = k.serve(t)
		kills++
	}
	users.Wait()
	kill(cmd)
	cmd = k.serve(t)
	defer kill(cmd)
	roots.End()
	t.Logf("killed %d times, longest step %s", kills, time.Duration(longest.Load()))
}

// walkAll lists the tree and demands a number of entries.
func walkAll(root string, want int) error {
	seen := 0
	err := filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = e.Info()
		seen++
		return err
	})
	if err == nil && seen != want {
		err = fmt.Errorf("%d entries, not %d", seen, want)
	}
	return err
}

// openOne reads the i-th small file and compares it.
func openOne(root, source string, i int) error {
	name := fmt.Sprintf("d%d/%sf%d", i%20, []string{"", passing}[i%2], i)
	want, err := os.ReadFile(filepath.Join(source, name))
	if err != nil {
		return err
	}
	got, err := os.ReadFile(filepath.Join(root, name))
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s: %d bytes, not %d", name, len(got), len(want))
	}
	return err
}
