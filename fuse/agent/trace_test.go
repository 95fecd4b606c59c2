package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/fuse"
	"millrace.io/millrace/fuse/mountpoint"
	"millrace.io/millrace/sanity/pace"
)

// newMountedWorld is a world with a real mount.
func newMountedWorld(t *testing.T, files map[string]int) *world {
	t.Helper()
	if !mountpoint.HasSysAdmin() {
		t.Skip("needs root: mount(2)")
	}
	base := t.TempDir()
	w := &world{
		source: filepath.Join(base, "src"), dir: filepath.Join(base, "mnt"),
		socket: filepath.Join(base, "s.sock"),
	}
	for name, size := range files {
		writeFile(t, filepath.Join(w.source, name), size)
	}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
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
	session, err := fuse.Mount(t.Context(), fuse.Config{Client: w.cache, Dir: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := session.Unmount(true); err != nil {
			t.Error(err)
		}
		_ = w.cache.Close()
		_ = store.Close()
	})
	w.server = New(slog.New(slog.DiscardHandler))
	if err := w.server.Add(Mount{
		Dir: w.dir, Name: "data", Source: w.source, Started: time.Now(), Client: w.cache,
		Stats: session.Stats, Trace: session.Trace, Slowest: session.Slowest, Unmount: session.Unmount,
	}); err != nil {
		t.Fatal(err)
	}
	w.serve(t)
	return w
}

// read has another process read a file.
func read(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	if out, err := exec.CommandContext(ctx, "dd", "if="+path, "of=/dev/null", "bs=64K").CombinedOutput(); err != nil {
		t.Fatalf("reading %s: %v: %s", path, err, out)
	}
}

// Traced by curl, as an engineer would.
func TestCurlTraces(t *testing.T) {
	w := newMountedWorld(t, map[string]int{"d/a b": 100_000, "other": 10})
	path := filepath.Join(w.dir, "d/a b")
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(30*time.Second))
	defer cancel()
	query := url.Values{"path": {filepath.Join(w.dir, "d")}, "op": {"open,read"}}
	cmd := exec.CommandContext(ctx, "curl", "-sSN", "-D", "-", "--unix-socket", w.socket,
		"http://x/v1/trace?"+query.Encode())
	if cmd.Err != nil {
		t.Skip("needs curl")
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	// The header: from here on nothing is missed.
	for more := true; more; {
		more = lines.Scan() && lines.Text() != ""
	}
	read(t, filepath.Join(w.dir, "other"))
	read(t, path)
	var seen []TraceEvent
	for len(seen) < 2 && lines.Scan() {
		var e TraceEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		seen = append(seen, e)
	}
	_ = cmd.Process.Kill()
	// An event comes after the answer that it tells of, so that the read may be first.
	slices.SortFunc(seen, func(a, b TraceEvent) int { return strings.Compare(a.Op, b.Op) })
	if len(seen) != 2 || seen[0].Op != "open" || seen[1].Op != "read" || seen[0].Path != path || seen[1].Path != path ||
		seen[0].Mount != w.dir || seen[1].Source != "source" || seen[1].Bytes != 100_000 || seen[1].LatencyNs <= 0 ||
		seen[1].Time.IsZero() {
		t.Errorf("got %+v", seen)
	}
}

