package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace.io/millrace/sanity/cluster"
)

func TestAClusterReadsItsUnderStore(t *testing.T) {
	c := cluster.ForTest(t, cluster.Config{})
	if err := os.WriteFile(filepath.Join(c.UFS(), "a file"), []byte("hello\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := c.Shell(t.Context(), "cat", "/a file")
	if err != nil || got != "hello\n" {
		t.Fatalf("read %q, %v", got, err)
	}
	report, err := c.Admin(t.Context(), "report", "summary")
	if err != nil || !strings.Contains(report, "Live Workers: 2") {
		t.Fatalf("fsadmin report: %v\n%s", err, report)
	}
}
