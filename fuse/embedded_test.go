package fuse

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient/embedded"
	"millrace.io/millrace/cacheclient/ufs"
)

// TestEmbedded runs over the real cache: a first read by copying fills it, a later open is passed
// through, and a file that changes at the source is a new one to its next opener.
func TestEmbedded(t *testing.T) {
	needMount(t)
	source := t.TempDir()
	content := pattern(9<<20 + 77)
	write(t, source, "d/f", content)
	store, err := ufs.Open(t.Context(), source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := embedded.New(store, embedded.Config{Levels: []embedded.LevelConfig{{
		Dir:   t.TempDir(),
		Quota: 64 << 20,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cache.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := mountPoint(t)
	s, err := Mount(t.Context(), Config{Client: cache, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(true); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "d/f")
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("cold: %d bytes, %v", len(got), err)
	}
	if st := s.Stats(); st.CopyOpens == 0 || st.PassthroughOpens != 0 {
		t.Errorf("cold: %d copy opens, %d passthrough opens", st.CopyOpens, st.PassthroughOpens)
	}
	eventually(t, "RELEASE", func() bool { return s.Stats().OpenFiles == 0 })
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("warm: %d bytes, %v", len(got), err)
	}
	if st := s.Stats(); st.PassthroughOpens == 0 {
		t.Error("warm: the file is not passed through")
	}
	changed := pattern(5 << 20)
	write(t, source, "d/f", changed)
	if err := os.Chtimes(filepath.Join(source, "d/f"), time.Time{}, time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new version is read", func() bool {
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, content) && !bytes.Equal(got, changed) {
			t.Fatalf("changed: %d bytes, %v", len(got), err)
		}
		return bytes.Equal(got, changed)
	})
}

// TestDirectoryBecomesFile has a file take the place of a directory that the kernel knows by its name, long before it
// asks for that again.
func TestDirectoryBecomesFile(t *testing.T) {
	needMount(t)
	source := t.TempDir()
	write(t, source, "x/f", []byte("below"))
	store, err := ufs.Open(t.Context(), source, ufs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := embedded.New(store, embedded.Config{TTL: -1, NameTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cache.Close() })
	dir := mountPoint(t)
	s, err := Mount(t.Context(), Config{Client: cache, Dir: dir, NameTTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Unmount(true) })
	if got, err := os.ReadFile(filepath.Join(dir, "x/f")); err != nil || string(got) != "below" {
		t.Fatalf("%q, %v", got, err)
	}
	if err := os.RemoveAll(filepath.Join(source, "x")); err != nil {
		t.Fatal(err)
	}
	write(t, source, "x", []byte("a file"))
	if got, err := os.ReadFile(filepath.Join(dir, "x")); err != nil || string(got) != "a file" {
		t.Errorf("%q, %v", got, err)
	}
}
