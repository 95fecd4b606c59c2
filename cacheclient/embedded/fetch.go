package embedded

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/ufs"
)

var (
	// errNoRanges says that the source sends the whole file whatever it is asked for.
	errNoRanges = errors.New("the source has no ranges")
	// errTierWrite says that the tier refused bytes.
	errTierWrite = errors.New("the tier refused a write")
)

// fetch brings one run of blocks from the source, in one request unless it breaks. It owns
// a goroutine and a reference to its entry. Its blocks belong to it until it ends.
type fetch struct {
	e      *entry
	run    run
	cancel context.CancelFunc
	// want is the part of run that was asked for, all that is brought when no tier has room.
	want run
	// sum is the checksum of the current block so far; only the goroutine uses it.
	sum uint32
	// current is the block in memory being filled; only the goroutine uses it.
	current *stagedBlock
	// buf takes what comes for the tier: as much as the socket has by then, in one read and one write. Measured from
	// a bare loopback server, 1 MiB costs a quarter less system time than 256 KiB.
	buf []byte
	// stall ends an attempt that brings nothing.
	stall *time.Timer
	// stalled says that the timer did.
	stalled atomic.Bool

	// The rest is guarded by entry.mu.

	// at is the offset up to which the bytes are here.
	at int64
	// inTier says where they are: in the data file, or in staged blocks.
	inTier bool
	done   bool
	err    error
}

// start begins a fetch of r, which covers want, and calls done when it has ended; e.mu is held and the
// caller has a reference.
func (e *entry) start(r, want run, done func()) {
	if !e.c.begin() {
		done()
		return
	}
	ctx, cancel := context.WithCancel(e.c.ctx)
	f := &fetch{e: e, run: r, want: want, cancel: cancel, at: r.first * BlockSize}
	e.fetches = append(e.fetches, f)
	e.refs.Add(1)
	go func() {
		defer e.c.work.Done()
		defer done()
		defer e.c.release(e)
		defer cancel()
		e.endFetch(f, f.fetch(ctx))
	}()
}

// fetch waits for a slot, finds room, and brings the run.
func (f *fetch) fetch(ctx context.Context) error {
	c := f.e.c
	if err := c.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer c.slots.Release(1)
	tier := c.reserve(ctx, f.e, f.price())
	f.e.mu.Lock()
	f.inTier, f.e.bypass = tier, !tier
	if !tier {
		f.e.wake(0, f.e.info.Size)
		f.run, f.at = f.want, f.want.first*BlockSize
	}
	f.e.mu.Unlock()
	err := f.bring(ctx)
	if err != nil {
		f.abandon(tier)
	}
	return f.judge(err)
}

// bring brings the run with the memory that it needs for that.
func (f *fetch) bring(ctx context.Context) error {
	if !f.inTier {
		return f.persist(ctx)
	}
	var err error
	staging := f.e.c.staging
	if f.buf, err = staging.buffer(ctx); err != nil {
		return err
	}
	defer func() { staging.giveBack(f.buf) }()
	return f.persist(ctx)
}

