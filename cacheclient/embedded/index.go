package embedded

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
)

// stub is what the index keeps of a cached file that is not in use: 48 bytes, whatever its name. The rest is in the
// file's state. D-133 says why.
type stub struct {
	id uint64
	// path is pathKey of the path, 0 where the state could not be read yet.
	path uint64
	// confirmed is when the source told last that it has this version, in nanoseconds since 1970; 0 for never.
	confirmed int64
	// charged is what the file counts for on its level, in bytes.
	charged int64
	// older and newer are the neighbours in the order of use on the level.
	older, newer uint32
	// dir is the place of the path's directory in shelf.dirs.
	dir uint32
	// level is the number of the level.
	level uint8
}

// pathKey stands for a path in the index: the first 8 bytes of a SHA-256, so that names chosen
// at the source cannot make two of them meet. It is never 0.
func pathKey(p string) uint64 {
	sum := sha256.Sum256([]byte(p))
	return max(binary.LittleEndian.Uint64(sum[:]), 1)
}

const (
	// stubsAtOnce is how many stubs are allocated together.
	stubsAtOnce = 256
	// maxLevels is how many tiers a stub can name.
	maxLevels = 1 << 8
)

// shelf is the index of the cached files that are not in use. It is guarded by Cache.mu. The zero value is ready.
type shelf struct {
	places map[uint64]uint32
	// chunks hold the stubs by their places, from 1 on; free are the places that none has.
	chunks [][]stub
	free   []uint32
	// ends are the places of the stub used longest ago and of the one used last, of each level.
	ends [maxLevels]struct{ oldest, newest uint32 }
	dirs directories
}

func (s *shelf) at(place uint32) *stub { return &s.chunks[place/stubsAtOnce][place%stubsAtOnce] }

// get returns the stub of a cached file, nil where there is none. It is valid until the shelf changes.
func (s *shelf) get(id uint64) *stub {
	if place, ok := s.places[id]; ok {
		return s.at(place)
	}
	return nil
}

// len is how many stubs there are.
func (s *shelf) len() int { return len(s.places) }

// place finds a place for another stub.
func (s *shelf) place() uint32 {
	if n := len(s.free); n > 0 {
		place := s.free[n-1]
		s.free = s.free[:n-1]
		return place
	}
	next := uint32(len(s.places) + 1)
	if int(next/stubsAtOnce) == len(s.chunks) {
		s.chunks = append(s.chunks, make([]stub, stubsAtOnce))
	}
	return next
}

// put adds a stub of a file in the directory dir, as the one used last on its level, or as the one used before all
// others.
func (s *shelf) put(t stub, dir string, last bool) {
	place := s.place()
	if s.places == nil {
		s.places = make(map[uint64]uint32)
	}
	s.places[t.id] = place
	t.dir = s.dirs.add(dir)
	ends := &s.ends[t.level]
	switch {
	case ends.oldest == 0:
		t.older, t.newer = 0, 0
		ends.oldest, ends.newest = place, place
	case last:
		t.older, t.newer = ends.newest, 0
		s.at(ends.newest).newer = place
		ends.newest = place
	default:
		t.older, t.newer = 0, ends.oldest
		s.at(ends.oldest).older = place
		ends.oldest = place
	}
	*s.at(place) = t
}

// take takes a stub off the shelf; false where there is none.
func (s *shelf) take(id uint64) (stub, bool) {
	place, ok := s.places[id]
	if !ok {
		return stub{}, false
	}
	t := *s.at(place)
	ends := &s.ends[t.level]
	if t.older == 0 {
		ends.oldest = t.newer
	} else {
		s.at(t.older).newer = t.newer
	}
	if t.newer == 0 {
		ends.newest = t.older
	} else {
		s.at(t.newer).older = t.older
	}
	s.dirs.drop(t.dir)
	*s.at(place) = stub{}
	s.free = append(s.free, place)
	delete(s.places, id)
	return t, true
}

// name fills in what was not known of a stub.
func (s *shelf) name(t *stub, from found) {
	s.dirs.drop(t.dir)
	t.path, t.confirmed, t.charged, t.dir = from.path, from.confirmed, from.charged, s.dirs.add(from.dir)
}

// oldest is the stub of the level that was used longest ago, nil where there is none.
func (s *shelf) oldest(level uint8) *stub {
	if place := s.ends[level].oldest; place != 0 {
		return s.at(place)
	}
	return nil
}

// below returns the identities in the chunk that are of a path, or of files in the tree below it.
func (s *shelf) below(p string, chunk int) []uint64 {
	key := pathKey(p)
	var ids []uint64
	for i := range s.chunks[chunk] {
		t := &s.chunks[chunk][i]
		if t.id != 0 && (p == "" || t.path == key || t.path != 0 && below(p, s.dirs.list[t.dir].path)) {
			ids = append(ids, t.id)
		}
	}
	return ids
}

// directories are the names of the directories that cached files are in, each once. The zero value is ready.
type directories struct {
	places map[string]uint32
	list   []directory
	free   []uint32
}

// directory is one of them, with how many files need it.
type directory struct {
	path  string
	files int
}

// add counts one more file in the directory, and returns its place.
func (d *directories) add(dir string) uint32 {
	place, ok := d.places[dir]
	if !ok {
		place = d.place(dir)
	}
	d.list[place].files++
	return place
}

func (d *directories) place(dir string) uint32 {
	if d.places == nil {
		d.places = make(map[string]uint32)
	}
	var place uint32
	if n := len(d.free); n > 0 {
		place = d.free[n-1]
		d.free = d.free[:n-1]
	} else {
		place = uint32(len(d.list))
		d.list = append(d.list, directory{})
	}
	// The name may be a part of a longer one, which would be kept with it.
	dir = strings.Clone(dir)
	d.places[dir] = place
	d.list[place] = directory{path: dir}
	return place
}

// drop counts one file less in the directory.
func (d *directories) drop(place uint32) {
	dir := &d.list[place]
	if dir.files--; dir.files == 0 {
		delete(d.places, dir.path)
		*dir = directory{}
		d.free = append(d.free, place)
	}
}
