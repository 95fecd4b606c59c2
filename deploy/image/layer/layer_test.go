package layer_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"millrace.io/millrace/deploy/image/layer"
)

// tree makes a directory whose files have that age.
func tree(t *testing.T, age time.Duration) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"b/two": "2", "a/one": "1", "a/not": "0"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("one", filepath.Join(dir, "a", "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func image(t *testing.T, dir string) v1.Image {
	t.Helper()
	files, err := layer.Tree(dir, "/opt", func(path string) bool { return path != "/a/not" })
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, layer.Text("/etc/x", 0o600, "first"), layer.Text("/etc/x", 0o600, "second"))
	l, err := layer.New(files)
	if err != nil {
		t.Fatal(err)
	}
	i, err := layer.Image("arm64", time.Unix(1700000000, 0), v1.Config{Entrypoint: []string{"/opt/a/one"}}, l)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestSameFilesSameImage makes an image of two directories that differ in their place and their times.
func TestSameFilesSameImage(t *testing.T) {
	one, err := image(t, tree(t, time.Hour)).Digest()
	if err != nil {
		t.Fatal(err)
	}
	if two, err := image(t, tree(t, time.Minute)).Digest(); err != nil || one != two {
		t.Errorf("%v and %v, %v", one, two, err)
	}
}

// TestArchive reads an archive as a node loads it.
func TestArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := layer.Archive(path, "example.org/test:1", image(t, tree(t, 0))); err != nil {
		t.Fatal(err)
	}
	i, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := i.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Architecture != "arm64" || config.OS != "linux" || config.Config.Entrypoint[0] != "/opt/a/one" {
		t.Errorf("%+v", config)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil || len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"example.org/test:1"}) {
		t.Errorf("%+v, %v", manifest, err)
	}
	layers, err := i.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatal(len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"etc/ 755", "etc/x 600 first", "opt/ 755", "opt/a/ 755", "opt/a/link 777", "opt/a/one 640 1",
		"opt/b/ 755", "opt/b/two 640 2",
	}
	if got := list(t, content); !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// list are the names, modes and contents in a tar file.
func list(t *testing.T, from io.Reader) []string {
	t.Helper()
	var names []string
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || !h.ModTime.Equal(time.Unix(0, 0)) {
			t.Errorf("%s is %d:%d's, of %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		entry := h.Name + " " + strconv.FormatInt(h.Mode, 8)
		if len(text) > 0 {
			entry += " " + string(text)
		}
		names = append(names, entry)
	}
}
