package cachetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"

	"millrace.io/millrace/cacheclient"
)

func (s *suite) read() {
	for name, want := range s.tree {
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

func (s *suite) warm() {
	if !s.b.Caches {
		if err := s.c.Warm(s.ctx, "big.bin", nil); err == nil {
			s.Error("warm without a tier says that it succeeded")
		}
		return
	}
	// A cluster may have blocks of others.
	before := s.c.Capacity().Used
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
	if used := s.c.Capacity().Used; used > before {
		s.Errorf("%d bytes used after all was freed, and %d before it was warmed", used, before)
	}
}

// checkLocal compares the one local file of a path with what was written.
func (s *suite) checkLocal(path string) {
	s.Helper()
	if s.b.Split {
		return
	}
	f := s.mustOpen(path)
	defer func() { _ = f.Close() }()
	local, ok := f.Local()
	if !ok {
		s.Fatalf("%q is cached and has no local file", path)
	}
	got, err := io.ReadAll(io.NewSectionReader(local, 0, 1<<40))
	if err != nil || !bytes.Equal(got, Tree[path]) {
		s.Errorf("the local file of %q has %d bytes (%v) that are not the source's %d", path, len(got), err,
			len(Tree[path]))
	}
}
