// Package cachetest is what every backend of cacheclient must do: one suite, run against each.
package cachetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
)

// Backend makes clients for the suite.
type Backend struct {
	// New returns a client whose source is the tree in dir as it is at each moment, believing names and
	// attributes for no time at all. A second client for the same dir and cache directory stands for
	// a new process, so New is called again only after the first client is closed.
	New func(t *testing.T, dir, cache string) cacheclient.Client
	// Caches says that bytes once read stay; false for a backend without a tier.
	Caches bool
}

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

// suite is the state of one test.
type suite struct {
	*testing.T
	b          Backend
	dir, cache string
	c          cacheclient.Client
	ctx        context.Context
	// infos are of the versions that a former process had open.
	infos map[string]cacheclient.Info
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Helper()
	for name, test := range map[string]func(*suite){
		"Stat": (*suite).stat, "List": (*suite).list, "Pages": (*suite).pages,
		"Read": (*suite).read, "Concurrent": (*suite).concurrent, "Identities": (*suite).identities,
		"Warm": (*suite).warm, "Changed": (*suite).changed, "Removed": (*suite).removed,
		"Restart": (*suite).restart, "Cancelled": (*suite).cancelled, "Closed": (*suite).closed,
		"Kinds": (*suite).kinds, "Resumed": (*suite).resumed, "ResumedRemoved": (*suite).resumedRemoved,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			s := &suite{T: t, b: b, dir: t.TempDir(), cache: t.TempDir(), ctx: ctx}
			Write(t, s.dir)
			s.c = b.New(t, s.dir, s.cache)
			defer func() {
				if err := s.c.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			}()
			test(s)
		})
	}
}

// mustStat describes a path that is there.
func (s *suite) mustStat(path string) cacheclient.Info {
	s.Helper()
	info, err := s.c.Stat(s.ctx, path)
	if err != nil {
		s.Fatalf("stat %q: %v", path, err)
	}
	return info
}

func (s *suite) mustOpen(path string) cacheclient.File {
	s.Helper()
	f, err := s.c.Open(s.ctx, s.mustStat(path))
	if err != nil {
		s.Fatalf("open %q: %v", path, err)
	}
	return f
}

func (s *suite) stat() {
	root := s.mustStat("")
	if !root.Dir || root.ID != cacheclient.RootID {
		s.Errorf("the root is %+v", root)
	}
	for name, data := range Tree {
		info := s.mustStat(name)
		if info.Dir || info.Size != int64(len(data)) || info.Path != name || info.ID <= cacheclient.RootID {
			s.Errorf("stat %q: %+v, %d bytes written", name, info, len(data))
		}
		if age := time.Since(info.ModTime); age < 47*time.Hour || age > 49*time.Hour {
			s.Errorf("stat %q: time %v, 48 hours ago was set", name, info.ModTime)
		}
	}
	if dir := s.mustStat("dir/deep"); !dir.Dir || dir.ID == 0 {
		s.Errorf("stat of a directory: %+v", dir)
	}
	for _, name := range []string{"no such", "dir/no such", "no such/at all", "a.txt/below"} {
		if _, err := s.c.Stat(s.ctx, name); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, cacheclient.ErrNotDir) {
			s.Errorf("stat %q: %v, want not exist", name, err)
		}
	}
}

// listAll reads a directory in pages of limit.
func (s *suite) listAll(dir string, limit int, attrs bool) []cacheclient.Info {
	s.Helper()
	var all []cacheclient.Info
	for {
		p, err := s.c.List(s.ctx, dir, uint64(len(all)), limit, attrs)
		if err != nil {
			s.Fatalf("list %q from %d: %v", dir, len(all), err)
		}
		if len(p.Entries) > limit || p.Version == 0 || (len(p.Entries) == 0 && !p.End) {
			s.Fatalf("list %q from %d: %d entries, limit %d, version %d, end %v",
				dir, len(all), len(p.Entries), limit, p.Version, p.End)
		}
		all = append(all, p.Entries...)
		if p.End {
			return all
		}
	}
}

