package rpc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/sanity/cluster"
	"millrace.io/millrace/sanity/pace"
)

// TestMountBelowAMount has a real master mount a source below another one: it does where the outer one may be written,
// refuses where not, and its refusal tells no key.
func TestMountBelowAMount(t *testing.T) {
	pace.Long(t)
	c := cluster.ForTest(t, cluster.Config{Masters: 1, NoWorkers: true})
	conn := connect(t, addresses(c)...)
	dir := t.TempDir()
	for _, name := range []string{"outer", "inner", "closed", "deep"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(at, source string, readOnly bool) error {
		return conn.Mount(within(t, 20*time.Second), Mount{
			Path: at, Source: filepath.Join(dir,
				source), ReadOnly: readOnly, Properties: map[string]string{"s3a.secretKey": "hunter2"},
		})
	}
	if err := mount("/open", "outer", false); err != nil {
		t.Fatal(err)
	}
	if err := mount("/open/web", "inner", true); err != nil {
		t.Errorf("below a mount that may be written: %v", err)
	}
	if err := mount("/closed", "closed", true); err != nil {
		t.Fatal(err)
	}
	err := mount("/closed/web", "deep", true)
	if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("below a mount that is read-only: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "outer")); len(left) > 0 {
		t.Errorf("Alluxio wrote %v into the outer source", left)
	}
}
