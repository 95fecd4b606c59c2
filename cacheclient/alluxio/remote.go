package alluxio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace.io/millrace/cacheclient"
	"millrace.io/millrace/cacheclient/alluxio/rpc"
)

const (
	// slack is how far from the end of an earlier read, in bytes, one may begin and still follow it: requests of the
	// kernel's read-ahead of up to 1 MiB arrive side by side.
	slack = 4 << 20
	// openPatience bounds the wait for a worker's answer.
	openPatience = time.Second
)

// trail is where the last reads ended: what begins there, or near, follows.
type trail struct {
	ends [4]int64
	next int
}

// follows reports whether a read of the file at off follows another, and notes where this one ends.
func (t *trail) follows(off, n int64) bool {
	for i, end := range t.ends {
		if (end > 0 || off == 0) && off >= end-slack && off <= end+slack {
			t.ends[i] = max(end, off+n)
			return true
		}
	}
	t.ends[t.next%len(t.ends)] = off + n
	t.next++
	return off == 0
}

// sequential reports whether a read by this handle follows another by it.
func (f *file) sequential(off, n int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.trail.follows(off, n)
}

// streamed reads from a stream that is under way; false if there is none that has the bytes or will soon.
func (f *file) streamed(ctx context.Context, s span) (cacheclient.Data, bool, error) {
	for {
		st, opening := f.streams.of(s)
		if st != nil {
			at := int64(s.k)*f.l.blockSize + s.off
			f.sequential(at, s.n)
			if st.checked {
				f.streams.follows(at, s.n)
			}
			d, err := st.read(ctx, f.life, s.off, s.n)
			if err == nil {
				f.c.count.hits.Add(1)
				f.prefetch(s)
				return d, true, nil
			}
			if !errors.Is(err, errPassed) && ctx.Err() == nil && f.life.Err() == nil {
				f.streams.drop(st)
			}
			return d, true, err
		}
		if opening == nil {
			return cacheclient.Data{}, false, nil
		}
		select {
		case <-opening:
		case <-ctx.Done():
			return cacheclient.Data{}, false, ctx.Err()
		case <-f.life.Done():
			return cacheclient.Data{}, false, cacheclient.ErrClosed
		}
	}
}

// remote reads a span from one of the workers, the first that can. A read that follows others opens a stream that goes
// on to the block's end; another asks for its range alone. under is set where the workers are to read their under
// store.
func (f *file) remote(
	ctx context.Context, s span, workers []*rpc.Worker, check func(context.Context) error, under *rpc.UnderStore,
) (cacheclient.Data, error) {
	at := int64(s.k)*f.l.blockSize + s.off
	goesOn := f.sequential(at, s.n)
	if under != nil {
		// A worker caches what it reads of its source from the block's beginning, so that is where the stream begins. A range
		// of its own costs the source the bytes once more. Another read may have opened the stream since runningStream
		// looked: the masters were asked meanwhile.
		goesOn = (f.streams.follows(at, s.n) || goesOn) && s.off <= slack
		if d, ok, err := f.streamed(ctx, s); ok && err == nil {
			return d, nil
		}
	}
	for goesOn {
		unclaim, ok := f.streams.claim(s.k)
		if ok {
			defer unclaim()
			break
		}
		// Another read is opening the stream of this block: its stream is shared. Where it finds no worker that has the
		// block, this read looks for itself.
		d, ok, err := f.streamed(ctx, s)
		if ok && err == nil {
			return d, nil
		}
		goesOn = !ok && err == nil
	}
	var errs []error
	for _, w := range workers {
		d, err := f.from(ctx, w, s, goesOn, check, under)
		if err == nil {
			f.c.count.hits.Add(1)
			f.passive(w, s.k)
			if under != nil && !goesOn {
				f.cacheLater(w, s.k, under)
			}
			return d, nil
		}
		if ctx.Err() != nil {
			return cacheclient.Data{}, fmt.Errorf("read %q: %w", f.info.Path, ctx.Err())
		}
		errs = append(errs, err)
		f.blame(ctx, w, s.k, err)
		if errors.Is(err, cacheclient.ErrStale) {
			if under != nil {
				f.c.unkeep(ctx, w, f.l.block(s.k))
			}
			break
		}
	}
	return cacheclient.Data{}, errors.Join(errs...)
}

// blame takes note of what a worker's failure says of its copy of the block.
func (f *file) blame(ctx context.Context, w *rpc.Worker, k int, err error) {
	switch {
	case rpc.NotCached(err):
		f.c.dropped(f.l.block(k), w)
	case errors.Is(err, rpc.ErrShort):
		f.c.damaged(ctx, w, f.l.block(k), err)
	case rpc.Misled(err):
		// It comes last for a while.
		f.c.bad.first(f.l.block(k), badFor)
	}
}

