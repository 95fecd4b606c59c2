package fakealluxio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/liar/fakealluxio"
	"millrace.io/millrace/sanity/pace"
	"millrace.io/millrace/sanity/pattern"
)

const (
	block = 1 << 20
	// patience is the client's, and limit what a call may take: a few requests, each with its patience.
	patience = 2 * time.Second
	limit    = 15 * time.Second
	// hugeSize is that of the file of which the master tells 2^62 bytes.
	hugeSize = 100
)

// world is what is true: files of a directory, whose versions are all known.
type world struct {
	dir string

	mu sync.Mutex
	// versions are the sizes of all versions of each file, by path; guarded by mu, as truce, which ends the lies.
	versions map[string][]int64
	truce    bool
}

// honest reports whether a file is never lied about and never changes.
func honest(path string) bool { return strings.Contains(path, "honest") }

// content is what a version of a file is.
func content(path string, n int) string { return path + " " + strconv.Itoa(n) }

// put makes the next version of a file, in one step.
func (w *world) put(tb testing.TB, path string, size int64) {
	tb.Helper()
	n := len(w.sizes(path))
	draft := filepath.Join(w.dir, "..", "draft")
	if err := pattern.Write(draft, content(path, n), size); err != nil {
		tb.Fatal(err)
	}
	// Each version has a time of its own, long ago and in whole seconds.
	at := time.Now().Add(-1000 * time.Hour).Add(time.Duration(n) * time.Minute).Truncate(time.Second)
	if err := errors.Join(os.Chtimes(draft, at, at), os.MkdirAll(filepath.Dir(filepath.Join(w.dir, path)),
		0o755)); err != nil {
		tb.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := os.Rename(draft, filepath.Join(w.dir, path)); err != nil {
		tb.Error(err)
	}
	w.versions[path] = append(w.versions[path], size)
}

func (w *world) sizes(path string) []int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.versions[path])
}

func (w *world) lies(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.truce && !honest(path)
}

func (w *world) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truce = true
}

// dice draw by a seed, the call, the path, and how often it came: the same seed gives the same lies.
type dice struct {
	seed  uint64
	world *world

	// mu guards n.
	mu sync.Mutex
	n  map[string]uint64
}

func (d *dice) draw(call, path string) *rand.Rand {
	if !d.world.lies(path) {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := call + " " + path
	d.n[key]++
	draw := rand.New(rand.NewPCG(d.seed, hash(key)+d.n[key]))
	if draw.IntN(2) == 0 {
		return nil
	}
	return draw
}

func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for _, b := range []byte(s) {
		h = (h ^ uint64(b)) * 1099511628211
	}
	return h
}

// run is a client of a fake, and what its readers found.
type run struct {
	*testing.T
	*world
	client *alluxio.Client

	// mu guards faults.
	mu     sync.Mutex
	faults []string
}

func (r *run) fault(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) < 10 {
		r.faults = append(r.faults, fmt.Sprintf(format, args...))
	}
}

// in calls fn, which must end within the limit. An error is fine but of a file that is not lied about: there fn is
// called again where no answer came, since a machine with much else to do may hold up any answer.
func (r *run) in(ctx context.Context, what, path string, fn func(context.Context) error) error {
	err := r.once(ctx, what, path, fn)
	for try := 0; honest(path) && errors.Is(err, cacheclient.ErrUnavailable) && try < 2; try++ {
		err = r.once(ctx, what, path, fn)
	}
	if err != nil && honest(path) && r.Context().Err() == nil {
		r.fault("%s of %s: %v", what, path, err)
	}
	return err
}

// once is in without another attempt.
func (r *run) once(ctx context.Context, what, path string, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(limit))
	defer cancel()
	begin := time.Now()
	err := fn(ctx)
	if took := time.Since(begin); took > pace.Limit(limit)+time.Second {
		r.fault("%s of %s took %v", what, path, took)
	}
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil && r.Context().Err() == nil {
		r.fault("%s of %s did not end within %v: %v", what, path, pace.Limit(limit), err)
	}
	return err
}

