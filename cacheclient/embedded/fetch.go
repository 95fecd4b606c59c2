package embedded

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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
	// errDenied says that the source has a version and does not give it.
	errDenied = errors.New("the source says that it has this version, and does not give it")
)

// mostDenials is how often a source may deny a version that it has, when asked, before a read fails.
const mostDenials = 4

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
	// interrupt ends the present attempt.
	interrupt context.CancelFunc
	// heard says that the source began to answer the present attempt.
	heard bool
	// admitted says that the fetch has one of Cache.slots, and preemption ends attempts for those that wait for one.
	admitted bool
	preemption
	// idled is how long the present attempt has waited for readers, or for what was heard before its answer.
	idled time.Duration
	// proof is what reports whether the bytes behind shown are the version's.
	proof proof

	// The rest is guarded by entry.mu.

	// at is the offset up to which the bytes are here, and shown that up to which readers may have them.
	at, shown int64
	// own has the blocks that the fetch writes to the tier itself, the current one too: the others were there.
	own bitmap
	// spoiled says that another process has changed the data file under it.
	spoiled bool
	// inTier says where they are: in the data file, or in staged blocks.
	inTier bool
	done   bool
	err    error
	// pass is set where the source has no ranges and no tier has room.
	pass *pass
}

// start begins a fetch of r, which covers want, and calls done when it has ended; e.mu is held and the
// caller has a reference.
func (e *entry) start(r, want run, done func()) {
	if !e.c.begin() {
		done()
		return
	}
	ctx, cancel := context.WithCancel(e.c.ctx)
	f := &fetch{e: e, run: r, want: want, cancel: cancel, at: r.first * BlockSize, shown: r.first * BlockSize}
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
	if err := f.enter(ctx); err != nil {
		return err
	}
	defer f.leave()
	tier := c.reserve(ctx, f.e, f.run)
	if !f.place(tier) {
		return errNoRanges
	}
	err := f.bring(ctx)
	if err != nil {
		f.abandon(tier)
	} else {
		c.confirm(f.e.info)
	}
	return f.judge(err)
}

// place notes whether a tier takes what the fetch brings. It reports false where another pass of the file brings it.
func (f *fetch) place(tier bool) bool {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.inTier, f.e.bypass = tier, !tier
	if tier {
		return true
	}
	f.e.wake(0, f.e.info.Size)
	f.run = f.want
	f.at, f.shown = f.want.first*BlockSize, f.want.first*BlockSize
	return !f.e.noRanges || f.becomePass()
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
	c, what := f.e.c, "read "+f.e.info.Path
	patience, retry := c.patience(what)
	giveUp := time.Now().Add(patience)
	// spoke says that an attempt heard the source. The last one may have too little time for that.
	denials, spoke := 0, false
	for pauses := firstPauses; ; {
		before := f.at
		err := f.attempt(ctx, time.Until(giveUp))
		giveUp = giveUp.Add(f.idled)
		if err == nil {
			c.served(what)
			return nil
		}
		spoke = spoke || f.heard || isAnswer(err)
		if f.at > before {
			giveUp = time.Now().Add(patience)
			pauses.Restart()
		}
		switch {
		case errors.Is(err, errTierWrite), errors.Is(err, errNoRanges):
			return err
		case ctx.Err() != nil:
			// What the source was about to say does not matter: a reader that still waits asks again.
			return ctx.Err()
		}
		if errors.Is(err, errPreempted) {
			if _, err := f.pause(ctx, 0); err != nil {
				return err
			}
			giveUp = time.Now().Add(patience)
			continue
		}
		again, after := ufs.Retryable(err)
		if isDenial(err) {
			f.rewind()
			if err = f.denied(ctx, err); !errors.Is(err, errDenied) {
				return err
			}
			denials++
			again = denials < mostDenials
		}
		if !again && !f.stalled.Load() {
			c.settled(err)
			return err
		}
		c.count.sourceErrors.Add(1)
		wait := max(pauses.Next(), after)
		if !retry || time.Now().Add(wait).After(giveUp) {
			c.failed(what, err, spoke)
			return fmt.Errorf("read %q from %s: %w: %w", f.e.info.Path, c.store, cacheclient.ErrUnavailable, err)
		}
		queued, err := f.pause(ctx, wait)
		if err != nil {
			return err
		}
		giveUp = giveUp.Add(queued)
	}
}

