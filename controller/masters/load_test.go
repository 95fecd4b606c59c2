package masters

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"millrace.io/millrace/cacheclient/alluxio/wire"
	"millrace.io/millrace/sanity/liar/fakealluxio"
	"millrace.io/millrace/sanity/pace"
)

// loads loads what a fake shows, as an entry of a listing is changed, and returns how far it came and the blocks that
// the worker has then.
func loads(t *testing.T, files map[string]string, retell func(dir string, entries []*wire.FileInfo)) (
	last Progress, blocks []string,
) {
	t.Helper()
	root, tier := t.TempDir(), t.TempDir()
	for name, data := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fake, err := fakealluxio.Start(fakealluxio.Config{Root: root, Tier: tier, BlockSize: 512, Retells: retell})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	key := types.NamespacedName{Namespace: "n", Name: "d"}
	c := &Clusters{Log: slog.New(slog.DiscardHandler)}
	c.Want(key, Want{
		Masters: []string{strings.TrimSuffix(strings.TrimPrefix(fake.Address(), "alluxio://"), "/")},
		User:    "root",
	})
	ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(time.Minute))
	defer cancel()
	if err := c.Load(ctx, key, []Target{{Path: "/", Replicas: 1}}, false, func(p Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(tier)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		data, err := os.ReadFile(filepath.Join(tier, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		blocks = append(blocks, string(data))
	}
	slices.Sort(blocks)
	return last, blocks
}

// TestLoadNumbersBlocksItself: whatever blocks a master names with a file, what workers cache is the file's own blocks
// by its own ids; a file whose numbers cannot be has failed.
func TestLoadNumbersBlocksItself(t *testing.T) {
	data := strings.Repeat("x", 512) + strings.Repeat("y", 512) + "z"
	files := map[string]string{"a": data, "b": "bb", "odd": "o"}
	last, blocks := loads(t, files, func(_ string, entries []*wire.FileInfo) {
		victim := entries[1].GetFileId() &^ (1<<24 - 1)
		entries[0].BlockIds = []int64{victim, victim + 1, victim + 2, victim + 3, victim + 4}
		entries[2].FileId = proto.Int64(5)
	})
	if want := []string{"bb", data[:512], data[512:1024], "z"}; !slices.Equal(blocks, want) {
		t.Errorf("the worker has %q", blocks)
	}
	if last.Files != 2 || last.Failed != 1 || last.Bytes != int64(len(data)+2) ||
		!strings.HasPrefix(last.FirstFailure, "/odd: ") {
		t.Errorf("%+v", last)
	}
}

// TestLoadEndsWhereDirectoriesDoNot: a directory that a master names as its own child, by any path, is counted and
// ends nothing.
func TestLoadEndsWhereDirectoriesDoNot(t *testing.T) {
	last, blocks := loads(t, map[string]string{"d/e/f": "1", "g": "2"}, func(_ string, entries []*wire.FileInfo) {
		for _, e := range entries {
			if e.GetFolder() {
				e.Path = proto.String("/")
			}
		}
	})
	if last.Files != 2 || last.Failed != 0 || len(blocks) != 2 {
		t.Errorf("by their names: %+v, %q", last, blocks)
	}
	var root *wire.FileInfo
	last, _ = loads(t, map[string]string{"d/e/f": "1", "d/e/d/x": "2", "g": "2"},
		func(dir string, entries []*wire.FileInfo) {
			for _, e := range entries {
				switch {
				case dir == "" && e.GetFolder():
					root = e
				case e.GetFolder() && dir == "d/e":
					e.FileId = root.FileId
				}
			}
		})
	if last.Files != 2 || last.Failed != 1 || !strings.Contains(last.FirstFailure, "below itself") {
		t.Errorf("below itself: %+v", last)
	}
}

// TestLoadGoesToWorkersThatAreThere loads where a master lists a worker that is gone, as it does for minutes after one
// was scaled away: whichever of the two a block fits best, it is loaded.
func TestLoadGoesToWorkersThatAreThere(t *testing.T) {
	root := t.TempDir()
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(root, strconv.Itoa(i)), []byte("data"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fake, err := fakealluxio.Start(fakealluxio.Config{
		Root: root, Tier: t.TempDir(), BlockSize: 512, Gone: []string{"127.0.0.1:1", "127.0.0.2:1"},
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
	if last.Files != 20 || last.Failed != 0 {
		t.Errorf("%+v", last)
	}
}

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
