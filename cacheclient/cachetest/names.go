package cachetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"millrace.io/millrace/cacheclient"
)

func (s *suite) stat() {
	root := s.mustStat("")
	if !root.Dir || root.ID != cacheclient.RootID {
		s.Errorf("the root is %+v", root)
	}
	for name, data := range s.tree {
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
	for from := (cacheclient.Cursor{}); ; {
		p, err := s.c.List(s.ctx, dir, from, limit, attrs)
		if err != nil {
			s.Fatalf("list %q from %+v: %v", dir, from, err)
		}
		if len(p.Entries) > limit || p.Version == 0 || (len(p.Entries) == 0 && !p.End) || p.First != uint64(len(all)) {
			s.Fatalf("list %q from %+v: %d entries, limit %d, first %d, version %d, end %v",
				dir, from, len(p.Entries), limit, p.First, p.Version, p.End)
		}
		all = append(all, p.Entries...)
		if p.End {
			if p.Count != uint64(len(all)) {
				s.Errorf("list %q: %d entries, and %d are told", dir, len(all), p.Count)
			}
			return all
		}
		from = p.Next
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
	for name := range s.tree {
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
	if !slices.IsSorted(names) || len(slices.Compact(names)) != n {
		s.Errorf("%d different names in pages of 7, want %d; in order: %v", len(slices.Compact(names)), n,
			slices.IsSorted(names))
	}
	p, err := s.c.List(s.ctx, "many", cacheclient.Cursor{Index: n}, 10, true)
	if err != nil || len(p.Entries) != 0 || !p.End {
		s.Errorf("after the end: %d entries, end %v, %v", len(p.Entries), p.End, err)
	}
	v := p.Version
	put(s.T, s.dir, "many/new", nil, time.Now())
	s.onceAsked(func() error {
		p, err = s.c.List(s.ctx, "many", cacheclient.Cursor{}, 10, false)
		if err == nil && p.Version == v {
			err = fmt.Errorf("a directory with a new entry still has the version %d", v)
		}
		return err
	})
}

func (s *suite) identities() {
	ids := make(map[uint64]string)
	for name := range s.tree {
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

// listChanging reads a directory in pages while entries come and go before the place, at it and behind it. What is
// there throughout comes once, also where the version is gone and nothing but a name tells the place, and in a new
// process.
func (s *suite) listChanging() {
	for dir, lose := range map[string]func(cacheclient.Cursor) cacheclient.Cursor{
		"as it is":       func(c cacheclient.Cursor) cacheclient.Cursor { return c },
		"by name":        func(c cacheclient.Cursor) cacheclient.Cursor { return cacheclient.Cursor{After: c.After} },
		"in a successor": func(c cacheclient.Cursor) cacheclient.Cursor { s.reopen(); return c },
	} {
		s.readChanging(dir, lose)
	}
}

func (s *suite) readChanging(dir string, lose func(cacheclient.Cursor) cacheclient.Cursor) {
	const n, limit = 40, 7
	for i := range n {
		put(s.T, s.dir, fmt.Sprintf("%s/k%03d", dir, i), []byte("x"), time.Now().Add(-time.Hour))
	}
	seen, gone := make(map[string]int), make(map[string]bool)
	for pages, from := 0, (cacheclient.Cursor{}); ; pages++ {
		p, err := s.c.List(s.ctx, dir, from, limit, true)
		if err != nil {
			s.Fatalf("list %q from %+v: %v", dir, from, err)
		}
		for _, e := range p.Entries {
			seen[e.Name()]++
		}
		if p.End {
			break
		}
		last := p.Entries[len(p.Entries)-1].Name()
		gone[last] = true
		if err := os.Remove(filepath.Join(s.dir, dir, last)); err != nil {
			s.Fatal(err)
		}
		put(s.T, s.dir, fmt.Sprintf("%s/a%03d", dir, pages), []byte("y"), time.Now())
		put(s.T, s.dir, fmt.Sprintf("%s/%s-and", dir, last), []byte("y"), time.Now())
		if _, err := s.c.List(s.ctx, dir, cacheclient.Cursor{}, 3, false); err != nil {
			s.Fatal(err)
		}
		from = lose(p.Next)
	}
	for i := range n {
		name := fmt.Sprintf("k%03d", i)
		if got := seen[name]; got > 1 || got == 0 && !gone[name] {
			s.Errorf("list %q while it changes: %s comes %d times", dir, name, got)
		}
	}
}