// denied asks the source whether it has the version that an answer says it has not: a server may have a bad moment, or
// one of its backends lag behind. It returns ErrStale where that is so, and errDenied where it is not.
// D-142 says why.
func (f *fetch) denied(ctx context.Context, answer error) error {
	if err := f.e.c.stands(ctx, f.e.info); err != nil {
		return err
	}
	return fmt.Errorf("read %q: %w: %s", f.e.info.Path, errDenied, answer.Error())
}

// attempt makes one request for what is missing, which ends when nothing comes for patience.
func (f *fetch) attempt(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f.interrupt = cancel
	f.preempted.Store(false)
	f.ending.Store(&cancel)
	defer f.ending.Store(nil)
	f.heard, f.idled = false, 0
	f.stalled.Store(false)
	f.stall = time.AfterFunc(patience, func() { f.stalled.Store(true); cancel() })
	defer f.stall.Stop()
	err := f.request(ctx, patience)
	failed := f.proof.failed
	f.proof.failed = nil
	switch {
	case (err != nil || failed != nil) && f.preempted.Load():
		return errPreempted
	case failed != nil:
		return failed
	}
	if err != nil && f.stalled.Load() {
		return fmt.Errorf("%w: nothing came for %v", context.DeadlineExceeded, patience.Round(time.Millisecond))
	}
	return err
}

// request brings what is missing of the run, and has it proven.
func (f *fetch) request(ctx context.Context, patience time.Duration) error {
	if end := min(f.run.last*BlockSize, f.e.info.Size); f.at < end {
		if err := f.receive(ctx, end, patience); err != nil {
			return err
		}
	}
	return f.prove(ctx, patience)
}

// receive asks for the bytes up to end, and puts them where they belong.
func (f *fetch) receive(ctx context.Context, end int64, patience time.Duration) error {
	e := f.e
	if f.proof.alone && f.doubtful() > 0 {
		f.rewind()
	}
	e.c.count.sourceRequests.Add(1)
	begun := time.Now()
	heard := cacheclient.OnHeard(ctx, func() { f.stall.Reset(patience); f.idled = time.Since(begun) })
	body, err := e.c.store.Open(heard, e.info, f.at, end-f.at)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	f.heard = true
	f.trust(body)
	defer f.watch(ctx, patience)()
	f.proof.mu.Lock()
	defer f.proof.mu.Unlock()
	if (body.Start < f.at || body.End > end) && !f.withoutRanges(body.Start) {
		return errNoRanges
	}
	from := &watchedBody{Reader: body, f: f}
	if err := f.skip(from, f.at-body.Start, patience); err != nil {
		return err
	}
	if f.pass != nil {
		return f.passOn(ctx, from, patience)
	}
	if f.inTier {
		return f.fill(ctx, from, end, patience)
	}
	return f.stage(ctx, from, end, patience)
}

// withoutRanges notes that the source sends more than it was asked for, from the offset start on. It is false where the
// fetch has no use for that.
func (f *fetch) withoutRanges(start int64) bool {
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	f.e.noRanges = true
	f.restarts.Store(true)
	if f.inTier {
		return start == f.at || f.whole()
	}
	return f.pass != nil || f.becomePass()
}

// whole reports whether the fetch is of the whole file, as sources without ranges need.
func (f *fetch) whole() bool { return f.run == run{0, blocksIn(f.e.info.Size)} }

