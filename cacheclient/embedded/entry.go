package embedded

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// entry is one version of one file that is in use: what is cached of it and what is on its way.
//
// Each user holds a reference: a handle, a fetch, bytes on loan. References are added by
// Cache.acquire, or by a holder of one; the last one to go makes the entry idle, and only an
// idle entry may be evicted. Of an entry that is idle for a while no more than a stub stays.
type entry struct {
	c    *Cache
	info cacheclient.Info
	// path is the pathKey of info.Path.
	path uint64
	// refs only rises from 0 under Cache.mu.
	refs atomic.Int64
	// handles counts open files; when the last is closed the fetches are cancelled.
	handles atomic.Int64

	// The next group is guarded by Cache.mu.

	// level is where the data lives, nil when no tier has any of it.
	level *level
	// charged is what the entry counts for on its level, in bytes.
	charged int64
	// confirmed is when the source told last that it has this version, in nanoseconds since 1970; 0 where only the
	// state can know.
	confirmed int64
	// idle is the place in Cache.idle, nil while there are references.
	idle *list.Element

	// admit guards unkept, which says that no tier can keep the file. It is held while files are made or opened, and
	// taken before Cache.mu.
	admit  sync.Mutex
	unkept bool

	// mu guards the rest. Files are read and written with it, so that it is not taken with Cache.mu held.
	mu    sync.Mutex
	data  *os.File
	state *stateFile
	// sealed is the data file's time of change when it was sealed, 0 where it is not.
	sealed int64
	// short is the size that the data file has since another process cut it, where it cannot be made longer again.
	short int64
	maps  segments
	have  bitmap
	// unverified has the checksums of blocks that are there and were not checked yet: an earlier process cached them,
	// or another process has changed the data file.
	unverified map[int64]uint32
	// checking is closed when the check of all of them, which is under way, ends; nil otherwise.
	checking chan struct{}
	fetches  []*fetch
	staged   map[int64]*stagedBlock
	// streams are the sequential reads, nil before the first read.
	streams *streams
	waiters []*waiter
	// staleAt is when the source was found not to have the version; zero where it was not, or has told of it since.
	staleAt time.Time
	// noRanges says that the source has ignored a range of this file: it sends all or nothing.
	noRanges bool
	// passed says that a pass of such a file began, passedAgain that this was told of a second one.
	passed, passedAgain bool
	// bypass says that the last fetch found no room in the tiers.
	bypass bool
	// resumed says that a reader whom an earlier process served may have the data file open without us.
	resumed bool
}

func newEntry(c *Cache, info cacheclient.Info) *entry {
	return &entry{c: c, info: info, path: pathKey(info.Path)}
}

// attach opens the files that hold the entry on its level, and returns what they are to be charged for, 0 where they
// are open already. The error is errBadState only where they are proven not to hold.
func (e *entry) attach(l *level) (charge int64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.data != nil {
		return 0, nil
	}
	df, st, slots, err := openFiles(l, e.info)
	if err != nil {
		return 0, fmt.Errorf("cached file %q: %w", e.info.Path, err)
	}
	e.data, e.state = df, st
	e.have, e.unverified, charge = bitmap{}, nil, statePage
	for b := range slots {
		e.have.set(b)
		charge += run{b, b + 1}.charge(e.info.Size)
	}
	e.sealed = 0
	if e.whole() {
		e.sealed = st.sealed(df, e.blocks())
	}
	if e.sealed == 0 {
		e.unverified = slots
	}
	return charge, nil
}

// openFiles opens the files of a version. Files that are not there do not hold either.
func openFiles(l *level, info cacheclient.Info) (data *os.File, state *stateFile, slots map[int64]uint32, err error) {
	sf, err := openOurs(l.path(info.ID, stateSuffix))
	if err != nil {
		return nil, nil, nil, err
	}
	state, h, slots, err := openState(sf)
	if err == nil && h.info().ID != info.ID {
		err = errBadState
	}
	if err == nil {
		data, err = openOurs(l.path(info.ID, dataSuffix))
	}
	if err == nil {
		var fi os.FileInfo
		if fi, err = data.Stat(); err == nil && fi.Size() != info.Size {
			err = errBadState
		}
	}
	if err != nil {
		_ = sf.Close()
		if data != nil {
			_ = data.Close()
		}
		return nil, nil, nil, err
	}
	return data, state, slots, nil
}

// openOurs opens a file of a tier. What is not there, or is no file, is damaged.
func openOurs(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("%w: %w", errBadState, err)
	}
	return f, err
}

// empty makes an entry that has no files one of which no tier has a block.
func (e *entry) empty() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.have, e.unverified, e.sealed = bitmap{}, nil, 0
}

// blocks is how many blocks the file has.
func (e *entry) blocks() int64 { return blocksIn(e.info.Size) }