// persist makes attempts until the run is here, the error is final, or nothing has come for
// as long as the client waits.
func (f *fetch) persist(ctx context.Context) error {
	patience, retry := f.e.c.patience()
	giveUp := time.Now().Add(patience)
	for pauses := firstPauses; ; {
		before := f.at
		err := f.attempt(ctx, time.Until(giveUp))
		if err == nil {
			f.e.c.sourceUp()
			return nil
		}
		if f.at > before {
			giveUp = time.Now().Add(patience)
			pauses.Restart()
		}
		switch {
		case errors.Is(err, errTierWrite), errors.Is(err, errNoRanges):
			return err
		case ctx.Err() != nil:
			// What the source was about to say does not matter: who still waits asks again.
			return ctx.Err()
		}
		again, after := ufs.Retryable(err)
		wait := max(pauses.Next(), after)
		if !again && !f.stalled.Load() {
			f.e.c.settled(err)
			return err
		}
		f.e.c.count.sourceErrors.Add(1)
		if !retry || time.Now().Add(wait).After(giveUp) {
			f.e.c.sourceDown(err)
			return fmt.Errorf("read %q from %s: %w: %w", f.e.info.Path, f.e.c.store, cacheclient.ErrUnavailable, err)
		}
		if !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// attempt makes one request for what is missing, which ends when nothing comes for patience.
func (f *fetch) attempt(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.stalled.Store(false)
	f.stall = time.AfterFunc(patience, func() { f.stalled.Store(true); cancel() })
	defer f.stall.Stop()
	err := f.request(ctx, patience)
	if err != nil && f.stalled.Load() {
		return fmt.Errorf("%w: nothing came for %v", context.DeadlineExceeded, patience.Round(time.Millisecond))
	}
	return err
}

func (f *fetch) request(ctx context.Context, patience time.Duration) error {
	e := f.e
	end := min(f.run.last*BlockSize, e.info.Size)
	e.c.count.sourceRequests.Add(1)
	body, err := e.c.store.Open(ctx, e.info, f.at, end-f.at)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if body.Start < f.at || body.End > end {
		e.mu.Lock()
		e.noRanges = true
		e.mu.Unlock()
	}
	if body.Start < f.at {
		if f.inTier && !f.whole() {
			return errNoRanges
		}
		n, err := io.CopyN(io.Discard, body, f.at-body.Start)
		e.c.count.bytesSource.Add(n)
		if err != nil {
			return shortBody(err)
		}
	}
	if f.inTier {
		return f.fill(body, end, patience)
	}
	return f.stage(ctx, body, end, patience)
}

// whole tells whether the fetch is of the whole file, as sources without ranges need.
func (f *fetch) whole() bool { return f.run == run{0, blocksIn(f.e.info.Size)} }

// fill writes the body to the tier, block by block, telling readers of each piece.
func (f *fetch) fill(body io.Reader, end int64, patience time.Duration) error {
	e := f.e
	for f.at < end {
		b := f.at / BlockSize
		blockEnd := min((b+1)*BlockSize, end)
		n, err := body.Read(f.buf[:blockEnd-f.at])
		if f.e.c.ctx.Err() != nil {
			// After Close the tier is another's.
			return cacheclient.ErrClosed
		}
		if n > 0 {
			p := f.buf[:n]
			e.c.count.bytesSource.Add(int64(n))
			if werr := f.write(p, b, blockEnd); werr != nil {
				return werr
			}
			f.stall.Reset(patience)
		}
		if err != nil && f.at < end {
			return shortBody(err)
		}
	}
	return nil
}

// write puts p into the block b at f.at.
func (f *fetch) write(p []byte, b, blockEnd int64) error {
	e := f.e
	e.mu.Lock()
	have := e.have.has(b)
	e.mu.Unlock()
	at := f.at + int64(len(p))
	if !have {
		if _, err := e.data.WriteAt(p, f.at); err != nil {
			return fmt.Errorf("%w: %w", errTierWrite, err)
		}
		if f.at == b*BlockSize {
			f.sum = 0
		}
		f.sum = crc32.Update(f.sum, castagnoli, p)
		if at == blockEnd {
			if err := e.state.set(b, f.sum); err != nil {
				return fmt.Errorf("%w: %w", errTierWrite, err)
			}
		}
	}
	e.mu.Lock()
	if at == blockEnd && !have {
		e.have.set(b)
	}
	f.at = at
	e.wake(f.run.first*BlockSize, at)
	e.mu.Unlock()
	return nil
}

// stage reads the body into blocks in memory, for want of room in the tiers. A block stays in use
// over attempts until it is full, so that nobody takes its place half way.
func (f *fetch) stage(ctx context.Context, body io.Reader, end int64, patience time.Duration) error {
	for f.at < end {
		if f.current == nil {
			if err := f.takeStaged(ctx, f.at/BlockSize, patience); err != nil {
				return err
			}
		}
		blockEnd := min((f.current.block+1)*BlockSize, end)
		if err := f.stageBlock(body, blockEnd, patience); err != nil {
			return err
		}
		f.e.c.staging.filled(f.current)
		f.current = nil
	}
	return nil
}

// takeStaged waits for a place in memory for the block, which is not the source's fault.
func (f *fetch) takeStaged(ctx context.Context, b int64, patience time.Duration) error {
	f.stall.Stop()
	defer f.stall.Reset(patience)
	sb, err := f.e.c.staging.take(ctx, f.e, b)
	if err != nil {
		return err
	}
	f.current = sb
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	if f.e.staged == nil {
		f.e.staged = make(map[int64]*stagedBlock)
	}
	f.e.staged[b] = sb
	return nil
}

func (f *fetch) stageBlock(body io.Reader, blockEnd int64, patience time.Duration) error {
	e, sb := f.e, f.current
	for f.at < blockEnd {
		n, err := body.Read(sb.buf[f.at-sb.block*BlockSize : blockEnd-sb.block*BlockSize])
		if n > 0 {
			e.c.count.bytesSource.Add(int64(n))
			e.mu.Lock()
			f.at += int64(n)
			sb.filled = f.at - sb.block*BlockSize
			e.wake(f.run.first*BlockSize, f.at)
			e.mu.Unlock()
			f.stall.Reset(patience)
		}
		if err != nil && f.at < blockEnd {
			return shortBody(err)
		}
	}
	return nil
}

// price is what the tier is charged for the blocks of the run that it does not have.
func (f *fetch) price() int64 {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	var n int64
	for b := f.run.first; b < f.run.last; b++ {
		if !f.e.have.has(b) {
			n += run{b, b + 1}.charge(f.e.info.Size)
		}
	}
	return n
}

// abandon gives back what was reserved for blocks that did not come, and the block in memory
// that is not full. The part of a block that came stays in the data file: a reader may have it on loan, and
// whoever fetches the block again writes the same bytes.
func (f *fetch) abandon(tier bool) {
	e := f.e
	if f.current != nil {
		e.dropStaged(f.current)
		e.c.staging.filled(f.current)
	}
	if !tier {
		return
	}
	e.c.uncharge(e, f.price())
}

// judge turns the outcome into what readers are told, and what the cache remembers.
func (f *fetch) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTierWrite):
		f.e.c.blockLevel(f.e, err)
	case errors.Is(err, cacheclient.ErrStale), errors.Is(err, fs.ErrNotExist):
		f.e.c.changed(f.e)
		return fmt.Errorf("read %q: %w", f.e.info.Path, cacheclient.ErrStale)
	}
	return err
}

// shortBody makes an end that came too early an error.
func shortBody(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sleep waits unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
