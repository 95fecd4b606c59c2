package ufs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// tree is the directory that every kind of source serves: its files by path, and its directories.
type tree struct {
	dir   string
	files map[string][]byte
	dirs  []string
	// big is a directory beside it that holds the sparse file only.
	big string
}

var (
	theTree *tree
	base    string
)

// TestMain removes the tree that the tests share.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	code := m.Run()
	if base != "" {
		_ = os.RemoveAll(base)
	}
	os.Exit(code)
}

// sharedTree makes the tree once. Other users, as which servers run, may read it.
func sharedTree(tb testing.TB) *tree {
	tb.Helper()
	if theTree == nil {
		dir, err := os.MkdirTemp("", "ufs-test") //nolint:usetesting // it outlives the test
		if err != nil {
			tb.Fatal(err)
		}
		base = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		theTree = newTree(tb, filepath.Join(dir, "tree"), manyFiles)
		theTree.addBig(tb, filepath.Join(dir, "bigtree"))
	}
	return theTree
}

// bigSize is the size of the sparse file, and bigTail what it ends with.
const bigSize = 5<<30 + 7

var bigTail = []byte("the end of a large file")

// oddNames have what URLs, HTML and servers may get wrong.
var oddNames = []string{
	"plain.txt", "with space.txt", "100%.txt", "%41.txt", "a%2Fb.txt", "hash#1.txt", "what?.txt", "-dash",
	"naïve-ü-日本.txt", "a+b.txt",
	"semi;colon.txt", "colon:name.txt", "amp&amp;.txt", "quote'\".txt", "<tag>.txt", "back\\slash.txt",
	"comma,equals=.txt",
	"at@star*.txt", "[brackets]{braces}.txt", "~tilde", "UPPER", "upper", "trailing.", "e\u0301combining.txt",
}

// newTree writes the tree. many is the number of files of its large directory.
func newTree(tb testing.TB, dir string, many int) *tree {
	tb.Helper()
	tr := &tree{dir: dir, files: map[string][]byte{}}
	random := rand.New(rand.NewPCG(1, 2))
	content := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for _, name := range oddNames {
		tr.files["odd/"+name] = content(100 + len(name))
		tr.files["odd dirs/d "+name+"/inside.txt"] = []byte(name)
	}
	tr.files["empty"] = nil
	tr.files["data.bin"] = content(3<<20 + 123)
	tr.files["archive.tar.gz"] = content(70000)
	tr.files["page.html"] = []byte("<html><body><a href=\"elsewhere\">x</a></body></html>")
	tr.files["deep/1/2/3/4/5/6/7/8/leaf"] = []byte("leaf")
	for i := range many {
		tr.files[fmt.Sprintf("many/file-%06d", i)] = []byte{byte(i)}
	}
	for name, data := range tr.files {
		full := filepath.Join(tr.dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(full, data, 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	// An old time with a fraction, as a server does not tell it.
	old := time.Date(2024, 2, 3, 4, 5, 6, 789000000, time.UTC)
	if err := os.Chtimes(filepath.Join(tr.dir, "data.bin"), old, old); err != nil {
		tb.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(tr.dir, "emptydir"), 0o755); err != nil {
		tb.Fatal(err)
	}
	tr.dirs = append(tr.dirs, "emptydir")
	for name := range tr.files {
		for d := path.Dir(name); d != "."; d = path.Dir(d) {
			tr.dirs = append(tr.dirs, d)
		}
	}
	slices.Sort(tr.dirs)
	tr.dirs = slices.Compact(tr.dirs)
	return tr
}

// addBig adds a sparse file of more than 4 GiB.
func (tr *tree) addBig(tb testing.TB, dir string) {
	tb.Helper()
	tr.big = dir
	if err := os.Mkdir(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bigTail, bigSize-int64(len(bigTail))); err != nil {
		tb.Fatal(err)
	}
}

// children are the names directly below dir, directories with a slash, sorted.
func (tr *tree) children(dir string) []string {
	var names []string
	add := func(p, slash string) {
		if parent := path.Dir(p); parent == dir || parent == "." && dir == "" {
			names = append(names, path.Base(p)+slash)
		}
	}
	for p := range tr.files {
		add(p, "")
	}
	for _, p := range tr.dirs {
		add(p, "/")
	}
	slices.Sort(names)
	return names
}

// abilities are what kinds of sources differ in.
type abilities struct {
	// noRanges: the whole file is sent whatever is asked for.
	noRanges bool
	// contentVersion: a version is told by the content, whatever the time.
	contentVersion bool
	// cached: the server does not see at once that a file changed.
	cached bool
	// complete: a listing has the attributes.
	complete bool
	// unlisted tells names that this kind of server cannot list or serve, with the reason.
	unlisted map[string]string
}

func testContext(tb testing.TB) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), pace.Limit(2*time.Minute))
	tb.Cleanup(cancel)
	return ctx
}

