package liar

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Version is one state of a file.
type Version struct {
	// Number counts the file's versions from 1 on.
	Number int
	// Content names the bytes ([Fill]).
	Content string
	Size    int64
	ModTime time.Time
	ETag    string
}

// Sign is by what a file's versions differ beside their bytes.
type Sign int

// The signs.
const (
	// Strong is a strong ETag of its own for each version, and a time.
	Strong Sign = iota
	// Weak is a weak ETag of its own for each version, and a time.
	Weak
	// Clock is the time alone.
	Clock
	// Length is the size alone: no ETag, no time.
	Length
	// Silent is nothing: all versions have one size and one time.
	Silent
)

// File is a file of the world, and what is odd about it for good. All but its versions stays as it was made.
type File struct {
	Path string
	// Honest says that it is never lied about and never changes.
	Honest bool
	// Claims is what is told for its size, in place of the size; "" where the size is told.
	Claims string
	Sign   Sign
	// Head is how HEAD lies about the file, "" where it does not.
	Head string
	// Bare says that ranges are ignored, and bodies have no length.
	Bare bool
	// Tags is how many ETags it has in turn, as from so many backends; 0 and 1 are one.
	Tags int
	// Link is where a request for it is sent: "moved", "loop", "away"; "" is nowhere.
	Link string
	// Time, where it is set, is the time of all versions.
	Time time.Time
	// Fixed says that it never changes.
	Fixed bool
	// InPlace says that the file is overwritten where it lies, so that pages of two versions are its state meanwhile.
	InPlace bool
	// Young says that the versions' time is the present second.
	Young bool
	// Tag, where it is set, is the ETag of all versions.
	Tag string
	// Huge is the length of its ETags where that is not the usual one.
	Huge int
	// Pages says that nothing tells its versions apart in time, so that each page is judged alone.
	Pages bool
	// Untold says that nothing ever tells its versions apart, so that none is late.
	Untold bool
	// Guest says that it comes and goes.
	Guest bool
	// Mode is its permissions in a directory of this machine.
	Mode uint32

	versions []Version // guarded by the World's mu
	gone     bool      // guarded by the World's mu
}

// Dir is a directory of the world.
type Dir struct {
	Path string
	// Honest says that its listing is never lied about and never changes.
	Honest bool
	// Steady are the names that are there throughout, in no order; others come and go.
	Steady []string
	// Loop says that it has an entry that is the directory itself.
	Loop bool
	// Slash is how a server answers for it: "", "none" (links without slash), "404" (without slash it is not there).
	Slash string
	// Twice says that its page has entries twice.
	Twice bool
	// Extra are names that its page has and no file system can.
	Extra []string

	names map[string]bool // name: is a directory; guarded by the World's mu, as ever
	ever  map[string]bool // all names that there were
}

// loopName is the entry of a directory that holds itself.
const loopName = "self"

// Entry is a name in a directory.
type Entry struct {
	Name string
	Dir  bool
}

// World is what is true at this moment, and what was.
type World struct {
	Seed Seed
	// epoch is the time that versions are dated from.
	epoch time.Time

	// mu guards the rest.
	mu    sync.RWMutex
	files map[string]*File
	dirs  map[string]*Dir
	truce bool
	told  []string
}

// NewWorld is a world with an empty root.
func NewWorld(seed Seed) *World {
	w := &World{
		Seed: seed, files: map[string]*File{}, dirs: map[string]*Dir{},
		epoch: time.Now().Add(-100 * 24 * time.Hour).Truncate(time.Second),
	}
	w.dirs[""] = &Dir{Honest: true, names: map[string]bool{}, ever: map[string]bool{}}
	return w
}

// split is the directory of a path and its name there.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// join is a path of a directory and a name.
func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// AddDir adds a directory below one that is there.
func (w *World) AddDir(d *Dir) *Dir {
	w.mu.Lock()
	defer w.mu.Unlock()
	d.names, d.ever = map[string]bool{}, map[string]bool{}
	w.dirs[d.Path] = d
	w.name(d.Path, true)
	return d
}

// AddFile adds a file of that size to a directory that is there.
func (w *World) AddFile(f *File, size int64) *File {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.versions = []Version{w.version(f, 1, size)}
	w.files[f.Path] = f
	w.name(f.Path, false)
	return f
}

// name has a path be an entry of its directory for good; mu is held.
func (w *World) name(path string, isDir bool) {
	parent, name := split(path)
	d := w.dirs[parent]
	d.names[name], d.ever[name] = isDir, true
	d.Steady = append(d.Steady, name)
}

