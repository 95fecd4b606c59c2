package cachetest

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Tree is the files of the suite's source.
var Tree = map[string][]byte{
	"a.txt":               []byte("hello\n"),
	"empty":               {},
	"big.bin":             content(1, 9<<20+12345),
	"one block":           content(2, 1<<20),
	"block and a byte":    content(3, 1<<20+1),
	"dir/inner.txt":       []byte("inner"),
	"dir/deep/er/still/x": []byte("x"),
	"odd/100% sure":       []byte("percent"),
	"odd/%41":             []byte("looks escaped"),
	"odd/hash#tag":        []byte("hash"),
	"odd/what?":           []byte("question"),
	"odd/-dash":           []byte("dash"),
	"odd/größe ☃":         []byte("unicode"),
	"odd/a+b;c=d&e":       []byte("delimiters"),
	"odd/quote\"'`":       []byte("quotes"),
	"odd/colon:first":     []byte("colon"),
	"odd/<b>not a tag<b>": []byte("tag"),
}

// content is n bytes that depend on seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = src.Read(b)
	return b
}

// Write puts the tree into dir, with times long past, as most data has.
func Write(t *testing.T, dir string) {
	t.Helper()
	for name, data := range Tree {
		put(t, dir, name, data, time.Now().Add(-48*time.Hour))
	}
}

func put(t *testing.T, dir, name string, data []byte, mod time.Time) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	// A new file, not new content of the old one: a source replaces what it publishes.
	if err := os.WriteFile(p+".new", data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(p+".new", mod, mod); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		t.Fatal(err)
	}
}