// open opens what is there, as the kernel does.
func (r *run) open(ctx context.Context, path string) (f cacheclient.File, err error) {
	err = r.in(ctx, "open", path, func(ctx context.Context) error {
		for range 4 {
			var info cacheclient.Info
			if info, err = r.client.Stat(ctx, path); err != nil {
				return err
			}
			if f, err = r.client.Open(ctx, info); !errors.Is(err, cacheclient.ErrStale) {
				return err
			}
		}
		return err
	})
	return f, err
}

// readFile reads a file, or some places of it, and checks that all is of one version that it has or had.
func (r *run) readFile(ctx context.Context, d *rand.Rand, path string) error {
	f, err := r.open(ctx, path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := f.Info().Size
	may := r.candidates(path, size)
	for off := int64(0); off < size; {
		n := min(size-off, 1+d.Int64N(block))
		var got []byte
		err := r.in(ctx, "read", path, func(ctx context.Context) error {
			got = got[:0]
			data, err := f.Read(ctx, off, int(n))
			defer data.Release()
			for _, p := range data.Parts {
				got = append(got, p...)
			}
			return err
		})
		if err != nil {
			return err
		}
		if int64(len(got)) != n {
			r.fault("a read of %s at %d has %d bytes, and %d were asked for", path, off, len(got), n)
		}
		if may = slices.DeleteFunc(may, func(v int) bool {
			return !pattern.Equal(content(path, v), off,
				got)
		}); len(may) == 0 {
			r.fault("the bytes of %s at %d are of no version that this handle could have", path, off)
			return nil
		}
		if off += n; d.IntN(3) == 0 {
			off = d.Int64N(size + 1)
			if d.IntN(4) == 0 {
				return nil
			}
		}
	}
	return nil
}

// candidates are the versions of that size. One that a moment ago became the present one is among them.
func (r *run) candidates(path string, size int64) (may []int) {
	for n, s := range r.sizes(path) {
		if s == size {
			may = append(may, n)
		}
	}
	if len(may) == 0 {
		r.fault("%s has %d bytes, as no version", path, size)
	}
	return may
}

// list reads a directory and checks that it has each entry once, and none that cannot be.
func (r *run) list(ctx context.Context, dir string, want []string) error {
	var names []string
	err := r.in(ctx, "list", dir, func(ctx context.Context) error {
		var err error
		names, err = listAll(ctx, r.client, dir)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		r.fault("%s has the entries %.500q, and %q are right", dir, names, want)
	}
	return nil
}

// TestLies reads through a master and a worker that lie by a seed, while the files change, and compares with what is
// true. $MILLRACE_STORM has it go on for as long, with as many seeds as that takes; $MILLRACE_SEED is the first one.
func TestLies(t *testing.T) {
	pace.Long(t)
	seed, length := uint64(1), 0*time.Second
	if s := os.Getenv("MILLRACE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	if s := os.Getenv("MILLRACE_STORM"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			t.Fatal(err)
		}
		length = d
	}
	begin := time.Now()
	for n := 0; n < 3 || time.Since(begin) < length; n++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) { lies(t, seed) })
		if t.Failed() {
			t.Fatalf("replay with MILLRACE_SEED=%d", seed)
		}
		seed++
	}
}