func (s *suite) list() {
	seen := make(map[string]bool)
	var walk func(dir string)
	walk = func(dir string) {
		for _, e := range s.listAll(dir, 3, true) {
			if seen[e.Path] {
				s.Errorf("list %q: %q comes twice", dir, e.Path)
			}
			seen[e.Path] = true
			if got := s.mustStat(e.Path); got.ID != e.ID || got.Size != e.Size || got.Dir != e.Dir {
				s.Errorf("list %q says %+v, stat says %+v", dir, e, got)
			}
			if e.Dir {
				walk(e.Path)
			}
		}
	}
	walk("")
	for name := range Tree {
		if !seen[name] {
			s.Errorf("no listing has %q", name)
		}
	}
}

func (s *suite) pages() {
	const n = 1000
	for i := range n {
		put(s.T, s.dir, fmt.Sprintf("many/%04d", i), []byte("x"), time.Now().Add(-time.Hour))
	}
	names := make([]string, 0, n)
	for _, e := range s.listAll("many", 7, false) {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	if len(slices.Compact(names)) != n {
		s.Errorf("%d different names in pages of 7, want %d", len(slices.Compact(names)), n)
	}
	p, err := s.c.List(s.ctx, "many", n, 10, true)
	if err != nil || len(p.Entries) != 0 || !p.End {
		s.Errorf("after the end: %d entries, end %v, %v", len(p.Entries), p.End, err)
	}
	v := p.Version
	put(s.T, s.dir, "many/new", nil, time.Now())
	if p, err = s.c.List(s.ctx, "many", 0, 10, false); err != nil || p.Version == v {
		s.Errorf("a directory with a new entry has the same version %d (%v)", v, err)
	}
}

func (s *suite) read() {
	for name, want := range Tree {
		f := s.mustOpen(name)
		got, err := io.ReadAll(io.NewSectionReader(readerAt{s.ctx, f}, 0, f.Info().Size))
		if err != nil || !bytes.Equal(got, want) {
			s.Errorf("read %q: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
		if d, err := f.Read(s.ctx, int64(len(want)), 10); err != nil || d.Len() != 0 {
			s.Errorf("read %q at its end: %d bytes, %v", name, d.Len(), err)
		}
		if _, err := f.Read(s.ctx, -1, 10); err == nil {
			s.Errorf("read %q at -1: no error", name)
		}
		if err := f.Close(); err != nil {
			s.Errorf("close %q: %v", name, err)
		}
		if _, err := f.Read(s.ctx, 0, 1); !errors.Is(err, cacheclient.ErrClosed) {
			s.Errorf("read %q after close: %v", name, err)
		}
	}
}

// readerAt reads a File as an io.ReaderAt.
type readerAt struct {
	ctx context.Context
	f   cacheclient.File
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return cacheclient.ReadAt(r.ctx, r.f, p, off)
}

func (s *suite) concurrent() {
	names := []string{"big.bin", "one block", "block and a byte", "a.txt"}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 7))
			for range 20 {
				s.randomRead(rnd, names[rnd.IntN(len(names))])
			}
		})
	}
	wg.Wait()
}

// randomRead compares a few ranges of a file, opened for it.
func (s *suite) randomRead(rnd *rand.Rand, name string) {
	info, err := s.c.Stat(s.ctx, name)
	if err != nil {
		s.Errorf("stat %q: %v", name, err)
		return
	}
	f, err := s.c.Open(s.ctx, info)
	if err != nil {
		s.Errorf("open %q: %v", name, err)
		return
	}
	defer func() { _ = f.Close() }()
	want := Tree[name]
	for range 4 {
		off := rnd.IntN(len(want))
		n := 1 + rnd.IntN(1<<20+1<<19)
		d, err := f.Read(s.ctx, int64(off), n)
		if err != nil {
			s.Errorf("read %q at %d: %v", name, off, err)
			return
		}
		end := min(off+n, len(want))
		if !bytes.Equal(slices.Concat(d.Parts...), want[off:end]) {
			s.Errorf("read %q [%d,%d): wrong bytes", name, off, end)
		}
		d.Release()
	}
}

