// Package cachetest is what every backend of cacheclient must do: one suite, run against each. Names and
// attributes are in names.go, reads in reads.go, changes at the source and restarts in versions.go.
package cachetest

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/sanity/pace"
)

// Backend makes clients for the suite.
type Backend struct {
	// New returns a client whose source is the tree in dir as it is at each moment, believing names and
	// attributes for no time at all. A second client for the same dir and cache directory stands for
	// a new process, so New is called again only after the first client is closed.
	New func(t *testing.T, dir, cache string) cacheclient.Client
	// Caches says that bytes once read stay; false for a backend without a tier.
	Caches bool
	// Split says that a cached file may lie in several local files, or in none: Local has nothing to say then.
	Split bool
	// Omits tells the names that the backend cannot show; nil shows all.
	Omits func(path string) bool
	// Whole says that reading a part of a file may bring all of it.
	Whole bool
}

// suite is the state of one test.
type suite struct {
	*testing.T
	b          Backend
	dir, cache string
	// tree is what of Tree the backend shows.
	tree map[string][]byte
	c    cacheclient.Client
	ctx  context.Context
	// infos are of the versions that a former process had open.
	infos map[string]cacheclient.Info
}

// Run runs the suite.
func Run(t *testing.T, b Backend) {
	t.Helper()
	for name, test := range map[string]func(*suite){
		"Stat": (*suite).stat, "List": (*suite).list, "Pages": (*suite).pages, "ListChanging": (*suite).listChanging,
		"Read": (*suite).read, "Concurrent": (*suite).concurrent, "Identities": (*suite).identities,
		"Warm": (*suite).warm, "Changed": (*suite).changed, "Removed": (*suite).removed,
		"Restart": (*suite).restart, "Cancelled": (*suite).cancelled, "Closed": (*suite).closed,
		"Kinds": (*suite).kinds, "Resumed": (*suite).resumed, "ResumedRemoved": (*suite).resumedRemoved,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), pace.Limit(2*time.Minute))
			defer cancel()
			s := &suite{T: t, b: b, dir: t.TempDir(), cache: t.TempDir(), ctx: ctx}
			Write(t, s.dir)
			s.tree = make(map[string][]byte)
			for name, data := range Tree {
				if b.Omits == nil || !b.Omits(name) {
					s.tree[name] = data
				}
			}
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

// reopen stands for a new process.
func (s *suite) reopen() {
	s.Helper()
	if err := s.c.Close(); err != nil {
		s.Fatalf("close: %v", err)
	}
	s.c = s.b.New(s.T, s.dir, s.cache)
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
	if _, err := s.c.List(s.ctx, "a.txt", cacheclient.Cursor{}, 10, false); err == nil {
		s.Error("list of a file: no error")
	}
	if _, err := s.c.List(s.ctx, "no such", cacheclient.Cursor{}, 10, false); !errors.Is(err, fs.ErrNotExist) {
		s.Errorf("list of nothing: %v", err)
	}
	if names := strings.TrimSpace(s.mustStat("odd").Name()); names != "odd" {
		s.Errorf("the name of a directory is %q", names)
	}
}

// onceAsked tries f until it reports success. A backend goes on with what it knows where its source is slow to answer,
// as on a busy machine, but waits for it for 50 ms at least: a try that was quicker has to succeed. One may fail all the
// same: it joined a look at the source that began before the change.
func (s *suite) onceAsked(f func() error) {
	s.Helper()
	quick := 0
	for until := time.Now().Add(pace.Limit(30 * time.Second)); ; {
		begun := time.Now()
		err := f()
		if err == nil {
			return
		}
		took := time.Since(begun)
		if took < 50*time.Millisecond {
			quick++
		}
		if quick > 1 || time.Now().After(until) {
			s.Errorf("after %v: %v", took, err)
			return
		}
	}
}
