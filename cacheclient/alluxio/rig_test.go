package alluxio

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

const mib = 1 << 20

// version is one content of a file: every byte follows from the path and the number, so that a part of any file can be
// checked alone, and no part of one version is taken for one of another.
type version struct {
	path   string
	number int
	size   int64
}

// word is the i-th group of 8 bytes.
func (v version) word(i int64) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%s %d %d", v.path, v.number, v.size)
	return mix(h.Sum64(), i)
}

func mix(seed uint64, i int64) uint64 {
	x := seed + uint64(i)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// bytes are those of [off, off+n).
func (v version) bytes(off, n int64) []byte {
	first := off &^ 7
	buf := make([]byte, (off+n-first+7)&^7)
	seed := v.word(0)
	for i := 0; i < len(buf); i += 8 {
		binary.LittleEndian.PutUint64(buf[i:], mix(seed, (first+int64(i))/8))
	}
	return buf[off-first : off-first+n]
}

// check compares bytes that were read at off.
func (v version) check(off int64, parts [][]byte) error {
	for _, p := range parts {
		want := v.bytes(off, int64(len(p)))
		for i := range p {
			if p[i] != want[i] {
				return fmt.Errorf("%s, version %d: the byte at %d is %#x and should be %#x", v.path, v.number,
					off+int64(i), p[i], want[i])
			}
		}
		off += int64(len(p))
	}
	return nil
}

// put replaces a file by this version, in one step as most publishers do, and returns it.
func (v version) put(tb testing.TB, dir string) version {
	tb.Helper()
	if err := v.write(dir); err != nil {
		tb.Fatal(err)
	}
	return v
}

func (v version) write(dir string) error {
	name := filepath.Join(dir, filepath.FromSlash(v.path))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer f.Close()
	for off := int64(0); off < v.size; off += mib {
		if _, err := f.Write(v.bytes(off, min(mib, v.size-off))); err != nil {
			return err
		}
	}
	return errors.Join(f.Chmod(0o644), os.Rename(f.Name(), name))
}

// aged is a time that is long enough ago for what is known of a file to be believed.
var aged = time.Now().Add(-48 * time.Hour).Truncate(time.Second)

// age sets a file's time to one of long ago, in whole seconds.
func (v version) age(tb testing.TB, dir string) version {
	tb.Helper()
	if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(v.path)), aged, aged); err != nil {
		tb.Fatal(err)
	}
	return v
}