func mustOpen(tb testing.TB, source string, opts Options) Store {
	tb.Helper()
	store, err := Open(testContext(tb), source, opts)
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	return store
}

// runSuite checks a store against the tree it shows.
func runSuite(t *testing.T, store Store, tr *tree, can abilities) {
	t.Helper()
	t.Run("list", func(t *testing.T) { testList(t, store, tr, can) })
	t.Run("stat", func(t *testing.T) { testStat(t, store, tr, can) })
	t.Run("read", func(t *testing.T) { testRead(t, store, tr, can) })
	t.Run("missing", func(t *testing.T) { testMissing(t, store) })
	t.Run("kinds", func(t *testing.T) { testKinds(t, store) })
	t.Run("ends with context", func(t *testing.T) { testCancelled(t, store) })
	if !can.cached {
		t.Run("stale", func(t *testing.T) { testStale(t, store, tr, can) })
	}
}

func listNames(tb testing.TB, store Store, dir string) ([]string, []cacheclient.Info) {
	tb.Helper()
	var names []string
	var infos []cacheclient.Info
	err := store.List(testContext(tb), dir, func(info cacheclient.Info) error {
		if parent := path.Dir(info.Path); parent != dir && (dir != "" || parent != ".") {
			tb.Errorf("list %q gives the path %q", dir, info.Path)
		}
		name := info.Name()
		if info.Dir {
			name += "/"
		}
		names = append(names, name)
		infos = append(infos, info)
		return nil
	})
	if err != nil {
		tb.Fatalf("list %q: %v", dir, err)
	}
	slices.Sort(names)
	return names, infos
}