// version makes the n-th version of a file.
func (w *World) version(f *File, n int, size int64) Version {
	v := Version{
		Number: n, Content: fmt.Sprintf("%d %s %d", w.Seed, f.Path, n), Size: size,
		ModTime: w.epoch.Add(time.Duration(n) * time.Hour),
	}
	tag := fmt.Sprintf(`"%032x"`, mix(uint64(n))^mix(uint64(len(f.Path)))^uint64(w.Seed))
	switch f.Sign {
	case Strong:
		v.ETag = tag
	case Weak:
		v.ETag = "W/" + tag
	case Length:
		v.ModTime = time.Time{}
	case Silent:
		v.ModTime = w.epoch
	case Clock:
	}
	if f.Tag != "" {
		v.ETag = f.Tag
	}
	if f.Huge > 0 {
		v.ETag = `"` + strings.Repeat("x", f.Huge) + tag[1:]
	}
	if f.Young {
		v.ModTime = time.Now().Truncate(time.Second)
	}
	if !f.Time.IsZero() {
		v.ModTime = f.Time
	}
	return v
}

// Change makes the next version of a file the present one, and returns it.
func (w *World) Change(f *File, size int64) Version {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.version(f, len(f.versions)+1, size)
	f.versions = append(f.versions, v)
	return v
}

// Look is the file at the path and its present version.
func (w *World) Look(path string) (*File, Version, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	f := w.files[path]
	if f == nil || f.gone {
		return nil, Version{}, false
	}
	return f, f.versions[len(f.versions)-1], true
}

// untold reports whether nothing tells the version of a file from one before it, so that it may be late: two versions
// of one size and one second, without an ETag.
func (w *World) untold(f *File, v Version) bool {
	if f.Untold {
		return true
	}
	return slices.ContainsFunc(w.Versions(f), func(o Version) bool {
		return o.Number != v.Number && o.Size == v.Size && o.ETag == v.ETag &&
			o.ModTime.Truncate(time.Second).Equal(v.ModTime.Truncate(time.Second))
	})
}

// Versions are all that the file has had.
func (w *World) Versions(f *File) []Version {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.Clone(f.versions)
}

// Dir is the directory at the path.
func (w *World) Dir(path string) (*Dir, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	d := w.dirs[path]
	return d, d != nil
}

// List is what the directory has now, in the order of names.
func (w *World) List(dir string) ([]Entry, bool) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	d := w.dirs[dir]
	if d == nil {
		return nil, false
	}
	entries := make([]Entry, 0, len(d.names))
	for name, isDir := range d.names {
		entries = append(entries, Entry{Name: name, Dir: isDir})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return entries, true
}

// AddGuest adds a file that comes and goes; it is not there yet.
func (w *World) AddGuest(f *File, size int64) *File {
	w.mu.Lock()
	defer w.mu.Unlock()
	f.versions, f.gone = []Version{w.version(f, 1, size)}, true
	w.files[f.Path] = f
	parent, name := split(f.Path)
	w.dirs[parent].ever[name] = true
	return f
}

// Turn has a guest come or go, and reports whether it is there now.
func (w *World) Turn(f *File) (there bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	parent, name := split(f.Path)
	d := w.dirs[parent]
	f.gone = !f.gone
	if f.gone {
		delete(d.names, name)
	} else {
		d.names[name] = false
	}
	return !f.gone
}

// Ever reports whether the directory has, or once had, the name.
func (w *World) Ever(d *Dir, name string) bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return d.ever[name] || d.Loop && name == loopName
}

// Files are all files in the order of their paths.
func (w *World) Files() []*File {
	w.mu.RLock()
	defer w.mu.RUnlock()
	files := make([]*File, 0, len(w.files))
	for _, f := range w.files {
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *File) int { return cmp.Compare(a.Path, b.Path) })
	return files
}

// Dirs are all directories in the order of their paths.
func (w *World) Dirs() []*Dir {
	w.mu.RLock()
	defer w.mu.RUnlock()
	dirs := make([]*Dir, 0, len(w.dirs))
	for _, d := range w.dirs {
		dirs = append(dirs, d)
	}
	slices.SortFunc(dirs, func(a, b *Dir) int { return cmp.Compare(a.Path, b.Path) })
	return dirs
}

// Lies reports whether lies of the moment may be told.
func (w *World) Lies() bool {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return !w.truce
}

// Truce ends the lies of the moment.
func (w *World) Truce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.truce = true
}

// mostTold bounds the lies that are remembered for a report.
const mostTold = 4000

// Tell notes a lie for the report of a failure.
func (w *World) Tell(path, lie string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.told) < mostTold {
		w.told = append(w.told, time.Now().Format("05.000 ")+path+": "+lie)
	}
}

// Told are the last lies about a path.
func (w *World) Told(path string) []string {
	w.mu.RLock()
	defer w.mu.RUnlock()
	var about []string
	for _, line := range w.told {
		if _, rest, _ := strings.Cut(line, " "); strings.HasPrefix(rest, path+": ") {
			about = append(about, line)
		}
	}
	return about[max(0, len(about)-12):]
}