// open opens what the path is now.
func open(tb testing.TB, c *Client, path string) cacheclient.File {
	tb.Helper()
	f, err := tryOpen(tb.Context(), c, path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	return f
}

// tryOpen opens as the kernel does: a name whose version has gone is looked up again.
func tryOpen(ctx context.Context, c *Client, path string) (cacheclient.File, error) {
	for try := 0; ; try++ {
		info, err := c.Stat(ctx, path)
		if err != nil {
			return nil, err
		}
		f, err := c.Open(ctx, info)
		if err == nil || !errors.Is(err, cacheclient.ErrStale) || try == 3 {
			return f, err
		}
	}
}

// layoutNow is how the file that the path is now lies in blocks.
func layoutNow(tb testing.TB, c *Client, path string) layout {
	tb.Helper()
	info, err := c.Stat(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	l, ok := layoutOf(info)
	if !ok {
		tb.Fatalf("%s has the version %q, which is not Alluxio's", path, info.Version)
	}
	return l
}

// readAll reads a file in pieces of n bytes, checks each, and returns how long the slowest took. at is called before
// each.
func readAll(ctx context.Context, f cacheclient.File, v version, n int64, at func(off int64)) (
	slowest time.Duration, err error,
) {
	for off := int64(0); off < v.size; off += n {
		if at != nil {
			at(off)
		}
		begin := time.Now()
		d, err := f.Read(ctx, off, int(min(n, v.size-off)))
		if took := time.Since(begin); took > slowest {
			slowest = took
		}
		if err != nil {
			return slowest, fmt.Errorf("%s at %d: %w", v.path, off, err)
		}
		if int64(d.Len()) != min(n, v.size-off) {
			err = fmt.Errorf("%s at %d: %d bytes", v.path, off, d.Len())
		} else {
			err = v.check(off, d.Parts)
		}
		d.Release()
		if err != nil {
			return slowest, err
		}
	}
	return slowest, nil
}

// mustRead is readAll, which must succeed.
func mustRead(tb testing.TB, f cacheclient.File, v version, n int64) time.Duration {
	tb.Helper()
	slowest, err := readAll(tb.Context(), f, v, n, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return slowest
}

// direct is a connection to the cluster as the client has it, for what the client does not offer.
func direct(tb testing.TB, c *cluster.Cluster) *rpc.Cluster {
	tb.Helper()
	addr, err := rpc.ParseAddress(c.Address())
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := rpc.Connect(rpc.Config{Masters: addr.Masters})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(conn.Release)
	return conn
}

// workerOf finds a server of the cluster as the client knows it.
func workerOf(tb testing.TB, conn *rpc.Cluster, s *cluster.Server) *rpc.Worker {
	tb.Helper()
	var found *rpc.Worker
	eventually(tb, 30*time.Second, "the masters know "+s.Name, func() bool {
		ctx, cancel := context.WithTimeout(tb.Context(), pace.Limit(10*time.Second))
		defer cancel()
		infos, err := conn.WorkerInfos(ctx)
		if err != nil {
			return false
		}
		for _, i := range infos {
			if w, err := conn.At(i.GetAddress()); err == nil && w.Addr() == s.Address() {
				found = w
			}
		}
		return found != nil
	})
	return found
}

// cacheAt has a worker cache every block of a file, whatever worker would be chosen for it.
func cacheAt(tb testing.TB, c *Client, path string, w *rpc.Worker) {
	tb.Helper()
	if err := tryCacheAt(tb.Context(), c, path, w); err != nil {
		tb.Fatal(err)
	}
}

func tryCacheAt(ctx context.Context, c *Client, path string, w *rpc.Worker) error {
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(time.Minute))
	defer cancel()
	f, err := c.store.status(ctx, path)
	if err != nil {
		return err
	}
	l, _ := layoutOf(infoOf(f, path))
	for k := range l.blocks() {
		if err := w.Cache(ctx, l.block(k), l.length(k), *l.underStore(k, f), false); err != nil {
			return fmt.Errorf("have %s cache block %d of %s: %w", w.Addr(), k, path, err)
		}
	}
	return nil
}

// blockPath is where a worker has a block.
func blockPath(s *cluster.Server, id int64) string {
	return filepath.Join(s.TierDir, "alluxioworker", strconv.FormatInt(id, 10))
}

// eventually waits until the condition holds.
func eventually(tb testing.TB, limit time.Duration, what string, condition func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(pace.Limit(limit)); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	tb.Fatalf("did not happen within %v: %s", limit, what)
}

// soak is how long a test goes on: short, or what $MILLRACE_SOAK says for the long forms.
func soak(tb testing.TB, short time.Duration) time.Duration {
	tb.Helper()
	text := os.Getenv("MILLRACE_SOAK")
	if text == "" {
		return short
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		tb.Fatal("$MILLRACE_SOAK:", err)
	}
	return d
}

// busy measures how late this machine is at the moment with what is due, so that a test can tell a wait that the code
// causes from one that the machine causes. The function that it returns tells the longest delay so far, several times
// over: servers are late as well.
func busy(tb testing.TB) func() time.Duration {
	tb.Helper()
	ctx, cancel := context.WithCancel(tb.Context())
	var longest stalls
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			begin := time.Now()
			time.Sleep(2 * time.Millisecond)
			longest.add(time.Since(begin) - 2*time.Millisecond)
		}
	}()
	tb.Cleanup(func() {
		cancel()
		<-done
	})
	return func() time.Duration { return 4 * longest.get() }
}

// stalls keeps the longest of many durations.
type stalls struct{ longest atomic.Int64 }

func (s *stalls) add(d time.Duration) {
	for {
		old := s.longest.Load()
		if int64(d) <= old || s.longest.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

func (s *stalls) get() time.Duration { return time.Duration(s.longest.Load()) }

// errorsOf collects the first few errors of many goroutines.
type errorsOf struct {
	mu sync.Mutex
	// all and count are guarded by mu.
	all   []error
	count int
}

func (e *errorsOf) add(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count++; len(e.all) < 5 {
		e.all = append(e.all, err)
	}
}

// report fails the test if there were any.
func (e *errorsOf) report(tb testing.TB) {
	tb.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count > 0 {
		tb.Errorf("%d errors, the first of which are: %v", e.count, errors.Join(e.all...))
	}
}

// noLeaks has the test fail if goroutines of this package or descriptors of tiers are left at its end, after what was
// registered later than this was undone.
func noLeaks(tb testing.TB) {
	tb.Helper()
	// What earlier tests have not given back is not this one's.
	before := blocksInUse()
	tb.Cleanup(func() {
		left := ""
		for deadline := time.Now().Add(pace.Limit(10 * time.Second)); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if left = leaked(before); left == "" {
				return
			}
		}
		tb.Error(left)
	})
}

// leaked describes what clients have left behind: their goroutines, and block files that are in use and were not
// before.
func leaked(before map[string]bool) string {
	buf := make([]byte, 4*mib)
	buf = buf[:runtime.Stack(buf, true)]
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "cacheclient/alluxio.(") && !strings.Contains(g, "testing.tRunner") {
			return "a goroutine is left:\n" + g
		}
	}
	for block := range blocksInUse() {
		if !before[block] {
			return "a block file is left open or mapped: " + block
		}
	}
	return ""
}

// blocksInUse are the block files that this process has open or mapped.
func blocksInUse() map[string]bool {
	blocks := make(map[string]bool)
	add := func(text string) {
		if i := strings.Index(text, "/dev/shm/"); i >= 0 && strings.Contains(text, "/alluxioworker/") {
			blocks[strings.TrimSuffix(strings.TrimSpace(text[i:]), " (deleted)")] = true
		}
	}
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			add(to)
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		add(line)
	}
	return blocks
}
