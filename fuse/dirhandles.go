package fuse

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace.io/millrace/cacheclient"
)

// A directory's offsets are small numbers, which 32-bit programs can hold, and each means one place in one version of
// the directory, whichever handle it was given to: the kernel caches entries with their offsets for all handles. So
// each version that is read while the directory is open gets a range of its own.
//
// Beside that the names are remembered that offsets are behind. By them the client finds the place where the version is
// gone. The ranges, and the names of each handle's last reply, which is where the kernel goes on, are in the state, so
// that another process finds it too.
// D-143 says why.

// dirRange is the offsets of one version: that behind its k-th entry is first+k, k being 1 for the first entry.
type dirRange struct{ version, first, count uint64 }

const (
	// maxDirRanges bounds the versions of an open directory whose offsets are remembered, and savedRanges those in the
	// state.
	maxDirRanges = 64
	savedRanges  = 3
	// maxDirReplies bounds the names of an open directory's replies that are remembered, in bytes. A reader whom the
	// kernel serves out of its cache may stand at a place that was told to another one long ago.
	maxDirReplies = 1 << 20
	// dirReplySize is what a reply takes beside its names, in bytes.
	dirReplySize = 24
	// dropPatience is how long the kernel is given to drop what it cached of a directory, after an open that tells it to.
	dropPatience = 10 * time.Second
)

// directory is what the offsets of a directory mean that is open, or whose entries the kernel may have cached.
type directory struct {
	ranges []dirRange
	opens  int
	// listed is the version whose entries the kernel may have cached; 0 where they are of more than one.
	listed uint64
	// dropping are the handles whose open has the kernel drop what it cached, and when that was told. Their callers do so
	// on their way out of open(2) (fs/fuse/file.c, fuse_finish_open), which may be long after that of a later open: until
	// a handle is read, what is cached may be of the version before.
	dropping map[uint64]time.Time
	// replies are the places of former replies, the oldest first, while it is open, and replied what they take in bytes.
	replies []dirPlaces
	replied int
}

// dirHandle is one open of a directory.
type dirHandle struct {
	saved record
	node  uint64
	// unique is the request that opened it, as the state has it (shortUnique); answered says that the kernel was told
	// of the handle, former that another process gave it, and claimed that its request came again to this one.
	unique                    uint32
	answered, former, claimed bool
	// places are the offset that was asked for last and those of the reply, with the names that they are behind.
	places dirPlaces
}

// dirTable holds the directories that are open, by node id, and their handles, which it keeps in the state.
type dirTable struct {
	state *stateFile
	// mu guards the rest, and what the maps hold.
	mu      sync.Mutex
	dirs    map[uint64]*directory
	handles map[uint64]*dirHandle
}

func newDirTable(state *stateFile) *dirTable {
	return &dirTable{state: state, dirs: make(map[uint64]*directory), handles: make(map[uint64]*dirHandle)}
}

// open gives a handle of the directory, which is listed at that version. keep says that the kernel may go on with
// entries that it has cached, which are of the same version. A request that the kernel sent before, to a process that
// died over it, gets the handle that it got then.
func (t *dirTable) open(id, unique, version uint64) (number uint64, keep bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if unique&uniqueResent != 0 {
		for number, h := range t.handles {
			if h.former && h.node == id && h.unique == shortUnique(unique) && !h.answered {
				h.claimed = true
				t.directory(id).drops(number)
				return number, false
			}
		}
	}
	d := t.directory(id)
	same := version != 0 && d.listed == version
	d.listed = version
	if d.opens == 0 && !same {
		d.ranges = nil
	}
	d.opens++
	number = t.state.nextHandle()
	h := &dirHandle{node: id, unique: shortUnique(unique)}
	h.saved = t.state.saveDir(number, id, h.unique)
	t.handles[number] = h
	if keep = same && !d.mayHold(time.Now()); !keep {
		d.drops(number)
	}
	return number, keep
}

// drops notes that the opener of a handle has the kernel drop what it cached.
func (d *directory) drops(number uint64) {
	if d.dropping == nil {
		d.dropping = make(map[uint64]time.Time)
	}
	d.dropping[number] = time.Now()
}

// mayHold reports whether the kernel may hold entries still that it was told to drop.
func (d *directory) mayHold(now time.Time) bool {
	for _, told := range d.dropping {
		if now.Sub(told) < dropPatience {
			return true
		}
	}
	return false
}

// mixed notes that entries of this version go to the kernel: where the listing began at another one, what the kernel
// caches is no version's.
func (t *dirTable) mixed(id, version uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.directory(id); d.listed != version {
		d.listed = 0
	}
}

// directory is that of the node id; mu is held.
func (t *dirTable) directory(id uint64) *directory {
	d := t.dirs[id]
	if d == nil {
		d = &directory{}
		t.dirs[id] = d
	}
	return d
}

