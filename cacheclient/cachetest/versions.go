package cachetest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"millrace.io/millrace/cacheclient"
)

func (s *suite) changed() {
	old := s.mustOpen("one block")
	defer func() { _ = old.Close() }()
	begun, err := old.Read(s.ctx, 0, 10)
	if err != nil {
		s.Fatal(err)
	}
	begun.Release()
	info := old.Info()
	fresh := content(99, 1<<20)
	put(s.T, s.dir, "one block", fresh, time.Now())
	s.onceAsked(func() error {
		f, err := s.c.Open(s.ctx, info)
		if errors.Is(err, cacheclient.ErrStale) {
			return nil
		}
		if err == nil {
			_ = f.Close()
		}
		return fmt.Errorf("open of the version before the change: %w; want %w", err, cacheclient.ErrStale)
	})
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
	s.onceAsked(func() error {
		f, err := s.c.Open(s.ctx, info)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cacheclient.ErrStale) {
			return nil
		}
		if err == nil {
			_ = f.Close()
		}
		return fmt.Errorf("open of a removed file: %w", err)
	})
	s.onceAsked(func() error {
		if _, err := s.c.Stat(s.ctx, "a.txt"); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("stat of a removed file: %w", err)
		}
		return nil
	})
	s.onceAsked(func() error {
		for _, e := range s.listAll("", 100, false) {
			if e.Path == "a.txt" {
				return errors.New("a removed file is listed")
			}
		}
		return nil
	})
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

// resumed changes files at the source between two processes: handles that are open read on what is cached.
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
	if _, err := cacheclient.ReadAt(s.ctx, now, got, 0); err != nil ||
		!bytes.Equal(got, content(98, len(Tree["block and a byte"]))[:10]) {
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
	s.infos = map[string]cacheclient.Info{
		"big.bin":          s.mustStat("big.bin"),
		"block and a byte": s.mustStat("block and a byte"),
	}
	if !s.b.Caches {
		return
	}
	if err := s.c.Warm(s.ctx, "block and a byte", nil); err != nil {
		s.Fatal(err)
	}
	if s.b.Whole {
		if err := s.c.Warm(s.ctx, "big.bin", nil); err != nil {
			s.Fatal(err)
		}
		return
	}
	f := s.mustOpen("big.bin")
	defer func() { _ = f.Close() }()
	if _, err := cacheclient.ReadAt(s.ctx, f, make([]byte, 1<<20), 0); err != nil {
		s.Fatal(err)
	}
	s.awaitCached("big.bin")
}

// awaitCached waits until the first block of a path, which was read, is cached: what is read may get there a moment
// later.
func (s *suite) awaitCached(path string) {
	s.Helper()
	for range 200 {
		blocks, err := s.c.Blocks(s.ctx, path)
		if err != nil {
			s.Fatal(err)
		}
		if len(blocks) > 0 && len(blocks[0].Where) > 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.Fatalf("the first block of %q was read and is not cached", path)
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
		if _, ok := whole.Local(); !ok && !s.b.Split {
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
	d, err := part.Read(s.ctx, 8<<20, 100)
	if err == nil && s.b.Whole && bytes.Equal(slices.Concat(d.Parts...), Tree["big.bin"][8<<20:8<<20+100]) {
		d.Release()
		return
	}
	if !errors.Is(err, cacheclient.ErrStale) {
		s.Errorf("bytes that are neither cached nor at the source any more: %d of them, %v; want %v", d.Len(), err,
			cacheclient.ErrStale)
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