func (s *suite) identities() {
	ids := make(map[uint64]string)
	for name := range Tree {
		id := s.mustStat(name).ID
		if other, ok := ids[id]; ok {
			s.Errorf("%q and %q have the same identity", name, other)
		}
		ids[id] = name
	}
	dir := s.mustStat("dir")
	s.reopen()
	for id, name := range ids {
		if got := s.mustStat(name).ID; got != id {
			s.Errorf("%q is %x in a new process, was %x", name, got, id)
		}
	}
	if got := s.mustStat("dir"); got.ID != dir.ID {
		s.Errorf("a directory is %x in a new process, was %x", got.ID, dir.ID)
	}
}

// reopen stands for a new process.
func (s *suite) reopen() {
	s.Helper()
	if err := s.c.Close(); err != nil {
		s.Fatalf("close: %v", err)
	}
	s.c = s.b.New(s.T, s.dir, s.cache)
}

func (s *suite) warm() {
	if !s.b.Caches {
		if err := s.c.Warm(s.ctx, "big.bin", nil); err == nil {
			s.Error("warm without a tier says that it succeeded")
		}
		return
	}
	var last int64
	if err := s.c.Warm(s.ctx, "big.bin", func(n int64) { last = n }); err != nil {
		s.Fatal(err)
	}
	want := Tree["big.bin"]
	if last != int64(len(want)) {
		s.Errorf("the last progress is %d of %d bytes", last, len(want))
	}
	s.checkLocal("big.bin")
	blocks, err := s.c.Blocks(s.ctx, "big.bin")
	var sum int64
	for _, b := range blocks {
		sum += b.Length
		if len(b.Where) == 0 {
			s.Errorf("block at %d is nowhere after warm", b.Offset)
		}
	}
	if err != nil || sum != int64(len(want)) {
		s.Errorf("blocks cover %d of %d bytes, %v", sum, len(want), err)
	}
	if used := s.c.Capacity().Used; used < int64(len(want)) {
		s.Errorf("%d bytes used after %d were warmed", used, len(want))
	}
	freed, err := s.c.Free(s.ctx, "")
	if err != nil || freed < int64(len(want)) {
		s.Errorf("free: %d bytes, %v", freed, err)
	}
	if used := s.c.Capacity().Used; used != 0 {
		s.Errorf("%d bytes used after all was freed", used)
	}
}

// checkLocal compares the one local file of a path with what was written.
func (s *suite) checkLocal(path string) {
	s.Helper()
	f := s.mustOpen(path)
	defer func() { _ = f.Close() }()
	local, ok := f.Local()
	if !ok {
		s.Fatalf("%q is cached and has no local file", path)
	}
	got, err := io.ReadAll(io.NewSectionReader(local, 0, 1<<40))
	if err != nil || !bytes.Equal(got, Tree[path]) {
		s.Errorf("the local file of %q has %d bytes (%v) that are not the source's %d", path, len(got), err, len(Tree[path]))
	}
}

