package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/fuse/socket"
	"millrace.io/millrace/sanity/pace"
)

// world is a server on a real socket, with one mount of a real cache over a directory. Only
// the kernel is missing: what it would be asked is in the fields.
type world struct {
	source, dir, socket string
	server              *Server
	client              *Client
	cache               *embedded.Cache
	stats               fuse.Stats
	unmountErr          atomic.Value
	unmounted           atomic.Int64
}

func newWorld(t *testing.T, files map[string]int) *world {
	t.Helper()
	base := t.TempDir()
	w := &world{
		source: filepath.Join(base, "src"), dir: filepath.Join(base, "mnt"),
		socket: filepath.Join(base, "s.sock"),
	}
	for name, size := range files {
		writeFile(t, filepath.Join(w.source, name), size)
	}
	store, err := ufs.Open(t.Context(), w.source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.cache, err = embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{
		Dir:   filepath.Join(base, "tier"),
		Quota: 64 << 20,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = w.cache.Close()
		_ = store.Close()
	})
	w.stats = fuse.Stats{
		PassthroughOpens: 7, CopyOpens: 3, ReadBytes: 4096, Oldest: 1500,
		Ops: map[string]fuse.OpStats{"LOOKUP": {
			Count: 2, Errors: 1, Seconds: 0.5,
			Buckets: make([]int64, len(fuse.LatencyBounds)+1),
		}},
	}
	w.stats.Ops["LOOKUP"].Buckets[3] = 2
	w.server = New(slog.New(slog.DiscardHandler))
	w.add(t, w.dir, "data")
	w.serve(t)
	return w
}

func (w *world) add(t *testing.T, dir, name string) {
	t.Helper()
	if err := w.server.Add(Mount{
		Dir: dir, Name: name, Source: w.source, Started: time.Now(), Client: w.cache,
		Stats: func() fuse.Stats { return w.stats },
		Unmount: func(bool) error {
			w.unmounted.Add(1)
			err, _ := w.unmountErr.Load().(error)
			return err
		},
	}); err != nil {
		t.Fatal(err)
	}
}

func (w *world) serve(t *testing.T) {
	t.Helper()
	l, err := socket.Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	w.client = Dial(w.socket)
	t.Cleanup(w.client.Close)
}

func writeFile(t *testing.T, path string, size int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("millrace"), size/8+1)[:size], 0o644); err != nil {
		t.Fatal(err)
	}
}

// curl runs the program that people use, and gives its output and the HTTP status.
func (w *world) curl(t *testing.T, args ...string) (string, int) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl")
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	args = append([]string{"-sS", "--unix-socket", w.socket, "-w", "\n%{http_code}"}, args...)
	out, err := exec.CommandContext(ctx, "curl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %q: %v: %s", args, err, out)
	}
	body, code, _ := cutLast(string(out), "\n")
	status, err := strconv.Atoi(code)
	if err != nil {
		t.Fatalf("status %q: %v", code, err)
	}
	return body, status
}

func cutLast(s, sep string) (string, string, bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func TestCurlSeesTheMount(t *testing.T) {
	w := newWorld(t, map[string]int{"a.bin": 3 << 20})
	body, status := w.curl(t, "http://x/v1/mounts")
	var mounts []MountStatus
	if err := json.Unmarshal([]byte(body), &mounts); err != nil || status != 200 {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	if len(mounts) != 1 {
		t.Fatalf("%d mounts", len(mounts))
	}
	m := mounts[0]
	if m.Dir != w.dir || m.Source != w.source || m.State != StateServing || m.PID != os.Getpid() ||
		m.Socket != w.socket ||
		m.Session.PassthroughOpens != 7 || m.Capacity.Quota != 64<<20 || m.Counters == nil {
		t.Errorf("got %+v", m)
	}
	if body, status := w.curl(t, "http://x/healthz"); status != 200 || body != "{\"status\":\"ok\",\"mounts\":1}\n" {
		t.Errorf("health: %d %q", status, body)
	}
}

// The ABI: a field that is renamed here breaks scripts.
func TestMountStatusFieldNames(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 1})
	body, _ := w.curl(t, "http://x/v1/mounts")
	for _, field := range []string{
		"dir", "source", "name", "state", "pid", "socket", "started", "counters", "filesKnown", "bytesKnown", "hits",
		"misses", "bytesCache", "bytesSource", "capacity", "quota", "used", "levels", "session", "passthroughOpens",
		"copyOpens",
	} {
		if !strings.Contains(body, `"`+field+`":`) {
			t.Errorf("no field %q in %s", field, body)
		}
	}
}