// whole reports whether every block is in the tier, checked or not; mu is held.
func (e *entry) whole() bool { return e.data != nil && e.have.count == e.blocks() }

// sealWhole lets the next process trust a file that is whole and checked; that it fails costs a check. mu is held.
func (e *entry) sealWhole() {
	if e.sealed == 0 && e.whole() && len(e.unverified) == 0 {
		e.sealed = e.state.seal(e.data, e.blocks())
	}
}

// create makes the files of an entry that has none.
func (e *entry) create(l *level) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.data != nil {
		return nil
	}
	df, st, err := createFiles(l, e.info.ID, headerOf(e.info))
	if err != nil {
		return err
	}
	e.data, e.state = df, st
	e.have, e.unverified, e.sealed = bitmap{}, nil, 0
	return nil
}

// detach closes the files of an entry that is not used.
func (e *entry) detach() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.maps.unmap()
	if e.data != nil {
		_, _ = e.data.Close(), e.state.close()
		e.data, e.state = nil, nil
	}
	e.streams = nil
}

// confirm notes in the state that the source had this version at that time.
func (e *entry) confirm(at time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.state != nil {
		// On a tier that cannot be written to, the next process asks the source.
		_ = e.state.confirm(at)
	}
}

// waiter is a reader that waits for the bytes before an offset.
type waiter struct {
	until int64
	ready chan struct{}
}

// wake wakes the readers that wait for bytes in (from, to]; mu is held.
func (e *entry) wake(from, to int64) {
	e.waiters = slices.DeleteFunc(e.waiters, func(w *waiter) bool {
		if w.until <= from || w.until > to {
			return false
		}
		close(w.ready)
		return true
	})
}

// fetchOf returns the fetch under way that brings a block, or has, of several passes the one that comes to it first; mu
// is held.
func (e *entry) fetchOf(block int64) *fetch {
	var nearest *fetch
	for _, f := range e.fetches {
		if f.brings(block) && (nearest == nil || f.run.first > nearest.run.first) {
			nearest = f
		}
	}
	return nearest
}

// partly reports whether a block in memory has not come whole; mu is held.
func (e *entry) partly(block int64) bool {
	sb := e.staged[block]
	return sb != nil && sb.filled < run{block, block + 1}.bytes(e.info.Size)
}

// busy reports whether a block needs no new fetch; mu is held.
func (e *entry) busy(block int64) bool {
	return e.have.has(block) || e.staged[block] != nil || e.fetchOf(block) != nil
}

// local is the data file, if it has the whole file, and checked.
func (e *entry) local() (*os.File, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inspect()
	if !e.whole() || len(e.unverified) > 0 {
		return nil, false
	}
	return e.data, true
}

// resume notes that a reader whom an earlier process served has the file open.
func (e *entry) resume() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.resumed = true
}

// dropStaged forgets a block in memory whose place another has taken.
func (e *entry) dropStaged(b *stagedBlock) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.staged[b.block] == b {
		delete(e.staged, b.block)
	}
}

// gather lends the bytes [off, off+n) if all of them are here. until is the end of the first part
// within a block that is not, else 0.
func (e *entry) gather(off, n int64) (d cacheclient.Data, until int64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inspect()
	l := loan{e: e, from: -1}
	for pos := off; pos < off+n; {
		b := pos / BlockSize
		end := min((b+1)*BlockSize, off+n)
		switch sb := e.staged[b]; {
		case e.inTier(b, end):
			l.tier(pos)
		case sb != nil && sb.filled >= end-b*BlockSize && e.c.staging.use(sb):
			if err := l.memory(sb, pos, end); err != nil {
				l.undo()
				return cacheclient.Data{}, 0, err
			}
		default:
			l.undo()
			return cacheclient.Data{}, end, nil
		}
		pos = end
	}
	if err := l.flush(off + n); err != nil {
		l.undo()
		return cacheclient.Data{}, 0, err
	}
	e.refs.Add(1)
	return l.data(), 0, nil
}

// inTier reports whether the tier has the block up to the offset end; mu is held.
func (e *entry) inTier(block, end int64) bool {
	if e.data == nil {
		return false
	}
	if e.have.has(block) {
		_, doubtful := e.unverified[block]
		return !doubtful
	}
	f := e.fetchOf(block)
	return f != nil && f.inTier && f.own.has(block) && f.shown >= end
}

// endFetch takes a fetch off the list and wakes its readers.
func (e *entry) endFetch(f *fetch, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fetches = slices.DeleteFunc(e.fetches, func(g *fetch) bool { return g == f })
	f.done, f.err = true, err
	e.wake(f.run.first*BlockSize, f.run.last*BlockSize)
	if err == nil && f.inTier {
		e.sealWhole()
	}
}