func (s *suite) changed() {
	old := s.mustOpen("one block")
	defer func() { _ = old.Close() }()
	if _, err := old.Read(s.ctx, 0, 10); err != nil {
		s.Fatal(err)
	}
	info := old.Info()
	fresh := content(99, 1<<20)
	put(s.T, s.dir, "one block", fresh, time.Now())
	f, err := s.c.Open(s.ctx, info)
	if !errors.Is(err, cacheclient.ErrStale) {
		s.Fatalf("open of the version before the change: %v, %v; want %v", f, err, cacheclient.ErrStale)
	}
	now := s.mustOpen("one block")
	defer func() { _ = now.Close() }()
	if now.Info().ID == info.ID {
		s.Error("two versions have the same identity")
	}
	got := make([]byte, len(fresh))
	if _, err := cacheclient.ReadAt(s.ctx, now, got, 0); err != nil || !bytes.Equal(got, fresh) {
		s.Errorf("the new version reads wrong (%v)", err)
	}
	d, err := old.Read(s.ctx, 512<<10, 10)
	if err == nil {
		if !bytes.Equal(slices.Concat(d.Parts...), Tree["one block"][512<<10:512<<10+10]) {
			s.Error("a reader of the old version got other bytes")
		}
		d.Release()
	} else if !errors.Is(err, cacheclient.ErrStale) {
		s.Errorf("a reader of the old version got %v, want its bytes or %v", err, cacheclient.ErrStale)
	}
}

func (s *suite) removed() {
	info := s.mustStat("a.txt")
	if err := os.Remove(filepath.Join(s.dir, "a.txt")); err != nil {
		s.Fatal(err)
	}
	if _, err := s.c.Open(s.ctx, info); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, cacheclient.ErrStale) {
		s.Errorf("open of a removed file: %v", err)
	}
	if _, err := s.c.Stat(s.ctx, "a.txt"); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("stat of a removed file: %v", err)
	}
	for _, e := range s.listAll("", 100, false) {
		if e.Path == "a.txt" {
			s.Error("a removed file is listed")
		}
	}
}

func (s *suite) restart() {
	if !s.b.Caches {
		return
	}
	if err := s.c.Warm(s.ctx, "big.bin", nil); err != nil {
		s.Fatal(err)
	}
	s.reopen()
	s.checkLocal("big.bin")
	if n := s.c.Counters().BytesSource; n != 0 {
		s.Errorf("a new process asked the source for %d bytes of a cached file", n)
	}
}

// resumed changes files at the source between two processes: who had them open reads on what is cached.
func (s *suite) resumed() {
	s.beforeResume()
	for _, name := range []string{"big.bin", "block and a byte"} {
		put(s.T, s.dir, name, content(98, len(Tree[name])), time.Now())
	}
	s.afterResume()
	if !s.b.Caches {
		return
	}
	// The new version is another file, and the old one stands beside it.
	now := s.mustOpen("block and a byte")
	defer func() { _ = now.Close() }()
	got := make([]byte, 10)
	if _, err := cacheclient.ReadAt(s.ctx, now, got, 0); err != nil || !bytes.Equal(got, content(98, len(Tree["block and a byte"]))[:10]) {
		s.Errorf("the new version beside the one that was resumed reads wrong (%v)", err)
	}
}

// resumedRemoved does the same with files that the source has no more.
func (s *suite) resumedRemoved() {
	s.beforeResume()
	for _, name := range []string{"big.bin", "block and a byte"} {
		if err := os.Remove(filepath.Join(s.dir, name)); err != nil {
			s.Fatal(err)
		}
	}
	s.afterResume()
}

// beforeResume is the former process: it has one file whole, and the beginning of another.
func (s *suite) beforeResume() {
	s.Helper()
	s.infos = map[string]cacheclient.Info{"big.bin": s.mustStat("big.bin"), "block and a byte": s.mustStat("block and a byte")}
	if !s.b.Caches {
		return
	}
	if err := s.c.Warm(s.ctx, "block and a byte", nil); err != nil {
		s.Fatal(err)
	}
	f := s.mustOpen("big.bin")
	defer func() { _ = f.Close() }()
	if _, err := cacheclient.ReadAt(s.ctx, f, make([]byte, 1<<20), 0); err != nil {
		s.Fatal(err)
	}
}

