package embedded_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
	"millrace.io/millrace/sanity/pace"
)

// TestHugeList reads a directory of 300,000 entries in the pages that the kernel asks for, and
// measures memory: a long listing is in a file, not on the heap.
func TestHugeList(t *testing.T) {
	pace.Long(t)
	const entries, limit, most = 300_000, 1024, 16 << 20
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, "<html><title>Index of /</title><pre>")
		for i := range entries {
			_, _ = fmt.Fprintf(w, "<a href=\"a-rather-long-name-of-a-file-%08d.bin\">name</a> 2024-01-01 10:00 1234\n", i)
		}
	}))
	t.Cleanup(srv.Close)
	store, err := ufs.Open(t.Context(), srv.URL, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := embedded.New(store, embedded.Config{Levels: tier(t.TempDir(), 1<<30)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, peak, from := heap(), uint64(0), cacheclient.Cursor{}
	for pages := 0; ; pages++ {
		page, err := c.List(t.Context(), "", from, limit, false)
		if err != nil {
			t.Fatal(err)
		}
		for i, info := range page.Entries {
			if want := fmt.Sprintf("a-rather-long-name-of-a-file-%08d.bin", from.Index+uint64(i)); info.Path != want {
				t.Fatalf("entry %d is %q", from.Index+uint64(i), info.Path)
			}
		}
		from = page.Next
		if pages%50 == 0 {
			peak = max(peak, heap())
		}
		if page.End {
			break
		}
	}
	if from.Index != entries {
		t.Errorf("%d entries", from.Index)
	}
	t.Logf("live heap %d KiB before, %d KiB at most", before>>10, peak>>10)
	if peak > before+most {
		t.Errorf("the heap grew by %d KiB", (peak-before)>>10)
	}
}
