package embedded

import (
	"container/list"
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"millrace.io/millrace/cacheclient"
)

// entry is one version of one file: what is cached of it and what is on its way.
//
// Whoever uses it holds a reference: a handle, a fetch, bytes on loan. References are added by
// Cache.acquire, or by somebody who has one; the last one to go makes the entry idle, and only an
// idle entry may be evicted.
type entry struct {
	c    *Cache
	info cacheclient.Info
	// confirmed is when an earlier process knew the last time that the source has this version; zero for an entry of
	// this process.
	confirmed time.Time
	// refs only rises from 0 under Cache.mu.
	refs atomic.Int64
	// handles counts open files; when the last is closed the fetches are cancelled.
	handles atomic.Int64

	// The next group is guarded by Cache.mu.

	// level is where the data lives, nil when no tier has any of it.
	level *level
	// charged is what the entry counts for on its level, in bytes.
	charged int64
	// idle is the place in level.idle, nil while there are references; attached likewise in
	// Cache.attached, for an idle entry whose files are still open.
	idle, attached *list.Element
	// moving is closed when an eviction or demotion under way ends; nil otherwise.
	moving chan struct{}

	// admit is held while files are made or opened, before Cache.mu.
	admit sync.Mutex

	mu sync.Mutex
	// The rest is guarded by mu, which may be taken with Cache.mu held, never before it.

	data  *os.File
	state *stateFile
	// mapped is the whole data file, mapped read-only on the first read; never touched by
	// our own code but lent, so that a damaged tier cannot fault the process.
	mapped []byte
	have   bitmap
	// unverified has the checksums of blocks that an earlier process cached.
	unverified map[int64]uint32
	// checking is closed when the check of all of them, which is under way, ends; nil otherwise.
	checking chan struct{}
	fetches  []*fetch
	staged   map[int64]*stagedBlock
	// streams are those who read, nil before the first read.
	streams *streams
	waiters []*waiter
	// stale says that the source has another version now.
	stale bool
	// noRanges says that the source has ignored a range of this file: it sends all or nothing.
	noRanges bool
	// bypass says that the last fetch found no room in the tiers.
	bypass bool
	// resumed says that a reader whom an earlier process served may have the data file open without us.
	resumed bool
}

func newEntry(c *Cache, info cacheclient.Info) *entry {
	return &entry{c: c, info: info, have: newBitmap(blocksIn(info.Size))}
}

// attach opens the files that hold the entry on its level. A state that does not hold, or
// data of another size, empties the entry instead.
func (e *entry) attach(l *level) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.data != nil {
		return nil
	}
	sf, err := os.OpenFile(l.path(e.info.ID, stateSuffix), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	st, h, slots, err := openState(sf)
	if err != nil || h.info().ID != e.info.ID {
		_ = sf.Close()
		return fmt.Errorf("cached file %q: %w", e.info.Path, errBadState)
	}
	df, err := os.OpenFile(l.path(e.info.ID, dataSuffix), os.O_RDWR, 0)
	if err != nil {
		_ = sf.Close()
		return err
	}
	if fi, err := df.Stat(); err != nil || fi.Size() != e.info.Size {
		_, _ = sf.Close(), df.Close()
		return fmt.Errorf("cached file %q: %w", e.info.Path, errBadState)
	}
	e.data, e.state = df, st
	if e.have.count == 0 {
		for b := range slots {
			e.have.set(b)
		}
		if !e.whole() || !st.sealed(df, e.blocks()) {
			e.unverified = slots
		}
	}
	return nil
}

// blocks is how many blocks the file has.
func (e *entry) blocks() int64 { return blocksIn(e.info.Size) }

// whole tells whether every block is in the tier, checked or not; mu is held.
func (e *entry) whole() bool { return e.data != nil && e.have.count == e.blocks() }