// answering notes that the kernel is told of a handle, which it releases from then on.
func (t *dirTable) answering(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.handles[number]; h != nil && !h.answered {
		h.answered = true
		t.state.saveDirAnswered(h.saved)
	}
}

// unclaimed are the handles of an earlier process of which no caller was told, and whose request did not come again.
func (t *dirTable) unclaimed() []uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	var numbers []uint64
	for number, h := range t.handles {
		if h.former && !h.answered && !h.claimed {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// releaseUnclaimed ends a handle that the kernel does not know of, unless its request has come again.
func (t *dirTable) releaseUnclaimed(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.handles[number]; h != nil && !h.answered && !h.claimed {
		t.take(number)
	}
}

// release ends a handle.
func (t *dirTable) release(number uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.take(number)
}

// take takes a handle out; mu is held.
func (t *dirTable) take(number uint64) {
	h := t.handles[number]
	if h == nil {
		return
	}
	delete(t.handles, number)
	t.state.release(h.saved)
	if d := t.dirs[h.node]; d != nil {
		delete(d.dropping, number)
		if d.opens--; d.opens == 0 {
			d.replies, d.replied = nil, 0
		}
	}
}

// forget drops what is known of a directory that the kernel has forgotten.
func (t *dirTable) forget(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.dirs[id]; d != nil && d.opens <= 0 {
		delete(t.dirs, id)
	}
}

// cursor is the place that an offset means to a handle. It is ErrStale where that is not known any more.
func (t *dirTable) cursor(number, id, offset uint64) (cacheclient.Cursor, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name, d := "", t.dirs[id]
	if d != nil {
		// What reads is past its open.
		delete(d.dropping, number)
	}
	if offset <= dotEntries {
		return cacheclient.Cursor{}, nil
	}
	// A handle that is not known had no room in the state; other handles may have been given the same offsets.
	if h := t.handles[number]; h != nil {
		name = h.places.name(offset)
	}
	if d == nil {
		d = &directory{}
	}
	for n := len(d.replies) - 1; n >= 0 && name == ""; n-- {
		name = d.replies[n].name(offset)
	}
	for _, r := range d.ranges {
		if offset > r.first && offset <= r.first+r.count {
			return cacheclient.Cursor{Version: r.version, Index: offset - r.first, After: name}, nil
		}
	}
	if name == "" {
		return cacheclient.Cursor{}, fmt.Errorf("the place %d of a directory: %w", offset, cacheclient.ErrStale)
	}
	return cacheclient.Cursor{After: name}, nil
}

// first is the offset before the first entry of a page.
func (t *dirTable) first(id uint64, page cacheclient.Page) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	d := t.directory(id)
	for _, r := range d.ranges {
		if r.version == page.Version {
			return r.first + page.First
		}
	}
	r := dirRange{version: page.Version, first: d.end(), count: max(page.Count, page.First+uint64(len(page.Entries)))}
	if len(d.ranges) == maxDirRanges {
		d.ranges = slices.Delete(d.ranges, 0, 1)
	}
	d.ranges = append(d.ranges, r)
	for _, h := range t.handles {
		// The kernel may show this version's offsets, which it caches, to each of them.
		if h.node == id {
			t.state.savePlaces(h.saved, h.places, d.ranges)
		}
	}
	return r.first + page.First
}

// end is an offset behind all that were given out.
func (d *directory) end() uint64 {
	if n := len(d.ranges); n > 0 {
		return d.ranges[n-1].first + d.ranges[n-1].count + 1
	}
	return dotEntries
}

// replied notes the places of a reply, before the kernel has it.
func (t *dirTable) replied(number uint64, places dirPlaces) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.handles[number]
	if h == nil {
		return
	}
	d := t.directory(h.node)
	h.places = places
	t.state.savePlaces(h.saved, places, d.ranges)
	d.remember(places)
}

// remember keeps the places of a reply, and forgets the oldest ones where they take too much.
func (d *directory) remember(places dirPlaces) {
	d.replies = append(d.replies, places)
	d.replied += len(places) + dirReplySize
	forgotten := 0
	for ; d.replied > maxDirReplies; forgotten++ {
		d.replied -= len(d.replies[forgotten]) + dirReplySize
	}
	d.replies = slices.Delete(d.replies, 0, forgotten)
}

// load takes over the handles that an earlier process gave out, and what their offsets mean.
func (t *dirTable) load() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state.each(recordDir, func(r record) error {
		number, h, ranges := t.state.loadDir(r)
		t.handles[number] = h
		d := t.directory(h.node)
		d.opens++
		if saved := (&directory{ranges: ranges}); saved.end() > d.end() {
			d.ranges = ranges
		}
		d.remember(h.places)
		return nil
	})
}

