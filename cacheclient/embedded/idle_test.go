package embedded_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// usage is what the process holds.
type usage struct {
	heap            int64
	goroutines, fds int
}

func measure(t *testing.T) usage {
	t.Helper()
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return usage{int64(m.HeapAlloc) + int64(m.StackInuse), runtime.NumGoroutine(), len(fds)}
}

// TestIdleCachesHoldNextToNothing opens many caches, of each kind of source, and looks at what they cost.
func TestIdleCachesHoldNextToNothing(t *testing.T) {
	pace.Long(t)
	const n, mostHeap = 200, 100 << 10
	t.Setenv("IDLE_SECRET", "x")
	local := t.TempDir()
	for kind, source := range map[string]func(i int) (string, ufs.Options){
		"http":  func(i int) (string, ufs.Options) { return fmt.Sprintf("https://127.0.0.1:1/%d/", i), ufs.Options{} },
		"local": func(int) (string, ufs.Options) { return local, ufs.Options{} },
		"s3": func(i int) (string, ufs.Options) {
			return fmt.Sprintf("s3://bucket/%d", i), ufs.Options{Values: map[string]string{
				"endpoint": "http://127.0.0.1:1", "access_key_id": "env:IDLE_SECRET",
				"secret_access_key": "env:IDLE_SECRET",
			}}
		},
	} {
		t.Run(kind, func(t *testing.T) {
			budget, dir := embedded.NewBudget(64<<20), t.TempDir()
			start := func(i int) *embedded.Cache {
				where, opts := source(i)
				opts.Deferred = true
				store, err := ufs.Open(t.Context(), where, opts)
				if err != nil {
					t.Fatal(err)
				}
				c, err := embedded.New(store, embedded.Config{
					Budget: budget, Scope: strconv.Itoa(i),
					Levels: tier(dir, 64<<20),
				})
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			if err := start(n).Close(); err != nil {
				t.Fatal(err)
			}
			before := measure(t)
			caches := make([]*embedded.Cache, n)
			for i := range caches {
				caches[i] = start(i)
			}
			waitUntil(t, func() bool { return runtime.NumGoroutine() <= before.goroutines+n })
			now := measure(t)
			heap := (now.heap - before.heap) / n
			t.Logf("each of %d: %d KiB, %.2f goroutines, %.2f descriptors", n, heap>>10,
				float64(now.goroutines-before.goroutines)/n, float64(now.fds-before.fds)/n)
			if heap > mostHeap || now.goroutines > before.goroutines+n || now.fds > before.fds+n+5 {
				t.Errorf("before %+v, now %+v", before, now)
			}
			for _, c := range caches {
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			waitUntil(t, func() bool { return runtime.NumGoroutine() <= before.goroutines })
			if after := measure(t); after.fds > before.fds+2 {
				t.Errorf("%d descriptors before, %d after all were closed", before.fds, after.fds)
			}
		})
	}
}