func testList(t *testing.T, store Store, tr *tree, can abilities) {
	t.Helper()
	for _, dir := range append([]string{""}, tr.dirs...) {
		if can.skips(dir) {
			continue
		}
		want := slices.DeleteFunc(tr.children(dir), func(name string) bool {
			return can.skips(strings.TrimSuffix(name, "/"))
		})
		got, infos := listNames(t, store, dir)
		got = slices.DeleteFunc(got, can.skips)
		if !slices.Equal(got, want) {
			t.Errorf("list %q: got %d names, want %d: %q", dir, len(got), len(want), difference(got, want))
		}
		for _, info := range infos {
			if info.ID != 0 {
				t.Errorf("%q comes with an ID", info.Path)
			}
			if !info.Dir && can.complete != (info.Size != cacheclient.UnknownSize) {
				t.Errorf("%q is listed with size %d", info.Path, info.Size)
			}
		}
	}
	stop := errors.New("stop")
	if err := store.List(testContext(t), "", func(cacheclient.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error is %v", err)
	}
}

func (a abilities) skips(p string) bool {
	for name := range a.unlisted {
		if strings.Contains(p, name) {
			return true
		}
	}
	return false
}

func difference(got, want []string) []string {
	var out []string
	for _, g := range got {
		if !slices.Contains(want, g) {
			out = append(out, "+"+g)
		}
	}
	for _, w := range want {
		if !slices.Contains(got, w) {
			out = append(out, "-"+w)
		}
		if len(out) > 20 {
			break
		}
	}
	return out
}

func testStat(t *testing.T, store Store, tr *tree, can abilities) {
	t.Helper()
	ctx := testContext(t)
	if info, err := store.Stat(ctx, ""); err != nil || !info.Dir || info.Path != "" {
		t.Errorf("stat of the root: %+v, %v", info, err)
	}
	seen := 0
	for p, data := range tr.files {
		if can.skips(p) || strings.HasPrefix(p, "many/") && seen > 20 {
			continue
		}
		if strings.HasPrefix(p, "many/") {
			seen++
		}
		info, err := store.Stat(ctx, p)
		if err != nil {
			t.Errorf("stat %q: %v", p, err)
			continue
		}
		fi, err := os.Stat(filepath.Join(tr.dir, p))
		if err != nil {
			t.Fatal(err)
		}
		if info.Path != p || info.Dir || info.Size != int64(len(data)) || info.ID != 0 ||
			info.ModTime.Unix() != fi.ModTime().Unix() {
			t.Errorf("stat %q: %+v", p, info)
		}
	}
	for _, d := range tr.dirs {
		if can.skips(d) {
			continue
		}
		if info, err := store.Stat(ctx, d); err != nil || !info.Dir || info.Path != d {
			t.Errorf("stat of directory %q: %+v, %v", d, info, err)
		}
	}
	if can.complete {
		// A listing and a request name a version the same.
		for _, dir := range []string{"", "odd"} {
			_, infos := listNames(t, store, dir)
			for _, listed := range infos {
				asked, err := store.Stat(ctx, listed.Path)
				if err != nil || !listed.Dir && cacheclient.Identify(asked) != cacheclient.Identify(listed) {
					t.Errorf("listed %+v, asked %+v, %v", listed, asked, err)
				}
			}
		}
	}
}

// readAll reads a range as a caller does, dropping what comes before it.
func readAll(ctx context.Context, store Store, info cacheclient.Info, off, length int64) ([]byte, error) {
	body, err := store.Open(ctx, info, off, length)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	if body.Start > off || body.End < off+length {
		return nil, fmt.Errorf("the body is %d-%d", body.Start, body.End)
	}
	data, err := io.ReadAll(body)
	if err != nil {
		return data, err
	}
	if int64(len(data)) != body.End-body.Start {
		return nil, fmt.Errorf("%d bytes came for %d-%d", len(data), body.Start, body.End)
	}
	return data[off-body.Start:][:length], nil
}

func testRead(t *testing.T, store Store, tr *tree, can abilities) {
	t.Helper()
	ctx := testContext(t)
	for p, data := range tr.files {
		if can.skips(p) || len(data) == 0 || strings.HasPrefix(p, "many/") && p > "many/file-000020" {
			continue
		}
		info, err := store.Stat(ctx, p)
		if err != nil {
			t.Errorf("stat %q: %v", p, err)
			continue
		}
		size := int64(len(data))
		for _, r := range [][2]int64{{0, size}, {0, 1}, {size - 1, 1}, {size / 3, size/2 - size/3 + 1}} {
			got, err := readAll(ctx, store, info, r[0], min(r[1], size-r[0]))
			want := data[r[0]:][:min(r[1], size-r[0])]
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %q at %d+%d: %d bytes, %v", p, r[0], r[1], len(got), err)
			}
		}
	}
	info, err := store.Stat(ctx, "data.bin")
	if err != nil {
		t.Fatal(err)
	}
	body, err := store.Open(ctx, info, 1000, 5000)
	if err != nil {
		t.Fatal(err)
	}
	if whole := body.Start == 0 && body.End == info.Size; whole != can.noRanges {
		t.Errorf("the body is %d-%d", body.Start, body.End)
	}
	// Closed early, and used no more.
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	testParallel(t, store, tr, info)
}

func testParallel(t *testing.T, store Store, tr *tree, info cacheclient.Info) {
	t.Helper()
	ctx := testContext(t)
	whole := tr.files[info.Path]
	results := make(chan error)
	const readers = 8
	for i := range readers {
		go func() {
			off := int64(i) * info.Size / readers
			end := int64(i+1) * info.Size / readers
			got, err := readAll(ctx, store, info, off, end-off)
			if err == nil && sha256.Sum256(got) != sha256.Sum256(whole[off:end]) {
				err = errors.New("the bytes differ")
			}
			results <- err
		}()
	}
	for range readers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func testMissing(t *testing.T, store Store) {
	t.Helper()
	ctx := testContext(t)
	for _, p := range []string{
		"nothing", "nothing/below", "data.bin/below", "../etc", "a//b", "/abs", "odd/..",
		"odd/.", "nul\x00",
	} {
		if info, err := store.Stat(ctx, p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat %q: %+v, %v", p, info, err)
		} else if retry, _ := Retryable(err); retry {
			t.Errorf("stat %q: %v is to be retried", p, err)
		}
	}
	for _, p := range []string{"nothing", "odd/nothing", "../etc", "data.bin/below"} {
		if err := store.List(ctx, p, func(cacheclient.Info) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("list %q: %v", p, err)
		}
	}
	gone := cacheclient.Info{Path: "gone", Size: 10}
	if _, err := store.Open(ctx, gone, 0, 10); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of what is not there: %v", err)
	}
}

