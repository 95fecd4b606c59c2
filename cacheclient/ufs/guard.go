package ufs

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/border"
)

// guarded is the border of a store: what the source tells passes it before anybody else sees it, whatever the source
// is. A claim that cannot be concerns its own path only.
type guarded struct {
	Store
	notes *notes
	// left counts the entries that no directory can have.
	left atomic.Int64
}

var _ Noted = (*guarded)(nil)

// Stat implements Store. A size that no file has is an error of this path.
func (g *guarded) Stat(ctx context.Context, path string) (cacheclient.Info, error) {
	if !validPath(path) {
		return cacheclient.Info{}, &fs.PathError{Op: "stat", Path: path, Err: fs.ErrNotExist}
	}
	info, err := g.Store.Stat(ctx, path)
	if err != nil || info.Dir {
		return info, err
	}
	if err := border.Size(info.Size); err != nil {
		return cacheclient.Info{}, fmt.Errorf("%q: %w", path, err)
	}
	info.Version = border.Version(info.Version)
	return info, nil
}

// List implements Store. What no directory can have is left out and told, and one without an end is an error.
func (g *guarded) List(ctx context.Context, dir string, fn func(cacheclient.Info) error) error {
	if !validPath(dir) {
		return &fs.PathError{Op: "list", Path: dir, Err: fs.ErrNotExist}
	}
	l := listed{dir: dir}
	return g.Store.List(ctx, dir, func(info cacheclient.Info) error {
		if err := l.count(info); err != nil {
			return fmt.Errorf("%q: %w", dir, err)
		}
		name, below := l.name(info.Path)
		if !below || !border.Name(name) {
			g.leaveOut(dir, name)
			return nil
		}
		return fn(believable(info))
	})
}

// Open implements Store.
func (g *guarded) Open(ctx context.Context, info cacheclient.Info, off, length int64) (*Body, error) {
	if err := border.Size(max(info.Size, 0)); err != nil {
		return nil, fmt.Errorf("%q: %w", info.Path, err)
	}
	return g.Store.Open(ctx, info, off, length)
}

// Settle implements Settler.
func (g *guarded) Settle(ctx context.Context, was cacheclient.Info) {
	if s, ok := g.Store.(Settler); ok {
		s.Settle(ctx, was)
	}
}

// Same implements Agreer.
func (g *guarded) Same(was, now cacheclient.Info) bool {
	a, ok := g.Store.(Agreer)
	return ok && a.Same(was, now)
}

// Notes implements Noted: what was noticed of the source, and how many entries are left out.
func (g *guarded) Notes() []string {
	told := g.notes.all()
	if n := g.left.Load(); n > 1 {
		told = append(told, fmt.Sprintf("%d entries were left out of listings for their names", n))
	}
	return told
}

// leaveOut counts an entry that cannot be shown, and tells of the first.
func (g *guarded) leaveOut(dir, name string) {
	g.left.Add(1)
	g.notes.tell("names", fmt.Sprintf("names that no file system can hold are left out: %.80q in %.200q is the first",
		name, dir))
}

// believable is an entry of a listing as it may be believed. A file whose size cannot be is there all the same, and
// a question for its attributes gets the error.
func believable(info cacheclient.Info) cacheclient.Info {
	if !info.Dir && border.Size(info.Size) != nil {
		info.Size = cacheclient.UnknownSize
	}
	info.Version = border.Version(info.Version)
	return info
}

// listed is how much of a directory has been told.
type listed struct {
	dir            string
	entries, bytes int64
}

func (l *listed) count(info cacheclient.Info) error {
	l.entries++
	l.bytes += int64(len(info.Path) - len(l.dir))
	return border.Listing(l.entries, l.bytes)
}

// name is the entry's name, and whether it is one of the directory at all.
func (l *listed) name(path string) (string, bool) {
	if l.dir == "" {
		return path, true
	}
	return strings.CutPrefix(path, l.dir+"/")
}
