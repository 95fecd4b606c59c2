package embedded

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// verify checks the blocks of r that are in doubt, and drops those whose data is not what was written.
func (e *entry) verify(r run) {
	var buf *[]byte
	for b := r.first; b < r.last; b++ {
		data, want, doubtful := e.doubt(b)
		if !doubtful {
			continue
		}
		if buf == nil {
			buf = checkBuffer()
			defer checkBuffers.Put(buf)
		}
		e.judge(b, want, sumIs(data, *buf, b, run{b, b + 1}.bytes(e.info.Size), want))
	}
}

// doubt returns the checksum that a block should have, where that is in doubt.
func (e *entry) doubt(b int64) (data *os.File, want uint32, doubtful bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	want, doubtful = e.unverified[b]
	return e.data, want, doubtful && e.data != nil
}

// doubts are the blocks in doubt, in order.
func (e *entry) doubts() []int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(maps.Keys(e.unverified))
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

// verdict is what a look at a block in doubt has shown.
type verdict int

const (
	unread verdict = iota
	right
	wrong
)

// sumIs looks whether the block b of n bytes has the checksum. That it cannot be read proves nothing.
func sumIs(data *os.File, buf []byte, b, n int64, want uint32) verdict {
	var sum uint32
	for at := int64(0); at < n; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), n-at)]
		switch _, err := data.ReadAt(part, b*BlockSize+at); {
		case errors.Is(err, io.EOF):
			return wrong
		case err != nil:
			return unread
		}
		sum = crc32.Update(sum, castagnoli, part)
	}
	if sum != want {
		return wrong
	}
	return right
}

// check verifies a whole file in the background, for as long as it is open, and waits for that up to patience:
// a file that was checked can be passed through.
func (e *entry) check(ctx context.Context, patience time.Duration) error {
	checked := e.checked()
	if checked == nil {
		return nil
	}
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

// checked starts the check of a whole file, if none is under way, and returns what is closed when it ends; nil where
// there is nothing to check.
func (e *entry) checked() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.inspect()
	if !e.whole() || len(e.unverified) == 0 {
		return nil
	}
	if e.checking == nil {
		if !e.c.begin() {
			return nil
		}
		e.checking = make(chan struct{})
		e.refs.Add(1)
		go e.checkAll()
	}
	return e.checking
}

// checkAll is the goroutine of check.
func (e *entry) checkAll() {
	defer e.c.work.Done()
	defer e.c.release(e)
	for _, b := range e.doubts() {
		if e.handles.Load() <= 0 || e.c.ctx.Err() != nil {
			break
		}
		e.verify(run{b, b + 1})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.checking)
	e.checking = nil
}

// judge ends the doubt about a block that should have the checksum.
func (e *entry) judge(b int64, want uint32, v verdict) {
	gone, free := e.convict(b, want, v)
	if !gone {
		return
	}
	if free {
		e.c.uncharge(e, run{b, b + 1}.charge(e.info.Size))
	}
	e.c.count.discarded.Add(1)
	e.c.log.Warn("a cached block is damaged and will be fetched again", "file", e.info.Path, "block", b)
}

// convict carries a verdict out. It reports whether the block is gone, and whether its room is free: a fetch that is on
// its way to it takes that over.
func (e *entry) convict(b int64, want uint32, v verdict) (gone, free bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if sum, doubtful := e.unverified[b]; !doubtful || sum != want || e.data == nil {
		// A fetch has written it anew meanwhile.
		return false, false
	}
	delete(e.unverified, b)
	if v == right {
		e.sealWhole()
		return false, false
	}
	e.have.clear(b)
	f := e.fetchOf(b)
	if v == wrong {
		_ = e.state.clear(b)
		if !e.resumed && f == nil {
			e.punch(run{b, b + 1})
		}
	}
	return true, f == nil || !f.inTier
}

// punch gives the memory of blocks that hold nothing back; mu is held.
func (e *entry) punch(r run) {
	if e.data != nil {
		_ = unix.Fallocate(int(e.data.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE,
			r.first*BlockSize, r.bytes(e.info.Size))
	}
}