func TestTraceEndsWithTheClient(t *testing.T) {
	w := newMountedWorld(t, map[string]int{"a": 10})
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	var traffic sync.WaitGroup
	defer traffic.Wait()
	traffic.Go(func() {
		// Any traffic will do to have an event come.
		for ctx.Err() == nil {
			_, _ = os.ReadDir(w.dir)
			time.Sleep(10 * time.Millisecond)
		}
	})
	err := w.client.Trace(ctx, nil, func() {}, func(TraceEvent) error {
		n++
		cancel()
		return nil
	})
	cancel()
	if err != nil || n == 0 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestTraceRefusals(t *testing.T) {
	w := newMountedWorld(t, map[string]int{"a": 10})
	for query, say := range map[string]string{
		"op=raed":        `op \"raed\" is not one of access, `,
		"op=read,":       `op \"\"`,
		"slower=fast":    `slower \"fast\" is not a time`,
		"slower=-1s":     "is not a time",
		"path=/etc/motd": "in no mount",
	} {
		body, status := w.curl(t, "http://x/v1/trace?"+query)
		if status < 400 || !strings.Contains(body, say) {
			t.Errorf("%s: %d %s, want %s", query, status, body, say)
		}
	}
	if body, status := w.curl(t, "http://x/v1/slowest?path=/etc"); status != 404 {
		t.Errorf("%d %s", status, body)
	}
}

func TestSlowest(t *testing.T) {
	w := newWorld(t, map[string]int{"a": 10})
	w.server.Remove(w.dir)
	now := time.Now()
	for i, dir := range []string{w.dir, w.dir + "2"} {
		if err := w.server.Add(Mount{
			Dir: dir, Name: dir, Client: w.cache, Stats: func() fuse.Stats { return w.stats },
			Trace: func(context.Context, func(fuse.Event) bool, chan<- fuse.Event) {},
			Slowest: func() []fuse.Event {
				return []fuse.Event{{
					Time: now, Took: time.Duration(i+1) * time.Second, Mount: dir, Op: "read",
					Path: dir + "/x", Errno: 5,
				}}
			},
		}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := w.client.Slowest(t.Context(), "")
	if err != nil || len(all) != 2 || all[0].LatencyNs != 2e9 || all[0].Path != w.dir+"2/x" || all[1].Errno != "EIO" {
		t.Errorf("%+v, %v", all, err)
	}
	one, err := w.client.Slowest(t.Context(), w.dir)
	if err != nil || len(one) != 1 || one[0].Path != w.dir+"/x" {
		t.Errorf("%+v, %v", one, err)
	}
	if none, err := w.client.Slowest(t.Context(), w.dir+"/y"); err != nil || none == nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
}

func TestConditionOf(t *testing.T) {
	well := cacheclient.Capacity{Levels: []cacheclient.Level{{Where: "/t"}}}
	full := cacheclient.Capacity{Levels: []cacheclient.Level{{Where: "/t", Problem: "no space"}}}
	cases := []struct {
		session  fuse.Stats
		capacity cacheclient.Capacity
		counters cacheclient.Counters
		abnormal bool
		say      string
	}{
		{fuse.Stats{InFlight: 3, Oldest: 100}, well, cacheclient.Counters{}, false, "the mount answers"},
		{
			fuse.Stats{Stalled: 2, OldestOp: "read", Oldest: 7250},
			well,
			cacheclient.Counters{},
			true,
			"2 requests have been waiting for more than 5s, the oldest, read, for 7.3s: the source does not answer",
		},
		{fuse.Stats{}, full, cacheclient.Counters{}, true, "the tier /t takes no data: no space"},
		{
			fuse.Stats{},
			well,
			cacheclient.Counters{SourceDown: true, SourceDownSince: time.Unix(0, 0)},
			true,
			"the source has not answered since 1970-01-01T00:00:00Z: what is cached is served",
		},
		{
			fuse.Stats{},
			well,
			cacheclient.Counters{SourceRefuses: true},
			true,
			"the source refuses the keys that the volume has: what is cached is served",
		},
	}
	for _, c := range cases {
		if got := ConditionOf(c.session, c.capacity, c.counters); got.Abnormal != c.abnormal || got.Message != c.say {
			t.Errorf("%+v: %+v", c.session, got)
		}
	}
}

// The metrics of a real mount follow the conventions, and say what happened.
func TestMetricsOfARealMount(t *testing.T) {
	w := newMountedWorld(t, map[string]int{"a": 100_000})
	read(t, filepath.Join(w.dir, "a"))
	_, _ = os.Stat(filepath.Join(w.dir, "missing"))
	_ = os.WriteFile(filepath.Join(w.dir, "a"), nil, 0o600)
	var body string
	waitFor(t, func() bool {
		// What is answered is counted after the answer.
		body, _ = w.curl(t, "http://x/metrics")
		return strings.Contains(body, `millrace_read_bytes_total{mount="data",source="under_store"} 100000`)
	})
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "millrace_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, line := range []string{
		`millrace_read_bytes_total{mount="data",source="local"} 0`,
		`millrace_errors_total{errno="EIO",mount="data"} 0`,
		`millrace_resumes_total{mount="data"} 0`,
		`millrace_stalled_requests{mount="data"} 0`,
		`millrace_abnormal{mount="data"} 0`,
		`millrace_sessions 1`,
		`millrace_build_info{go_version="go`,
		`millrace_fuse_request_duration_seconds_count{mount="data",op="read"} `,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no %s", line)
		}
	}
	if strings.Contains(body, w.dir) || strings.Contains(body, w.source) {
		t.Error("a path is in the metrics")
	}
}
