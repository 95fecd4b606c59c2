package embedded

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"
)

// A source without ranges sends a file from its beginning or not at all. Where a tier has room for the file, one fetch
// brings all of it. Where none has, a fetch becomes a pass: its one body stays open, it brings into memory what readers
// want, waits for them with the body where it is, and goes on as they go forward. So a reader from one end to the other
// costs the source the file once, and not once for each block.
// D-141 says why.
type pass struct {
	// wants are the blocks to bring; those before are passed over.
	wants run
	// more is closed when there is more to bring; nil while the pass is under way.
	more chan struct{}
}

// maxPaused is how many passes of one file may wait for their readers, each with a connection.
const maxPaused = 4

// pausedPasses are the passes of a cache that wait for their readers, the longest first. Together they have no more
// than a quarter of the connections, for others need some.
type pausedPasses struct {
	// mu guards the rest.
	mu sync.Mutex
	// most is how many there may be.
	most int
	all  []*fetch
}

// add notes one more, and cancels the one that waited the longest where there are too many.
func (p *pausedPasses) add(f *fetch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, f)
	if len(p.all) > p.most {
		p.all[0].cancel()
		p.all = p.all[1:]
	}
}

func (p *pausedPasses) remove(f *fetch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = slices.DeleteFunc(p.all, func(g *fetch) bool { return g == f })
}

// demandWhole has a source without ranges bring want; mu is held.
func (e *entry) demandWhole(want run) {
	for want.first < want.last && e.here(want.first) {
		want.first++
	}
	if want.len() == 0 {
		return
	}
	var behind, paused *fetch
	waiting := 0
	for _, f := range e.fetches {
		switch {
		case f.pass == nil:
			// It is about to bring everything, or to find that there is no room for that.
			return
		case f.run.first <= want.first && (behind == nil || f.run.first > behind.run.first):
			behind = f
		}
		if f.pass.more != nil {
			waiting++
			if paused == nil {
				paused = f
			}
		}
	}
	if behind != nil {
		behind.pass.extend(want)
		return
	}
	if waiting >= maxPaused {
		paused.cancel()
	}
	e.start(run{0, e.blocks()}, want, func() {})
}

// here reports whether a block is here whole; mu is held.
func (e *entry) here(block int64) bool {
	return e.have.has(block) || e.staged[block] != nil && !e.partly(block)
}

// extend adds to what the pass is to bring, and has it go on; entry.mu is held.
func (p *pass) extend(want run) {
	if p.more != nil {
		p.wants = want
		close(p.more)
		p.more = nil
		return
	}
	p.wants = run{min(p.wants.first, want.first), max(p.wants.last, want.last)}
}

// becomePass makes a pass of a fetch for which no tier has room; entry.mu is held. It is false where another pass is
// on its way to the same blocks, and then brings them too.
func (f *fetch) becomePass() bool {
	wants := run{max(f.want.first, f.at/BlockSize), f.want.last}
	for _, g := range f.e.fetches {
		if g != f && g.pass != nil && g.run.first <= wants.first {
			g.pass.extend(wants)
			return false
		}
	}
	f.pass = &pass{wants: wants}
	f.run.last = f.e.blocks()
	if f.e.passed && !f.e.passedAgain {
		f.e.passedAgain = true
		f.e.c.log.Warn("a file larger than its tier is read at several places, and its source sends it from the "+
			"beginning each time", "file", f.e.info.Path)
	}
	f.e.passed = true
	return true
}

// passOn brings what is wanted of a body that holds all of the file, as long as a reader wants something.
func (f *fetch) passOn(ctx context.Context, body io.Reader, patience time.Duration) error {
	for f.at < f.e.info.Size {
		if err := f.awaitWant(ctx, patience); err != nil {
			return err
		}
		b := f.at / BlockSize
		f.e.mu.Lock()
		first := f.pass.wants.first
		f.e.mu.Unlock()
		if b < first && f.current == nil {
			if err := f.passOver(body, first*BlockSize, patience); err != nil {
				return err
			}
			continue
		}
		if err := f.stage(ctx, body, min((b+1)*BlockSize, f.e.info.Size), patience); err != nil {
			return err
		}
	}
	return nil
}

// awaitWant waits until something behind the present block is wanted. What is in doubt is proven first: readers wait
// for it.
func (f *fetch) awaitWant(ctx context.Context, patience time.Duration) error {
	for {
		f.e.mu.Lock()
		p := f.pass
		wanted := f.at/BlockSize < p.wants.last || f.e.awaited(f.at)
		proven := f.proof.ask == nil || f.doubtful() == 0
		if !wanted && proven {
			p.more = make(chan struct{})
		}
		more := p.more
		f.e.mu.Unlock()
		switch {
		case wanted:
			return nil
		case !proven:
			if err := f.prove(ctx, patience); err != nil {
				return err
			}
		default:
			if err := f.idle(ctx, more, patience); err != nil {
				return err
			}
		}
	}
}

// awaited reports whether a reader waits for bytes of the block at the offset, which is its first; mu is held.
func (e *entry) awaited(at int64) bool {
	return slices.ContainsFunc(e.waiters, func(w *waiter) bool { return w.until > at && w.until <= at+BlockSize })
}

// idle waits for more to bring. Neither the slot nor the time is the source's meanwhile.
func (f *fetch) idle(ctx context.Context, more <-chan struct{}, patience time.Duration) error {
	f.stall.Stop()
	defer f.stall.Reset(patience)
	begun := time.Now()
	f.leave()
	f.e.c.paused.add(f)
	defer f.e.c.paused.remove(f)
	if err := waitFor(ctx, more); err != nil {
		return err
	}
	err := f.enter(ctx)
	f.idled += time.Since(begun)
	return err
}

// passOver reads up to the offset, which no reader wants.
func (f *fetch) passOver(body io.Reader, to int64, patience time.Duration) error {
	if err := f.skip(body, to-f.at, patience); err != nil {
		return err
	}
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	// Readers of what was passed look for another fetch.
	f.e.wake(f.at, to)
	f.at, f.shown = to, to
	f.run.first = to / BlockSize
	return nil
}

// skip reads n bytes of a body that are not to be kept.
func (f *fetch) skip(body io.Reader, n int64, patience time.Duration) error {
	for n > 0 {
		m, err := io.CopyN(io.Discard, body, min(n, BlockSize))
		f.came(m)
		n -= m
		if m > 0 {
			f.stall.Reset(patience)
		}
		if err != nil {
			return shortBody(err)
		}
	}
	return nil
}