// seal lets the next process trust a file that is whole and checked; that it fails costs a check.
func (e *entry) seal() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.whole() && len(e.unverified) == 0 {
		_ = e.state.seal(e.data, e.blocks())
	}
}

// create makes the files of an entry that has none.
func (e *entry) create(l *level) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.data != nil {
		return nil
	}
	df, err := os.OpenFile(l.path(e.info.ID, dataSuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if err := df.Truncate(e.info.Size); err != nil {
		_ = df.Close()
		return err
	}
	st, err := createState(l.path(e.info.ID, stateSuffix), headerOf(e.info))
	if err != nil {
		_ = df.Close()
		return err
	}
	e.data, e.state = df, st
	return nil
}

// detach closes the files of an entry that nobody uses.
func (e *entry) detach() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mapped != nil {
		_ = unix.Munmap(e.mapped)
		e.mapped = nil
	}
	if e.data != nil {
		_, _ = e.data.Close(), e.state.close()
		e.data, e.state = nil, nil
	}
	e.streams = nil
}

// waiter is a reader that waits for the bytes before an offset.
type waiter struct {
	until int64
	ready chan struct{}
}

// wake wakes those who wait for bytes in (from, to]; mu is held.
func (e *entry) wake(from, to int64) {
	e.waiters = slices.DeleteFunc(e.waiters, func(w *waiter) bool {
		if w.until <= from || w.until > to {
			return false
		}
		close(w.ready)
		return true
	})
}

// fetchOf returns the fetch under way for a block; mu is held.
func (e *entry) fetchOf(block int64) *fetch {
	for _, f := range e.fetches {
		if block >= f.run.first && block < f.run.last {
			return f
		}
	}
	return nil
}

// busy tells whether a block needs no new fetch; mu is held.
func (e *entry) busy(block int64) bool {
	return e.have.has(block) || e.staged[block] != nil || e.fetchOf(block) != nil
}

// complete tells whether the whole file is in the tier, and checked.
func (e *entry) complete() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.whole() && len(e.unverified) == 0
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
	var used []*stagedBlock
	undo := func() {
		for _, b := range used {
			e.c.staging.done(b)
		}
	}
	tierFrom := int64(-1)
	flush := func(to int64) {
		if tierFrom >= 0 {
			d.Parts = append(d.Parts, e.mapped[tierFrom:to:to])
			tierFrom = -1
		}
	}
	for pos := off; pos < off+n; {
		b := pos / BlockSize
		end := min((b+1)*BlockSize, off+n)
		switch sb := e.staged[b]; {
		case e.inTier(b, end):
			if err := e.mapData(); err != nil {
				undo()
				return cacheclient.Data{}, 0, err
			}
			if tierFrom < 0 {
				tierFrom = pos
			}
		case sb != nil && sb.filled >= end-b*BlockSize && e.c.staging.use(sb):
			flush(pos)
			used = append(used, sb)
			d.Parts = append(d.Parts, sb.buf[pos-b*BlockSize:end-b*BlockSize])
		default:
			undo()
			return cacheclient.Data{}, end, nil
		}
		pos = end
	}
	flush(off + n)
	d.Origin = cacheclient.OriginCache
	if len(used) > 0 {
		d.Origin = cacheclient.OriginStaging
	}
	e.refs.Add(1)
	d.Free = func() {
		undo()
		e.c.release(e)
	}
	return d, 0, nil
}

// inTier tells whether the tier has the block up to the offset end; mu is held.
func (e *entry) inTier(block, end int64) bool {
	if e.have.has(block) {
		_, doubtful := e.unverified[block]
		return !doubtful
	}
	f := e.fetchOf(block)
	return f != nil && f.inTier && f.at >= end
}