// from reads a span from one worker.
func (f *file) from(
	ctx context.Context, w *rpc.Worker, s span, goesOn bool, check func(context.Context) error, under *rpc.UnderStore,
) (cacheclient.Data, error) {
	start, end, life := s, s.off+s.n, f.life
	if goesOn {
		end, life = f.l.length(s.k), f.streams.life
	}
	if goesOn && under != nil {
		start.off = 0
	}
	r, err := f.openStream(ctx, w, start, end, under)
	if err != nil {
		return cacheclient.Data{}, err
	}
	st := f.c.newStream(life, w, f.l.block(s.k), s.k, r, end, check)
	d, err := st.read(ctx, f.life, s.off, s.n)
	if err != nil || !goesOn {
		st.close()
		return d, err
	}
	if under != nil {
		st.onEarlyEnd(func() { f.cacheLater(w, s.k, under) })
	}
	f.streams.keep(st)
	f.prefetch(s)
	return d, nil
}

// openStream opens a stream and waits for its first bytes: for stallAfter where the worker has the block, and where it
// reads its under store for as long as it shows that it lives.
func (f *file) openStream(
	ctx context.Context, w *rpc.Worker, s span, end int64, under *rpc.UnderStore,
) (*rpc.BlockReader, error) {
	id, patience := f.l.block(s.k), stallAfter
	if under != nil {
		patience = f.c.cfg.Timeout
	}
	open, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if under != nil {
		watched := make(chan struct{})
		defer func() { cancel(); <-watched }()
		go func() {
			defer close(watched)
			for sleep(open, openPatience) {
				if !alive(open, w, id) {
					cancel()
				}
			}
		}()
	}
	r, err := w.ReadBlock(open, id, s.off, end-s.off, under)
	if err != nil && open.Err() != nil && ctx.Err() == nil {
		f.c.stalled(w, id)
		return nil, &rpc.Unreachable{Addr: w.Addr(), Why: fmt.Sprintf("brought nothing for %v", patience)}
	}
	return r, err
}

// stalled leaves a worker alone that brought nothing of a block while a reader waited, until it answers something
// else: then it is that block alone which it does not bring.
func (c *Client) stalled(w *rpc.Worker, id int64) {
	w.Stalled()
	if !c.begin() {
		return
	}
	go func() {
		defer c.work.Done()
		// An answer ends the row of failures. D-187 says why.
		if alive(c.life, w, id) && c.life.Err() == nil {
			// Else each read of it would wait as long again.
			c.bad.first(id, badFor)
		}
	}()
}

// alive asks a worker something that it answers at once, whatever it does for others.
func alive(ctx context.Context, w *rpc.Worker, id int64) bool {
	ask, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	_, err := w.Locate(ask, id)
	return ask.Err() == nil && !errors.Is(err, cacheclient.ErrUnavailable) || ctx.Err() != nil
}

// prefetch opens the stream of the next block when a reader comes to the end of one, so that it does not wait at
// each border.
func (f *file) prefetch(s span) {
	next := s.k + 1
	if s.off+s.n+firstAhead < f.l.length(s.k) || next >= f.l.blocks() {
		return
	}
	first := span{k: next, n: 1}
	if st, opening := f.streams.of(first); st != nil || opening != nil {
		return
	}
	unclaim, ok := f.streams.claim(next)
	if !ok {
		return
	}
	if !f.c.begin() {
		unclaim()
		return
	}
	go func() {
		defer f.c.work.Done()
		defer unclaim()
		f.openNext(first)
	}()
}

// openNext opens the stream of a block for a reader that is about to come, which meets the error of one that fails.
func (f *file) openNext(s span) {
	life := f.streams.life
	where, err := f.locate(life, s)
	if where.local != nil {
		where.local.release()
	}
	if err != nil || len(where.workers) == 0 {
		return
	}
	w := where.workers[0]
	if w.Broken() {
		return
	}
	// A read of the block waits for this stream: for a worker that hangs no longer than it would by itself.
	r, err := f.openStream(life, w, s, f.l.length(s.k), nil)
	if err != nil {
		f.blame(life, w, s.k, err)
		f.forget(s.k)
		return
	}
	f.streams.keep(f.c.newStream(life, w, f.l.block(s.k), s.k, r, f.l.length(s.k), nil))
}

// copyOnce reports whether the local worker was not asked yet to copy a block, and notes that it is.
func (f *file) copyOnce(k int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := !f.copied[k]
	f.copied[k] = true
	return first
}

// passive has the worker of this machine copy a block that is read from another, where that is wanted.
func (f *file) passive(from *rpc.Worker, k int) {
	here := f.c.local.all()
	if !f.c.cfg.PassiveCache || len(here) == 0 || !f.c.begin() {
		return
	}
	if !f.copyOnce(k) {
		f.c.work.Done()
		return
	}
	go func() {
		defer f.c.work.Done()
		ctx, cancel := context.WithTimeout(f.c.life, openPatience)
		defer cancel()
		if err := here[0].Copy(ctx, f.l.block(k), f.l.length(k), from); err != nil {
			f.c.log.Debug("a block was not copied to this machine", "path", f.info.Path, "block", f.l.block(k), "error",
				err)
		}
	}()
}
