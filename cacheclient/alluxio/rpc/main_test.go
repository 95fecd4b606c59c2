package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// shared is the cluster of all tests that need none of their own. It has few block locks, so that a lock that is not
// given back shows.
var shared = cluster.Shared{Config: cluster.Config{
	TierQuota: 512 << 20, BlockSize: 8 << 20,
	WorkerProperties: map[string]string{"alluxio.worker.tieredstore.block.locks": strconv.Itoa(blockLocks)},
}}

const blockLocks = 50

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// addresses are those of the masters.
func addresses(c *cluster.Cluster) []string {
	var out []string
	for _, m := range c.Masters() {
		out = append(out, m.Address())
	}
	return out
}

// connect is a connection of the test's own to masters: other tests of the process do not share it.
func connect(tb testing.TB, masters ...string) *Cluster {
	tb.Helper()
	return connectAs(tb, Security{User: "test-" + strconv.FormatInt(users.Add(1), 10)}, masters...)
}

var users atomic.Int64

func connectAs(tb testing.TB, s Security, masters ...string) *Cluster {
	tb.Helper()
	c, err := Connect(Config{Masters: masters, Security: s, Log: testLog(tb)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Release)
	return c
}

// within is a context of the test with a limit of time, stretched to the machine's pace.
func within(tb testing.TB, limit time.Duration) context.Context {
	tb.Helper()
	return endingAfter(tb, pace.Limit(limit))
}

// endingAfter is a context of the test whose end is what is tested.
func endingAfter(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), d)
	tb.Cleanup(cancel)
	return ctx
}

// testLog writes to the test's log until the test ends.
func testLog(tb testing.TB) *slog.Logger {
	tb.Helper()
	w := &testWriter{t: tb}
	tb.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.t = nil
	})
	return slog.New(slog.NewTextHandler(w, nil))
}

type testWriter struct {
	// mu guards t.
	mu sync.Mutex
	t  testing.TB // nil when the test is over
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// noMoreGoroutines checks at the test's end, after its other clean-ups, that no goroutine is left of those that it
// started in this package or in gRPC.
func noMoreGoroutines(t *testing.T) {
	t.Helper()
	before := ours()
	t.Cleanup(func() {
		for deadline := time.Now().Add(pace.Limit(5 * time.Second)); ; time.Sleep(20 * time.Millisecond) {
			left := ours()
			if len(left) <= len(before) {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines are left, %d there were before:\n%s", len(left), len(before),
					strings.Join(left, "\n\n"))
				return
			}
		}
	})
}

// ours are the stacks of goroutines of this package and of gRPC, but for that of the caller.
func ours() []string {
	buf := make([]byte, 8<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for i, stack := range strings.Split(string(buf), "\n\n") {
		if i > 0 && !strings.Contains(stack, "testing.(*T).Run") && !strings.Contains(stack, "testing.tRunner") &&
			(strings.Contains(stack, "alluxio/rpc.") || strings.Contains(stack, "google.golang.org/grpc")) {
			out = append(out, stack)
		}
	}
	return out
}

// mountBlocks shows an empty directory in blocks of that size. It returns the directory, and its path in Alluxio.
func mountBlocks(tb testing.TB, masters *Cluster, blockSize int64) (dir, path string) {
	tb.Helper()
	dir, path = tb.TempDir(), "/mount-"+strconv.FormatInt(numbers.Add(1), 10)
	if err := masters.Mount(within(tb, 20*time.Second), Mount{
		Path: path, Source: dir, ReadOnly: true,
		Properties: map[string]string{"alluxio.user.block.size.bytes.default": strconv.FormatInt(blockSize, 10)},
	}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), pace.Limit(20*time.Second))
		defer cancel()
		if err := masters.Unmount(ctx, path); err != nil {
			tb.Error(err)
		}
	})
	return dir, path
}

// source is a file in the under store.
type source struct {
	path    string
	content []byte
	info    *wire.FileInfo
}

var numbers atomic.Int64

// newSource writes a file of random bytes into the under store, and has the masters know of it.
func newSource(tb testing.TB, c *cluster.Cluster, masters *Cluster, size int) *source {
	tb.Helper()
	return newSourceIn(tb, masters, c.UFS(), "", size)
}

// newSourceIn does so in a directory that is mounted at path.
func newSourceIn(tb testing.TB, masters *Cluster, dir, path string, size int) *source {
	tb.Helper()
	name := "/file-" + strconv.FormatInt(numbers.Add(1), 10)
	s := &source{path: path + name, content: make([]byte, size)}
	_, _ = rand.Read(s.content)
	if err := os.WriteFile(filepath.Join(dir, name), s.content, 0o600); err != nil {
		tb.Fatal(err)
	}
	info, err := masters.Status(within(tb, 20*time.Second), s.path, AlwaysSync)
	if err != nil {
		tb.Fatal(err)
	}
	s.info = info
	return s
}

// newDir makes a directory of empty files f0, f1 and so on in the under store.
func newDir(tb testing.TB, c *cluster.Cluster, files int) string {
	tb.Helper()
	dir := "/dir-" + strconv.FormatInt(numbers.Add(1), 10)
	if err := os.Mkdir(filepath.Join(c.UFS(), dir), 0o755); err != nil {
		tb.Fatal(err)
	}
	for i := range files {
		if err := os.WriteFile(filepath.Join(c.UFS(), dir, "f"+strconv.Itoa(i)), nil, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// under is where the file's block k is in the under store.
func (s *source) under(k int) *UnderStore {
	block := s.info.GetFileBlockInfos()[k].GetBlockInfo()
	return &UnderStore{
		Path: s.info.GetUfsPath(), Mount: s.info.GetMountId(),
		Offset: int64(k) * s.info.GetBlockSizeBytes(), Length: block.GetLength(),
	}
}

// block is the id of block k, and bytes are its content.
func (s *source) block(k int) int64 { return s.info.GetBlockIds()[k] }

func (s *source) bytes(k int) []byte {
	u := s.under(k)
	return s.content[u.Offset : u.Offset+u.Length]
}

// workerAt is the connection to a worker.
func workerAt(tb testing.TB, c *Cluster, s *cluster.Server) *Worker {
	tb.Helper()
	w, err := c.At(workerAddress(s.Host, int32(s.RPCPort())))
	if err != nil {
		tb.Fatal(err)
	}
	return w
}

func workerAddress(host string, port int32) *wire.WorkerNetAddress {
	return &wire.WorkerNetAddress{Host: &host, RpcPort: &port, DataPort: &port}
}

func splitPort(tb testing.TB, address string) (string, int32) {
	tb.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		tb.Fatal(err)
	}
	return host, int32(n)
}

// readAll reads a reader to its end, and closes it.
func readAll(r *BlockReader) ([]byte, error) {
	defer r.Close()
	var out bytes.Buffer
	for {
		c, err := r.Next()
		if err != nil {
			return out.Bytes(), err
		}
		for _, p := range c.Parts() {
			out.Write(p)
		}
		c.Free()
	}
}

// log is what a server has logged since from.
func logSince(tb testing.TB, s *cluster.Server, from int64) string {
	tb.Helper()
	text, err := os.ReadFile(s.Log)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text[min(from, int64(len(text))):])
}

func logSize(tb testing.TB, s *cluster.Server) int64 {
	tb.Helper()
	st, err := os.Stat(s.Log)
	if err != nil {
		tb.Fatal(err)
	}
	return st.Size()
}