// dirPlaces are offsets and the names that they are behind, as they are kept: for each the difference to the offset
// before, the name's length, and the name.
type dirPlaces []byte

// with appends a place; false where there is no room for it.
func (p dirPlaces) with(before, offset uint64, name string) (dirPlaces, bool) {
	next := binary.AppendVarint(p, int64(offset-before))
	next = binary.AppendUvarint(next, uint64(len(name)))
	next = append(next, name...)
	if len(next) > dirPlacesMost {
		return p, false
	}
	return next, true
}

// name is the name behind which the offset is, "" where it is not among these.
func (p dirPlaces) name(offset uint64) string {
	at := uint64(0)
	for len(p) > 0 {
		step, n := binary.Varint(p)
		if n <= 0 {
			return ""
		}
		length, m := binary.Uvarint(p[n:])
		if m <= 0 || length > uint64(len(p)-n-m) {
			return ""
		}
		at += uint64(step)
		p = p[n+m:]
		if at == offset {
			return string(p[:length])
		}
		p = p[length:]
	}
	return ""
}

// Offsets in the record of an open directory. It has two areas, of which the state names one when it is filled, so that
// a process which dies on the way leaves what was before. An area has ranges, the length of the places, and the places.
const (
	dirNumber     = 8
	dirNode       = 16
	dirArea       = 24
	dirOpened     = 28
	dirAreas      = 32
	dirAreaSize   = (recordMost - dirAreas) / 2
	dirRangeSize  = 24
	dirLength     = savedRanges * dirRangeSize
	dirPlacesAt   = dirLength + 8
	dirPlacesMost = dirAreaSize - dirPlacesAt

	// dirAnswered is the bit of dirOpened that says that the kernel was told of the handle; the others are the request.
	// 0 is a handle of an earlier build, which does not tell.
	dirAnswered = 1
)

// shortUnique is a request's number as the record of a directory has it, above dirAnswered; never 0.
func shortUnique(unique uint64) uint32 {
	// The kernel's numbers are even.
	return max(uint32(unique&^uniqueResent>>1)<<1, 1<<1)
}

// saveDir keeps an open directory and returns its record, 0 where there is no room.
func (s *stateFile) saveDir(number, node uint64, unique uint32) record {
	r := s.alloc(recordMost)
	if r == 0 {
		return 0
	}
	b := s.bytes(r)
	clear(b[dirNumber:])
	le := binary.LittleEndian
	le.PutUint64(b[dirNumber:], number)
	le.PutUint64(b[dirNode:], node)
	le.PutUint32(b[dirOpened:], unique)
	s.commit(r, recordDir)
	return r
}

// saveDirAnswered notes that the kernel is told of an open directory.
func (s *stateFile) saveDirAnswered(r record) {
	if r != 0 {
		s.u32(uint64(r) + dirOpened).Or(dirAnswered)
	}
}

// savePlaces keeps the places of the last reply, and the last ranges of the directory.
func (s *stateFile) savePlaces(r record, places dirPlaces, ranges []dirRange) {
	if r == 0 {
		return
	}
	named := s.u32(uint64(r) + dirArea)
	next := (named.Load() + 1) % 2
	area := s.bytes(r)[dirAreas+next*dirAreaSize:][:dirAreaSize]
	le := binary.LittleEndian
	clear(area[:dirLength])
	for i, d := range ranges[max(0, len(ranges)-savedRanges):] {
		for k, v := range []uint64{d.version, d.first, d.count} {
			le.PutUint64(area[i*dirRangeSize+8*k:], v)
		}
	}
	le.PutUint64(area[dirLength:], uint64(len(places)))
	copy(area[dirPlacesAt:], places)
	named.Store(next)
}

// loadDir reads an open directory.
func (s *stateFile) loadDir(r record) (number uint64, h *dirHandle, ranges []dirRange) {
	b := s.bytes(r)
	le := binary.LittleEndian
	if len(b) < recordMost {
		return 0, &dirHandle{saved: r, answered: true}, nil
	}
	area := b[dirAreas+s.u32(uint64(r)+dirArea).Load()%2*dirAreaSize:][:dirAreaSize]
	for i := range savedRanges {
		if v := area[i*dirRangeSize:]; le.Uint64(v) != 0 {
			ranges = append(ranges, dirRange{le.Uint64(v), le.Uint64(v[8:]), le.Uint64(v[16:])})
		}
	}
	n := min(le.Uint64(area[dirLength:]), dirPlacesMost)
	opened := s.u32(uint64(r) + dirOpened).Load()
	return le.Uint64(b[dirNumber:]), &dirHandle{
		saved: r, node: le.Uint64(b[dirNode:]), places: slices.Clone(area[dirPlacesAt : dirPlacesAt+n]),
		unique: opened &^ dirAnswered, answered: opened == 0 || opened&dirAnswered != 0, former: true,
	}, ranges
}