// afterResume resumes one file that was cached whole and one of which the first block was.
func (s *suite) afterResume() {
	s.Helper()
	s.reopen()
	if _, err := s.c.Resume(s.ctx, s.mustStat("dir")); !errors.Is(err, cacheclient.ErrIsDir) {
		s.Errorf("a directory is resumed: %v", err)
	}
	whole, part := s.mustResume("block and a byte"), s.mustResume("big.bin")
	defer func() { _, _ = whole.Close(), part.Close() }()
	if s.b.Caches {
		want := Tree["block and a byte"]
		got := make([]byte, len(want))
		if _, err := cacheclient.ReadAt(s.ctx, whole, got, 0); err != nil || !bytes.Equal(got, want) {
			s.Errorf("what is cached of a resumed file reads wrong (%v)", err)
		}
		if _, ok := whole.Local(); !ok {
			s.Error("a resumed file that is cached whole and was read has no local file")
		}
		if freed, err := s.c.Free(s.ctx, "block and a byte"); err != nil || freed != 0 {
			s.Errorf("%d bytes of a resumed file are freed, %v", freed, err)
		}
		got = got[:100]
		if _, err := cacheclient.ReadAt(s.ctx, part, got, 0); err != nil || !bytes.Equal(got, Tree["big.bin"][:100]) {
			s.Errorf("the cached block of a resumed file reads wrong (%v)", err)
		}
	}
	if d, err := part.Read(s.ctx, 8<<20, 100); !errors.Is(err, cacheclient.ErrStale) {
		s.Errorf("bytes that are neither cached nor at the source any more: %d of them, %v; want %v", d.Len(), err, cacheclient.ErrStale)
		d.Release()
	}
}

// mustResume opens what the former process had open.
func (s *suite) mustResume(path string) cacheclient.File {
	s.Helper()
	f, err := s.c.Resume(s.ctx, s.infos[path])
	if err != nil {
		s.Fatalf("resume %q: %v", path, err)
	}
	if f.Info().ID != s.infos[path].ID {
		s.Errorf("resume %q: another version", path)
	}
	return f
}

func (s *suite) cancelled() {
	f := s.mustOpen("big.bin")
	defer func() { _ = f.Close() }()
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if d, err := f.Read(ctx, 0, 100); err == nil {
		d.Release()
	} else if !errors.Is(err, context.Canceled) {
		s.Errorf("a cancelled read: %v", err)
	}
	d, err := f.Read(s.ctx, 0, 100)
	if err != nil || d.Len() != 100 {
		s.Fatalf("the read after a cancelled one: %d bytes, %v", d.Len(), err)
	}
	d.Release()
}

func (s *suite) closed() {
	info := s.mustStat("big.bin")
	f := s.mustOpen("a.txt")
	if _, err := cacheclient.ReadAt(s.ctx, f, make([]byte, 3), 0); err != nil {
		s.Fatal(err)
	}
	if err := s.c.Close(); err != nil {
		s.Fatal(err)
	}
	if _, err := f.Read(s.ctx, 0, 3); !errors.Is(err, cacheclient.ErrClosed) {
		s.Errorf("read of an open file after close: %v", err)
	}
	if err := f.Close(); err != nil {
		s.Errorf("close of a file after its client: %v", err)
	}
	if _, err := s.c.Open(s.ctx, info); !errors.Is(err, cacheclient.ErrClosed) {
		s.Errorf("open after close: %v", err)
	}
	if _, err := s.c.Stat(s.ctx, "dir/inner.txt"); err == nil {
		s.Error("stat of an unknown path after close: no error")
	}
}

func (s *suite) kinds() {
	if _, err := s.c.Open(s.ctx, s.mustStat("dir")); !errors.Is(err, cacheclient.ErrIsDir) {
		s.Errorf("open of a directory: %v", err)
	}
	if _, err := s.c.List(s.ctx, "a.txt", 0, 10, false); err == nil {
		s.Error("list of a file: no error")
	}
	if _, err := s.c.List(s.ctx, "no such", 0, 10, false); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("list of nothing: %v", err)
	}
	if names := strings.TrimSpace(s.mustStat("odd").Name()); names != "odd" {
		s.Errorf("the name of a directory is %q", names)
	}
}
