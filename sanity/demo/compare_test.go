package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestCompareFindsEveryDifference: the demo's verdict must be able to be "wrong".
func TestCompareFindsEveryDifference(t *testing.T) {
	source, dir := t.TempDir(), t.TempDir()
	write := func(root, name, content string) {
		t.Helper()
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"same", "d/same", "changed", "short", "missing"} {
		write(source, name, "the content")
	}
	write(dir, "same", "the content")
	write(dir, "d/same", "the content")
	write(dir, "changed", "the c0ntent")
	write(dir, "short", "the conten")
	write(dir, "extra", "")
	v, err := compare(t.Context(), source, dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(v.wrong)
	if want := []string{"changed", "extra", "missing", "short"}; !slices.Equal(v.wrong, want) {
		t.Errorf("wrong files %v, want %v", v.wrong, want)
	}
	if v.files != 5 || v.bytes != 55 {
		t.Errorf("compared %d files of %d bytes", v.files, v.bytes)
	}
}