func TestRefusals(t *testing.T) {
	w := newWorld(t, map[string]int{"d/a": 10})
	cases := []struct {
		name   string
		args   []string
		status int
		say    string
	}{
		{"unknown path", []string{"http://x/v2/mounts"}, 404, "there is no /v2/mounts here"},
		{"root", []string{"http://x/"}, 404, "there is no / here"},
		{"wrong method", []string{"-X", "DELETE", "http://x/v1/mounts"}, 405, "takes GET, not DELETE"},
		{"get of a post", []string{"http://x/v1/warm"}, 405, "takes POST, not GET"},
		{"origin", []string{"-H", "Origin: http://evil", "http://x/v1/mounts"}, 403, "browser"},
		{"referer", []string{"-H", "Referer: http://evil", "http://x/healthz"}, 403, "browser"},
		{"no path", []string{"http://x/v1/blocks"}, 400, "needs ?path="},
		{"no such file", []string{"http://x/v1/blocks?path=nope"}, 404, "nope"},
		{"outside the mount", []string{"http://x/v1/blocks?path=/etc/passwd"}, 404, "/etc/passwd is in no mount"},
		{"next to the mount", []string{"http://x/v1/blocks?path=" + w.dir + "2/a"}, 404, "is in no mount"},
		{"above the mount", []string{"http://x/v1/blocks?path=" + w.dir + "/../x"}, 404, "is in no mount"},
		{"not JSON", []string{"-d", "path=/a", "http://x/v1/warm"}, 400, "is not what it takes"},
		{"unknown field", []string{"-d", `{"path":"d","force":true}`, "http://x/v1/warm"}, 400, "force"},
		{"two objects", []string{"-d", `{"path":"d"}{}`, "http://x/v1/warm"}, 400, "more than one"},
		{"jobs", []string{"-d", `{"path":"d","jobs":1000}`, "http://x/v1/warm"}, 400, "jobs is 1000"},
		{"warm nothing", []string{"-d", `{"path":"nope"}`, "http://x/v1/warm"}, 404, "nope"},
		{"zero byte", []string{"-d", `{"path":"a\u0000b"}`, "http://x/v1/free"}, 400, "zero byte"},
		{"unmount inside", []string{"-d", `{"dir":"` + w.dir + `/d"}`, "http://x/v1/unmount"}, 400, "inside the mount"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			body, status := w.curl(t, c.args...)
			var answer ErrorAnswer
			if err := json.Unmarshal([]byte(body), &answer); err != nil {
				t.Fatalf("%d %q: %v", status, body, err)
			}
			if status != c.status || !strings.Contains(answer.Error, c.say) || strings.Contains(answer.Error, "\n") {
				t.Errorf("%d %q, want %d and %q", status, answer.Error, c.status, c.say)
			}
		})
	}
	if w.unmounted.Load() != 0 {
		t.Error("something was unmounted")
	}
}

func TestOthersAreRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be somebody else")
	}
	w := newWorld(t, map[string]int{"a": 10})
	// As if the way to the socket were open by mistake.
	for _, p := range []string{filepath.Dir(filepath.Dir(w.socket)), filepath.Dir(w.socket), w.socket} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", "-sS", "--unix-socket", w.socket, "http://x/v1/mounts")
	if cmd.Err != nil {
		t.Skip("needs curl")
	}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "only the user who runs this process") {
		t.Errorf("another user got %s (%v)", out, err)
	}
}