// fill writes the body to the tier, block by block, telling readers of each piece.
func (f *fetch) fill(ctx context.Context, body io.Reader, end int64, patience time.Duration) error {
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
			f.came(int64(n))
			if werr := f.write(p, b, blockEnd); werr != nil {
				return werr
			}
			f.stall.Reset(patience)
		}
		if err != nil && f.at < end {
			return shortBody(err)
		}
		if f.due() {
			if err := f.prove(ctx, patience); err != nil {
				return err
			}
		}
	}
	return nil
}

// write puts p into the block b at f.at. It needs no mu for the entry's data file, which stays while a fetch writes to
// it.
func (f *fetch) write(p []byte, b, blockEnd int64) error {
	e := f.e
	at := f.at + int64(len(p))
	if f.writes(b) {
		if _, err := e.data.WriteAt(p, f.at); err != nil {
			return fmt.Errorf("%w: %w", errTierWrite, err)
		}
		if f.at == b*BlockSize {
			f.sum = 0
		}
		f.sum = crc32.Update(f.sum, castagnoli, p)
		if at == blockEnd {
			if err := f.vouch(b); err != nil {
				return err
			}
		}
	}
	return f.advance(at)
}

// stage reads the body into blocks in memory, for want of room in the tiers. A block stays in use
// over attempts until it is full, so that no other takes its place half way.
func (f *fetch) stage(ctx context.Context, body io.Reader, end int64, patience time.Duration) error {
	for f.at < end {
		if f.current == nil {
			if err := f.takeStaged(ctx, f.at/BlockSize, patience); err != nil {
				return err
			}
		}
		blockEnd := min((f.current.block+1)*BlockSize, end)
		if err := f.stageBlock(ctx, body, blockEnd, patience); err != nil {
			return err
		}
		f.settleStaged()
		if f.due() {
			if err := f.prove(ctx, patience); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeStaged waits for a place in memory for the block, which is not the source's fault. What is not proven yet is
// proven before that, because it keeps places which others may wait for.
func (f *fetch) takeStaged(ctx context.Context, b int64, patience time.Duration) error {
	sb := f.e.c.staging.takeNow(f.e, b)
	if sb == nil {
		if err := f.prove(ctx, patience); err != nil {
			return err
		}
		f.stall.Stop()
		defer f.stall.Reset(patience)
		var err error
		if sb, err = f.e.c.staging.take(ctx, f.e, b); err != nil {
			return err
		}
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

func (f *fetch) stageBlock(ctx context.Context, body io.Reader, blockEnd int64, patience time.Duration) error {
	sb := f.current
	for f.at < blockEnd {
		n, err := body.Read(sb.buf[f.at-sb.block*BlockSize : blockEnd-sb.block*BlockSize])
		if n > 0 {
			f.came(int64(n))
			if err := f.advance(f.at + int64(n)); err != nil {
				return err
			}
			f.stall.Reset(patience)
		}
		if err != nil && f.at < blockEnd {
			return shortBody(err)
		}
		if f.at < blockEnd && f.due() {
			if err := f.prove(ctx, patience); err != nil {
				return err
			}
		}
	}
	return nil
}

// price is what the tier is charged for the blocks of the run that it does not have.
func (e *entry) price(r run) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	size, have := e.info.Size, &e.have
	n := r.charge(size) - have.countIn(r)*BlockSize
	if last := blocksIn(size) - 1; r.has(last) && have.has(last) {
		n += BlockSize - run{last, last + 1}.charge(size)
	}
	return n
}

// abandon gives back what was reserved for blocks that did not come, and the blocks in memory
// that are not to be read. The part of a block that came stays in the data file: a reader may have it on loan, and
// a fetch that brings the block again writes the same bytes. What was not proven has no reader.
func (f *fetch) abandon(tier bool) {
	f.rewind()
	if tier {
		f.e.c.uncharge(f.e, f.unspent())
	}
}

// judge turns the outcome into what readers are told, and what the cache remembers.
func (f *fetch) judge(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTierWrite):
		f.e.c.refused(f.e, err)
	case isGone(err):
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