// mapData maps the data file; mu is held.
func (e *entry) mapData() error {
	if e.mapped != nil {
		return nil
	}
	m, err := unix.Mmap(int(e.data.Fd()), 0, int(e.info.Size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the cached file of %q: %w", e.info.Path, err)
	}
	e.mapped = m
	return nil
}

// verify checks the blocks of r that an earlier process cached, and drops those whose
// data is not what was written.
func (e *entry) verify(r run) {
	var buf *[]byte
	for b := r.first; b < r.last; b++ {
		e.mu.Lock()
		want, doubtful := e.unverified[b]
		data := e.data
		e.mu.Unlock()
		if !doubtful || data == nil {
			continue
		}
		if buf == nil {
			buf = checkBuffer()
			defer checkBuffers.Put(buf)
		}
		e.judge(b, sumIs(data, *buf, b, run{b, b + 1}.bytes(e.info.Size), want))
	}
}

var checkBuffers sync.Pool

// checkBuffer is a small buffer to check blocks with.
func checkBuffer() *[]byte {
	if p, ok := checkBuffers.Get().(*[]byte); ok {
		return p
	}
	b := make([]byte, 64<<10)
	return &b
}

// sumIs tells whether the block b of n bytes has the checksum.
func sumIs(data *os.File, buf []byte, b, n int64, want uint32) bool {
	var sum uint32
	for at := int64(0); at < n; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), n-at)]
		if _, err := data.ReadAt(part, b*BlockSize+at); err != nil {
			return false
		}
		sum = crc32.Update(sum, castagnoli, part)
	}
	return sum == want
}

// check verifies a whole file in the background, for as long as somebody has it open, and waits for that up to patience:
// a file that was checked can be passed through.
func (e *entry) check(ctx context.Context, patience time.Duration) error {
	e.mu.Lock()
	if !e.whole() || len(e.unverified) == 0 {
		e.mu.Unlock()
		return nil
	}
	if e.checking == nil && e.c.begin() {
		e.checking = make(chan struct{})
		e.refs.Add(1)
		go e.checkAll()
	}
	checked := e.checking
	e.mu.Unlock()
	enough := time.NewTimer(patience)
	defer enough.Stop()
	select {
	case <-checked:
	case <-enough.C:
	case <-ctx.Done():
		return fmt.Errorf("open %q: %w", e.info.Path, ctx.Err())
	case <-e.c.ctx.Done():
	}
	return nil
}

// checkAll is the goroutine of check.
func (e *entry) checkAll() {
	defer e.c.work.Done()
	defer e.c.release(e)
	for b := int64(0); b < e.blocks() && e.handles.Load() > 0 && e.c.ctx.Err() == nil; b++ {
		e.verify(run{b, b + 1})
	}
	e.seal()
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.checking)
	e.checking = nil
}

// judge ends the doubt about a block.
func (e *entry) judge(b int64, good bool) {
	e.mu.Lock()
	_, doubtful := e.unverified[b]
	delete(e.unverified, b)
	bad := doubtful && !good
	if bad {
		e.have.clear(b)
		_ = e.state.clear(b)
		if !e.resumed {
			e.punch(run{b, b + 1})
		}
	}
	e.mu.Unlock()
	if bad {
		e.c.count.discarded.Add(1)
		e.c.uncharge(e, run{b, b + 1}.charge(e.info.Size))
		e.c.log.Warn("a cached block is damaged and will be fetched again", "file", e.info.Path, "block", b)
	}
}

// punch gives the memory of blocks that hold nothing back; mu is held.
func (e *entry) punch(r run) {
	if e.data != nil {
		_ = unix.Fallocate(int(e.data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			r.first*BlockSize, r.bytes(e.info.Size))
	}
}

// endFetch takes a fetch off the list and wakes its readers.
func (e *entry) endFetch(f *fetch, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fetches = slices.DeleteFunc(e.fetches, func(g *fetch) bool { return g == f })
	f.done, f.err = true, err
	e.wake(f.run.first*BlockSize, f.run.last*BlockSize)
	if err == nil && f.inTier && e.whole() && len(e.unverified) == 0 {
		_ = e.state.seal(e.data, e.blocks())
	}
}
