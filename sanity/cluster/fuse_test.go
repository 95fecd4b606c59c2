package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/session"
)

func TestAlluxiosOwnFuseMountsTheCluster(t *testing.T) {
	c := shared.Get(t)
	text := strings.Repeat("through the kernel\n", 100_000)
	if err := os.Mkdir(filepath.Join(c.UFS(), "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, c, "sub/file", text)
	dir := t.TempDir()
	before := []int{countBlocks(t, c.Workers()[0]), countBlocks(t, c.Workers()[1])}
	f, err := c.Fuse(within(t, 3*time.Minute), dir, cluster.FuseConfig{
		Path: "/sub", Host: c.Workers()[0].Host,
		Heap: 256 << 20, Direct: 128 << 20,
	})
	if errors.Is(err, cluster.ErrMissing) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil || string(got) != text {
		t.Errorf("read %d bytes of %d: %v", len(got), len(text), err)
	}
	if f.RSS() < 50<<20 || f.RSS() > 1<<30 {
		t.Errorf("resident memory of %d bytes", f.RSS())
	}
	if one, two := countBlocks(t, c.Workers()[0])-before[0], countBlocks(t, c.Workers()[1])-before[1]; one != 2 ||
		two != 0 {
		t.Errorf("the worker on the client's host got %d blocks and the other %d: want 2 and 0", one, two)
	}
	pid := f.Pid()
	for range 2 {
		if err := f.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	checkGone(t, []int{pid})
	if session.Mounted(dir) {
		t.Error("still mounted")
	}
}