func TestWarmBlocksFree(t *testing.T) {
	files := map[string]int{"empty": 0, "big": 9 << 20}
	for i := range 600 {
		files[fmt.Sprintf("deep/er/f%03d", i)] = 1000
	}
	w := newWorld(t, files)
	lines := 0
	final, err := w.client.Warm(t.Context(), WarmRequest{Path: w.dir, Jobs: 8}, func(WarmProgress) { lines++ })
	if err != nil {
		t.Fatal(err)
	}
	bytes := int64(9<<20 + 600*1000)
	if final.FilesDone != 602 || final.FilesTotal != 602 || final.BytesDone != bytes || final.BytesTotal != bytes ||
		final.Error != "" || !final.Done || final.Listing || lines == 0 || final.Warning != "" {
		t.Errorf("got %+v in %d lines", final, lines)
	}
	blocks, err := w.client.Blocks(t.Context(), filepath.Join(w.dir, "big"))
	if err != nil || len(blocks) == 0 {
		t.Fatalf("%v, %v", blocks, err)
	}
	for _, b := range blocks {
		if len(b.Where) == 0 {
			t.Errorf("block at %d is not cached", b.Offset)
		}
	}
	freed, err := w.client.Free(t.Context(), "big")
	if err != nil || freed < 9<<20 {
		t.Errorf("freed %d, %v", freed, err)
	}
	blocks, err = w.client.Blocks(t.Context(), "big")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks {
		if b.Where == nil || len(b.Where) != 0 {
			t.Errorf("block at %d after free: %v", b.Offset, b.Where)
		}
	}
}

// One file only, in its own line format, as curl shows it.
func TestCurlWarmsOneFile(t *testing.T) {
	w := newWorld(t, map[string]int{"d/a b#%é": 5000, "d/other": 10})
	body, status := w.curl(t, "-d", `{"path":"d/a b#%é"}`, "http://x/v1/warm")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	var last WarmProgress
	lines := bufio.NewScanner(strings.NewReader(body))
	for lines.Scan() {
		if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
	}
	if !last.Done || last.FilesDone != 1 || last.BytesDone != 5000 || last.File != "d/a b#%é" {
		t.Errorf("last line %+v", last)
	}
}

func TestWarmCountsFilesThatFail(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 100, "b": 100, "c": 100})
	// Known by their attributes, then gone.
	if _, err := w.cache.List(t.Context(), "", cacheclient.Cursor{}, 10, true); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(w.source, "b")); err != nil {
		t.Fatal(err)
	}
	final, err := w.client.Warm(t.Context(), WarmRequest{Path: ""}, func(WarmProgress) {})
	if err != nil {
		t.Fatal(err)
	}
	if final.FilesDone != 2 || final.FilesFailed != 1 || !strings.Contains(final.Error, "b") {
		t.Errorf("got %+v", final)
	}
}

func TestWarmStopsWhenTheClientGoes(t *testing.T) {
	files := map[string]int{}
	for i := range 3000 {
		files[fmt.Sprintf("f%04d", i)] = 4096
	}
	w := newWorld(t, files)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := w.client.Warm(ctx, WarmRequest{Path: w.dir, Jobs: 1}, func(p WarmProgress) {
		if p.Done {
			t.Log("all was fetched before the client could leave")
		}
		cancel()
	})
	cancel()
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		before := w.cache.Counters().SourceRequests
		time.Sleep(300 * time.Millisecond)
		return w.cache.Counters().SourceRequests == before
	})
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(pace.Limit(30 * time.Second)); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen")
		}
	}
}

func TestUnmountThroughTheSocket(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 1})
	w.unmountErr.Store(fmt.Errorf("%s: %w", w.dir, mountpoint.ErrBusy))
	body, status := w.curl(t, "-d", "{}", "http://x/v1/unmount")
	if status != 409 || !strings.Contains(body, w.dir+" is in use") {
		t.Errorf("busy: %d %s", status, body)
	}
	w.unmountErr = atomic.Value{}
	if err := w.client.Unmount(t.Context(), w.dir, true); err != nil {
		t.Error(err)
	}
	if n := w.unmounted.Load(); n != 2 {
		t.Errorf("unmounted %d times", n)
	}
}

func TestManyMountsInOneProcess(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 1})
	inner := filepath.Join(w.dir, "inner")
	w.add(t, inner, "inner")
	if err := w.server.Add(Mount{Dir: inner, Name: "again"}); err == nil {
		t.Error("the same directory was listed twice")
	}
	if _, err := w.client.Blocks(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "must be absolute") {
		t.Errorf("relative path: %v", err)
	}
	m, rel, err := w.server.find(inner + "/x/../a")
	if err != nil || m.Name != "inner" || rel != "a" {
		t.Errorf("%s %q %v", m.Name, rel, err)
	}
	body, status := w.curl(t, "http://x/metrics")
	if status != 200 || !strings.Contains(body, `millrace_opens_total{mode="copy",mount="inner"} 3`) {
		t.Errorf("%d %.3000s", status, body)
	}
	w.server.Remove(inner)
	if h, err := w.client.Health(t.Context()); err != nil || h.Mounts != 1 {
		t.Errorf("%+v %v", h, err)
	}
}