func testKinds(t *testing.T, store Store) {
	t.Helper()
	ctx := testContext(t)
	if err := store.List(ctx, "data.bin", func(cacheclient.Info) error { return nil }); !errors.Is(err,
		cacheclient.ErrNotDir) {
		t.Errorf("list of a file: %v", err)
	}
	if _, err := store.Open(ctx, cacheclient.Info{Path: "odd", Dir: true}, 0, 1); !errors.Is(err,
		cacheclient.ErrIsDir) {
		t.Errorf("open of a directory: %v", err)
	}
	if _, err := store.Open(ctx, cacheclient.Info{Path: "data.bin", Size: 10}, 5, 6); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a range beyond the end: %v", err)
	}
	if _, err := store.Open(ctx, cacheclient.Info{Path: "data.bin", Size: cacheclient.UnknownSize}, 0,
		1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("unknown size: %v", err)
	}
}

func testCancelled(t *testing.T, store Store) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := store.Stat(ctx, "data.bin"); !errors.Is(err, context.Canceled) {
		t.Errorf("stat: %v", err)
	} else if retry, _ := Retryable(err); retry {
		t.Error("a cancelled context is to be retried")
	}
	if err := store.List(ctx, "odd", func(cacheclient.Info) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("list: %v", err)
	}
	if _, err := store.Open(ctx, cacheclient.Info{Path: "data.bin", Size: 100}, 0, 1); !errors.Is(err,
		context.Canceled) {
		t.Errorf("open: %v", err)
	}
}

// testStale changes a file of the tree at the source.
func testStale(t *testing.T, store Store, tr *tree, can abilities) {
	t.Helper()
	ctx := testContext(t)
	full := filepath.Join(tr.dir, "changing")
	write := func(data string, at time.Time) {
		t.Helper()
		// As a careful writer replaces a file.
		if err := os.WriteFile(full+".new", []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(full+".new", at, at); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(full+".new", full); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = os.Remove(full) })
	first := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, change := range []struct {
		what, data string
		at         time.Time
	}{{"time", "0123456789", first.Add(time.Hour)}, {"longer", "0123456789abc", first}, {"shorter", "01234", first}} {
		if can.contentVersion && change.what == "time" {
			change.data = "9876543210"
		}
		write("0123456789", first)
		info, err := store.Stat(ctx, "changing")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(ctx, store, info, 2, 8); err != nil || string(got) != "23456789" {
			t.Fatalf("%s: %q, %v", change.what, got, err)
		}
		write(change.data, change.at)
		for _, r := range [][2]int64{{0, 2}, {2, 8}, {8, 2}} {
			_, err := readAll(ctx, store, info, r[0], r[1])
			if !errors.Is(err, cacheclient.ErrStale) {
				t.Errorf("%s, at %d: %v", change.what, r[0], err)
			} else if retry, _ := Retryable(err); retry {
				t.Errorf("%v is to be retried", err)
			}
		}
		now, err := store.Stat(ctx, "changing")
		if err != nil {
			t.Fatal(err)
		}
		if now.Mark() == info.Mark() {
			t.Errorf("%s: the version is the same", change.what)
		}
	}
}

func testBig(t *testing.T, store Store) {
	t.Helper()
	ctx := testContext(t)
	info, err := store.Stat(ctx, "sparse")
	if err != nil || info.Size != bigSize {
		t.Fatalf("%+v, %v", info, err)
	}
	n := int64(len(bigTail))
	if got, err := readAll(ctx, store, info, bigSize-n, n); err != nil || !bytes.Equal(got, bigTail) {
		t.Errorf("the end is %q, %v", got, err)
	}
	if got, err := readAll(ctx, store, info, 1<<32-5, 10); err != nil || !bytes.Equal(got, make([]byte, 10)) {
		t.Errorf("at 4 GiB: %q, %v", got, err)
	}
	body, err := store.Open(ctx, info, 0, info.Size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Error(err)
	}
	began := time.Now()
	_ = body.Close()
	if took := time.Since(began); took > pace.Limit(time.Second) {
		t.Errorf("closing 5 GiB early took %v", took)
	}
}
