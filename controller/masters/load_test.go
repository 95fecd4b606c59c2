package masters

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/sanity/liar/fakealluxio"
)

// TestLoadGoesOnPastDirectories loads a tree of which one directory cannot be listed: the rest is loaded, and the
// directory is counted and named.
func TestLoadGoesOnPastDirectories(t *testing.T) {
	root := t.TempDir()
	for name, data := range map[string]string{"a": "1", "bad/b": "22", "c/d": "333", "c/e/f": "4444"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused := map[string]bool{"bad": true}
	fake, err := fakealluxio.Start(fakealluxio.Config{
		Root: root, Tier: t.TempDir(), BlockSize: 1 << 20,
		Refuses: func(call, path string) error {
			if call == "ListStatus" && refused[path] {
				return status.Error(codes.PermissionDenied, "nobody may list it")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	key := types.NamespacedName{Namespace: "n", Name: "d"}
	c := &Clusters{Log: slog.New(slog.DiscardHandler)}
	address := strings.TrimSuffix(strings.TrimPrefix(fake.Address(), "alluxio://"), "/")
	c.Want(key, Want{Masters: []string{address}, User: "root"})
	var last Progress
	err = c.Load(t.Context(), key, []Target{{Path: "/", Replicas: 1}}, false, func(p Progress) { last = p })
	if err != nil {
		t.Fatal(err)
	}
	if last.Files != 3 || last.FilesTotal != 3 || last.Bytes != 8 || last.Failed != 1 {
		t.Errorf("%+v", last)
	}
	if !strings.HasPrefix(last.FirstFailure, "/bad cannot be listed: ") {
		t.Errorf("the failure is told as %q", last.FirstFailure)
	}

	refused[""] = true
	if err := c.Load(t.Context(), key, []Target{{Path: "/", Replicas: 1}}, false, func(Progress) {}); err == nil {
		t.Error("a target that cannot be listed is loaded")
	}
}