func TestMetricsAndProfiles(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 1000})
	if _, err := w.client.Warm(t.Context(), WarmRequest{Path: "a"}, func(WarmProgress) {}); err != nil {
		t.Fatal(err)
	}
	body, status := w.curl(t, "http://x/metrics")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for _, line := range []string{
		`millrace_opens_total{mode="passthrough",mount="data"} 7`,
		`millrace_cache_quota_bytes{level="0",mount="data"} 6.7108864e+07`,
		`millrace_source_received_bytes_total{mount="data"} 1000`,
		`millrace_fuse_request_duration_seconds_bucket{mount="data",op="LOOKUP",le="0.0001"} 0`,
		`millrace_fuse_request_duration_seconds_bucket{mount="data",op="LOOKUP",le="0.00025"} 2`,
		`millrace_fuse_request_duration_seconds_count{mount="data",op="LOOKUP"} 2`,
		`millrace_oldest_request_seconds{mount="data"} 1.5`,
		`go_goroutines`, `process_open_fds`,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(body, w.dir) || strings.Contains(body, w.source) {
		t.Error("a path is in the metrics")
	}
	for _, path := range []string{"", "goroutine?debug=1", "cmdline", "symbol", "heap"} {
		if body, status := w.curl(t, "-o", "/dev/null", "http://x/debug/pprof/"+path); status != 200 {
			t.Errorf("pprof/%s: %d %s", path, status, body)
		}
	}
}

// A client that sends half a header does not keep the server from ending.
func TestServeEndsWithClientsConnected(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := socket.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(slog.New(slog.DiscardHandler)).Serve(ctx, l) }()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("GET /healthz HT")); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(pace.Limit(shutdownTimeout + 5*time.Second)):
		t.Error("the server does not end")
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("the socket is still there")
	}
}

func TestStatusOf(t *testing.T) {
	cases := map[int]error{
		http.StatusNotFound:            fmt.Errorf("x: %w", os.ErrNotExist),
		http.StatusForbidden:           fmt.Errorf("x: %w", os.ErrPermission),
		http.StatusConflict:            fmt.Errorf("x: %w", cacheclient.ErrStale),
		http.StatusBadRequest:          fmt.Errorf("x: %w", cacheclient.ErrIsDir),
		http.StatusGatewayTimeout:      fmt.Errorf("x: %w", cacheclient.ErrUnavailable),
		http.StatusServiceUnavailable:  fmt.Errorf("x: %w", cacheclient.ErrClosed),
		http.StatusInternalServerError: errors.New("x"),
		http.StatusTeapot:              fmt.Errorf("x: %w", errStatus(http.StatusTeapot, "y: %w", os.ErrNotExist)),
	}
	for want, err := range cases {
		if got := statusOf(err); got != want {
			t.Errorf("%v: %d, want %d", err, got, want)
		}
	}
}

func TestUsersFindsWhoHoldsAFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "held")
	writeFile(t, file, 10)
	if got := Users(dir, 3); len(got) != 0 {
		t.Fatalf("users %v of a directory that nobody uses", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	byFile := exec.CommandContext(ctx, "sleep", "60")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	byFile.ExtraFiles = []*os.File{f}
	inDir := exec.CommandContext(ctx, "sleep", "60")
	inDir.Dir = dir
	for _, c := range []*exec.Cmd{byFile, inDir} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		}()
	}
	_ = f.Close()
	got := Users(dir, 3)
	if len(got) != 2 || !strings.HasPrefix(BusySentence(dir, got), dir+" is in use by ") {
		t.Errorf("users %v, want %d and %d", got, byFile.Process.Pid, inDir.Process.Pid)
	}
	if got := Users(dir, 1); len(got) != 1 {
		t.Errorf("limit ignored: %v", got)
	}
	if got := Users(dir+"x", 3); len(got) != 0 {
		t.Errorf("users of a neighbour: %v", got)
	}
}