// lies is one seed.
func lies(t *testing.T, seed uint64) {
	t.Helper()
	draw := rand.New(rand.NewPCG(seed, 0))
	base := t.TempDir()
	w := &world{dir: filepath.Join(base, "files"), versions: map[string][]int64{}}
	tier, err := os.MkdirTemp("/dev/shm", "millrace-fake-*") //nolint:usetesting // a worker's tier is in memory
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tier) })
	var paths []string
	steady := map[string][]string{}
	for _, dir := range []string{"a", "b/honest", "c"} {
		for i := range 8 {
			name := fmt.Sprintf("f%d", i)
			if i%4 == 3 {
				name = "honest" + name
			}
			paths = append(paths, dir+"/"+name)
			steady[dir] = append(steady[dir], name)
			w.put(t, dir+"/"+name, draw.Int64N(3*block))
		}
		slices.Sort(steady[dir])
	}
	huge := "c/huge"
	w.put(t, huge, hugeSize)
	steady["c"] = append(steady["c"], "huge")
	slices.Sort(steady["c"])
	source := ""
	if seed%3 == 0 {
		source = "-"
	}
	fake, err := fakealluxio.Start(fakealluxio.Config{
		Root: w.dir, Tier: tier, BlockSize: block, Source: source,
		Host:   []string{"localhost", "elsewhere"}[draw.IntN(2)],
		Claims: func(path string) (int64, bool) { return 1 << 62, path == huge },
		Dice:   (&dice{seed: seed, world: w, n: map[string]uint64{}}).draw,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fake.Close() })
	addr, err := rpc.ParseAddress(fake.Address())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	client, err := alluxio.New(t.Context(), alluxio.Config{
		Address: addr, Security: rpc.Security{User: fmt.Sprintf("seed-%d", seed)}, Deferred: true,
		Timeout: pace.Limit(patience), TTL: 100 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(&locked{to: &log}, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &run{T: t, world: w, client: client}
	r.storm(t, draw, paths, steady, huge)
	w.end()
	r.afterwards(t, paths, steady)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for _, f := range r.faults {
		t.Error(f)
	}
	if t.Failed() {
		t.Logf("%.20000s", log.String())
	}
}

// storm reads while lies are told and files change.
func (r *run) storm(t *testing.T, draw *rand.Rand, paths []string, steady map[string][]string, huge string) {
	t.Helper()
	ctx := t.Context()
	until := time.Now().Add(3 * time.Second)
	var all sync.WaitGroup
	for i := range 6 {
		d := rand.New(rand.NewPCG(draw.Uint64(), uint64(i)))
		all.Go(func() {
			for time.Now().Before(until) {
				switch d.IntN(8) {
				case 0:
					for dir, want := range steady {
						_ = r.list(ctx, dir, want)
					}
				case 1:
					var info cacheclient.Info
					err := r.in(ctx, "stat", huge, func(ctx context.Context) (err error) {
						info, err = r.client.Stat(ctx, huge)
						return err
					})
					// Where no master answers the source tells how large it is.
					if err == nil && info.Size != hugeSize {
						r.fault("a file of 2^62 bytes has %d", info.Size)
					}
				case 2:
					_, _ = r.client.Blocks(ctx, paths[d.IntN(len(paths))])
				default:
					_ = r.readFile(ctx, d, paths[d.IntN(len(paths))])
				}
			}
		})
	}
	for time.Now().Before(until) {
		if path := paths[draw.IntN(len(paths))]; !honest(path) {
			r.put(t, path, draw.Int64N(3*block))
		}
		time.Sleep(50 * time.Millisecond)
	}
	all.Wait()
}

// afterwards has every file be its present version soon, once the lies end, and the process be as small as
// before.
func (r *run) afterwards(t *testing.T, paths []string, steady map[string][]string) {
	t.Helper()
	deadline := time.Now().Add(pace.Limit(40 * time.Second))
	for _, path := range paths {
		for {
			err := r.present(t, path)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s after the lies: %v", path, err)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	for dir, want := range steady {
		for {
			names, err := listAll(t.Context(), r.client, dir)
			slices.Sort(names)
			if err == nil && slices.Equal(names, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("%s after the lies: %.500q, %v", dir, names, err)
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 300<<20 {
		t.Errorf("%d MiB of memory are in use", m.HeapAlloc>>20)
	}
}

// present reads a file, which must be its present version.
func (r *run) present(t *testing.T, path string) error {
	t.Helper()
	sizes := r.sizes(path)
	n := len(sizes) - 1
	info, err := r.client.Stat(t.Context(), path)
	if err != nil {
		return err
	}
	f, err := r.client.Open(t.Context(), info)
	if err != nil {
		return err
	}
	defer f.Close()
	got := make([]byte, info.Size)
	if _, err := cacheclient.ReadAt(t.Context(), f, got, 0); err != nil && info.Size > 0 {
		return err
	}
	if info.Size != sizes[n] || !pattern.Equal(content(path, n), 0, got) {
		return fmt.Errorf("it is not the version %d of %d bytes, but has %d: %w", n, sizes[n], info.Size, fs.ErrInvalid)
	}
	return nil
}

// locked writes what many goroutines write.
type locked struct {
	// mu guards to.
	mu sync.Mutex
	to *bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to.Len() > 1<<20 {
		return len(p), nil
	}
	return l.to.Write(p)
}
