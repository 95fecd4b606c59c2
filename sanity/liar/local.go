package liar

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// directory is a directory of this machine that changes while it is read.
type directory struct {
	plan  Plan
	world *World
	// root is what is mounted; drafts holds what is about to be renamed into it.
	root, drafts string
}

// newDirectory writes the world below the plan's directory.
func newDirectory(p Plan, w *World) (Source, error) { return writeDirectory(p, w) }

// writeDirectory is newDirectory for what shows the directory by other means.
func writeDirectory(p Plan, w *World) (*directory, error) {
	s := &directory{plan: p, world: w, root: filepath.Join(p.Dir, "source"), drafts: filepath.Join(p.Dir, "drafts")}
	for _, dir := range []string{s.root, s.drafts} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
	}
	for _, d := range w.Dirs() {
		if err := os.MkdirAll(s.path(d.Path), 0o755); err != nil {
			return nil, err
		}
	}
	for _, f := range w.Files() {
		if f.Guest {
			continue
		}
		_, v, _ := w.Look(f.Path)
		if err := s.place(f, v); err != nil {
			return nil, err
		}
	}
	if p.Has("kinds") {
		return s, s.oddities()
	}
	return s, nil
}

func (s *directory) path(of string) string { return filepath.Join(s.root, filepath.FromSlash(of)) }

// Mount is the directory.
func (s *directory) Mount() (source string, flags []string) { return s.root, nil }

// Close leaves the files, which go with the run.
func (s *directory) Close() error { return nil }

// place puts a version where its file is, whole from the first moment on.
func (s *directory) place(f *File, v Version) error {
	draft := filepath.Join(s.drafts, strconv.FormatUint(mix(uint64(time.Now().UnixNano())), 36))
	out, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	if f.Claims != "" {
		claims, err := strconv.ParseInt(f.Claims, 10, 64)
		if err == nil {
			err = out.Truncate(claims)
		}
		if err != nil {
			return fmt.Errorf("a sparse file of %s bytes: %w", f.Claims, err)
		}
	} else if err := writeVersion(out, v, 0, 0); err != nil {
		return err
	}
	if !f.InPlace && !v.ModTime.IsZero() {
		if err := date(draft, v.ModTime); err != nil {
			return err
		}
	}
	return os.Rename(draft, s.path(f.Path))
}

// writeVersion writes the bytes from an offset on, with a pause between two pieces.
func writeVersion(out *os.File, v Version, from int64, pause time.Duration) error {
	buf := make([]byte, pieceBytes)
	for at := from; at < v.Size; {
		p := buf[:min(int64(len(buf)), v.Size-at)]
		Fill(v.Content, at, p)
		if _, err := out.WriteAt(p, at); err != nil {
			return err
		}
		at += int64(len(p))
		time.Sleep(pause)
	}
	return nil
}

// date sets a time that os.Chtimes might not hold.
func date(path string, t time.Time) error {
	stamp := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{stamp, stamp}, 0)
}

// Show replaces the file, or overwrites it where it lies.
func (s *directory) Show(f *File, v Version) error {
	if !f.InPlace {
		return s.place(f, v)
	}
	out, err := os.OpenFile(s.path(f.Path), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	if err := writeVersion(out, v, 0, time.Millisecond); err != nil {
		return err
	}
	return out.Truncate(v.Size)
}

// ShowTurn makes or removes a guest.
func (s *directory) ShowTurn(f *File, there bool) error {
	if !there {
		return os.Remove(s.path(f.Path))
	}
	return s.place(f, s.world.Versions(f)[0])
}

// oddities puts what no mount shows beside the files.
func (s *directory) oddities() error {
	dir := s.path("kinds")
	steps := []func() error{
		func() error { return unix.Mkfifo(filepath.Join(dir, "pipe"), 0o644) },
		func() error { return os.Symlink("nowhere", filepath.Join(dir, "dangling")) },
		func() error { return os.Symlink("ring", filepath.Join(dir, "ring")) },
		func() error { return os.Symlink(".", filepath.Join(dir, "here")) },
		func() error { return os.Symlink("..", filepath.Join(dir, "up")) },
		func() error { return unix.Mknod(filepath.Join(dir, "socket"), unix.S_IFSOCK|0o644, 0) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
